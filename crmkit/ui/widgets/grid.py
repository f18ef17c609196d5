"""Grid: a live table over any number of rows; the browser asks for the rows that it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crmkit.ui.viewmodels.grid import GridModel
from crmkit.ui.widgets.base import Handler, View, script, style

Opener = Callable[[Any], None]


class Grid(View):
    """The view of a `GridModel`; `on_open` is called with the record of an opened row."""

    _esm = script("grid")
    _css = style("grid")

    def __init__(self, model: GridModel, on_open: Opener | None = None) -> None:
        super().__init__()
        self.model = model
        self._on_open = on_open

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of a grid: hello, query, window, open."""
        return {"hello": self._hello, "query": self._query, "window": self._window, "open": self._open}

    def refresh(self) -> None:
        """Tell the browser that rows changed; it asks again for those that it shows."""
        if self.seen:
            self.say("stale")

    def _hello(self, _message: Mapping[str, Any]) -> None:
        self.say("grid", **self.model.describe(), opens=self._on_open is not None)

    def _query(self, message: Mapping[str, Any]) -> None:
        sort = message.get("sort")
        self.model.query(
            str(message.get("text", "")), sort if isinstance(sort, str) else None, bool(message.get("desc"))
        )
        self._window(message)

    def _window(self, message: Mapping[str, Any]) -> None:
        start, count = (int(message.get(key, 0)) for key in ("start", "count"))
        total = self.model.total()
        self.say(
            "rows",
            gen=message.get("gen", 0),
            start=start,
            rows=self.model.window(start, count),
            total=total,
            caption=self.model.caption(total),
            empty=self.model.empty_text(),
        )

    def _open(self, message: Mapping[str, Any]) -> None:
        record = self.model.record(str(message.get("id", "")))
        if record is not None and self._on_open is not None:
            self._on_open(record)

    def __repr__(self) -> str:
        return f"<grid of {self.model.caption()}>"
