"""Record types: how they are declared, what is known of them, what they refuse."""

from __future__ import annotations

import traceback
from datetime import date
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from crmkit.errors import Invalid, Refused
from crmkit.fields import Personal, Reference
from crmkit.records import ContactPoint, Customer, Record, has_bad_text, new_id
from crmkit.schema import info, invalid
from crmkit.values import Money


class Deal(Record, type="deal", plural="deals", subject="customer"):
    """A possible sale (an opportunity)."""

    title: Personal[str]
    customer: Reference[Customer]
    amount: Money | None = None
    stage: Literal["open", "won"] = "open"
    closes_on: date | None = None


def test_what_is_known_of_a_type() -> None:
    known = info(Deal)
    assert (known.type, known.plural, known.subject, known.title) == ("deal", "deals", "customer", "Deal")
    kinds = {spec.name: (spec.kind, spec.klass, spec.required) for spec in known.fields.values()}
    assert kinds == {
        "title": ("text", "personal", True),
        "customer": ("reference", "plain", True),
        "amount": ("money", "plain", False),
        "stage": ("choice", "plain", False),
        "closes_on": ("date", "plain", False),
        "visible_to": ("choice", "plain", False),
        "owner": ("text", "plain", False),
    }
    assert list(kinds)[-2:] == ["visible_to", "owner"]  # in every type, and behind its own
    assert known.fields["customer"].target == "customer"
    assert known.fields["stage"].choices == ("open", "won")


def test_the_class_keywords_do_not_shadow_fields() -> None:
    class Parcel(Record, type="parcel"):
        type: str = "small"
        plural: str = "x"

    assert Parcel().type == "small"
    assert info(Parcel).type == "parcel"


def test_records_are_frozen_and_know_no_other_fields() -> None:
    deal = Deal(title="Engine", customer=Reference(new_id()))
    with pytest.raises(Refused, match="a Deal is frozen") as frozen:
        deal.title = "canary"  # type: ignore[misc]
    assert "canary" not in "".join(traceback.format_exception(frozen.value)[-1:])
    with pytest.raises(Refused, match="frozen"):
        del deal.title
    with pytest.raises(ValidationError) as caught:
        Deal(title="Engine", customer=new_id(), stagee="won")  # type: ignore[call-arg, arg-type]
    problem = invalid(caught.value, Deal)
    assert problem.problems == {"stagee": "is not a field of deal; did you mean 'stage'?"}


def test_all_problems_are_told_at_once_by_field() -> None:
    with pytest.raises(ValidationError) as caught:
        Deal.model_validate({"customer": "nobody", "amount": 1.5, "closes_on": "soon", "stage": "lost"})
    problems = invalid(caught.value, Deal).problems
    assert set(problems) == {"title", "customer", "amount", "closes_on", "stage"}
    assert problems["title"] == "is required"
    assert "'open' or 'won'" in problems["stage"]
    assert isinstance(invalid(caught.value, Deal), Invalid)


def test_a_reference_takes_a_record_or_an_id() -> None:
    ada = Customer(name="Ada")
    assert Deal(title="x", customer=ada).customer == ada.id  # type: ignore[arg-type]
    assert Deal(title="x", customer=ada.id).customer == ada.id  # type: ignore[arg-type]
    for wrong in ("short", ada.id.lower(), 5, None):
        with pytest.raises(ValidationError):
            Deal(title="x", customer=wrong)  # type: ignore[arg-type]


def test_ids_sort_by_the_time_they_were_made() -> None:
    ids = [new_id() for _ in range(2000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 2000


def test_a_blank_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="blank"):
        Customer(name="  ")


def test_contact_points_are_checked_by_their_kind() -> None:
    point = ContactPoint.model_validate({"kind": "phone", "value": "020 7946 0018"}, context={"region": "GB"})
    assert point.value == "+442079460018"
    assert "7946" not in repr(point)
    with pytest.raises(ValidationError):
        ContactPoint(kind="email", value="nonsense")


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_text_that_not_every_store_can_keep_is_found(value: object) -> None:
    text = repr(value)
    has_nul = "\\x00" in text
    assert has_bad_text(value) == (has_nul and _holds(value, "\0"))


def _holds(value: object, part: str) -> bool:
    if isinstance(value, str):
        return part in value
    if isinstance(value, dict):
        return any(_holds(each, part) for pair in value.items() for each in pair)
    return any(_holds(each, part) for each in value)  # type: ignore[attr-defined]


def test_half_of_a_surrogate_pair_is_found() -> None:
    assert has_bad_text({"x": ["fine", "\ud800"]})
    assert not has_bad_text({"x": ["fine", "😀"]})
