"""Screen: what a cell shows. A box of views with one change watcher, one lifetime, and a text without values."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import ipywidgets

from crmkit.ui import live
from crmkit.ui.widgets.base import View, close_tree

PATIENCE = 5.0  # seconds until a browser that shows nothing is worth a word
MISSING = "The screens did not load: install anywidget where JupyterLab runs, then load this page again."


class Screen(ipywidgets.VBox):
    """A box of views that follows the workspace until it is closed or its cell runs again."""

    def __init__(self, crm: Any, views: Sequence[ipywidgets.Widget], name: str) -> None:
        self._notice = ipywidgets.Label("")
        super().__init__([self._notice, *views])
        self._name = name
        self.add_class("crm-app")
        self._notice.add_class("crm-missing")
        self.crm = crm
        self.watcher = live.ChangeWatcher(crm, self.refresh).start()
        self._patience = _later(PATIENCE, self._say_missing)
        live.register(self)

    def refresh(self) -> None:
        """Show what changed in the workspace."""
        for child in self.children:
            refresh_tree(child)

    def close(self) -> None:
        """Stop watching and close every view."""
        if self.comm is None:
            return
        self.watcher.stop()
        if self._patience is not None:
            self._patience.cancel()
        for child in self.children:
            close_tree(child)
        self.layout.close()
        super().close()

    def _say_missing(self) -> None:
        """Say that nothing was drawn; the style that comes with the first drawn view hides this."""
        if not any(view.seen for view in views(self)):
            self._notice.value = MISSING

    def __repr__(self) -> str:
        return f"<crmkit {self._name}>"


def views(widget: ipywidgets.Widget) -> Iterator[View]:
    """Yield the own views inside a widget."""
    if isinstance(widget, View):
        yield widget
    for child in getattr(widget, "children", ()):
        yield from views(child)


def refresh_tree(widget: ipywidgets.Widget) -> None:
    """Refresh a view, or everything in a box that can be refreshed."""
    refresh = getattr(widget, "refresh", None)
    if refresh is not None:
        refresh()
        return
    for child in getattr(widget, "children", ()):
        refresh_tree(child)


def _later(seconds: float, action: Any) -> asyncio.TimerHandle | None:
    """Call `action` in a while, where a loop runs."""
    try:
        return asyncio.get_running_loop().call_later(seconds, action)
    except RuntimeError:
        return None
