"""How far an erasure reaches, and how far it must not: other people, other processes, other days."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit import CRM, Personal, Record, hookimpl
from crmkit.codec import ERASED
from crmkit.privacy.erasure import Eraser
from tests.core.test_erase import IBAN, Types, add_ada, holding


class Late(Record, type="late", plural="lates"):
    title: Personal[str]


class More:
    """A plugin that comes late."""

    @hookimpl
    def crm_record_types(self) -> Iterable[type[Record]]:
        return [Late]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    crmkit.create(tmp_path / "acme").close()
    return tmp_path / "acme"


@pytest.fixture
def crm(place: Path) -> Iterator[CRM]:
    with crmkit.open(place, plugins=[Types()]) as opened:
        yield opened


def test_whoever_was_behind_a_rotation_redacts_nobody(crm: CRM, place: Path) -> None:
    old = crm.customers.add(name="Old", iban=IBAN)
    with crmkit.open(place) as behind:
        assert len(behind.customers) == 1
        crm.customers.add(name="Bob", iban=IBAN, email="bob@example.org")
        crm.customers.update(old, notes="some")
        crm.keys.rotate("data")
        crm.keys.drop_old()
        assert {each.name for each in behind.customers} == {"Old", "Bob"}
        behind.register(Types())
        assert {each.name for each in behind.customers} == {"Old", "Bob"}
        assert {behind.reveal(each, "iban", reason="r").value for each in behind.customers} == {IBAN}
    assert crm.erasures() == []


def test_whoever_was_behind_an_erasure_redacts_nobody_else(crm: CRM, place: Path) -> None:
    with crmkit.open(place, plugins=[Types()]) as behind:
        len(behind.customers)
        ada, bob = add_ada(crm), crm.customers.add(name="Bob")
        dinner = crm.dinners.add(title="Dinner", guests=[ada, bob], note="pudding")
        crm.erase(ada, reason="r")
        assert behind.dinners[dinner.id].title == "Dinner"
        behind.register(More())
        assert behind.reveal(behind.dinners[dinner.id], "note", reason="r").value == "pudding"
    assert len(crm.erasures()) == 1


def test_older_data_beside_newer_keys_is_damage_and_stays_as_it_is(crm: CRM, place: Path, tmp_path: Path) -> None:
    crm.customers.add_many([{"name": "Ada"}, {"name": "Bob"}])
    crm.close()
    shutil.copytree(place / "data", tmp_path / "data")
    with crmkit.open(place) as newer:
        newer.keys.rotate("data")
        newer.keys.drop_old()
    shutil.rmtree(place / "data")
    shutil.copytree(tmp_path / "data", place / "data")
    before = {path.name: path.read_bytes() for path in (place / "data").glob("*.jsonl")}
    for _ in range(2):
        with pytest.raises(crmkit.Damaged, match="data and keys are not of one day"):
            crmkit.open(place)
    assert {path.name: path.read_bytes() for path in (place / "data").glob("*.jsonl")} == before


def test_a_backup_that_went_dark_is_not_restored(crm: CRM, tmp_path: Path) -> None:
    ada = add_ada(crm)
    crm.customers.add_many([{"name": f"Customer {number}"} for number in range(3)])
    first = crm.backup(tmp_path / "backups")
    crm.erase(ada, reason="r")
    crm.keys.rotate("data")
    crm.keys.drop_old()
    crm.backup(tmp_path / "backups")
    with pytest.raises(crmkit.Damaged, match="data and keys are not of one day"):
        crmkit.restore(first.data, tmp_path / "dark")
    assert not (tmp_path / "dark").exists()
    with crmkit.restore(tmp_path / "backups", tmp_path / "newest") as back:
        assert len(back.customers) == 3


def test_whoever_was_merged_away_is_erased_with_the_winner(crm: CRM) -> None:
    ada, double = add_ada(crm), crm.customers.add(name="Double")
    crm.customers.merge(ada, [double])
    with pytest.raises(crmkit.Refused, match=f"was merged into {ada.id}"):
        crm.erase(double.id, reason="r")
    assert crm.erasures() == []


def test_a_record_that_was_about_nobody_else_keeps_nothing(crm: CRM, place: Path) -> None:
    ada = add_ada(crm)
    dinner = crm.dinners.add(title="With canary", host=ada, guests=[ada], note="canary")
    assert crm.erase(ada, reason="r").redacted == {"dinner": 1}
    left = crm.dinners[dinner.id]
    assert (left.title, left.note, left.host) == (ERASED, None, None)
    assert "canary" not in str([(each.before, each.after) for each in crm.history(left)])


def test_a_record_that_was_about_the_person_once_forgets_that(crm: CRM) -> None:
    ada, bob = add_ada(crm), crm.customers.add(name="Bob")
    dinner = crm.dinners.add(title="canary and Bob", guests=[ada, bob], note="pudding")
    crm.dinners.update(dinner, title="Bob alone", guests=[bob])
    assert "canary" in str([each.before for each in crm.history(dinner.id)])
    crm.erase(ada, reason="r")
    assert "canary" not in str([(each.before, each.after) for each in crm.history(dinner.id)])
    assert crm.dinners[dinner.id].title == "Bob alone"
    assert crm.reveal(crm.dinners[dinner.id], "note", reason="r").value == "pudding"


def test_the_past_of_others_can_be_read(crm: CRM) -> None:
    ada, bob = add_ada(crm), crm.customers.add(name="Bob")
    for each in (ada, bob):
        visit = crm.visits.add(customer=each, title=f"with {each.name}")
        crm.visits.update(visit, title=f"again with {each.name}")
    crm.dinners.update(crm.dinners.add(title="Dinner", guests=[ada, bob]), title="Late dinner")
    then = datetime.now(UTC)
    crm.erase(ada, reason="r")
    past = crm.at(then)
    assert {visit.title for visit in past["visit"]} == {ERASED, "again with Bob"}
    assert len(list(past["dinner"])) == 1
    assert "canary" not in str([dict(each) for each in past["dinner"]])


def test_what_a_full_disk_cut_short_is_finished_by_asking_again(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = add_ada(crm)
    commit = Eraser._commit
    monkeypatch.setattr(Eraser, "_commit", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(crmkit.CrmError, match="No space left"):
        crm.erase(ada, reason="r")
    with pytest.raises(crmkit.Erased):
        crm.customers.update(ada.id, city="Paris")
    monkeypatch.setattr(Eraser, "_commit", commit)
    assert ada.id in crm.erase(ada.id, reason="r").subjects
    assert crm.customers.get(ada.id) is None
    with pytest.raises(crmkit.Erased):
        crm.erase(ada.id, reason="r")


def test_many_records_about_several_people_cost_one_rewrite_of_the_keys(
    crm: CRM, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = add_ada(crm), crm.customers.add(name="Bob")
    crm.dinners.add_many([{"title": "Dinner", "guests": [ada, bob]} for _ in range(40)])
    calls: list[str] = []
    for name in ("new_generation", "drop_generations", "destroy"):
        real: Any = getattr(crm._vault, name)
        monkeypatch.setattr(crm._vault, name, lambda *a, _n=name, _r=real, **k: calls.append(_n) or _r(*a, **k))
    assert crm.erase(ada, reason="r").unlinked == {"dinner": 40}
    assert sorted(calls) == ["destroy", "drop_generations", "new_generation"]


def test_the_certificate_names_what_was_not_reached(tmp_path: Path) -> None:
    with crmkit.create(tmp_path / "acme", seal="sensitive") as crm:
        crm.register(Types())
        ada = add_ada(crm)
        crm.visits.add(customer=ada, title="canary")
        crm.backup(tmp_path / "backups")
    with crmkit.open(tmp_path / "acme") as without:
        notes = " ".join(without.erase(ada.id, reason="r").notes)
    assert "visits" in notes
    assert "older backups hold personal values in the clear" in notes
    assert holding(tmp_path / "acme", "canary") != []


def test_a_ledger_that_was_taken_away_is_written_again(crm: CRM, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = add_ada(crm)
    crm.erase(ada, reason="r")
    crm.close()
    (place / "keys" / "erasures.jsonl").unlink()
    config = place.parent / "somebody else"
    shutil.copytree(place.parent / "config", config)
    (config / "trust.json").unlink()
    monkeypatch.setenv("CRMKIT_CONFIG", str(config))
    with crmkit.open(place) as again:
        assert again._vault.erasures.at(ada.id)


def test_undo_leaves_out_what_was_somebodys_who_was_erased(crm: CRM) -> None:
    ada, double = add_ada(crm), crm.customers.add(name="Double canary")
    visit = crm.visits.add(customer=double, title="with canary")
    bob = crm.customers.add(name="Bob")
    merged = crm.customers.merge(ada, [double])
    made = crm.customers.add_many([{"name": "Eve"}], part_of=merged)
    crm.erase(ada, reason="r")
    with pytest.raises(crmkit.ChangedSince):
        crm.undo(made)
    undone = crm.undo(made, skip_changed=True)
    assert {id for _, id in undone.left_out} == {ada.id, double.id, visit.id}
    assert [each.name for each in crm.customers.find()] == ["Bob"]
    assert crm.visits[visit.id].title == ERASED
    assert bob.id in crm.customers


@pytest.mark.parametrize("seal", ["personal", "sensitive"])
def test_what_a_record_told_of_somebody_before_it_became_anothers_goes(tmp_path: Path, seal: Any) -> None:
    crmkit.create(tmp_path / "acme", seal=seal).close()
    with crmkit.open(tmp_path / "acme", plugins=[Types()]) as crm:
        ada, bob = add_ada(crm), crm.customers.add(name="Bob")
        visit = crm.visits.add(customer=ada, title="first canary", text="canary", code="canary")
        crm.visits.update(visit.id, title="second canary")
        crm.visits.update(visit.id, customer=bob, title="with Bob", text="of Bob", code="Bob's")
        crm.visits.update(visit.id, title="again with Bob")
        crm.erase(ada, reason="r")
        assert holding(tmp_path / "acme", "canary") == []
        told = crm.history(visit.id).records
        assert "canary" not in str([(entry.before, entry.after) for entry in told])
        assert told[0].before == {"title": "with Bob"}
        assert crm.visits[visit.id].text == "of Bob"


@pytest.mark.parametrize("seal", ["personal", "sensitive"])
def test_the_past_can_be_read_where_a_secret_was_taken_out_of_it(tmp_path: Path, seal: Any) -> None:
    crmkit.create(tmp_path / "acme", seal=seal).close()
    with crmkit.open(tmp_path / "acme", plugins=[Types()]) as crm:
        ada, bob = add_ada(crm), crm.customers.add(name="Bob")
        dinner = crm.dinners.add(title="Dinner", guests=[ada, bob], note="pudding")
        crm.dinners.update(dinner.id, note="cheese")
        visit = crm.visits.add(customer=bob, title="with Bob", code="Bob's")
        then = datetime.now(UTC)
        crm.dinners.update(dinner.id, note="fruit")
        crm.visits.update(visit.id, customer=ada, title="canary", code="canary")
        crm.erase(ada, reason="r")
        past = crm.at(then)
        assert [each.id for each in past["dinner"]] == [dinner.id]
        assert [each.id for each in past["visit"]] == [visit.id]


@pytest.mark.parametrize("seal", ["personal", "sensitive"])
def test_a_backup_from_before_a_record_of_several_people_got_a_new_key_is_restored(tmp_path: Path, seal: Any) -> None:
    crmkit.create(tmp_path / "acme", seal=seal).close()
    with crmkit.open(tmp_path / "acme", plugins=[Types()]) as crm:
        ada, bob = add_ada(crm), crm.customers.add(name="Bob")
        dinner = crm.dinners.add(title="Dinner", guests=[ada, bob], note="pudding")
        first = crm.backup(tmp_path / "backups")
        crm.erase(ada, reason="r")
        crm.backup(tmp_path / "backups")
    with crmkit.restore(first.data, tmp_path / "back") as back:
        back.register(Types())
        assert [each.name for each in back.customers] == ["Bob"]
        left = back.dinners[dinner.id]
        assert (left.title, left.note) == ({"personal": ERASED, "sensitive": "Dinner"}[seal], None)
        assert bob.id in left.guests
        assert back.verify() == []
