"""How values read on a screen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import crmkit
from crmkit import Entry
from crmkit.schema import FieldSpec
from crmkit.ui.viewmodels.card import CardModel, initials
from crmkit.ui.viewmodels.grid import GridModel
from crmkit.ui.viewmodels.secret import SecretModel
from crmkit.ui.viewmodels.text import present, title, typed, untyped
from crmkit.ui.viewmodels.timeline import PAGE, TimelineModel, entry


def spec(kind: str, klass: Any = "plain") -> FieldSpec:
    """A field of one kind."""
    return FieldSpec("field", "Field", "", klass, kind, required=False)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("text", None, ""),
        ("country", "GB", "United Kingdom"),
        ("country", "??", "??"),
        ("choice", "at_risk", "At risk"),
        ("choices", ("client", "vendor"), "Client, Vendor"),
        ("texts", ("vip", "new"), "vip, new"),
        ("boolean", False, "No"),
        ("phone", "+442079460018", "+44 20 7946 0018"),
        ("phone", "no number", "no number"),
        ("instant", datetime(2026, 11, 22, 9, 30, tzinfo=UTC), "2026-11-22 09:30"),
        ("parts", ({}, {}), "2"),
    ],
)
def test_present(kind: str, value: Any, text: str) -> None:
    """Each kind has its text."""
    assert present(spec(kind), value) == text


def test_a_sensitive_field_is_masked_even_if_a_plain_value_gets_here() -> None:
    """The last line before the browser does not trust what it is given."""
    assert present(spec("iban", "sensitive"), "GB33BUKB20201555555555") == "••••••"


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.text())
)


@given(ANYTHING)
def test_untyped_takes_anything_from_the_page(raw: Any) -> None:
    """Whatever arrives becomes something that a collection can check."""
    for kind in ("text", "boolean", "texts", "choices", "parts", "date", "money", "reference"):
        value = untyped(spec(kind), raw)
        assert value is None or isinstance(value, str | bool | tuple)


def test_typed_and_untyped_are_inverse(crm: crmkit.CRM, ada: Any) -> None:
    """What stands in an input means the value that it was made from."""
    for each in crm.customers.info.fields.values():
        if each.klass != "sensitive":
            changes = {each.name: untyped(each, typed(each, getattr(ada, each.name)))}
            assert getattr(crm.customers.update(ada.id, **changes), each.name) == getattr(ada, each.name), each.name


def test_card_head(crm: crmkit.CRM, ada: Any) -> None:
    """Identity, chips and facts of a customer; a record without a name has a title too."""
    head = CardModel(crm, ada).head()
    assert (head["title"], head["initials"], head["subtitle"]) == ("Ada Lovelace", "AL", "Customer A1815")
    assert {"vip", "Person", "Prospect"} <= set(head["chips"])
    assert ("City", "London") in head["facts"]
    assert [initials(name) for name in ("", "X", "4711", "ada b c lovelace")] == ["#", "X", "#", "AL"]
    nameless = crm.interactions.add(customer=ada, title="Call")
    assert title(nameless) == "Call"


def test_timeline_pages(crm: crmkit.CRM, ada: Any) -> None:
    """Newest first, a page at a time, each entry once."""
    for number in range(PAGE + 5):
        crm.interactions.add(customer=ada, title=f"T{number}", happened_at=datetime(2026, 1, 1, 0, number, tzinfo=UTC))
    model = TimelineModel(crm, ada)
    first = model.page()
    second = model.page(first["next"])
    shown = [each["title"] for each in first["entries"] + second["entries"]]
    assert shown == [f"T{number}" for number in reversed(range(PAGE + 5))]
    assert second["next"] is None
    unknown = Entry(datetime.now(UTC), "fax", "x")
    assert entry(unknown, UTC)["icon"] == "•"


def test_secret_model_writes_the_audit_log_first(crm: crmkit.CRM, ada: Any) -> None:
    """Without a reason nothing is opened; the model itself keeps nothing."""
    model = SecretModel(crm, ada, "iban")
    with pytest.raises(crmkit.Invalid, match="audit log"):
        model.reveal(" ")
    assert model.reveal("refund 812") == "GB33BUKB20201555555555"
    assert "5555" not in str(vars(model))


def test_days_and_times_are_those_of_the_workspace(tmp_path: Path) -> None:
    """A purchase of the 29th in Berlin is on the 29th for whoever looks, though that midnight was the 28th in UTC."""
    with crmkit.create(tmp_path / "berlin", time_zone="Europe/Berlin") as crm:
        ada = crm.customers.add(name="Ada")
        crm.purchases.add(number="1", customer=ada, purchased_on="2026-10-29", total="5")
        crm.interactions.add(customer=ada, kind="call", title="Late", happened_at="2026-10-28T23:30:00Z")
        told = [(each["day"], each["time"]) for each in TimelineModel(crm, ada).page()["entries"]]
        assert told == [("2026-10-29", "00:30"), ("2026-10-29", "")]
        (row,) = GridModel(crm, "interaction", ("happened_at",)).window(0, 10)
        assert "2026-10-29 00:30" in str(row)
