"""Tabs: the navigation inside a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crmkit.ui.widgets.base import Handler, View, script, style


class Tabs(View):
    """A row of titles, one of which is chosen; `on_go` is called with the key of a chosen one."""

    _esm = script("tabs")
    _css = style("tabs")

    def __init__(self, label: str, titles: Sequence[tuple[str, str]], on_go: Callable[[str], None]) -> None:
        super().__init__()
        self._label, self._titles, self._on_go = label, titles, on_go
        self.current = titles[0][0] if titles else ""

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of tabs: hello, go."""
        return {"hello": self._hello, "go": self._go}

    def go(self, key: str) -> None:
        """Choose one; an unknown key is ignored."""
        if key in dict(self._titles):
            self.current = key
            self._on_go(key)
            if self.seen:
                self._hello({})

    def _hello(self, _message: Mapping[str, Any]) -> None:
        items = [{"key": key, "title": title} for key, title in self._titles]
        self.say("tabs", label=self._label, items=items, current=self.current)

    def _go(self, message: Mapping[str, Any]) -> None:
        self.go(str(message.get("id", "")))
