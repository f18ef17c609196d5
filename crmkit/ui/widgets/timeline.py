"""Timeline: what happened with one customer, newest first; further pages come while scrolling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crmkit.ui.viewmodels.timeline import TimelineModel
from crmkit.ui.widgets.base import Handler, View, script, style


class Timeline(View):
    """The view of a `TimelineModel`."""

    _esm = script("timeline")
    _css = style("timeline")

    def __init__(self, model: TimelineModel) -> None:
        super().__init__()
        self.model = model

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of a timeline: hello, more."""
        return {"hello": self._hello, "more": self._more}

    def refresh(self) -> None:
        """Show the first page again."""
        if self.seen:
            self.say("page", first=True, **self.model.page())

    def _hello(self, _message: Mapping[str, Any]) -> None:
        self.refresh()

    def _more(self, message: Mapping[str, Any]) -> None:
        after = message.get("after")
        if isinstance(after, str):
            self.say("page", first=False, **self.model.page(after))
