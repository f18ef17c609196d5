"""The doctor: says what is wrong and what to do, and saves what a damaged workspace still holds."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

import crmkit
from crmkit import CRM, CrmError, Damaged, Invalid, NotFound
from crmkit.safekeeping.doctor import (
    KEYS_TO_DO,
    NO_DATA_TO_DO,
    SETTINGS_TO_DO,
    TO_DO,
    examine_closed,
    salvage_workspace,
)
from crmkit.vault.key_records import RECORD_LENGTH, sound_records
from crmkit.workspace import Workspace

pytestmark = pytest.mark.shipped_plugins  # the catalog's purchases

IBAN = "GB33BUKB20201555555555"


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A workspace of nine customers, one of them removed, with a purchase and a file."""
    with crmkit.create(tmp_path / "acme", currency="GBP", country="GB") as crm:
        people = [crm.customers.add(name=f"Person {number}", iban=IBAN, number=str(number)) for number in range(9)]
        crm.purchases.add(number="1", customer=people[0], purchased_on="2026-01-01", total="1.00")
        crm.customers.update(people[0], city="Rome")
        crm.customers.remove(people[8])
        (crm.workspace.files / "a.txt").write_text("a")
        return crm.workspace


def _damage(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def _number(place: Workspace, number: int) -> str:
    with crmkit.open(place.folder) as crm:
        return str(crm.customers.find(crmkit.F.number == str(number)).records[0].id)


# --------------------------------------------------------------------------- looking


def test_what_is_there_is_told(place: Workspace) -> None:
    with crmkit.open(place.folder) as crm:
        health = crm.examine()
    assert health.problems == health.advice == health.warnings == ()
    assert health.records["customers"] == 8
    assert health.records["customers.removed"] == 1
    assert (health.commits, health.generation, health.format) == (13, 1, 1)
    assert health.bytes["data"] > health.bytes["files"] == 1


def test_records_without_a_plugin_are_counted_and_named(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRMKIT_DISABLE_PLUGINS", "operational.catalog")
    with crmkit.open(place.folder) as crm:
        health = crm.examine()
    assert health.records["purchases"] == 1
    assert "purchases" in health.unknown
    assert any("purchases: no plugin brings this type" in warning for warning in health.warnings)
    assert health.problems == ()


def test_a_write_that_did_not_finish_is_no_alarm(place: Workspace) -> None:
    """Nobody was told that it is saved. What it left is kept when the next write takes it off."""
    wal = place.data / "wal.1.jsonl"
    with wal.open("ab") as file:
        file.write(b'12345678 [99,[["m",{}],["p","customers","c7')
    with crmkit.open(place.folder) as crm:
        health = crm.examine()
        assert health.problems == health.advice == ()
        [warning] = health.warnings
        assert "43 bytes at the end are no whole commit" in warning
        assert "if nothing crashed lately, compare the newest records with the last backup" in warning
        crm.customers.add(name="Bob")
        [warning] = crm.examine().warnings
        assert "torn.1." in warning
        assert "holds 43 bytes that an unfinished write left" in warning


def test_an_unfinished_write_beside_damage_is_an_alarm(place: Workspace) -> None:
    with crmkit.open(place.folder) as crm:
        _damage(place.data / "wal.1.jsonl", b'"customers"', b'"customerz"')
        with (place.data / "wal.1.jsonl").open("ab") as file:
            file.write(b"12345678 [99,")
        assert crm.examine().advice == (TO_DO,)


def test_what_crmkit_keeps_for_itself_is_not_counted(place: Workspace, tmp_path: Path) -> None:
    with crmkit.open(place.folder) as crm:
        crm.follow("mine", lambda changes: None).look()
        assert ".cursors" in crm._store.tables()
        assert not any(name.startswith(".") for name in crm.examine().records)
    assert not any(name.startswith(".") for name in salvage_workspace(place, tmp_path / "new").records)


def test_a_large_store_is_warned_of(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crmkit.safekeeping.doctor.LARGE", 100)
    with crmkit.open(place.folder) as crm:
        [warning] = crm.examine().warnings
    assert "opening is slow" in warning


def test_damage_is_named_with_what_to_do(place: Workspace) -> None:
    with crmkit.open(place.folder) as crm:
        _damage(place.data / "wal.1.jsonl", b'"customers"', b'"customerz"')
        health = crm.examine()
    assert "wal.1.jsonl, line 2: not what crmkit wrote" in health.problems[0]
    assert health.advice == (TO_DO,)


def test_a_workspace_that_does_not_open_is_looked_into(place: Workspace) -> None:
    _damage(place.data / "wal.1.jsonl", b'"customers"', b'"customerz"')
    with pytest.raises(Damaged) as caught:
        crmkit.open(place.folder)
    health = examine_closed(place, caught.value)
    assert health.records["customers"] == 7
    assert str(caught.value) == f"{health.problems[0]}; run crmkit doctor"
    assert any("line 2: is damaged" in problem for problem in health.problems)
    assert health.advice == (TO_DO,)


def _advice(place: Workspace) -> tuple[str, ...]:
    with pytest.raises(CrmError) as caught:
        crmkit.open(place.folder)
    return examine_closed(place, caught.value).advice


def test_advice_leads_somewhere(place: Workspace, tmp_path: Path) -> None:
    """Nobody is sent to a salvage that refuses, or that would say the same again."""
    keyring = place.keys / "keyring.age"
    whole = keyring.read_bytes()
    keyring.write_bytes(whole[:-9])
    assert _advice(place) == (KEYS_TO_DO,)
    salvage_workspace(place, tmp_path / "new")
    assert _advice(Workspace(tmp_path / "new")) == (KEYS_TO_DO,)
    keyring.write_bytes(whole)
    place.profile.write_text("currency = 7")
    assert _advice(place) == (SETTINGS_TO_DO,)
    (place.data / "wal.1.jsonl").unlink()
    assert NO_DATA_TO_DO in _advice(place)


# --------------------------------------------------------------------------- saving


def test_a_sound_workspace_is_saved_whole(place: Workspace, tmp_path: Path) -> None:
    saved = salvage_workspace(place, tmp_path / "new")
    assert saved.losses == []
    with crmkit.open(place.folder) as old, crmkit.open(tmp_path / "new") as new:
        assert new.verify() == []
        assert [dict(each) for each in new.customers] == [dict(each) for each in old.customers]
        first = new.customers.find(crmkit.F.number == "0").records[0]
        assert new.history(first).records == old.history(first).records
        assert new.reveal(first, "iban", reason="test").value == IBAN
        assert new.purchases.count() == 1
        assert (new.workspace.files / "a.txt").read_text() == "a"
        new.customers.add(name="Bob")


def test_a_damaged_one_opens_again_without_what_was_lost(place: Workspace, tmp_path: Path) -> None:
    lost, kept = _number(place, 3), _number(place, 4)
    wal = place.data / "wal.1.jsonl"
    lines = wal.read_bytes().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if f'"{lost}"'.encode() in line)
    lines[at] = lines[at].replace(b'"number":"3"', b'"number"::::')
    wal.write_bytes(b"".join(lines))
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    saved = salvage_workspace(place, tmp_path / "new")
    assert before == {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    assert saved.losses == [f"{wal}, line {at + 1}: is damaged; lost: customers {lost}"]
    with crmkit.open(tmp_path / "new") as crm:
        assert lost not in crm.customers
        assert crm.customers[kept].name == "Person 4"
        assert len(crm.customers) == 7
        assert crm.verify() == []


def _flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def test_of_an_import_with_one_wrong_bit_everything_is_saved(crm: CRM, tmp_path: Path) -> None:
    """All records of an import stand in one line, and all its keys in one append."""
    crm.customers.add_many([{"name": f"Person {number}", "iban": IBAN} for number in range(200)])
    place = crm.workspace
    keys, wal = place.keys / "subjects.bin", place.data / "wal.1.jsonl"
    _flipped(keys, 100 * RECORD_LENGTH)
    _flipped(wal, wal.read_bytes().index(b"c1.", 20_000) + 50)
    with pytest.raises(Damaged):
        crmkit.open(place.folder)
    saved = salvage_workspace(place, tmp_path / "new")
    assert saved.losses == []
    assert [line.split("/")[-1].split(":")[0] for line in saved.mended] == ["subjects.bin", "wal.1.jsonl, line 2"]
    with crmkit.open(tmp_path / "new") as new:
        assert sorted(each.name for each in new.customers) == sorted(each.name for each in crm.customers)
        assert new.verify() == []


def test_of_a_key_that_is_lost_in_an_import_only_its_customer_is(crm: CRM, tmp_path: Path) -> None:
    crm.customers.add_many([{"name": f"Person {number}"} for number in range(200)])
    keys = crm.workspace.keys / "subjects.bin"
    data = bytearray(keys.read_bytes())
    data[100 * RECORD_LENGTH : 101 * RECORD_LENGTH] = bytes(RECORD_LENGTH)  # as if it never reached the disk
    keys.write_bytes(data)
    with pytest.raises(Damaged, match=r"data key 1 of its subject is not in subjects\.bin"):
        crmkit.open(crm.workspace.folder)
    saved = salvage_workspace(crm.workspace, tmp_path / "new")
    assert saved.records["customers"] == 199
    assert saved.records["customers.sealed"] == 1


def test_nothing_is_written_over_anything(place: Workspace, tmp_path: Path) -> None:
    for folder in (place.folder, place.files):
        with pytest.raises(Invalid, match="exists already"):
            salvage_workspace(place, folder)


def test_a_workspace_without_data_leaves_nothing_behind(place: Workspace, tmp_path: Path) -> None:
    shutil.rmtree(place.data)
    place.data.mkdir()
    with pytest.raises(NotFound, match="holds no journal and no snapshot"):
        salvage_workspace(place, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir() if "new" in path.name] == []


def test_of_a_workspace_without_settings_everything_is_saved(place: Workspace, tmp_path: Path) -> None:
    place.profile.unlink()
    [loss] = salvage_workspace(place, tmp_path / "new").losses
    assert "crmkit.toml: is missing" in loss
    with crmkit.open(tmp_path / "new") as crm:
        assert len(crm.customers) == 8


def test_using_what_was_saved_leaves_the_original_as_trusted_as_it_was(place: Workspace, tmp_path: Path) -> None:
    salvage_workspace(place, tmp_path / "new")
    for _ in range(2):
        for folder in (tmp_path / "new", place.folder):
            with crmkit.open(folder) as crm:
                crm.reveal(next(iter(crm.customers)), "iban", reason="test")
                assert crm.verify() == []
    with crmkit.open(tmp_path / "new") as new:
        assert [entry["action"] for entry in new._vault.audit.entries()] == ["salvage", "reveal", "reveal"]


def test_control_two_copies_of_one_branch_accuse_each_other(place: Workspace, tmp_path: Path) -> None:
    shutil.copytree(place.folder, tmp_path / "copy")
    with crmkit.open(tmp_path / "copy") as copy:
        copy.reveal(next(iter(copy.customers)), "iban", reason="test")
    with crmkit.open(place.folder) as crm:
        assert "it was cut, or an older copy was put back" in crm.verify()[0]


# --------------------------------------------------------------------------- keys


def test_records_whose_keys_are_lost_are_kept_apart_and_named(place: Workspace, tmp_path: Path) -> None:
    keys = place.keys / "subjects.bin"
    data = bytearray(keys.read_bytes())
    data[2 * RECORD_LENGTH + 40] ^= 255
    keys.write_bytes(data)
    third = _third(place)
    with pytest.raises(Damaged, match="record 3 is damaged"):
        crmkit.open(place.folder)
    saved = salvage_workspace(place, tmp_path / "new")
    assert saved.losses == [
        f"{keys}: {RECORD_LENGTH} bytes are damaged, and the keys in them lost",
        f"customers {third}: its keys are lost; kept, sealed, in customers.sealed",
    ]
    with crmkit.open(tmp_path / "new") as crm:
        assert len(crm.customers) == 7
        assert third not in crm.customers
        assert crm._store.get("customers.sealed", third)["name"].startswith("c1.")  # type: ignore[index]
        assert crm.verify() == []


def _third(place: Workspace) -> str:
    """Return the id of the third customer, from the journal: the workspace does not open."""
    line = (place.data / "wal.1.jsonl").read_text().splitlines()[3]
    return line.split('"p","customers","')[1][:26]


def test_control_without_setting_them_apart_it_does_not_open(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = place.keys / "subjects.bin"
    data = bytearray(keys.read_bytes())
    data[2 * RECORD_LENGTH + 40] ^= 255
    keys.write_bytes(data)
    monkeypatch.setattr("crmkit.safekeeping.doctor._opener", lambda vault: None)
    salvage_workspace(place, tmp_path / "new")
    with pytest.raises(Damaged, match="cannot be opened"):
        crmkit.open(tmp_path / "new")


def test_data_is_saved_though_no_key_can_be_opened(place: Workspace, tmp_path: Path) -> None:
    (place.keys / "keyring.age").write_bytes(b"age-encryption.org/v1\n")
    saved = salvage_workspace(place, tmp_path / "new")
    [loss] = saved.losses
    assert f"put the keys of a backup into {tmp_path / 'new' / 'keys'}" in loss
    assert "unfinished" not in loss
    assert saved.records["customers"] == 8


def test_the_keys_of_a_backup_bring_the_records_back(crm: CRM, tmp_path: Path) -> None:
    ada = crm.customers.add(name="Ada", iban=IBAN)
    backup = crm.backup(tmp_path / "backups")
    (crm.workspace.keys / "keyring.age").write_bytes(b"")
    saved = salvage_workspace(crm.workspace, tmp_path / "new")
    assert saved.losses
    crmkit.restore(backup.data, tmp_path / "restored").close()
    shutil.rmtree(tmp_path / "new" / "keys")
    shutil.copytree(tmp_path / "restored" / "keys", tmp_path / "new" / "keys")
    with crmkit.open(tmp_path / "new") as again:
        assert again.customers[ada.id].name == "Ada"


@pytest.mark.proof
def test_sound_keys_are_found_wherever_they_are() -> None:
    rng = random.Random(20261122)
    from crmkit.vault.key_records import packed

    records = [packed(rng.randbytes(16) + b"\xc2\x01" + rng.randbytes(68)) for _ in range(50)]
    whole = b"".join(records)
    assert sound_records(whole) == (whole, 0, 0)
    for _ in range(50):
        at, length = rng.randrange(len(whole)), rng.randrange(200)
        cut = whole[:at] + rng.randbytes(rng.randrange(50)) + whole[at + length :]
        found, damaged, _ = sound_records(cut)
        expected = [record for record in records if record in cut]
        assert found == b"".join(expected)
        assert damaged == len(cut) - len(found)
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.randrange(8)
        assert sound_records(flipped) == (whole, 0, 1)
