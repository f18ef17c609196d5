"""Rows: a small table of texts that are no records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crmkit.contributions import Rows as Description
from crmkit.ui.widgets.base import Handler, View, script, style


class Rows(View):
    """The view of a description of the same name."""

    _esm = script("rows")
    _css = style("rows")

    def __init__(self, description: Description) -> None:
        super().__init__()
        self._description = description

    def handlers(self) -> dict[str, Handler]:
        """Return the messages of rows: hello."""
        return {"hello": self._hello}

    def _hello(self, _message: Mapping[str, Any]) -> None:
        shown = self._description
        self.say(
            "rows",
            title=shown.title,
            text=shown.text,
            empty=shown.empty,
            columns=[{"label": name, "command": name in shown.commands} for name in shown.columns],
            rows=[[str(cell) for cell in row] for row in shown.rows],
        )
