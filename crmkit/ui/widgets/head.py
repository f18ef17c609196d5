"""Head: the identity of a card or the headline of a page: title, chips, facts, a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crmkit.ui.widgets.base import Handler, View, script, style


class Head(View):
    """A heading with what belongs to it, as plain text."""

    _esm = script("head")
    _css = style("head")

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__()
        self._content = dict(content)

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of a head: hello."""
        return {"hello": self._hello}

    def show(self, content: Mapping[str, Any]) -> None:
        """Show something else."""
        self._content = dict(content)
        if self.seen:
            self.say("head", **self._content)

    def _hello(self, _message: Mapping[str, Any]) -> None:
        self.say("head", **self._content)
