"""Collections, pages and results show themselves in a cell, and leave no value in the notebook."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

import crmkit
from crmkit import F

VIEW = "application/vnd.jupyter.widget-view+json"


def displayed(value: Any) -> dict[str, Any]:
    """What a notebook would show, and save, of the last expression of a cell."""
    data, _ = DisplayFormatter().format(value)
    return dict(data)


@pytest.fixture
def screens(crm: crmkit.CRM, keep: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The screens that are made, closed when the test ends."""
    import crmkit.ui as ui

    made: list[Any] = []
    for name in ("grid", "show"):
        really = getattr(ui, name)

        def make(*args: Any, _really: Any = really, **options: Any) -> Any:
            made.append(keep(_really(*args, **options)))
            return made[-1]

        monkeypatch.setattr(ui, name, make)
    return made


def test_a_collection_and_a_page_are_live_grids(crm: crmkit.CRM, ada: Any, screens: list[Any]) -> None:
    crm.customers.add(name="Bob", city="Paris")
    page = crm.customers.find(F.city == "London", order="-name")
    for value, text, rows in (
        (crm.customers, "<customers: 2 records>", 2),
        (page, "<Page of 1 record>", 1),
        (crm.customers.find(F.iban == "GB33BUKB20201555555555"), "<Page of 1 record>", 1),
    ):
        shown = displayed(value)
        assert VIEW in shown
        assert shown["text/plain"] == text
        assert "Ada" not in json.dumps(shown)
        assert screens[-1].children[0].model.total() == rows
    assert len(screens) == 3


def test_a_result_shows_its_figure_and_words(crm: crmkit.CRM, ada: Any, screens: list[Any]) -> None:
    crm.purchases.add(number="1", customer=ada, purchased_on="2026-01-03", total="5")
    shown = displayed(crm.analyse("revenue", as_of=date(2026, 2, 1)))
    assert VIEW in shown
    assert shown["text/plain"] == "<Result of revenue as of 2026-02-01: 1 row>"
    assert "Ada" not in json.dumps(shown)


def test_without_the_screens_there_is_the_text(crm: crmkit.CRM, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "crmkit.ui", None)
    assert displayed(crm.customers) == {"text/plain": "<customers: 1 record>"}
