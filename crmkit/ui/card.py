"""Card: one record with its head, its form, its sensitive fields and the panels of plugins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ipywidgets

from crmkit.records import Record
from crmkit.schema import info
from crmkit.ui.compose import Box, box, compose, safely
from crmkit.ui.screen import refresh_tree
from crmkit.ui.viewmodels.card import CardModel
from crmkit.ui.viewmodels.erase import EraseModel, can_be_erased
from crmkit.ui.viewmodels.form import FormModel
from crmkit.ui.viewmodels.secret import SecretModel
from crmkit.ui.viewmodels.text import title
from crmkit.ui.widgets.base import close_tree
from crmkit.ui.widgets.erase import Erase
from crmkit.ui.widgets.form import Form
from crmkit.ui.widgets.head import Head
from crmkit.ui.widgets.secret import Secret
from crmkit.ui.widgets.tabs import Tabs

Teller = Callable[[str], None]  # what was done, in one line
GONE = {
    "erased": "Everything of this person is gone. The page Security lists the certificate.",
    "removed": "Somebody removed it, or no longer shares it with you.",
}


class Card(Box):
    """The card of one record; tabs are built when they are first looked at."""

    def __init__(
        self,
        crm: Any,
        record: Record,
        on_done: Teller | None = None,
        on_open: Callable[[Any], None] | None = None,
        on_touched: Callable[[], None] | None = None,
    ) -> None:
        self.model = CardModel(crm, record)
        self._on_done, self._on_open = on_done, on_open
        self.is_gone = False
        self.form = Form(FormModel(crm, info(type(record)).type, record), self._saved, on_touched)
        self._head = Head(self.model.head())
        self._builders = self._tabs(crm)
        self._built: dict[str, ipywidgets.Widget] = {}
        self._body = box([], "crm-panel")
        self.tabs = Tabs(
            "Parts of this card", [(key, heading) for key, (heading, _) in self._builders.items()], self._show
        )
        self._erase = Erase(EraseModel(crm, record), self._erased) if can_be_erased(type(record)) else None
        last = [self._erase] if self._erase is not None else []
        super().__init__([self._head, self.tabs, self._body, *last])
        self.add_class("crm-card")
        self._show(self.tabs.current)

    @property
    def dirty(self) -> bool:
        """True while something typed is not saved."""
        return bool(self.form.model.dirty)

    @property
    def title(self) -> str:
        """What people call the record."""
        return f"{info(type(self.model.record)).title} gone" if self.is_gone else title(self.model.record)

    def refresh(self) -> None:
        """Show what was saved meanwhile; what was typed into a record that somebody removed stays."""
        if self.is_gone:
            return
        if fate := self.model.fate():
            if fate == "erased" or not self.dirty:
                self._end(fate)
            return
        if self.model.refresh():
            self._head.show(self.model.head())
        for part in self._built.values():
            refresh_tree(part)

    def _tabs(self, crm: Any) -> dict[str, tuple[str, Callable[[], ipywidgets.Widget]]]:
        """Return heading and builder of each tab by key."""
        tabs: dict[str, tuple[str, Callable[[], ipywidgets.Widget]]] = {"profile": ("Profile", self._profile)}
        for panel in self.model.panels():
            tabs[panel.name] = (panel.title, self._panel(crm, panel))
        return tabs

    def _panel(self, crm: Any, panel: Any) -> Callable[[], ipywidgets.Widget]:
        def build() -> ipywidgets.Widget:
            failed = partial(crm.record_failure, panel.provider, "crm_views")
            return safely(lambda: compose(crm, panel.build(crm, self.model.record), self._on_open), panel.title, failed)

        return build

    def _profile(self) -> ipywidgets.Widget:
        secrets = [
            Secret(SecretModel(self.model.crm, self.model.record, name), self._replaced)
            for name in self.model.secrets()
        ]
        if not secrets:
            return box([self.form])
        protected = Head({"title": "Protected", "text": "Sealed and masked. Each look is recorded with its reason."})
        return box([self.form, protected, *secrets])

    def _show(self, key: str) -> None:
        if key not in self._built:
            self._built[key] = self._builders[key][1]()
            self._body.children = tuple(self._built.values())
        for name, part in self._built.items():
            part.layout.display = None if name == key else "none"
        if self._erase is not None:
            self._erase.layout.display = None if key == "profile" else "none"

    def _end(self, fate: str) -> None:
        """Show in place of a record that it is gone; a certificate stays."""
        self.is_gone = True
        self.form.model.revert()
        self._body.children = ()
        for part in self._built.values():
            close_tree(part)
        self._built = {}
        for view in (self.tabs, self._body):
            view.layout.display = "none"
        if self._erase is not None and not self._erase.model.certificate:
            self._erase.layout.display = "none"
        self._head.show({"title": f"{info(type(self.model.record)).title} {fate}", "text": GONE[fate]})

    def _erased(self) -> None:
        self._end("erased")
        self._say(f"{info(type(self.model.record)).title} erased.")

    def _saved(self, record: Record) -> None:
        self._tell(record, "saved")

    def _replaced(self, record: Record) -> None:
        self.form.refresh()
        self._tell(record, "updated")

    def _tell(self, record: Record, done: str) -> None:
        self.refresh()
        self._say(f"{title(record)} {done}.")

    def _say(self, text: str) -> None:
        if self._on_done is not None:
            self._on_done(text)
