"""The form's state: problems while typing, drafts, conflicts, references, nested rows."""

from __future__ import annotations

from typing import Any

import pytest

import crmkit
from crmkit.ui.viewmodels.form import FormModel


def form(crm: crmkit.CRM, record: Any = None) -> FormModel:
    """A form for a customer."""
    return FormModel(crm, "customer", record)


def test_problem_while_typing_and_gone_when_right(crm: crmkit.CRM, ada: Any) -> None:
    """A wrong value is told beside its field, without a write."""
    model = form(crm, ada)
    model.set("email", "nobody")
    assert list(model.problems) == ["email"]
    assert "nobody" not in model.problems["email"]
    assert model.save() is None
    assert crm.customers[ada.id].rev == ada.rev
    model.set("email", "nobody@example.org")
    assert model.problems == {}
    saved = model.save()
    assert saved is not None
    assert (saved.email, model.dirty) == ("nobody@example.org", [])


def test_typing_the_stored_value_is_no_change(crm: crmkit.CRM, ada: Any) -> None:
    """What reads as before is clean again."""
    model = form(crm, ada)
    model.set("city", "Paris")
    assert model.dirty == ["city"]
    model.set("city", "London")
    assert model.dirty == []


def test_new_record_asks_for_required_fields_on_save_only(crm: crmkit.CRM) -> None:
    """Nobody is told off for a field that they did not come to yet."""
    model = form(crm)
    model.set("city", "Oslo")
    assert model.problems == {}
    assert model.save() is None
    assert model.problems == {"name": "is required"}
    model.set("name", "Ole")
    assert model.save() is not None
    assert crm.customers.count() == 1


def test_clearing_a_field(crm: crmkit.CRM, ada: Any) -> None:
    """Empty text takes the value away."""
    model = form(crm, ada)
    model.set("email", "")
    saved = model.save()
    assert saved is not None
    assert saved.email is None


def test_changes_of_others_in_other_fields_are_joined(crm: crmkit.CRM, ada: Any) -> None:
    """Two people who edit different fields do not meet."""
    model = form(crm, ada)
    model.set("city", "Bath")
    crm.customers.update(ada, email="new@example.org")
    saved = model.save()
    assert saved is not None
    assert (saved.city, saved.email) == ("Bath", "new@example.org")


def test_conflict_is_kept_or_taken_and_nothing_is_lost(crm: crmkit.CRM, ada: Any) -> None:
    """Both values are there; each field is settled by itself."""
    model = form(crm, ada)
    for name, value in {"city": "Bath", "region": "Mine", "street": "Mill Lane"}.items():
        model.set(name, value)
    crm.customers.update(ada, city="York", region="Theirs")
    assert model.save() is None
    assert model.state()["conflicts"] == {"city": "York", "region": "Theirs"}
    assert {name: model.value(name) for name in ("city", "street")} == {"city": "Bath", "street": "Mill Lane"}
    assert model.save() is None, "unsettled conflicts must not be overwritten by a second Save"
    assert crm.customers[ada.id].city == "York"
    model.keep("city")
    model.take("region")
    saved = model.save()
    assert saved is not None
    assert (saved.city, saved.region, saved.street) == ("Bath", "Theirs", "Mill Lane")


def test_conflict_control_last_writer_wins(crm: crmkit.CRM, ada: Any) -> None:
    """The naive form, which saves by id whatever is stored, loses the other's change: the test above must catch it."""
    crm.customers.update(ada, city="York")
    crm.customers.update(ada.id, city="Bath")
    assert crm.customers[ada.id].city != "York"


def test_same_change_by_both_is_no_conflict(crm: crmkit.CRM, ada: Any) -> None:
    """Who typed what the others saved has nothing to settle."""
    model = form(crm, ada)
    model.set("city", "York")
    crm.customers.update(ada, city="York")
    assert model.refresh()
    assert (model.conflicts, model.dirty) == ({}, [])


def test_reference_is_suggested_and_labelled(crm: crmkit.CRM, ada: Any) -> None:
    """A reference is found by typing and shown by its title."""
    company = crm.customers.add(name="Analytical Engines", kind="organisation", city="London")
    model = form(crm, ada)
    assert [item["label"] for item in model.suggest("organisation", "analyt")] == ["Analytical Engines"]
    assert model.suggest("organisation", "  ") == []
    model.set("organisation", company.id)
    assert model.labels() == {company.id: "Analytical Engines"}
    saved = model.save()
    assert saved is not None
    assert saved.organisation == company.id


def test_nested_rows(crm: crmkit.CRM, ada: Any) -> None:
    """Rows are edited as lists of cells; a problem names its row; empty rows are dropped."""
    model = form(crm, ada)
    rows = [{"kind": "email", "value": "bad", "label": ""}, {"kind": "", "value": "", "label": ""}]
    model.set("contacts", rows)
    assert "row 1" in model.problems["contacts"]
    rows[0]["value"] = "good@example.org"
    model.set("contacts", rows)
    saved = model.save()
    assert saved is not None
    assert [contact.value for contact in saved.contacts] == ["good@example.org"]


def test_purchase_with_product_rows(crm: crmkit.CRM) -> None:
    """References inside rows are suggested by their dotted name."""
    product = crm.products.add(name="Lamp", price="3.00")
    model = FormModel(crm, "purchase")
    assert [item["id"] for item in model.suggest("lines.product", "lam")] == [product.id]
    model.set("number", "P1")
    model.set("purchased_on", "2026-11-01")
    model.set("lines", [{"product": product.id, "quantity": "2", "unit_price": "3.00", "discount": ""}])
    assert model.labels() == {product.id: "Lamp"}
    saved = model.save()
    assert saved is not None
    assert str(saved.total) == "6.00 EUR"


@pytest.mark.parametrize("record", [True, False])
def test_no_sensitive_value_in_anything_shown(crm: crmkit.CRM, ada: Any, record: bool) -> None:
    """A stored record's form leaves sensitive fields to their own view; a new one's never gives back what was typed."""
    model = form(crm, ada if record else None)
    if not record:
        model.set("name", "Zoe")
        model.save({"iban": "not an iban"})
        assert model.problems == {"iban": model.problems["iban"]}
        saved = model.save({"iban": "GB33BUKB20201555555555"})
        assert str(saved.iban) == "GB•• •••• 5555"  # type: ignore[union-attr]
    shown = str(model.describe()) + str(model.state()) + str(model.values())
    assert "5555" not in shown
    assert "iban" not in model.values()


def test_wrong_message_contents_are_problems_not_crashes(crm: crmkit.CRM, ada: Any) -> None:
    """What a broken page may send is refused by field."""
    model = form(crm, ada)
    model.set("unknown", "x")
    model.set("contacts", "no list")
    model.set("tags", {"not": "a list"})
    model.set("birthday", ["2026"])
    assert model.dirty != []
    assert "birthday" in model.problems


CARD, OTHER_CARD = "4111 1111 1111 1111", "5555555555554444"


def test_a_card_number_in_notes_is_offered_to_be_moved(crm: crmkit.CRM, ada: Any) -> None:
    """It leaves the text, waits masked, and is saved in the sensitive field with the rest."""
    model = form(crm, ada)
    assert model.found() == {}
    model.set("notes", f"Pays by {CARD}. Likes tea.")
    assert model.found()["notes"]["move"] == "Move to Card number"
    assert "4111" not in str(model.found())
    model.move("notes")
    state = model.state()
    assert (state["found"], state["moved"], state["dirty"]) == ({}, {"card": "•••• •••• •••• 1111"}, ["notes", "card"])
    assert model.value("notes") == "Pays by (card moved). Likes tea."
    assert "4111" not in repr(vars(model))
    saved = model.save()
    assert saved is not None
    assert (saved.notes, model.dirty) == ("Pays by (card moved). Likes tea.", [])
    assert crm.reveal(saved, "card", reason="test").value == CARD.replace(" ", "")


def test_a_number_is_not_moved_over_another_one(crm: crmkit.CRM, ada: Any) -> None:
    """A field that is filled, here or on the page, is left; so is one that somebody else filled before Save."""
    model = form(crm, ada)
    model.set("notes", "DE89370400440532013000")
    assert model.found() == {}  # the IBAN is filled
    model.set("notes", CARD)
    model.move("notes", ["card"])
    assert (model.moved, model.value("notes")) == ({}, CARD)
    model.move("notes")
    crm.customers.update(ada, card=OTHER_CARD)
    assert model.save() is None
    assert crm.reveal(crm.customers[ada.id], "card", reason="test").value == OTHER_CARD
    assert "Somebody else filled Card number meanwhile" in model.note
    model.revert()
    assert (model.dirty, model.value("notes")) == ([], "")


def test_a_number_moves_in_a_form_for_a_new_record(crm: crmkit.CRM) -> None:
    """Nothing of it is kept in what the page is told."""
    model = form(crm)
    model.set("name", "Zoe")
    model.set("street", f"{CARD} Main Street")
    model.move("street")
    assert "4111" not in f"{model.values()} {model.state()}"
    saved = model.save({"tax_id": "GB123456"})
    assert saved is not None
    assert (saved.street, str(saved.card)) == ("(card moved) Main Street", "•••• •••• •••• 1111")
