"""Bar: the top of the app: search, navigation, open cards, and the line that says what happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from crmkit.ui.widgets.base import Handler, View, script, style


class Actions(Protocol):
    """What the bar asks of the app that it belongs to."""

    def search(self, text: str) -> list[dict[str, str]]:
        """Return the matches for what is being typed."""

    def open_id(self, id: str) -> None:
        """Open the card of a customer."""

    def new(self) -> None:
        """Open an empty form."""

    def go(self, key: str) -> None:
        """Show a page or an open card."""

    def leave(self, key: str) -> None:
        """Close a card."""

    def arrived(self) -> None:
        """Take note that a browser shows the app."""


@dataclass(frozen=True)
class Item:
    """One entry of the navigation."""

    key: str
    title: str
    closable: bool = False
    dirty: bool = False

    def describe(self) -> dict[str, Any]:
        """Return the entry as plain data for the view."""
        return {"key": self.key, "title": self.title, "closable": self.closable, "dirty": self.dirty}


class Bar(View):
    """The top of the app."""

    _esm = script("bar")
    _css = style("bar")

    def __init__(self, actions: Actions, title: str, noun: str) -> None:
        super().__init__()
        self._actions = actions
        self._title, self._noun = title, noun
        self._items: list[Item] = []
        self._current = ""
        self._status: dict[str, Any] = {"text": "", "bad": False}
        self._health: list[str] = []
        self._notice: dict[str, str] = {"text": "", "key": "", "title": ""}

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of the bar: hello, search, open, new, go, leave."""
        return {
            "hello": self._hello,
            "search": self._search,
            "open": self._id(self._actions.open_id),
            "new": lambda _message: self._actions.new(),
            "go": self._id(self._actions.go),
            "leave": self._id(self._actions.leave),
        }

    def navigation(self, items: list[Item], current: str) -> None:
        """Show the entries and which of them is looked at."""
        self._items, self._current = items, current
        self._tell("nav", items=[item.describe() for item in items], current=current)

    def status(self, text: str, bad: bool = False) -> None:
        """Say in one line what happened."""
        self._status = {"text": text, "bad": bad}
        self._tell("status", **self._status)

    def health(self, lines: list[str]) -> None:
        """Say what is wrong with plugins; an empty list says nothing."""
        if lines != self._health:
            self._health = lines
            self._tell("health", lines=lines)

    def notice(self, text: str, key: str = "", title: str = "") -> None:
        """Say something quietly below the navigation, and where more of it is; an empty text says nothing."""
        notice = {"text": text, "key": key, "title": title}
        if notice != self._notice:
            self._notice = notice
            self._tell("notice", **notice)

    def _tell(self, kind: str, **content: Any) -> None:
        if self.seen:
            self.say(kind, **content)

    def _hello(self, _message: Mapping[str, Any]) -> None:
        self.say("bar", title=self._title, noun=self._noun)
        self.navigation(self._items, self._current)
        self.say("status", **self._status)
        self.say("health", lines=self._health)
        self.say("notice", **self._notice)
        self._actions.arrived()

    def _search(self, message: Mapping[str, Any]) -> None:
        text = str(message.get("text", ""))
        self.say("found", text=text, items=self._actions.search(text))

    def _id(self, action: Callable[[str], None]) -> Handler:
        return lambda message: action(str(message.get("id", "")))
