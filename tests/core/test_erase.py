"""Erasing somebody: what goes, what stays for statistics, and what cannot come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import crmkit
from crmkit import CRM, Customer, F, LongText, Part, Personal, Record, Reference, Sensitive, hookimpl
from crmkit.codec import ERASED
from crmkit.vault.vault import Vault

IBAN = "GB33BUKB20201555555555"


class Seat(Part):
    """A row that is nothing without its reference, and one that it can do without."""

    guest: Reference[Customer]
    paid_by: Reference[Customer] | None = None


class Visit(Record, type="visit", plural="visits", subject="customer"):
    """Belongs to one customer."""

    customer: Reference[Customer]
    title: Personal[str]
    text: Personal[LongText] | None = None
    code: Sensitive[str] | None = None
    minutes: int = 0


class Birthday(Record, type="birthday", plural="birthdays", subject="customer"):
    """Cannot do without something personal that is no text."""

    customer: Reference[Customer]
    years: Personal[int]


class Dinner(Record, type="dinner", plural="dinners", subject=("host", "guests")):
    """Is about several customers."""

    title: Personal[str]
    host: Reference[Customer] | None = None
    guests: tuple[Reference[Customer], ...] = ()
    seats: tuple[Seat, ...] = ()
    note: Sensitive[str] | None = None


class Types:
    """The plugin of those types."""

    @hookimpl
    def crm_record_types(self) -> Iterable[type[Record]]:
        return [Visit, Birthday, Dinner]


@pytest.fixture(params=["personal", "sensitive"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A workspace of either seal level."""
    crmkit.create(tmp_path / "acme", seal=request.param).close()
    return tmp_path / "acme"


@pytest.fixture
def crm(place: Path) -> Iterator[CRM]:
    with crmkit.open(place, plugins=[Types()]) as opened:
        yield opened


def add_ada(crm: CRM, mark: str = "canary") -> Customer:
    """Add a customer of whom every value holds a mark."""
    ada: Customer = crm.customers.add(
        name=f"Ada {mark}",
        email=f"{mark}@example.org",
        phone="+441632960001",
        iban=IBAN,
        notes=f"likes {mark}",
        contacts=[{"kind": "email", "value": f"second.{mark}@example.org"}],
    )
    return ada


def holding(folder: Path, *marks: str) -> list[str]:
    """Return the files below a folder that hold a mark."""
    texts = {path: path.read_bytes().lower() for path in folder.rglob("*") if path.is_file()}
    return [path.name for path, text in texts.items() if any(mark.lower().encode() in text for mark in marks)]


def test_a_plan_changes_nothing(crm: CRM) -> None:
    ada = add_ada(crm)
    crm.visits.add(customer=ada, title="canary")
    before = crm.seq()
    plan = crm.erase(ada, reason="request 7", dry_run=True)
    assert (plan.deleted, plan.redacted, plan.unlinked) == ({"customer": 1}, {"visit": 1}, {})
    assert plan.addresses == 3
    assert "canary" not in repr(plan) + str(plan)
    assert crm.seq() == before
    assert crm.customers[ada.id].name == "Ada canary"
    assert crm.erasures() == []


def test_whoever_is_erased_is_nowhere(crm: CRM) -> None:
    ada = add_ada(crm)
    crm.visits.add(customer=ada, title="canary", text="canary text", code="canary-code", minutes=30)
    with crm.transaction(reason="because canary asked"):
        crm.customers.update(ada.id, city="canarytown")
    certificate = crm.erase(crm.customers[ada.id], reason="request 7")
    assert certificate.finished
    assert certificate.reason == "request 7"
    assert crm.erasures() == [certificate]
    assert crm.customers.get(ada.id) is None
    assert ada.id not in crm.customers
    assert crm.customers.search("canary") == []
    assert len(crm.customers.find(F.iban == IBAN).records) == 0
    assert [removed.record.id for removed in crm.customers.removed()] == []
    (visit,) = crm.visits.find()
    assert (visit.title, visit.text, visit.code, visit.minutes, visit.customer) == (ERASED, None, None, 30, ada.id)
    assert "canary" not in str([(e.before, e.after, e.reason) for e in crm.history(visit)])
    assert "canary" not in str([batch.reason for batch in crm.batches()])
    with pytest.raises(crmkit.Erased):
        crm.history(ada.id)
    with pytest.raises(crmkit.Erased):
        crm.erase(ada.id, reason="again")
    with pytest.raises(crmkit.NotFound):
        crm.customers.restore(ada.id)
    assert crm.verify() == []


def test_what_was_erased_is_in_no_file_and_behind_no_key(crm: CRM, place: Path) -> None:
    ada = add_ada(crm)
    crm.visits.add(customer=ada, title="canary", text="canary")
    crm.customers.update(ada.id, name="Other canary")
    crm.customers.remove(crm.customers[ada.id])
    crm.erase(ada.id, reason="request 7")
    assert holding(place, "canary") == []
    vault = Vault.unlock(place.keys if hasattr(place, "keys") else place / "keys")
    assert ada.id not in vault.subjects()
    with pytest.raises(crmkit.Erased):
        vault.ensure_subjects({ada.id})
    vault.close()


def test_nothing_personal_is_kept_under_somebody_who_was_erased(crm: CRM) -> None:
    ada = add_ada(crm)
    visit = crm.visits.add(customer=ada, title="canary", minutes=5)
    crm.erase(ada, reason="request 7")
    assert crm.visits.update(visit.id, minutes=6).minutes == 6
    with pytest.raises(crmkit.Erased):
        crm.visits.update(visit.id, title="somebody else")
    assert crm.visits[visit.id].title == ERASED


def test_a_record_that_cannot_do_without_goes(crm: CRM) -> None:
    ada = add_ada(crm)
    crm.birthdays.add(customer=ada, years=36)
    assert crm.erase(ada, reason="r").deleted == {"customer": 1, "birthday": 1}
    assert len(crm.birthdays) == 0


def test_a_record_of_several_people_loses_one_of_them(crm: CRM, place: Path) -> None:
    ada, bob = add_ada(crm), crm.customers.add(name="Bob")
    dinner = crm.dinners.add(
        title="Dinner",
        host=ada,
        guests=[ada, bob],
        seats=[{"guest": ada}, {"guest": bob, "paid_by": ada}],
        note="pudding",
    )
    crm.dinners.update(dinner.id, title="With canary")
    crm.dinners.update(dinner.id, title="Dinner")
    certificate = crm.erase(ada, reason="r")
    assert certificate.unlinked == {"dinner": 1}
    left = crm.dinners[dinner.id]
    assert (left.title, left.host, left.guests) == ("Dinner", None, (bob.id,))
    assert [(seat.guest, seat.paid_by) for seat in left.seats] == [(bob.id, None)]
    assert crm.reveal(left, "note", reason="r").value == "pudding"
    assert "canary" not in str([(e.before, e.after) for e in crm.history(left)])
    assert holding(place, "canary") == []
    crm.dinners.update(left, title="Still works")
    crm.close()
    with crmkit.open(place, plugins=[Types()]) as again:
        assert again.dinners[dinner.id].title == "Still works"
        assert again.verify() == []


def test_references_from_elsewhere_are_taken_back(crm: CRM) -> None:
    firm = crm.customers.add(name="Firm canary", kind="organisation")
    bob = crm.customers.add(name="Bob", organisation=firm)
    assert crm.erase(firm, reason="r").unlinked == {"customer": 1}
    assert crm.customers[bob.id].organisation is None
    assert crm.customers[bob.id].name == "Bob"


def test_whoever_was_merged_into_somebody_is_erased_too(crm: CRM, place: Path) -> None:
    ada, double = add_ada(crm), crm.customers.add(name="Double canary", email="double.canary@example.org")
    visit = crm.visits.add(customer=double, title="canary")
    crm.customers.merge(ada, [double])
    certificate = crm.erase(ada.id, reason="r")
    assert set(certificate.subjects) == {ada.id, double.id}
    assert crm.customers.get(double.id) is None
    assert crm.visits[visit.id].title == ERASED
    assert holding(place, "canary") == []


def test_the_past_knows_nobody_who_was_erased(crm: CRM) -> None:
    ada, bob = add_ada(crm), crm.customers.add(name="Bob")
    visit = crm.visits.add(customer=ada, title="canary")
    then = crm.visits[visit.id].updated_at
    crm.erase(ada, reason="r")
    past = crm.at(then)
    assert [customer.id for customer in past.customers] == [bob.id]
    assert "canary" not in str([dict(each) for each in past["visit"]])


def test_undo_does_not_bring_anybody_back(crm: CRM) -> None:
    made = crm.customers.add_many([{"name": "Ada canary"}, {"name": "Bob"}], reason="import")
    ada = next(each for each in crm.customers.find() if each.name == "Ada canary")
    removed = crm.customers.update(ada, city="x")
    certificate = crm.erase(removed, reason="r")
    with pytest.raises(crmkit.ChangedSince):
        crm.undo(made)
    assert crm.undo(made, skip_changed=True).left_out == (("customer", ada.id),)
    (batch,) = (each for each in crm.batches() if each.kind == "erase")
    for what in (batch, certificate.id):
        with pytest.raises(crmkit.Refused, match="an erasure cannot be undone"):
            crm.undo(what)
    with pytest.raises(crmkit.Refused, match="an erasure cannot be undone"):
        crm.undo(batch, skip_changed=True)


@pytest.mark.parametrize(
    "given",
    [
        {"name": "X", "email": "CANARY@example.org"},
        {"name": "X", "phone": "+44 1632 960001"},
        {"name": "X", "contacts": [{"kind": "email", "value": "canary@example.org"}]},
        {"name": "X", "email": "second.canary@example.org"},
    ],
)
def test_an_address_does_not_come_back_unnoticed(crm: CRM, given: dict[str, object]) -> None:
    bob = crm.customers.add(name="Bob")
    assert crm.customers.check(**given) == {}
    crm.erase(add_ada(crm), reason="r")
    for attempt in (
        lambda: crm.customers.add(**given),
        lambda: crm.customers.add_many([given]),
        lambda: crm.customers.update(bob, **{name: value for name, value in given.items() if name != "name"}),
    ):
        with pytest.raises(crmkit.Invalid, match="was erased") as refused:
            attempt()
        assert "canary" not in str(refused.value).lower()
        assert "960001" not in str(refused.value)
    assert crm.customers.check(**given) != {}


def test_somebody_may_come_back(crm: CRM) -> None:
    crm.erase(add_ada(crm), reason="r")
    with pytest.raises(crmkit.NotFound):
        crm.allow_again("nobody@example.org", reason="r")
    with pytest.raises(crmkit.Invalid, match=r"^address: is neither a mail address nor a phone number$"):
        crm.allow_again("notanaddress", reason="r")
    crm.allow_again("Canary@example.org", reason="came back")
    assert crm.customers.add(name="Ada", email="canary@example.org").email == "canary@example.org"
    with pytest.raises(crmkit.Invalid):
        crm.customers.add(name="Ada", phone="+441632960001")


def test_an_import_leaves_suppressed_addresses_out(crm: CRM, tmp_path: Path) -> None:
    crm.erase(add_ada(crm), reason="r")
    table = tmp_path / "people.csv"
    table.write_text("name,email\nAda,canary@example.org\nBob,bob@example.org\n")
    plan = crm.import_file(table, as_="customer")
    (bad,) = plan.bad
    assert "erased" in str(bad)
    assert "canary" not in str(bad)
    plan.apply(keep_good=True)
    assert [each.name for each in crm.customers.find()] == ["Bob"]


def test_another_process_that_is_open_forgets(crm: CRM, place: Path) -> None:
    with crmkit.open(place, plugins=[Types()]) as other:
        ada = add_ada(crm)
        visit = crm.visits.add(customer=ada, title="canary")
        assert other.customers[ada.id].name == "Ada canary"
        assert str(other.customers[ada.id].iban) == "GB•• •••• 5555"
        crm.erase(ada, reason="r")
        assert other.customers.get(ada.id) is None
        assert other.visits[visit.id].title == ERASED
        assert other.customers.search("canary") == []
        with pytest.raises(crmkit.Invalid, match="does not exist"):
            other.visits.add(customer=ada, title="more")
        with pytest.raises(crmkit.Invalid):
            other.customers.add(name="A", email="canary@example.org")


def test_a_process_that_was_behind_reads_on(crm: CRM, place: Path) -> None:
    with crmkit.open(place, plugins=[Types()]) as other:
        len(other.customers)
        for number in range(3):
            ada = add_ada(crm, f"canary{number}") if number == 0 else crm.customers.add(name=f"canary{number}")
            crm.visits.add(customer=ada, title="canary")
            crm.erase(ada, reason="r")
        assert len(other.customers) == 0
        assert {visit.title for visit in other.visits.find()} == {ERASED}
        assert other.verify() == []


def test_a_plugin_that_comes_back_finds_nothing_of_the_person(place: Path) -> None:
    with crmkit.open(place, plugins=[Types()]) as crm:
        ada = add_ada(crm)
        visit = crm.visits.add(customer=ada, title="canary", text="canary", minutes=7)
    with crmkit.open(place) as without:
        certificate = without.erase(ada.id, reason="r")
        assert certificate.redacted == {}
    with crmkit.open(place, plugins=[Types()]) as back:
        assert (back.visits[visit.id].title, back.visits[visit.id].minutes) == (ERASED, 7)
    assert holding(place, "canary") == []
    with crmkit.open(place, plugins=[Types()]) as again:
        assert len(again.erasures()) == 2
        assert again.verify() == []


@pytest.mark.parametrize("record", ["nobody", "visit"])
def test_what_cannot_be_erased(crm: CRM, record: str) -> None:
    ada = add_ada(crm)
    visit = crm.visits.add(customer=ada, title="x")
    if record == "visit":
        with pytest.raises(crmkit.Invalid, match="belongs to its customer"):
            crm.erase(visit, reason="r")
    else:
        for given in ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "Ada Canary", "ada.canary@example.org"):
            with pytest.raises(crmkit.NotFound) as caught:
                crm.erase(given, reason="r")
            assert "anary" not in str(caught.value)
    with pytest.raises(crmkit.Invalid, match="reason"):
        crm.erase(ada, reason=" ")
    with crm.transaction(), pytest.raises(crmkit.Refused):
        crm.erase(ada, reason="r")


# ------------------------------------------------------------------------------------------------ backups


def restored(backups: Path, folder: Path) -> Iterator[CRM]:
    """Restore every data backup of a folder."""
    for number, data in enumerate(sorted(backups.glob("*.data.zip.age"))):
        with crmkit.restore(data, folder / str(number)) as crm:
            crm.register(Types())
            yield crm


def test_no_older_backup_brings_anybody_back(crm: CRM, place: Path, tmp_path: Path) -> None:
    people = [
        add_ada(crm, f"canary{number}") if not number else crm.customers.add(name=f"canary{number}")
        for number in range(4)
    ]
    backups = tmp_path / "backups"
    for each in people:
        crm.visits.add(customer=each, title=f"with {each.name}")
        crm.backup(backups)
    for each in people[:3]:
        crm.erase(each, reason="r")
    crm.backup(backups)
    count = 0
    for back in restored(backups, tmp_path / "restored"):
        count += 1
        assert [customer.name for customer in back.customers.find()] == ["canary3"]
        assert {visit.title for visit in back.visits.find()} <= {ERASED, "with canary3"}
        assert back.verify() == []
        if back.profile.seal == "personal":
            assert holding(back.workspace.folder, "canary0", "canary1", "canary2") == []
    assert count == 5


@pytest.mark.proof
def test_nobody_comes_back(tmp_path: Path, scale: Callable[[int], int], record_property: Any) -> None:
    """Many people, erased at random between backups; every backup is restored with the newest keys."""
    seed = Random().getrandbits(32)
    chance, count = Random(seed), scale(50)
    with crmkit.create(tmp_path / "acme") as crm:
        crm.customers.add_many(
            [{"name": f"canary{number}", "email": f"canary{number}@example.org"} for number in range(count)]
        )
        left, gone = [each.id for each in crm.customers.find(limit=count)], []
        chance.shuffle(left)
        while left:
            crm.backup(tmp_path / "backups")
            gone += (now := [left.pop() for _ in range(min(len(left), max(1, count // 4)))])
            for id in now:
                if chance.random() < 0.5:
                    crm.customers.update(id, notes=f"more of {id}")
                crm.erase(id, reason="r")
        crm.backup(tmp_path / "backups")
        suppressed = [crm.customers.check(name="X", email=f"canary{number}@example.org") for number in range(count)]
    assert all(suppressed)
    resurrected = 0
    for number, data in enumerate(sorted((tmp_path / "backups").glob("*.data.zip.age"))):
        with crmkit.restore(data, tmp_path / f"restored{number}") as back:
            resurrected += len(back.customers) + sum(back.customers.get(id) is not None for id in gone)
            resurrected += len(holding(back.workspace.folder, *(f"canary{number}@" for number in range(count))))
    record_property("seed", seed)
    record_property("erased", len(gone))
    record_property("backups", number + 1)
    assert (resurrected, len(gone)) == (0, count)


def test_keys_that_were_saved_before_bring_nobody_back_to_the_same_user(crm: CRM, tmp_path: Path) -> None:
    ada = add_ada(crm)
    crm.backup(tmp_path / "backups")
    crm.erase(ada, reason="r")  # and no new backup is made
    (_back,) = restored(tmp_path / "backups", tmp_path / "restored")
    with crmkit.open(tmp_path / "restored" / "0") as again:
        assert again.customers.get(ada.id) is None
        assert again.erasures()[0].subjects == (ada.id,)


def test_control_a_backup_of_keys_that_nobody_remembers_brings_them_back(
    crm: CRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = add_ada(crm)
    crm.backup(tmp_path / "backups")
    crm.erase(ada, reason="r")
    monkeypatch.setattr("crmkit.vault.erasures.Erasures.known_elsewhere", lambda self: {})
    with crmkit.restore(tmp_path / "backups", tmp_path / "restored") as back:
        assert back.customers[ada.id].name == "Ada canary"
