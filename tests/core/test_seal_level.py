"""The seal level of a workspace: what is encrypted on disk, and how it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

import crmkit
from crmkit import CRM
from crmkit.codec import RecordCodec
from tests.core.test_erase import Types, holding


def set_level(place: Path, level: str) -> None:
    """Change the profile, as a person would."""
    profile = place / "crmkit.toml"
    lines = [f'seal = "{level}"' if line.startswith("seal") else line for line in profile.read_text().splitlines()]
    profile.write_text("\n".join(lines))


def fill(crm: CRM) -> str:
    """Add a customer with a past, and return the id."""
    ada, bob = crm.customers.add(name="Ada canary", iban="GB33BUKB20201555555555"), crm.customers.add(name="Bob")
    crm.customers.update(ada, name="Ada Lovelace canary", notes="c1.wQEAAAAB canary looks like an envelope")
    visit = crm.visits.add(customer=ada, title="with canary")
    crm.visits.update(visit, customer=bob, title="with Bob")
    crm.customers.remove(crm.customers[ada.id])
    crm.customers.restore(ada.id)
    return ada.id


def check(place: Path, id: str) -> None:
    """Assert that everything reads as it was written."""
    with crmkit.open(place, plugins=[Types()]) as crm:
        ada = crm.customers[id]
        assert (ada.name, ada.notes) == ("Ada Lovelace canary", "c1.wQEAAAAB canary looks like an envelope")
        assert crm.reveal(ada, "iban", reason="r").value == "GB33BUKB20201555555555"
        (visit,) = crm.visits.find()
        assert crm.history(visit).records[0].before["title"] == "with canary"
        assert crm.history(id).records[-2].before["name"] == "Ada canary"
        assert crm.verify() == []


def test_personal_fields_are_in_the_clear_where_only_sensitive_ones_are_sealed(tmp_path: Path) -> None:
    with crmkit.create(tmp_path / "acme", seal="sensitive") as crm:
        crm.register(Types())
        id = fill(crm)
    assert holding(tmp_path / "acme" / "data", "Ada Lovelace canary") != []
    assert holding(tmp_path / "acme", "20201555555555") == []
    check(tmp_path / "acme", id)


@pytest.mark.parametrize("first", ["personal", "sensitive"])
def test_a_level_changes_there_and_back(tmp_path: Path, first: str) -> None:
    place, second = tmp_path / "acme", {"personal": "sensitive", "sensitive": "personal"}[first]
    with crmkit.create(place, seal=first) as crm:
        crm.register(Types())
        id = fill(crm)
    for level in (second, first):
        set_level(place, level)
        with crmkit.open(place, plugins=[Types()]) as other, crmkit.open(place, plugins=[Types()]) as crm:
            assert crm.keys.seal().documents == 3
            other.customers.update(id, city="canarytown")  # another process goes on at the new level
            found = holding(place / "data", "canary")
            assert bool(found) == (level == "sensitive"), found
        check(place, id)


def test_what_lies_in_the_clear_where_nothing_may_is_damage(tmp_path: Path) -> None:
    place = tmp_path / "acme"
    with crmkit.create(place) as crm:
        id = crm.customers.add(name="Ada").id
        codec: RecordCodec = crm._codec
        with pytest.raises(crmkit.Damaged, match="name"):
            codec.open("customers", {"name": "Mallory"}, {"id": id, "name": "Mallory"})
    set_level(place, "sensitive")
    with crmkit.open(place) as crm:
        crm.keys.seal()
        assert crm._codec.open("customers", {"name": "Mallory"}, {"id": id}) == {"name": "Mallory"}
    set_level(place, "personal")
    with crmkit.open(place) as crm:
        crm.keys.seal()
        with pytest.raises(crmkit.Damaged, match="name"):
            crm._codec.open("customers", {"name": "Mallory"}, {"id": id, "name": "Mallory"})


def test_a_level_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(crmkit.Invalid, match="seal"):
        crmkit.create(tmp_path / "acme", seal="nothing")  # type: ignore[arg-type]
    assert not (tmp_path / "acme").exists()


def test_a_level_that_is_not_carried_out_is_due(tmp_path: Path) -> None:
    crmkit.create(tmp_path / "acme").close()
    set_level(tmp_path / "acme", "sensitive")
    with crmkit.open(tmp_path / "acme") as crm:
        assert any("crmkit keys seal" in line for line in crm.security.report().overdue)
        crm.keys.seal()
        assert not any("crmkit keys seal" in line for line in crm.security.report().overdue)


def test_whoever_was_behind_two_changes_of_the_level_reads_on(tmp_path: Path) -> None:
    place = tmp_path / "acme"
    crmkit.create(place).close()
    with crmkit.open(place) as crm, crmkit.open(place) as behind:
        ada = crm.customers.add(name="Ada")
        assert len(behind.customers) == 1
        set_level(place, "sensitive")
        crm.keys.seal()
        crm.customers.update(ada.id, name="Ada in the clear")
        set_level(place, "personal")
        crm.keys.seal()
        assert behind.customers[ada.id].name == "Ada in the clear"
        assert behind.customers.update(ada.id, name="Ada Lovelace").name == "Ada Lovelace"
        assert behind.verify() == []
