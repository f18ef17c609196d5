"""View: the base of every own widget. Content travels by custom message, never as a trait.

A trait is written into a notebook when widget state is saved, and into reports by default; a message is not.
So the only traits of a `View` are its script, its style and the traits that every widget has.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets

from crmkit.errors import CrmError

HERE = Path(__file__).parent
log = logging.getLogger("crmkit.ui")
Handler = Callable[[Mapping[str, Any]], None]


def script(name: str) -> str:
    """Return the script of one widget, with the helpers that all of them share in front."""
    return (HERE / "dom.js").read_text("utf-8") + (HERE / f"{name}.js").read_text("utf-8")


def style(name: str) -> str:
    """Return the style of one widget, with the theme in front."""
    return (HERE.parent / "theme.css").read_text("utf-8") + (HERE / f"{name}.css").read_text("utf-8")


class View(anywidget.AnyWidget):
    """A widget that answers messages; a subclass lists its handlers in `handlers`."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = False
        self.on_msg(self._receive)

    @property
    def seen(self) -> bool:
        """True once a browser has drawn this widget."""
        return self._seen

    def handlers(self) -> dict[str, Handler]:
        """Return what answers each message type; a message of another type is ignored."""
        return {}

    def say(self, kind: str, **content: Any) -> None:
        """Send one message to every browser that shows this widget."""
        self.send({"type": kind, **content})

    def _receive(self, _widget: View, message: Any, _buffers: Any) -> None:
        """Answer one message; whatever goes wrong becomes one line in the view."""
        kind = message.get("type") if isinstance(message, Mapping) else None
        handler = self.handlers().get(kind) if isinstance(kind, str) else None
        if handler is None:
            return
        self._seen = True
        try:
            handler(message)
        except Exception as error:  # noqa: BLE001  # the error boundary: a callback has no caller who could handle it
            self.say("problem", text=explain(error))

    def __repr__(self) -> str:
        return f"<crmkit {type(self).__name__.lower()}>"


def explain(error: BaseException) -> str:
    """Return one line for a person about an error; an unexpected one is logged by its place, without values."""
    if isinstance(error, CrmError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    log.error("%s at %s", type(error).__name__, place)
    return f"This did not work ({type(error).__name__} at {place})."


def later(seconds: float, action: Callable[[], object]) -> asyncio.TimerHandle | None:
    """Call `action` in a while, where a loop runs."""
    try:
        return asyncio.get_running_loop().call_later(seconds, action)
    except RuntimeError:
        return None


def close_tree(widget: ipywidgets.Widget) -> None:
    """Close a widget with its children, layout and style, which `close` alone would leave alive."""
    for child in getattr(widget, "children", ()):
        close_tree(child)
    for part in ("layout", "style"):
        owned = getattr(widget, part, None)
        if isinstance(owned, ipywidgets.Widget):
            owned.close()
    widget.close()
