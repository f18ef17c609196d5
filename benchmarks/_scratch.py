"""A folder and an identity of their own for a benchmark."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty folder that is gone afterwards, with an identity that is nobody's."""
    with tempfile.TemporaryDirectory() as folder:
        before = dict(os.environ)
        os.environ["CRMKIT_CONFIG"] = str(Path(folder) / "config")
        os.environ.pop("CRMKIT_IDENTITY", None)
        try:
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ.update(before)
