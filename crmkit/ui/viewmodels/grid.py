"""GridModel: which records a grid shows, in which order, as text; the view asks for windows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crmkit.query import Condition
from crmkit.records import Record
from crmkit.schema import SHARING, FieldSpec
from crmkit.ui.viewmodels.text import counted, present, title

WINDOW_LIMIT = 500  # rows in one answer, whatever the view asks for
SHOWN = 7  # columns that a grid chooses by itself
FIRST = (
    "name",
    "title",
    "number",
    "sku",
    "purchased_on",
    "customer",
    "total",
    "email",
    "phone",
    "city",
    "country",
    "stage",
)
TOO_LONG = ("long_text", "parts", "texts", "choices", "references", "other")
RIGHT = ("money", "decimal", "integer")
LEAST = {
    "text": 120,
    "email": 170,
    "phone": 140,
    "country": 130,
    "reference": 140,
    "money": 100,
    "boolean": 70,
    "date": 95,
}  # pixels


@dataclass(frozen=True)
class Column:
    """One column: a field, and how it is set."""

    spec: FieldSpec

    def describe(self) -> dict[str, Any]:
        """Return the column as plain data for the view."""
        kind = self.spec.kind
        return {
            "name": self.spec.name,
            "label": self.spec.label,
            "align": "right" if kind in RIGHT else "left",
            "sortable": self.spec.klass != "sensitive" and kind not in TOO_LONG,
            "least": LEAST.get(kind, 110),
            "weight": 2 if self.spec.name in ("name", "title", "email") else 1,
        }


class GridModel:
    """The state of a grid over the records of one type."""

    def __init__(
        self,
        crm: Any,
        type: str,
        columns: Sequence[str] = (),
        where: Condition | None = None,
        order: str | Sequence[str] | None = None,
        height: int = 14,
    ) -> None:
        self.crm = crm
        self.collection = crm.collection(type)
        self.where = where
        self.text = ""
        self.order: str | Sequence[str] | None = order or None
        self.height = height
        self._by_match = False
        self.columns = [
            Column(self.specs[name]) for name in columns or default_columns(self.specs) if name in self.specs
        ]
        self._titles: dict[tuple[str, str], str] = {}

    @property
    def specs(self) -> dict[str, FieldSpec]:
        """The fields of the record type."""
        return dict(self.collection.info.fields)

    def describe(self) -> dict[str, Any]:
        """Return the structure of the grid as plain data for the view."""
        first = self.order if isinstance(self.order, str) else next(iter(self.order or ()), "")
        return {
            "label": self.collection.info.plural.replace("_", " ").capitalize(),
            "columns": [column.describe() for column in self.columns],
            "text": self.text,
            "sort": first.removeprefix("-") or None,
            "desc": first.startswith("-"),
            "height": self.height,
            "searchable": True,
        }

    def query(self, text: str, sort: str | None, descending: bool) -> None:
        """Ask for other rows: those found by `text`, in the order of one column, or best match first without one."""
        self.text = text.strip()
        self._by_match = bool(self.text) and sort is None
        sortable = {column.spec.name for column in self.columns if column.describe()["sortable"]}
        if sort in sortable:
            self.order = f"-{sort}" if descending else str(sort)

    def total(self) -> int:
        """Return how many rows there are."""
        return int(self.collection.count(self.where, text=self.text))

    def window(self, start: int, count: int) -> list[dict[str, Any]]:
        """Return some rows as text, at most `WINDOW_LIMIT`."""
        start, count = max(0, start), min(max(0, count), WINDOW_LIMIT)
        self._titles.clear()
        order = None if self._by_match else self.order
        found = self.collection.window(start, count, where=self.where, order=order, text=self.text)
        return [{"id": record.id, "cells": self._cells(record)} for record in found]

    def record(self, id: str) -> Record | None:
        """Return the record of one row."""
        found: Record | None = self.collection.get(id)
        return found

    def caption(self, total: int | None = None) -> str:
        """Return the count as people read it: "2,013 customers"; a count that is known already can be given."""
        return counted(self.total() if total is None else total, self.collection.info)

    def empty_text(self) -> str:
        """Return what stands where there are no rows."""
        plural = self.collection.info.plural.replace("_", " ")
        return f"No {plural} match this filter." if self.text else f"No {plural} yet."

    def _cells(self, record: Record) -> list[str]:
        return [
            present(column.spec, getattr(record, column.spec.name), self._look_up, self.crm.zone)
            for column in self.columns
        ]

    def _look_up(self, type: str, id: str) -> str:
        """Return the title of a referred record; rows of one window often name the same ones."""
        if (type, id) not in self._titles:
            found = self.crm.collection(type).get(id)
            self._titles[type, id] = title(found) if found is not None else "(removed)"
        return self._titles[type, id]


def default_columns(specs: dict[str, FieldSpec]) -> list[str]:
    """Return the columns of a grid that names none: what people look for first, then the other short fields."""
    fit = {name: spec for name, spec in specs.items() if spec.klass != "sensitive" and spec.section != SHARING}
    short = [name for name, spec in fit.items() if spec.kind not in TOO_LONG]
    return sorted(short, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))[:SHOWN]
