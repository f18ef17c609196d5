"""What reaches the disk: nothing personal, nothing sensitive; and what a reveal leaves behind."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import crmkit
from crmkit import CRM, Code, Damaged, F, Invalid, NotFound, Personal, Record, Reference, Sensitive, hookimpl
from crmkit.store.base import PlainCodec
from crmkit.store.tiny import TinyStore

CANARIES = {
    "name": "Canary Namewell",
    "email": "canary.mail@example.org",
    "phone": "+442079460999",
    "street": "Canary Street 17",
    "postcode": "CNR 4EE",
    "city": "Canaryville",
    "birthday": "1815-12-10",
    "job_title": "Canary Keeper",
    "website": "https://canary.example",
    "notes": "canary notes that nobody reads",
    "iban": "GB33BUKB20201555555555",
    "card": "4242424242424242",
    "tax_id": "CANARYTAX99",
}
CONTACT = {"kind": "email", "value": "second.canary@example.org"}


def forms(value: str) -> Iterator[bytes]:
    """Yield the ways in which a value might lie in a file."""
    yield value.encode()
    yield value.encode("utf-16-le")
    yield json.dumps(value)[1:-1].encode()
    yield value.encode().hex().encode()
    for shift in range(3):  # base64 has three alignments
        yield base64.b64encode(b"\0" * shift + value.encode())[4:-4]


def leaks(folder: Path, values: list[str]) -> set[str]:
    """Return which values lie anywhere in the files of a folder."""
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return {value for value in values for form in forms(value) if any(form in content for content in contents)}


def write_canaries(crm: CRM) -> list[str]:
    ada = crm.customers.add(**CANARIES, contacts=[CONTACT], number="7001")
    crm.customers.update(ada, city="Canaryville South")
    crm.interactions.add(customer=ada, title="canary title", text="canary text")
    with crm.transaction(reason="canary reason"):
        crm.customers.update(ada.id, notes="canary notes, changed")
    crm.reveal(ada, "iban", reason="canary wants a refund")
    crm.customers.remove(ada.id)
    more = [
        "Canaryville South",
        "canary title",
        "canary text",
        "canary reason",
        "canary wants a refund",
        "canary notes, changed",
    ]
    return [*CANARIES.values(), CONTACT["value"], *more]


@pytest.mark.shipped_plugins
def test_no_file_holds_a_personal_or_sensitive_value(crm: CRM, own_identity: Path) -> None:
    values = write_canaries(crm)
    crm.close()
    assert leaks(crm.workspace.folder, values) == set()
    assert leaks(own_identity, values) == set()
    assert b"7001" in (crm.workspace.data / "wal.1.jsonl").read_bytes(), "the search must see what is plain"


def test_the_search_for_canaries_finds_them_where_nothing_is_sealed(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a codec that seals no personal field."""
    monkeypatch.setattr(crm._codec, "_sealed", {})
    crm.customers.add(**{name: value for name, value in CANARIES.items() if name not in ("iban", "card", "tax_id")})
    assert CANARIES["name"] in leaks(crm.workspace.folder, list(CANARIES.values()))


class Address(BaseModel):
    place: Personal[str]


class Patient(Record, type="patient", plural="patients"):
    """Marks inside unions, tuples and nested models."""

    number: Code
    allergies: Sensitive[str] | None = None
    nicknames: tuple[Personal[str], ...] = ()
    addresses: tuple[Address, ...] | None = None
    doctor: Personal[str] | None = None


class Visit(Record, type="visit", plural="visits", subject="customer"):
    """A record whose subject is a customer."""

    customer: Reference[crmkit.Customer] | None = None
    diagnosis: Sensitive[str] | None = None
    text: Personal[str] | None = None


class Practice:
    @hookimpl
    def crm_record_types(self) -> list[type[Record]]:
        return [Patient, Visit]


def test_marks_inside_unions_tuples_and_nested_models_are_sealed(crm: CRM) -> None:
    crm.register(Practice())
    values = ["canary pollen", "canary nick", "canary lane", "canary doctor"]
    patient = crm.patients.add(
        number="1", allergies=values[0], nicknames=[values[1]], addresses=[{"place": values[2]}], doctor=values[3]
    )
    crm.close()
    assert leaks(crm.workspace.folder, values) == set()
    with crmkit.open(crm.workspace.folder, plugins=[Practice()]) as again:
        assert again.patients[patient.id] == patient
        assert again.patients[patient.id].addresses[0].place == "canary lane"
        assert again.reveal(patient, "allergies", reason="test").value == "canary pollen"


def test_records_of_an_absent_plugin_stay_sealed_and_come_back_with_it(crm: CRM) -> None:
    crm.register(Practice())
    patient = crm.patients.add(number="1", doctor="canary doctor")
    crm.close()
    with crmkit.open(crm.workspace.folder) as without:
        without.customers.add(name="Ada")
        assert "patients" not in dir(without)
        assert "canary" not in str(without._store.get("patients", patient.id))
    with crmkit.open(crm.workspace.folder, plugins=[Practice()]) as again:
        assert again.patients[patient.id].doctor == "canary doctor"


def test_a_record_is_sealed_under_its_subject_and_follows_it_to_another(crm: CRM) -> None:
    crm.register(Practice())
    ada, bob = crm.customers.add(name="Ada"), crm.customers.add(name="Bob")
    visit = crm.visits.add(customer=ada, diagnosis="canary cold", text="canary words")
    moved = crm.visits.update(visit, customer=bob)
    assert crm.reveal(moved, "diagnosis", reason="test").value == "canary cold"
    assert moved.text == "canary words"
    alone = crm.visits.update(moved, customer=None)
    assert crm.reveal(alone, "diagnosis", reason="test").value == "canary cold"
    crm.close()
    with crmkit.open(crm.workspace.folder, plugins=[Practice()]) as again:
        assert again.visits[visit.id].text == "canary words"


def test_an_envelope_that_was_moved_to_another_record_is_rejected(crm: CRM) -> None:
    ada, bob = crm.customers.add(name="Ada", city="London"), crm.customers.add(name="Bob", city="Paris")
    crm.close()
    raw = TinyStore(crm.workspace.data, PlainCodec())
    raw.register("customers")
    stolen = raw.get("customers", ada.id)["city"]  # type: ignore[index]
    raw.table("customers").update({"city": stolen}, doc_ids=[bob.id])
    raw.close()
    with pytest.raises(Damaged, match="cannot be opened") as caught:
        crmkit.open(crm.workspace.folder)
    assert "London" not in str(caught.value)


# --------------------------------------------------------------------------- secrets in and out


def test_reveal_is_audited_before_the_value_returns(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = crm.customers.add(name="Ada", iban=CANARIES["iban"])
    with crm.acting_as("ann"):
        opened = crm.reveal(ada, "iban", reason="refund 812")
    assert opened.value == CANARIES["iban"]
    assert repr(opened) == "GB•• •••• 5555"
    (entry,) = crm._vault.audit.entries()
    assert (entry["actor"], entry["action"], entry["record"], entry["fields"]) == ("ann", "reveal", ada.id, ["iban"])
    assert "refund" not in json.dumps(entry)

    def broken(**_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(crm._vault.audit, "append", broken)
    monkeypatch.setattr(crm._codec, "opened", lambda *_: pytest.fail("opened without an audit line"))
    with pytest.raises(crmkit.CrmError, match="no space"):
        crm.reveal(ada, "iban", reason="refund 813")


@pytest.mark.parametrize(
    ("field", "reason", "says"),
    [
        ("iban", " ", "say why"),
        ("name", "x", "not a sensitive field"),
        ("ibann", "x", "ibann: is not a field of customer; did you mean 'iban'"),
        ("card", "x", "is empty"),
    ],
)
def test_a_reveal_that_cannot_be(crm: CRM, field: str, reason: str, says: str) -> None:
    ada = crm.customers.add(name="Ada", iban=CANARIES["iban"])
    with pytest.raises(Invalid, match=says):
        crm.reveal(ada, field, reason=reason)
    assert list(crm._vault.audit.entries()) == []


def test_a_reveal_of_a_record_that_is_gone(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", iban=CANARIES["iban"])
    crm.customers.remove(ada)
    with pytest.raises(NotFound):
        crm.reveal(ada, "iban", reason="x")


def test_a_plugin_that_reveals_is_named_in_the_audit_log(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", iban=CANARIES["iban"])

    class Curious:
        @hookimpl
        def crm_timeline(self, crm: CRM, customer: crmkit.Customer) -> list[crmkit.Entry]:
            crm.reveal(customer, "iban", reason="curious")
            return []

    crm.register(Curious(), "curious")
    crm.timeline(ada)
    (entry,) = crm._vault.audit.entries()
    assert entry["plugin"] == "curious"


def test_a_secret_that_was_replaced_is_not_taken_for_the_one_that_is_stored(crm: CRM) -> None:
    first = crm.customers.add(name="Ada", iban="GB33BUKB20201555555555")
    shown = crm.reveal(first, "iban", reason="test")
    newer = crm.customers.update(first, iban="DE75512108001245126199")
    earlier = crm.history(first).records[0].before["iban"]
    for secret in (first.iban, shown, earlier):
        with pytest.raises(Invalid, match="no longer the secret that is stored") as error:
            crm.customers.update(newer, iban=secret, city="Paris")
        assert "BUKB" not in str(error.value)
    for secret in (newer.iban, crm.reveal(newer, "iban", reason="test")):
        assert crm.customers.update(newer, iban=secret) == newer
    emptied = crm.customers.update(newer, iban=None)
    with pytest.raises(Invalid, match="no longer"):
        crm.customers.update(emptied, iban=newer.iban)


def test_a_secret_goes_back_to_its_own_record_only(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", iban=CANARIES["iban"], card=CANARIES["card"])
    bob = crm.customers.add(name="Bob")
    assert crm.customers.update(ada, iban=ada.iban, city="London").rev == 2
    ada = crm.customers[ada.id]
    assert crm.reveal(ada, "iban", reason="x").value == CANARIES["iban"]
    for wrong in ({"iban": ada.card}, {"tax_id": ada.iban}):
        with pytest.raises(Invalid, match="another record or field"):
            crm.customers.update(ada, **wrong)
    with pytest.raises(Invalid, match="another record"):
        crm.customers.update(bob, iban=crm.reveal(ada, "iban", reason="x"))
    with pytest.raises(Invalid, match="another record"):
        crm.customers.add(name="Cid", iban=ada.iban)
    with pytest.raises(Invalid, match="mask"):
        crm.customers.update(bob, iban=str(ada.iban))
    assert crm.customers.find(F.iban == CANARIES["iban"]).records == [ada]
