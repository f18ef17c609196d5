"""Form: a record being edited. One widget for all inputs, because each value of an ipywidget is a trait.

Traits are written into saved notebooks and reports, and half a hundred small widgets make a card slow to open.
Here the fields travel as messages, and the inputs are the browser's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crmkit.ui.viewmodels.form import FormModel
from crmkit.ui.widgets.base import Handler, View, script, style

Saver = Callable[[Any], None]


class Form(View):
    """The view of a `FormModel`.

    Args:
        on_saved: Called with each saved record.
        on_touched: Called when the first draft begins or the last one ends.
    """

    _esm = script("form")
    _css = style("form")

    def __init__(
        self, model: FormModel, on_saved: Saver | None = None, on_touched: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self._on_saved = on_saved
        self._on_touched = on_touched
        self._was_dirty = False

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of a form: hello, set, save, revert, keep, take, move, suggest."""
        return {
            "hello": self._hello,
            "set": self._set,
            "save": self._save,
            "revert": self._revert,
            "keep": self._keep,
            "take": self._take,
            "move": self._move,
            "suggest": self._suggest,
        }

    def refresh(self) -> None:
        """Show what others saved meanwhile; drafts stay."""
        if self.model.refresh() and self.seen:
            self._show_values()

    def _hello(self, _message: Mapping[str, Any]) -> None:
        self.say("form", **self.model.describe())
        self._show_values()

    def _set(self, message: Mapping[str, Any]) -> None:
        self.model.set(str(message.get("field", "")), message.get("value"))
        self._show_state()

    def _save(self, message: Mapping[str, Any]) -> None:
        secrets = message.get("secrets")
        saved = self.model.save(secrets if isinstance(secrets, dict) else None)
        if saved is None:
            self._show_values()
            return
        self.say("saved")
        self._show_values()
        if self._on_saved is not None:
            self._on_saved(saved)

    def _revert(self, _message: Mapping[str, Any]) -> None:
        self.model.revert()
        self._show_values()

    def _keep(self, message: Mapping[str, Any]) -> None:
        self.model.keep(str(message.get("field", "")))
        self._show_state()

    def _take(self, message: Mapping[str, Any]) -> None:
        self.model.take(str(message.get("field", "")))
        self._show_values()

    def _move(self, message: Mapping[str, Any]) -> None:
        filled = message.get("filled")
        self.model.move(str(message.get("field", "")), filled if isinstance(filled, list) else ())
        self._show_values()

    def _suggest(self, message: Mapping[str, Any]) -> None:
        name, text = str(message.get("field", "")), str(message.get("text", ""))
        self.say("suggestions", field=name, text=text, items=self.model.suggest(name, text))

    def _show_values(self) -> None:
        self.say("values", values=self.model.values(), labels=self.model.labels())
        self._show_state()

    def _show_state(self) -> None:
        self.say("state", **self.model.state())
        is_dirty = bool(self.model.dirty)
        if self._on_touched is not None and is_dirty != self._was_dirty:
            self._on_touched()
        self._was_dirty = is_dirty

    def __repr__(self) -> str:
        return f"<{self.model.collection.info.type} form, {len(self.model.specs)} fields>"
