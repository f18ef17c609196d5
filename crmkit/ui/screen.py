"""Screen: what a cell shows. A box of views with one change watcher, one lifetime, and a text without values."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import ipywidgets

from crmkit.ui import live
from crmkit.ui.widgets.base import View, close_tree, later
from crmkit.ui.widgets.head import Head

PATIENCE = 5.0  # seconds until a browser that shows nothing is worth a word
HOW_TO_UNLOCK = "The keys are gone from memory. crm.unlock() in a cell opens them again; what you saved is safe."
MISSING = "The screen did not load. Install anywidget where JupyterLab runs, then load this page again."


class Screen(ipywidgets.VBox):
    """A box of views that follows the workspace until it is closed or its cell runs again."""

    def __init__(self, crm: Any, views: Sequence[ipywidgets.Widget], name: str) -> None:
        super().__init__(views)
        self._name = name
        self.add_class("crm-app")
        self.crm = crm
        self.watcher = crm.watch(lambda _: self.refresh(), locked=self.cover)
        self._covered: Any = None  # the views, while the workspace is locked
        self._patience = later(PATIENCE, self._say_missing)
        self._notice: Any = None
        live.register(self)

    def refresh(self) -> None:
        """Show what changed in the workspace."""
        for child in self.children:
            refresh_tree(child)

    def cover(self, locked: bool) -> None:
        """Show one line instead of the views while the workspace is locked, and what is stored now afterwards."""
        if locked and self._covered is None:
            self._covered, self._line = self.children, Head({"title": "Locked", "text": HOW_TO_UNLOCK})
            self.set_trait("children", (self._line,))
        elif not locked and self._covered is not None:
            self.set_trait("children", self._covered)
            self._covered = None
            close_tree(self._line)
            self.refresh()

    def close(self) -> None:
        """Stop watching and close every view."""
        if self.comm is None:
            return
        for child in self._covered or ():
            close_tree(child)
        self.watcher.stop()
        if self._patience is not None:
            self._patience.cancel()
        for child in self.children:
            close_tree(child)
        self.layout.close()
        super().close()

    def _say_missing(self) -> None:
        """Say below the cell that nothing was drawn, and take it back once something is.

        A text inside the screen would not do: a box is not drawn at all when one of its views cannot be.
        """
        seen = any(view.seen for view in views(self))
        if not seen and self._notice is None:
            self._notice = _display(MISSING)
        if seen and self._notice is not None:
            self._notice.update({"text/plain": ""}, raw=True)
        if not seen:
            self._patience = later(1.0, self._say_missing)

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


def _display(text: str) -> Any:
    """Show a line below the running cell and return the handle that changes it; None outside of a notebook."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return None
    from IPython.display import display

    return display({"text/plain": text}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
