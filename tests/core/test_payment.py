"""Card numbers and IBANs that stand in notes: offered to be moved in imports, in the form, and where stored already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crmkit import CRM, Conflict, Invalid, Refused
from crmkit.forbidden import REASON
from crmkit.payment import moves

CARD = "4111 1111 1111 1111"
OTHER_CARD = "5555555555554444"
IBAN = "DE89 3704 0044 0532 0130 00"


CODE = f"she read out {CARD}, CVV 123"


def revealed(crm: CRM, record: Any, field: str) -> str:
    return str(crm.reveal(record, field, reason="test").value)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text(f"name,notes,card\nAda,card {CARD} and {IBAN},\nBob,likes tea,\nCy,{OTHER_CARD},{CARD}\n")
    return path


# --------------------------------------------------------------------------- what is stored already


def test_stored_texts_with_payment_data_are_listed_without_the_numbers(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", notes=f"card {CARD}", tags=(OTHER_CARD,))
    crm.customers.add(name="Bob", notes="order 4711", card=OTHER_CARD)
    crm.customers.add(name="Cy", contacts=[{"kind": "address", "value": IBAN}])
    found = list(crm.security.payment_data())
    assert [(each.field, each.found.kind) for each in found] == [
        ("tags.0", "card"), ("notes", "card"), ("contacts.0.value", "iban"),
    ]  # fmt: skip
    assert found[0].record == ada
    assert crm.security.payment_data().counted() == "2 card numbers, 1 IBAN"
    assert len(repr(crm.security.payment_data()).splitlines()) == 3
    assert not any(digits in f"{found} {' '.join(map(str, found))}" for digits in ("4111", "5555555", "3704"))


def test_moving_takes_one_commit_and_can_be_undone(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", notes=f"Pays by {CARD}, or {IBAN}. Likes tea.")
    before = crm.seq()
    moved = crm.security.move(ada, "notes")
    assert crm.seq() == before + 1
    assert moved.notes == "Pays by (card moved), or (IBAN moved). Likes tea."
    assert revealed(crm, moved, "card") == CARD.replace(" ", "")
    assert revealed(crm, moved, "iban") == IBAN.replace(" ", "")
    assert not list(crm.security.payment_data())
    assert repr(crm.security.payment_data()) == "no card number or IBAN stands in a text"
    crm.undo(crm.history(moved).records[0])
    back = crm.customers[ada.id]
    assert (back.notes, back.card, back.iban) == (ada.notes, None, None)


def test_what_cannot_be_moved_is_refused_and_left_as_it_is(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", notes=f"new card {OTHER_CARD}", card=CARD)
    with pytest.raises(Refused, match="notes: Card number is filled already") as caught:
        crm.security.move(ada, "notes")
    assert "5555" not in str(caught.value)
    for field in ("city", "tags", "contacts", "no_field"):
        with pytest.raises(Refused, match="no card number or IBAN"):
            crm.security.move(ada, field)
    with pytest.raises(Invalid):
        crm.security.move(ada.id, "notes")
    assert crm.customers[ada.id] == ada
    crm.customers.update(ada, card=None)
    with pytest.raises(Conflict):
        crm.security.move(ada.model_copy(update={"card": None}), "notes")


@pytest.mark.shipped_plugins
def test_the_first_number_goes_and_the_second_stays(crm: CRM) -> None:
    changes = moves(crm.customers.info, {"notes": f"{CARD} {OTHER_CARD}"}, "notes")
    assert (changes["notes"], changes["card"].value) == (f"(card moved) {OTHER_CARD}", CARD.replace(" ", ""))
    assert moves(crm.customers.info, {"notes": f" {CARD}. "}, "notes")["notes"] is None, "it was nothing else"
    interaction = crm.interactions.info
    assert moves(interaction, {"text": CARD}, "text") == {}  # no field for it there


# --------------------------------------------------------------------------- an import


def test_an_import_says_where_numbers_stand_and_leaves_them(crm: CRM, table: Path) -> None:
    plan = crm.import_file(table, as_="customer")
    assert [(cell.line, cell.field, cell.what) for cell in plan.payment] == [
        (2, "notes", "a card number and an IBAN"), (4, "notes", "a card number"),
    ]  # fmt: skip
    assert "mind: 2 texts hold a card number or an IBAN" in plan.summary()
    assert not any(digits in f"{plan.summary()} {plan.to_dict()}" for digits in ("4111", "5555555", "3704"))
    plan.apply()
    assert [getattr(each.record, "name", "") for each in crm.security.payment_data()] == ["Ada", "Ada", "Cy"]


def test_an_import_moves_them_where_asked(crm: CRM, table: Path) -> None:
    plan = crm.import_file(table, as_="customer")
    assert plan.move_sensitive() == 1
    assert [cell.line for cell in plan.payment] == [4]  # its card is filled by another column
    plan.apply()
    ada, bob, cy = crm.customers.find(order="name")
    assert (ada.notes, bob.notes, cy.notes) == ("card (card moved) and (IBAN moved)", "likes tea", OTHER_CARD)
    assert revealed(crm, ada, "card") == CARD.replace(" ", "")
    assert revealed(crm, ada, "iban") == IBAN.replace(" ", "")
    with pytest.raises(Refused, match="applied already"):
        plan.move_sensitive()


def test_a_number_that_is_all_of_a_required_text_stays(crm: CRM, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f"name\n{CARD}\n")
    plan = crm.import_file(path, as_="customer")
    assert plan.move_sensitive() == 0
    assert [cell.field for cell in plan.payment] == ["name"]


# --------------------------------------------------------------------------- reasons are free text too


def test_a_reason_with_a_security_code_is_refused_and_kept_nowhere(crm: CRM, tmp_path: Path) -> None:
    ada = crm.customers.add(name="Ada", iban=IBAN)
    crm.erase(crm.customers.add(name="Bob", email="bob@example.org"), reason="request 8")
    seq, lines = crm.seq(), len(list(crm.audit))

    def in_a_transaction(reason: str) -> None:
        with crm.transaction(reason):
            crm.customers.update(ada, city="Paris")

    deeds: dict[str, Callable[[str], object]] = {
        "reveal": lambda reason: crm.reveal(ada, "iban", reason=reason),
        "allow": lambda reason: crm.allow_again("bob@example.org", reason=reason),
        "transaction": in_a_transaction,
        "export": lambda reason: crm.export("customer", tmp_path / "out.csv", reveal=reason),
        "erase": lambda reason: crm.erase(ada, reason=reason),
    }
    for name, deed in deeds.items():
        with pytest.raises(Invalid) as caught:
            deed(CODE)
        assert caught.value.problems == {"reveal" if name == "export" else "reason": REASON}, name
    assert (crm.seq(), len(list(crm.audit))) == (seq, lines)
    for deed in deeds.values():  # the control: a card number alone may be said
        deed(f"about {CARD}")
