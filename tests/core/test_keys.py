"""crm.keys, crm.members and crm.secrets: new keys while others work, and nothing that cannot be read afterwards."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyrage.x25519 import Identity

import crmkit
from crmkit import F
from crmkit.codec import RecordCodec
from crmkit.errors import Conflict, CrmError, Invalid, Locked, NotFound, Refused
from crmkit.keys import recover
from crmkit.keys.rotation import Rotation
from crmkit.privacy import Eraser
from crmkit.store.base import ANY, PlainCodec, Put
from crmkit.store.tiny import TinyStore

IBAN, OTHER = "DE89370400440532013000", "GB29NWBK60161331926819"

pytestmark = pytest.mark.shipped_plugins  # interactions, whose subject changes


class Pet(crmkit.Record, type="pet", plural="pets"):
    """A pet, which is its own subject."""

    name: crmkit.Personal[str]


class Pets:
    """Brings them."""

    @crmkit.hookimpl
    def crm_record_types(self) -> list[type[crmkit.Record]]:
        return [Pet]


@pytest.fixture
def ada(crm: crmkit.CRM) -> str:
    """A customer with a history: two names, two accounts, an interaction that moved from somebody else."""
    bob = crm.customers.add(name="Bob", email="bob@example.com")
    ada = crm.customers.add(name="Ada", email="ada@example.com", iban=IBAN)
    call = crm.interactions.add(customer=bob, kind="call", title="About Bob")
    call = crm.interactions.update(call, title="About Bob and Ada")
    crm.interactions.update(call, customer=ada)
    crm.customers.update(ada.id, name="Ada Lovelace", iban=OTHER)
    crm.customers.remove(crm.customers.add(name="Gone"))
    return ada.id


def actions(crm: crmkit.CRM) -> list[str]:
    return [entry["action"] for entry in crm._vault.audit.entries()]


def everything(crm: crmkit.CRM) -> dict[str, Any]:
    """Return all that can be read: records, sensitive values, history."""
    told: dict[str, Any] = {}
    for type in crm.types:
        for record in crm.collection(type).find():
            told[record.id] = record.model_dump(mode="json", exclude={"iban", "card", "tax_id"})
            told[record.id, "history"] = [
                (entry.action, str(entry.before), str(entry.after), entry.reason) for entry in crm.history(record)
            ]
    return told


def generations(crm: crmkit.CRM) -> dict[str, int | None]:
    return {each.id: each.uses for each in crm.keys.status() if each.purpose == "data"}


def test_the_status_counts_what_is_on_disk(crm: crmkit.CRM, ada: str) -> None:
    rows = {(each.purpose, each.status): each for each in crm.keys.status()}
    assert rows["wrap", "primary"].uses == len(crm._vault.subjects())
    assert rows["bidx", "primary"].uses >= 2
    assert rows["audit", "primary"].uses is None
    assert rows["data", "primary"].id == "1"
    assert rows["data", "primary"].uses > 10
    assert "primary" in repr(crm.keys)


def test_rotating_the_wrap_key(crm: crmkit.CRM, ada: str) -> None:
    before, told = {each.id for each in crm.keys.status() if each.purpose == "wrap"}, everything(crm)
    crm.keys.rotate()
    after = {each.id: each for each in crm.keys.status() if each.purpose == "wrap"}
    assert [after[id].status for id in before] == ["destroyed"]
    assert [after[id].uses for id in before] == [0]
    assert not crm.keys.unfinished
    assert actions(crm)[-1] == "rotate"
    assert everything(crm) == told
    with crmkit.open(crm.workspace.folder) as again:
        assert everything(again) == told


def test_rotating_the_data_keys(crm: crmkit.CRM, ada: str) -> None:
    told, feed, batches = everything(crm), crm.seq(), len(crm.batches())
    crm.secrets["mail"]["password"] = "hunter2"
    rotated = crm.keys.rotate("data")
    assert rotated.documents == 4
    assert rotated.steps == 3, "two changes of the call, one of ada; what was removed keeps its fields"
    assert rotated.left == {}
    assert list(crm.changes(feed)) == [], "nobody hears of it"
    assert len(crm.batches()) == batches
    assert everything(crm) == told
    plan = crm.keys.plan_drop()
    assert (plan.keys, plan.kept) == (3, 0)
    assert crm.keys.drop_old() == 3
    with crmkit.open(crm.workspace.folder) as again:
        assert everything(again) == told
        assert again.reveal(again.customers[ada], "iban", reason="test").value == OTHER
        assert [found.id for found in again.customers.find(F.iban == OTHER)] == [ada]
        assert again.secrets["mail"]["password"].value == "hunter2"
        entry = next(entry for entry in again.history(ada) if "iban" in entry.fields)
        again.undo(entry)
        assert again.reveal(again.customers[ada], "iban", reason="test").value == IBAN


def test_what_an_undo_puts_back_is_found_and_sealed_anew(crm: crmkit.CRM, ada: str) -> None:
    """Also by exact search: the tag in the history was made by a key that is gone."""
    crm.keys.rotate("index")
    entry = next(entry for entry in crm.history(ada) if "iban" in entry.fields)
    crm.undo(entry)
    assert [found.id for found in crm.customers.find(F.iban == IBAN)] == [ada]
    assert not list(crm.customers.find(F.iban == OTHER))


def test_what_was_read_before_a_rotation_is_written_under_the_newest_key(crm: crmkit.CRM, ada: str) -> None:
    with crmkit.open(crm.workspace.folder) as other:
        with crm.transaction():
            crm.customers.update(ada, city="Paris")
            other.keys.rotate("data")
        other.keys.drop_old()
        for each in (crm, other):
            assert each.customers[ada].city == "Paris"
            assert each.reveal(each.customers[ada], "iban", reason="test").value == OTHER


def test_what_was_read_before_its_key_was_dropped_is_a_conflict(crm: crmkit.CRM, ada: str) -> None:
    with crmkit.open(crm.workspace.folder) as other:
        with pytest.raises(Conflict, match=f"customer {ada} was changed since it was read"), crm.transaction():
            crm.customers.update(ada, city="Paris")
            other.keys.rotate("data")
            other.keys.drop_old()
        assert crm.customers[ada].city is None
        assert crm.reveal(crm.customers[ada], "iban", reason="test").value == OTHER


def test_what_is_put_back_while_old_keys_are_dropped_keeps_them(
    crm: crmkit.CRM, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program of an older version, say: what it has read, it writes back as it was."""
    monkeypatch.setattr(RecordCodec, "renewed", lambda codec, collection, old, new: new)
    before, look = dict(crm._store.get("customers", ada) or {}), Rotation.not_done

    def put_back(rotation: Rotation) -> str:
        missing = look(rotation)
        now = crm._store.get("customers", ada) or {}
        crm._store.commit([Put("customers", {**before, "rev": now["rev"] + 1}, ANY)], {"actor": "x", "cause": "x"})
        return missing

    crm.keys.rotate("data")
    with monkeypatch.context() as racing:
        racing.setattr(Rotation, "not_done", put_back)
        with pytest.raises(Refused, match=f"old keys are still needed: customers {ada}; rotate first"):
            crm.keys.drop_old()
    assert crm.reveal(crm.customers[ada], "iban", reason="test").value == OTHER


@pytest.mark.parametrize("planted", ["c1.nonsense", "c1.wQEAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])
def test_what_does_not_open_stops_no_rotation_and_is_named(crm: crmkit.CRM, ada: str, planted: str) -> None:
    bob = next(each.id for each in crm.customers if each.name == "Bob")
    crm.customers.update(bob, iban=IBAN)
    store = TinyStore(crm.workspace.data, PlainCodec())
    doc = store.get("customers", bob) or {}
    store.commit([Put("customers", {**doc, "iban": planted, "rev": doc["rev"] + 1}, ANY)], {"actor": "x", "cause": "x"})
    store.close()
    health = crm.examine()
    assert [line for line in health.problems if bob in line and "iban cannot be opened" in line]
    assert "restore the last backup" in health.advice[-1]
    assert not [line for line in health.problems if ada in line]
    assert crm.keys.rotate("data").left == {"customers": 1}
    assert crm.reveal(crm.customers[ada], "iban", reason="test").value == OTHER


def test_an_erasure_that_was_cut_short_stops_no_rotation(
    crm: crmkit.CRM, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(*_: object) -> None:
        raise KeyboardInterrupt

    with crmkit.open(crm.workspace.folder) as other:
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(Eraser, "_commit", cut_short)
            crm.erase(ada, reason="request 17")
        other.keys.rotate("data")
    with crmkit.open(crm.workspace.folder) as again:
        assert ada not in again.customers
        assert again.examine().problems == ()


def test_rotating_the_index(crm: crmkit.CRM, ada: str) -> None:
    told, old = everything(crm), [each.id for each in crm.keys.status() if each.purpose == "bidx"]
    assert crm.keys.rotate("index").documents == 1
    rows = {each.id: each for each in crm.keys.status() if each.purpose == "bidx"}
    assert [rows[id].status for id in old] == ["destroyed"]
    assert [found.id for found in crm.customers.find(F.iban == OTHER)] == [ada]
    assert everything(crm) == told


def test_control_without_new_tags_nothing_is_found(crm: crmkit.CRM, ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rotation, "_has_old_tag", lambda *place: False)
    crm.keys.rotate("index")
    assert not list(crm.customers.find(F.iban == OTHER))


@pytest.mark.parametrize("scope", ["", "all", None])
def test_there_is_no_such_scope(crm: crmkit.CRM, scope: Any) -> None:
    with pytest.raises(Invalid, match="scope: must be one of wrap, data, index"):
        crm.keys.rotate(scope)


def test_old_keys_that_are_needed_are_not_dropped(crm: crmkit.CRM, ada: str) -> None:
    with pytest.raises(Refused, match="no rotation of the data has come to its end"):
        crm.keys.drop_old()
    with crm.transaction(reason="call of Ada"):
        crm.customers.update(ada, city="London")
    crm.reveal(crm.customers[ada], "iban", reason="refund")
    told = everything(crm)
    crm.keys.rotate("data")
    plan = crm.keys.plan_drop()
    assert (plan.keys, plan.kept) == (2, 1), "the reasons about ada are sealed under her old key"
    crm.keys.drop_old()
    assert everything(crm) == told
    assert "refund" in [entry.reason for entry in crm.audit]


def test_records_of_a_plugin_that_is_absent_keep_their_keys(tmp_path: Path) -> None:
    with crmkit.create(tmp_path / "pets", currency="EUR") as crm:
        crm.register(Pets())
        pet = crm["pets"].add(name="Rex")
    with crmkit.open(tmp_path / "pets") as crm:
        assert crm.keys.rotate("data").left == {"pets": 1}
        with pytest.raises(Refused, match="old keys are still needed: of pets 1"):
            crm.keys.drop_old()
    with crmkit.open(tmp_path / "pets", plugins=[Pets()]) as crm:
        assert crm["pets"][pet.id].name == "Rex"
        assert crm.keys.rotate("data").left == {}
        assert crm.keys.drop_old() > 0
        assert crm["pets"][pet.id].name == "Rex"


# ------------------------------------------------------------------------------------------------------- members


def test_members(crm: crmkit.CRM, ada: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bob = Identity.generate()
    crm.members.add("bob", str(bob.to_public()))
    assert [member.name for member in crm.members][1:] == ["bob"]
    assert "(you)" in repr(crm.members)
    assert "SECRET" not in repr(crm.members)
    with monkeypatch.context() as his:
        his.setenv("CRMKIT_IDENTITY", str(bob))
        his.setenv("CRMKIT_CONFIG", str(tmp_path / "bobs"))
        with crmkit.open(crm.workspace.folder) as bobs:
            assert bobs.customers[ada].name == "Ada Lovelace"
            crm.members.remove("bob")
            with pytest.raises(Locked, match="you are not a member"):
                bobs.customers.add(name="Eve")
        with pytest.raises(Locked, match="you are not a member"):
            crmkit.open(crm.workspace.folder)
    assert actions(crm)[-2:] == ["member_add", "member_remove"]
    assert crm.customers[ada].name == "Ada Lovelace"
    assert crm._vault.audit.verify() == []


def test_what_is_refused_is_not_in_the_log(crm: crmkit.CRM) -> None:
    for deed in (lambda: crm.members.add("bob", "age1x"), lambda: crm.members.remove("eve")):
        with pytest.raises(Invalid):
            deed()
    assert actions(crm) == []


def test_a_deed_that_cannot_be_noted_is_not_done(crm: crmkit.CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    public, before = str(Identity.generate().to_public()), (crm.workspace.keys / "keyring.age").read_bytes()

    def broken(**_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(crm._vault.audit, "append", broken)
    for deed in (
        lambda: crm.members.add("bob", public),
        lambda: crm.keys.rotate(),
        lambda: crm.keys.recovery(crm.workspace.folder.with_name("recovery.txt")),
    ):
        with pytest.raises(CrmError):
            deed()
    assert (crm.workspace.keys / "keyring.age").read_bytes() == before


# ------------------------------------------------------------------------------------------------------- recovery


@pytest.fixture
def drawer(crm: crmkit.CRM, tmp_path: Path) -> Path:
    """A recovery key."""
    return crm.keys.recovery(tmp_path / "recovery.txt")


def test_the_recovery_key_is_a_private_new_file(crm: crmkit.CRM, drawer: Path) -> None:
    assert stat.S_IMODE(drawer.stat().st_mode) == 0o600
    assert [member.kind for member in crm.members] == ["member", "recovery"]
    for path, problem in ((drawer, "exists already"), (crm.workspace.folder / "r.txt", "lies in the workspace")):
        with pytest.raises(Invalid, match=problem):
            crm.keys.recovery(path)
    assert not (crm.workspace.folder / "r.txt").exists()


def test_the_drill_proves_that_it_opens(crm: crmkit.CRM, drawer: Path, tmp_path: Path) -> None:
    proved = crm.keys.drill(drawer)
    assert (proved.path, proved.keys) == (drawer, 5)
    assert actions(crm) == ["recovery_key", "recovery_drill"]
    crm.keys.recovery(tmp_path / "newer.txt")
    with pytest.raises(Locked, match=r"recovery\.txt does not open the keys of .*; perhaps a newer recovery key does"):
        crm.keys.drill(drawer)
    with pytest.raises(NotFound, match="there is no file"):
        crm.keys.drill(tmp_path / "nowhere.txt")
    (tmp_path / "empty.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(Locked, match=r"empty\.txt holds no age secret key"):
        crm.keys.drill(tmp_path / "empty.txt")


def test_backups_that_failed_are_none_that_go_dark(
    crm: crmkit.CRM, ada: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CrmError("no room")

    crm.backup(tmp_path / "backups")
    with pytest.raises(Invalid):
        crm.backup(crm.workspace.folder / "backups")
    with monkeypatch.context() as broken, pytest.raises(CrmError, match="no room"):
        broken.setattr("crmkit.safekeeping.backup.back_up", fail)
        crm.backup(tmp_path / "backups")
    crm.keys.rotate("data")
    assert len(crm.keys.plan_drop().backups) == 1
    assert [action for action in actions(crm) if action.startswith("backup")] == ["backup", "backup", "backup_failed"]


def test_the_identity_of_a_member_is_no_drill(crm: crmkit.CRM, drawer: Path, own_identity: Path) -> None:
    with pytest.raises(Invalid, match=r"identity\.txt holds the identity of a member, and not the recovery key"):
        crm.keys.drill(own_identity / "identity.txt")
    assert actions(crm) == ["recovery_key"]


def test_the_stock_age_command_opens_the_keyring(crm: crmkit.CRM, drawer: Path) -> None:
    age = shutil.which("age")
    if age is None:
        assert not os.environ.get("CI"), "the age command is missing in CI"
        pytest.skip("the age command is not installed")
    command = [age, "-d", "-i", str(drawer), str(crm.workspace.keys / "keyring.age")]
    assert crm._vault.workspace_id.encode() in subprocess.run(command, capture_output=True, check=True).stdout


def test_who_lost_the_own_identity_is_a_member_again(
    crm: crmkit.CRM, ada: str, drawer: Path, own_identity: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(Invalid, match="yours opens this workspace already"):
        recover(crm.workspace, drawer)
    monkeypatch.setenv("CRMKIT_CONFIG", str(tmp_path / "new machine"))
    with pytest.raises(Locked):
        crmkit.open(crm.workspace.folder)
    name = recover(crm.workspace, drawer)
    with crmkit.open(crm.workspace.folder) as again:
        assert again.customers[ada].name == "Ada Lovelace"
        assert [member.name for member in again.members if again.members.is_me(member)] == [name]
        assert actions(again)[-2:] == ["recover", "recovery_drill"]


def test_to_come_back_with_the_identity_of_a_member_proves_no_recovery_key(
    crm: crmkit.CRM, drawer: Path, own_identity: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRMKIT_CONFIG", str(tmp_path / "new machine"))
    recover(crm.workspace, own_identity / "identity.txt")
    assert actions(crm) == ["recovery_key", "recover"]


# ------------------------------------------------------------------------------------------------------- secrets


def test_secrets_of_plugins(crm: crmkit.CRM) -> None:
    crm.secrets["mail"]["password"] = "hunter2"
    crm.secrets["mail"]["token"] = "t0ken"
    crm.secrets["other"]["token"] = "else"
    assert crm.secrets["mail"]["password"].value == "hunter2"
    assert list(crm.secrets["mail"]) == ["password", "token"]
    for shown in (repr(crm.secrets["mail"]), repr(crm.secrets), repr(crm.secrets["mail"]["password"])):
        assert "hunter2" not in shown
    assert b"hunter2" not in b"".join(path.read_bytes() for path in crm.workspace.keys.iterdir())
    del crm.secrets["mail"]["password"]
    assert "password" not in crm.secrets["mail"]
    with pytest.raises(KeyError, match="plugin mail has no secret 'password'"):
        crm.secrets["mail"]["password"]
    with pytest.raises(Invalid, match="value: must be text, and not blank"):
        crm.secrets["mail"]["password"] = ""
    with crmkit.open(crm.workspace.folder) as again:
        assert again.secrets["other"]["token"].value == "else"


def test_a_secret_moved_to_another_plugin_does_not_open(crm: crmkit.CRM) -> None:
    crm.secrets["mail"]["token"] = "t0ken"
    path = crm.workspace.keys / "secrets.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"mail"', '"evil"'), encoding="utf-8")
    with pytest.raises(CrmError, match="cannot be opened"):
        crm.secrets["evil"]["token"]
