"""The Python of the documents runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_python_of_a_document_runs(root: Path, tmp_path: Path, page: str) -> None:
    blocks = BLOCK.findall((root / page).read_text("utf-8"))
    assert blocks
    done = run("\n".join(blocks), tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_document_that_is_wrong_would_be_seen(tmp_path: Path) -> None:
    """The control."""
    assert run("import crmkit\ncrmkit.create('acme').customers.no_such_method()", tmp_path).returncode != 0
