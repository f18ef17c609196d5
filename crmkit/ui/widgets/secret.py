"""Secret: a sensitive field by its mask; the plain value is sent once, on request, and never kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from crmkit.ui.viewmodels.secret import SHOWN_SECONDS, SecretModel
from crmkit.ui.widgets.base import Handler, View, later, script, style


class Secret(View):
    """The view of a `SecretModel`; `on_saved` is called with the record after a replacement."""

    _esm = script("secret")
    _css = style("secret")

    def __init__(self, model: SecretModel, on_saved: Callable[[Any], None] | None = None) -> None:
        super().__init__()
        self.model = model
        self._on_saved = on_saved
        self._shown: dict[str, Any] = {}

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of a secret: hello, reveal, replace."""
        return {"hello": self._hello, "reveal": self._reveal, "replace": self._replace}

    def refresh(self) -> None:
        """Show the mask of what is stored now; where it is the same, what is being looked at or typed stays."""
        if self.seen and self.model.describe() != self._shown:
            self._show()

    def _hello(self, _message: Mapping[str, Any]) -> None:
        self._show()

    def _show(self) -> None:
        self._shown = self.model.describe()
        self.say("secret", **self._shown)

    def _reveal(self, message: Mapping[str, Any]) -> None:
        value = self.model.reveal(str(message.get("reason", "")))
        self.say("value", value=value, seconds=SHOWN_SECONDS)

    def _replace(self, message: Mapping[str, Any]) -> None:
        saved = self.model.replace(str(message.get("value", "")))
        self._show()
        if self._on_saved is not None:
            self._on_saved(saved)


class OpenedSecret(View):
    """The view of a value that `crm.reveal` opened: shown for a short time, then forgotten; the mask stays.

    Args:
        secret: The opened value.
        label: What people call the field.
    """

    _esm = script("secret")
    _css = style("secret")

    def __init__(self, secret: Any, label: str) -> None:
        super().__init__()
        self._secret = secret
        self._label = label
        self._end = time.monotonic() + SHOWN_SECONDS
        self._clock = later(SHOWN_SECONDS, self.forget)

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of an opened secret: hello."""
        return {"hello": self._hello}

    def forget(self) -> None:
        """Drop the value, here and in the variable that holds it; show the mask."""
        self._secret.cover()
        self._describe()

    def close(self) -> None:
        """Drop the value and close the view."""
        if self.comm is None:
            return
        if self._clock is not None:
            self._clock.cancel()
        self._secret.cover()
        self.layout.close()
        super().close()

    def _hello(self, _message: Mapping[str, Any]) -> None:
        self._describe()
        left = self._end - time.monotonic()
        if left <= 0:
            self._secret.cover()
            return
        self.say("value", value=str(self._secret.value), seconds=left)

    def _describe(self) -> None:
        self.say("secret", label=self._label, masked=str(self._secret), once=True)
