"""Erase: the last thing on a person's card: what erasing would do, the question, and the certificate in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crmkit.ui.viewmodels.erase import EraseModel
from crmkit.ui.widgets.base import Handler, View, script, style


class Erase(View):
    """The view of an `EraseModel`; `on_erased` is called when it is done."""

    _esm = script("erase")
    _css = style("erase")

    def __init__(self, model: EraseModel, on_erased: Callable[[], None]) -> None:
        super().__init__()
        self.model = model
        self._on_erased = on_erased

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of an erasure: hello, plan, erase."""
        return {"hello": self._hello, "plan": self._plan, "erase": self._erase}

    def _hello(self, _message: Mapping[str, Any]) -> None:
        if self.model.certificate:
            self.say("certificate", text=self.model.certificate)
        else:
            self.say("erase", **self.model.describe())

    def _plan(self, _message: Mapping[str, Any]) -> None:
        self.say("plan", **self.model.plan())

    def _erase(self, message: Mapping[str, Any]) -> None:
        self.model.erase(str(message.get("reason", "")), message.get("understood") is True)
        try:
            self._on_erased()
        finally:
            self.say("certificate", text=self.model.certificate, done=True)  # last, when the rest of the card is gone
