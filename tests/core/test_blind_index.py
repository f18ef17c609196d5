"""Exact search on sealed fields: what may be searched, how long tags are, and that collisions do no harm."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

import crmkit
from crmkit import (
    CRM,
    CardNumber,
    Customer,
    F,
    Iban,
    Invalid,
    Personal,
    Record,
    Reference,
    Searchable,
    Sensitive,
    TaxId,
    hookimpl,
)
from crmkit.codec import TAGS
from crmkit.fields import Kind
from crmkit.vault.blind_index import planned_bits


class Colour(StrEnum):
    RED = "red"


Password = Annotated[str, Kind("password")]
Token = Annotated[str, Kind("token")]
Few = Annotated[int, Field(ge=0, lt=31)]


def registered(crm: CRM, annotation: Any) -> None:
    """Register a record type with one field of this type that asks to be searchable."""
    fields = {"customer": Reference[Customer], "value": Annotated[annotation, Searchable()]}
    make: Any = type(Record)
    paper = make("Paper", (Record,), {"__annotations__": fields, "__module__": __name__}, type="paper")
    crm.register(type("Plugin", (), {"crm_record_types": hookimpl(lambda self: [paper])})())


@pytest.mark.parametrize("annotation", [Sensitive[Iban], Sensitive[TaxId], Sensitive[str], Sensitive[int],
                                        Sensitive[Annotated[int, Field(ge=0, lt=32)]]])  # fmt: skip
def test_sensitive_fields_with_many_values_may_be_searched(crm: CRM, annotation: Any) -> None:
    registered(crm, annotation)
    assert crm.collection("paper").info.fields["value"].searchable


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (str, "is for sensitive fields; a plain one is found without it"),
        (Personal[str], "is for sensitive fields; a personal one is found without it"),
        (Sensitive[CardNumber], "is not for a card"),
        (Sensitive[Password], "is not for a password"),
        (Sensitive[Token], "is not for a token"),
        (Sensitive[bool], "needs a field with 32 different values or more"),
        (Sensitive[Few], "needs a field with 32 different values or more"),
        (Sensitive[Colour], "needs a field with 32 different values or more"),
        (Sensitive[Literal["a", "b"]], "Sensitive holds text, a number, true or false, or a date"),
    ],
)
def test_what_tags_would_give_away_is_refused(crm: CRM, annotation: Any, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        registered(crm, annotation)
    assert set(caught.value.problems) == {"value"}
    assert why in caught.value.problems["value"]


def test_the_plan_keeps_to_the_rule_for_every_number_of_records() -> None:
    for records in [*range(8, 5_000), *(round(10 ** (step / 50)) for step in range(185, 351))]:
        candidates = records / 2 ** planned_bits(records)
        assert 2 <= candidates <= math.sqrt(records), records
    assert [planned_bits(records) for records in range(8)] == [1] * 8
    assert 7 <= planned_bits(10_000) <= 12
    assert planned_bits(100_000) == 12


@pytest.fixture
def numbered(crm: CRM, scale: Callable[[int], int]) -> dict[str, str]:
    """Customers with a tax id each, tagged with as many bits as their number asks for; tax ids by customer."""
    count = max(1_000, scale(2_000))
    with crm._store.lock():
        crm._vault.rotate_index(planned_bits(count))
    crm.customers.add_many([{"name": f"N{number}", "tax_id": f"GB{number:09}"} for number in range(count)])
    return {record.id: f"GB{record.name[1:]:0>9}" for record in crm.customers}


def test_a_tag_stands_for_about_as_many_records_as_planned(crm: CRM, numbered: dict[str, str]) -> None:
    bits = planned_bits(len(numbered))
    tags = Counter(doc[TAGS]["tax_id"] for doc in crm._store.tables()["customers"].values())
    planned = len(numbered) / 2**bits
    assert abs(statistics.mean(tags.values()) - planned) < planned / 5
    assert max(tags.values()) < planned + 6 * math.sqrt(planned)


def test_every_value_finds_its_own_record_and_no_other_of_its_tag(crm: CRM, numbered: dict[str, str]) -> None:
    for id, tax_id in list(numbered.items())[::50]:
        assert [record.id for record in crm.customers.find(F.tax_id == tax_id)] == [id]
    assert not crm.customers.find(F.tax_id == "GB999999999")


def test_tags_of_another_length_are_found_until_they_are_made_anew(crm: CRM) -> None:
    """A new key has its own length; what the old one tagged is found by both."""
    ada = crm.customers.add(name="Ada", tax_id="GB111111111")
    with crm._store.lock():
        crm._vault.rotate_index(7)
    bob = crm.customers.add(name="Bob", tax_id="GB222222222")
    tags = {doc["id"]: doc[TAGS]["tax_id"] for doc in crm._store.tables()["customers"].values()}
    assert (len(tags[ada.id]), len(tags[bob.id])) == (len("b1.00000002.fff"), len("b1.00000002.7f"))
    assert [key.bits for key in crm._vault.keys if key.purpose == "bidx"] == [10, 7]
    assert "older key" in str(crm.security.report())

    def both_are_found() -> None:
        for record, tax_id in ((ada, "GB111111111"), (bob, "GB222222222")):
            assert [found.id for found in crm.customers.find(F.tax_id == tax_id)] == [record.id]

    both_are_found()
    crm.keys.rotate("index")  # completes it: one key is left
    assert "older key" not in str(crm.security.report())
    both_are_found()


def test_a_rotation_plans_for_the_records_that_there_are(crm: CRM) -> None:
    crm.customers.add_many([{"name": f"N{number}", "tax_id": f"GB{number:09}"} for number in range(300)])
    crm.keys.rotate("index")
    assert {key.bits for key in crm._vault.keys if key.purpose == "bidx" and key.status == "primary"} == {
        planned_bits(300)
    }
    assert "do not fit" not in str(crm.security.report())
    assert len(crm.customers.find(F.tax_id == "GB000000123")) == 1


def test_whoever_was_behind_a_rotation_of_the_index_finds_all(crm: CRM) -> None:
    iban = "GB33BUKB20201555555555"
    ada = crm.customers.add(name="Ada", iban=iban)
    with crmkit.open(crm.workspace.folder) as behind:
        assert [each.id for each in behind.customers.find(F.iban == iban)] == [ada.id]
        crm.keys.rotate("index")
        assert [each.id for each in behind.customers.find(F.iban == iban)] == [ada.id]
        assert [each.id for each in behind.customers.search(iban)] == [ada.id]
