"""The grid's state: windows, sorting, filtering, titles of references, masks."""

from __future__ import annotations

from typing import Any

import crmkit
from crmkit.ui.viewmodels.grid import WINDOW_LIMIT, GridModel


def names(model: GridModel, start: int = 0, count: int = 50) -> list[str]:
    """The first cells of a window."""
    return [row["cells"][0] for row in model.window(start, count)]


def test_windows_in_order(crm: crmkit.CRM) -> None:
    """Any window is the matching slice of the whole."""
    crm.customers.add_many({"name": f"N{number:03}"} for number in range(700))
    model = GridModel(crm, "customer", order="name")
    assert names(model, 690, 50) == [f"N{number:03}" for number in range(690, 700)]
    assert len(model.window(0, 10_000)) == WINDOW_LIMIT
    assert model.window(-5, -1) == []
    model.query("", "name", True)
    assert names(model, 0, 2) == ["N699", "N698"]
    assert model.caption() == "700 customers"


def test_filter_and_counts(crm: crmkit.CRM, ada: Any) -> None:
    """The filter narrows rows and count alike."""
    crm.customers.add(name="Grace Hopper")
    model = GridModel(crm, "customer")
    model.query("lovel", None, False)
    assert (names(model), model.caption()) == ([ada.name], "1 customer")
    model.query("nobody", None, False)
    assert (model.total(), model.empty_text()) == (0, "No customers match this filter.")


def test_reference_money_and_country_read_well(crm: crmkit.CRM, ada: Any) -> None:
    """Cells show titles, amounts and names, not ids and codes."""
    crm.purchases.add(number="P1", customer=ada, purchased_on="2026-11-01", total="1234.50")
    model = GridModel(crm, "purchase", columns=("number", "purchased_on", "customer", "total"))
    assert model.window(0, 1)[0]["cells"] == ["P1", "2026-11-01", "Ada Lovelace", "1,234.50 EUR"]
    assert GridModel(crm, "customer", columns=("country",)).window(0, 1)[0]["cells"] == ["United Kingdom"]


def test_sensitive_columns_are_masked_and_not_sorted_by(crm: crmkit.CRM, ada: Any) -> None:
    """A plugin that names a sensitive column gets its mask."""
    assert ada.iban is not None
    model = GridModel(crm, "customer", columns=("name", "iban"))
    assert model.window(0, 1)[0]["cells"] == ["Ada Lovelace", "GB•• •••• 5555"]
    model.query("", "iban", False)
    assert model.order is None
    assert "iban" not in [column.spec.name for column in GridModel(crm, "customer").columns]


def test_every_type_has_a_grid_by_itself(crm: crmkit.CRM) -> None:
    """Columns are chosen for any record type."""
    for record_type in crm.types:
        name = crm.collection(record_type).info.type
        assert GridModel(crm, name).columns, name
        assert GridModel(crm, name).empty_text().startswith("No ")
