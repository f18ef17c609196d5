"""App: the screen of a whole workspace: search on top, pages and open cards below, one line that says what happened."""

from __future__ import annotations

from functools import partial
from typing import Any

import ipywidgets

from crmkit.contributions import Page, Table
from crmkit.errors import CrmError
from crmkit.records import Record
from crmkit.schema import info
from crmkit.ui.card import Card
from crmkit.ui.compose import box, compose, safely
from crmkit.ui.screen import Screen, refresh_tree
from crmkit.ui.viewmodels.form import FormModel
from crmkit.ui.viewmodels.text import detail, title
from crmkit.ui.widgets.bar import Bar, Item
from crmkit.ui.widgets.base import close_tree, explain
from crmkit.ui.widgets.form import Form

MATCHES = 8
OPEN_CARDS = 6  # clean cards beyond this many are closed, the oldest first
HOME = "customers"
SECURITY = "security"
NEW = "new"


class App(Screen):
    """The screen of a workspace; show it as the last line of a cell."""

    def __init__(self, crm: Any) -> None:
        self._pages = {page.name: page for page in self._all_pages(crm)}
        self._parts: dict[str, ipywidgets.Widget] = {}
        self._stale: set[str] = set()
        self._current = ""
        self._due = ""
        self.bar = Bar(self, crm.profile.name, "customer")
        self._body = box([], "crm-panel")
        super().__init__(crm, [self.bar, self._body], "app")
        self.go(HOME)

    # ------------------------------------------------------------- what the bar asks for

    def search(self, text: str) -> list[dict[str, str]]:
        """Return the customers that are meant by what is being typed."""
        found = self.crm.customers.search(text, limit=MATCHES) if text.strip() else []
        return [{"id": record.id, "label": title(record), "detail": detail(record)} for record in found]

    def open_id(self, id: str) -> None:
        """Open the card of a customer."""
        record = self.crm.customers.get(id)
        if record is None:
            self.bar.status("This customer is no longer there.", bad=True)
        else:
            self.open_record(record)

    def open_record(self, record: Record) -> None:
        """Open the card of any record."""
        old = self._parts.get(record.id)
        if isinstance(old, Card) and old.is_gone:  # it is there again
            close_tree(self._parts.pop(record.id))
        if record.id not in self._parts:
            self._parts[record.id] = safely(
                lambda: Card(self.crm, record, self._done, self.open_record, self._show_navigation), "Card"
            )
            self._close_old_cards(record.id)
        self.go(record.id)

    def new(self) -> None:
        """Open an empty form for a customer."""
        if NEW not in self._parts:
            self._parts[NEW] = Form(FormModel(self.crm, "customer"), self._created, self._show_navigation)
        self.go(NEW)

    def go(self, key: str) -> None:
        """Show a page, an open card or the form of a new customer."""
        if key not in self._parts:
            page = self._pages.get(key)
            if page is None:
                return
            self._parts[key] = self._build(page)
        elif key in self._stale:
            self._renew(key)
        self._stale.discard(key)
        self._current = key
        self._arrange()

    def leave(self, key: str) -> None:
        """Close a card; what was typed and not saved is asked about by keeping the card open once."""
        part = self._parts.get(key)
        if part is None or key in self._pages:
            return
        if _dirty(part) and not getattr(part, "warned", False):
            part.warned = True
            self.bar.status("Not saved yet. Save it, or close it again to drop what you typed.", bad=True)
            return
        close_tree(self._parts.pop(key))
        if key == self._current:
            self.go(HOME)
        self._arrange()

    def arrived(self) -> None:
        """Show the state of plugins, and what is due, to whoever opened the app."""
        self._show_health()
        self._show_due()

    # ------------------------------------------------------------- following the workspace

    def refresh(self) -> None:
        """Show what changed: the part that is looked at now, the others when they are shown again."""
        self._stale = set(self._parts) - {self._current}
        current = self._parts.get(self._current)
        if current is not None:
            refresh_tree(current)
        self._show_health()
        self._show_navigation()

    def _renew(self, key: str) -> None:
        """Bring a part up to date that was out of sight; pages are built again, since they may hold figures."""
        page = self._pages.get(key)
        part = self._parts[key]
        if page is None or hasattr(part, "refresh"):
            refresh_tree(part)
            return
        self._parts[key] = self._build(page)
        self._arrange()
        close_tree(part)

    # ------------------------------------------------------------- details

    def _all_pages(self, crm: Any) -> list[Page]:
        """Return the pages of the app: customers first, then those of plugins."""
        first = Page(HOME, "Customers", lambda _crm: Table("customer", order="name"))
        contributed = [view for view in crm.views if isinstance(view, Page) and view.name != HOME]
        return [first, *contributed]

    def _build(self, page: Page) -> ipywidgets.Widget:
        failed = partial(self.crm.record_failure, page.provider, "crm_views")
        return safely(lambda: compose(self.crm, page.build(self.crm), self.open_record), page.title, failed)

    def _arrange(self) -> None:
        """Show the current part and hide the others, which keep their state."""
        self._body.children = tuple(self._parts.values())
        for key, part in self._parts.items():
            part.layout.display = None if key == self._current else "none"
        self._show_navigation()

    def _show_navigation(self) -> None:
        pages = [Item(page.name, page.title) for page in self._pages.values()]
        cards = [
            Item(key, _title(part), closable=True, dirty=_dirty(part))
            for key, part in self._parts.items()
            if key not in self._pages
        ]
        self.bar.navigation([*pages, *cards], self._current)
        more = self._pages.get(SECURITY)
        self.bar.notice(self._due if self._current == HOME else "", *((more.name, more.title) if more else ()))

    def _show_health(self) -> None:
        failed = [plugin for plugin in self.crm.plugins if plugin.state not in ("active", "disabled")]
        lines = [f"{plugin.name}: {plugin.state}. {plugin.reason}" for plugin in failed]
        lines += [
            f"{failure.plugin}: {failure.error} in {failure.hook} ({failure.place})" for failure in self.crm.failures
        ]
        self.bar.health(lines)

    def _show_due(self) -> None:
        """Say on the first page how much is due; only when somebody comes, for it reads the whole audit log."""
        try:
            count = len(self.crm.security.report().overdue)
        except CrmError as error:
            self._due = explain(error)
        else:
            things = "1 thing about safety is" if count == 1 else f"{count:,} things about safety are"
            self._due = f"{things} due" if count else ""
        self._show_navigation()

    def _close_old_cards(self, newest: str) -> None:
        clean = [
            key for key, part in self._parts.items() if isinstance(part, Card) and not part.dirty and key != newest
        ]
        for key in clean[: max(0, len(clean) + 1 - OPEN_CARDS)]:
            close_tree(self._parts.pop(key))

    def _done(self, text: str) -> None:
        self.bar.status(text)
        self.refresh()

    def _created(self, record: Record) -> None:
        close_tree(self._parts.pop(NEW))
        self.open_record(record)
        self._stale |= set(self._parts) - {self._current}
        self.bar.status(f"{info(type(record)).title} {title(record)} created.")


def _dirty(part: ipywidgets.Widget) -> bool:
    form = getattr(part, "form", part)
    return isinstance(form, Form) and bool(form.model.dirty)


def _title(part: ipywidgets.Widget) -> str:
    return part.title if isinstance(part, Card) else "New customer"
