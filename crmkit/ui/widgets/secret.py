"""Secret: a sensitive field by its mask; the plain value is sent once, on request, and never kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crmkit.ui.viewmodels.secret import SHOWN_SECONDS, SecretModel
from crmkit.ui.widgets.base import Handler, View, script, style


class Secret(View):
    """The view of a `SecretModel`; `on_saved` is called with the record after a replacement."""

    _esm = script("secret")
    _css = style("secret")

    def __init__(self, model: SecretModel, on_saved: Callable[[Any], None] | None = None) -> None:
        super().__init__()
        self.model = model
        self._on_saved = on_saved

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of a secret: hello, reveal, replace."""
        return {"hello": self._hello, "reveal": self._reveal, "replace": self._replace}

    def refresh(self) -> None:
        """Show the mask of what is stored now."""
        if self.seen:
            self.say("secret", **self.model.describe())

    def _hello(self, _message: Mapping[str, Any]) -> None:
        self.refresh()

    def _reveal(self, message: Mapping[str, Any]) -> None:
        value = self.model.reveal(str(message.get("reason", "")))
        self.say("value", value=value, seconds=SHOWN_SECONDS)

    def _replace(self, message: Mapping[str, Any]) -> None:
        saved = self.model.replace(str(message.get("value", "")))
        self.refresh()
        if self._on_saved is not None:
            self._on_saved(saved)
