"""The screens: notebooks' widgets over the view models. `CRM` reaches these functions by name, on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets

from crmkit.contributions import Result, Table
from crmkit.errors import Locked
from crmkit.query import Condition
from crmkit.records import Record
from crmkit.ui import live
from crmkit.ui.app import App
from crmkit.ui.card import Card
from crmkit.ui.compose import box, compose
from crmkit.ui.figures import show_figure
from crmkit.ui.screen import Screen
from crmkit.ui.viewmodels.form import FormModel
from crmkit.ui.widgets.base import close_tree
from crmkit.ui.widgets.form import Form
from crmkit.ui.widgets.head import Head
from crmkit.ui.widgets.secret import OpenedSecret

__all__ = ["App", "app", "card", "form", "grid", "secret", "show"]


def app(crm: Any) -> ipywidgets.Widget:
    """Return the screen of the whole workspace."""
    return _unless_locked(crm, lambda: App(crm))


def card(crm: Any, record: Record) -> ipywidgets.Widget:
    """Return the card of one record."""
    return _unless_locked(crm, lambda: Screen(crm, [Card(crm, record)], "card"))


def form(crm: Any, type: str, record: Record | None = None) -> ipywidgets.Widget:
    """Return a form for a record, or for a new one of a type."""
    return _unless_locked(crm, lambda: Screen(crm, [Form(FormModel(crm, type, record))], "form"))


def grid(crm: Any, type: str, where: Condition | None = None, order: str | None = None) -> ipywidgets.Widget:
    """Return a live grid of a record type; an opened row shows its card below."""
    name = crm.collection(type).info.type

    def build() -> Screen:
        below = box([])

        def open_below(record: Record) -> None:
            old = below.children
            below.children = (Card(crm, record),)
            for child in old:
                close_tree(child)

        return Screen(crm, [compose(crm, Table(name, where, order), open_below), below], "grid")

    return _unless_locked(crm, build)


def secret(crm: Any, opened: Any) -> OpenedSecret:
    """Return what shows a value that was opened, for a short time; an earlier run of the cell shows nothing more."""
    type, _, field = opened.place
    view = OpenedSecret(opened, crm.collection(type).info.fields[field].label)
    live.register(view)
    return view


def _unless_locked(crm: Any, build: Callable[[], Screen]) -> ipywidgets.Widget:
    """Return a screen; where the workspace is locked, one line that says how to go on."""
    try:
        crm.seq()  # opens what locked itself, before anything is built
    except Locked as error:
        return Head({"title": "Locked", "text": str(error)})
    return build()


def show(result: Result) -> ipywidgets.Widget:
    """Return what an analysis found: its words and its chart."""
    head = Head({"title": result.analysis.title, "text": result.explain()})
    return box([head, show_figure(result.figure())], "crm-stack")
