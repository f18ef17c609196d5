"""Descriptions become widgets here, and only here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, assert_never

import ipywidgets

from crmkit.contributions import Chart, Description, Rows, Stack, Table, Text, Timeline
from crmkit.ui.figures import show_figure
from crmkit.ui.viewmodels.grid import GridModel
from crmkit.ui.viewmodels.timeline import TimelineModel
from crmkit.ui.widgets.base import explain
from crmkit.ui.widgets.grid import Grid
from crmkit.ui.widgets.head import Head
from crmkit.ui.widgets.rows import Rows as RowsView
from crmkit.ui.widgets.timeline import Timeline as TimelineView

Opener = Callable[[Any], None]


def box(children: Sequence[ipywidgets.Widget], *classes: str) -> ipywidgets.VBox:
    """Return a box without the look of one."""
    made = Box(children)
    for name in classes:
        made.add_class(name)
    return made


class Box(ipywidgets.VBox):
    """A VBox whose text names no child, because a child's text may name a value."""

    def __repr__(self) -> str:
        return f"<box of {len(self.children)}>"


def compose(crm: Any, description: Description, on_open: Opener | None = None) -> ipywidgets.Widget:
    """Return the widget of a description.

    Args:
        crm: Where the records come from.
        description: What a plugin wants to show.
        on_open: Called with the record of a row that is opened.
    """
    match description:
        case Table():
            model = GridModel(crm, description.type, description.columns, description.where, description.order)
            return Grid(model, on_open)
        case Timeline():
            return TimelineView(TimelineModel(crm, description.record))
        case Chart():
            head = Head({"title": description.title, "text": description.text})
            return box([head, show_figure(description.figure())], "crm-stack")
        case Text():
            return Head({"title": description.title, "lines": description.lines})
        case Rows():
            return RowsView(description)
        case Stack():
            return box([compose(crm, part, on_open) for part in description.parts], "crm-stack")
        case _:
            assert_never(description)


def safely(
    build: Callable[[], ipywidgets.Widget], what: str, failed: Callable[[Exception], None] | None = None
) -> ipywidgets.Widget:
    """Return what `build` makes; where it fails, a line that says so in its place, so that the rest goes on working.

    Args:
        build: Makes the widget.
        what: What people call it.
        failed: Told of the error, to remember whose it is.
    """
    try:
        return build()
    except Exception as error:  # noqa: BLE001  # the error boundary around what plugins describe
        if failed is not None:
            failed(error)
        return Head({"title": what, "text": f"This cannot be shown. {explain(error)}"})
