"""What lets screens end: the register of what each cell shows."""

from __future__ import annotations

import sys
from typing import Any, Protocol


class Closable(Protocol):
    """Anything that a cell shows."""

    def close(self) -> None:
        """End it."""


_shown: dict[str, tuple[str, list[Closable]]] = {}  # cell -> (run, what it shows)


def register(view: Closable) -> None:
    """Note that the running cell shows `view`, and close what an earlier run of that cell had shown."""
    cell, run = _running_cell()
    if not cell:
        return
    before = _shown.get(cell)
    if before is not None and before[0] != run:
        for old in before[1]:
            old.close()
        before = None
    _shown[cell] = (run, [*(before[1] if before else []), view])


def _running_cell() -> tuple[str, str]:
    """Return the id of the notebook cell that is running, and that of its run; empty outside of a notebook."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return parent.get("metadata", {}).get("cellId", ""), parent.get("header", {}).get("msg_id", "")
