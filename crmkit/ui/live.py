"""What keeps screens alive and lets them end: the change watcher, and the register of what each cell shows."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Protocol

from crmkit.ui.widgets.base import explain

EVERY = 0.25  # seconds between two looks


class Closable(Protocol):
    """Anything that a cell shows."""

    def close(self) -> None:
        """End it."""


class ChangeWatcher:
    """Look for changes of the workspace four times a second, in the kernel's own loop; no thread, so no races.

    Attributes:
        errors: What went wrong while looking, one line each, the latest last.
    """

    def __init__(self, crm: Any, apply: Callable[[], None], every: float = EVERY) -> None:
        self._crm = crm
        self._apply = apply
        self._every = every
        self._seen = crm.seq()
        self._task: asyncio.Task[None] | None = None
        self.errors: list[str] = []

    def start(self) -> ChangeWatcher:
        """Begin, where a loop runs (in a kernel); otherwise `look` is there to be called."""
        try:
            self._task = asyncio.get_running_loop().create_task(self._run())
        except RuntimeError:
            self._task = None
        return self

    def stop(self) -> None:
        """End; calling it again does nothing."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def look(self) -> bool:
        """Apply what changed since the last look; return whether anything did."""
        now = self._crm.seq()
        if now == self._seen:
            return False
        self._seen = now
        self._apply()
        return True

    async def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  # or the task would end without a word
                self.errors = [*self.errors[-9:], explain(error)]
            await asyncio.sleep(self._every)


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
