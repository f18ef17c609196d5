"""The security report of a workspace: what is sealed, who can open it, and that what is overdue comes and goes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crmkit import CRM, CrmError, Damaged, hookimpl
from crmkit.security.report import Index, overdue, recent
from crmkit.vault.blind_index import planned_bits

NOW = datetime.now(UTC)


def lines(crm: CRM, after: timedelta = timedelta(0), indexes: Iterable[Index] = ()) -> str:
    """What is overdue after some time."""
    now = datetime.now(UTC) + after
    return "\n".join(overdue(crm.workspace, crm._vault, indexes, recent(crm._vault, now), now))


def note(crm: CRM, action: str) -> None:
    """Write a line into the audit log."""
    id = crm._vault.workspace_id
    with crm._store.lock():
        crm._vault.audit.append(actor="ada", action=action, entity="workspace", record=id, subject=id)


def test_fields_are_told_by_class(crm: CRM) -> None:
    told = {(each.type, each.field): each for each in crm.security.report().fields}
    assert [told["customer", name].klass for name in ("iban", "notes", "stage")] == ["sensitive", "personal", "plain"]
    assert [told["customer", name].sealed for name in ("iban", "notes", "stage")] == [True, True, False]
    assert [told["customer", name].index for name in ("iban", "card")] == [True, False]
    assert {type for type, _ in told} == {collection.info.type for collection in crm._by_plural().values()}


def test_under_another_seal_level_personal_fields_are_told_to_be_open(crm: CRM) -> None:
    with crm._store.lock():
        crm._vault.set_seal_level("sensitive")
    report = crm.security.report()
    assert {each.sealed for each in report.fields if each.klass == "personal"} == {False}
    assert {each.sealed for each in report.fields if each.klass == "sensitive"} == {True}
    assert report.may_be_plain
    assert "personal, not sealed: customer: name" in str(report)


def test_members_plugins_and_what_plugins_were_shown(crm: CRM) -> None:
    class Nosy:
        @hookimpl
        def crm_timeline(self, crm: CRM, customer: object) -> list[object]:
            crm.reveal(crm.customers.find().records[0], "iban", reason="because")
            return []

    crm.customers.add(name="Ada", iban="DE89370400440532013000")
    crm.register(Nosy(), "nosy")
    crm.timeline(crm.customers.find().records[0])
    report = crm.security.report()
    assert [kind for _, kind in report.members] == ["member"]
    assert {plugin.name: plugin.reveals for plugin in report.plugins}["nosy"] == 1
    assert "may read what you can read: plugin nosy (session); was shown 1 sensitive values within 180 days" in str(
        report
    )


def test_indexes_are_told_with_what_they_leak(crm: CRM) -> None:
    crm.customers.add(name="Ada")
    index = next(each for each in crm.security.report().indexes if each.field == "iban")
    assert (index.records, index.bits, index.candidates) == (1, 10, 1 / 1024)
    assert "equal values have equal tags" in str(crm.security.report())
    assert "exact search: customer.iban: too few records for tags to hide anything" in str(crm.security.report())


def test_names_in_roles_and_teams_that_nobody_has_are_told(crm: CRM) -> None:
    note(crm, "reveal")  # by ada
    (member,) = crm.members
    profile = crm.workspace.profile
    roles = f'[roles.manager]\nmembers = ["{member.name}", "annn"]\nmay = ["erase"]\n'
    teams = '[roles.sales]\nmembers = ["ada"]\nmay = []\n[teams]\nnorth = ["ada", "annn"]\n'
    profile.write_text(f"{profile.read_text(encoding='utf-8')}\n{roles}{teams}", encoding="utf-8")
    who = "names annn, who is no member here, and did nothing that the audit log knows"
    assert crm.security.report().strangers == (f"roles.manager {who}", f"teams.north {who}")
    assert f"mind: crmkit.toml: roles.manager {who}" in str(crm.security.report())


def test_what_is_due_stands_first(crm: CRM) -> None:
    first, second, *rest = str(crm.security.report()).splitlines()
    assert first.startswith("security of ")
    assert second.startswith("overdue: ")
    assert len(rest) < 25


def test_it_holds_no_value_and_is_plain_data(crm: CRM) -> None:
    crm.customers.add(name="Adamantia", notes="Adamantia likes tea", iban="DE89370400440532013000")
    report = crm.security.report()
    text = f"{report} {report!r} {json.dumps(report.to_dict())}"
    assert "; how many there are: 1 customer" in str(report)
    assert not any(word in text for word in ("Adamantia", "tea", "3704"))


def test_overdue_backup(crm: CRM, tmp_path: Path) -> None:
    assert "there is no backup: crmkit backup FOLDER" in lines(crm)
    crm.backup(tmp_path / "backups")
    assert "crmkit backup" not in lines(crm)
    assert "the last backup was 8 days ago" in lines(crm, timedelta(days=8))


def test_a_backup_that_failed_is_none(crm: CRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Damaged("broken")

    monkeypatch.setattr("crmkit.safekeeping.backup.back_up", fail)
    with pytest.raises(Damaged, match="broken"):
        crm.backup(tmp_path / "backups")
    assert "there is no backup" in lines(crm)


@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("erase", "somebody was erased"),
        ("erase_again", "somebody was erased"),
        ("rotate", "keys were renewed"),
        ("drop_old_keys", "old keys were destroyed"),
        ("member_remove", "a member was removed"),
        ("recovery_key", "a recovery key was made"),
    ],
)
def test_a_backup_is_overdue_when_the_last_one_is_of_former_keys(
    crm: CRM, tmp_path: Path, action: str, what: str
) -> None:
    note(crm, action)
    crm.backup(tmp_path / "backups")
    assert "crmkit backup" not in lines(crm)
    note(crm, action)
    assert f"since the last backup {what}: crmkit backup FOLDER" in lines(crm)
    (tmp_path / "no folder").touch()
    with pytest.raises(CrmError):
        crm.backup(tmp_path / "no folder")
    assert f"since the last backup {what}" in lines(crm), "one that failed is none"
    crm.backup(tmp_path / "backups")
    assert "crmkit backup" not in lines(crm)


def test_overdue_recovery_drill(crm: CRM) -> None:
    assert "the recovery key was never tried" in lines(crm)
    note(crm, "recovery_drill")
    assert "crmkit keys recovery" not in lines(crm)
    note(crm, "recovery_key")
    assert "the recovery key was never tried" in lines(crm), "an older drill was of another key"
    note(crm, "recovery_drill")
    assert "crmkit keys recovery" not in lines(crm, timedelta(days=179))
    assert "the recovery key was never tried in the last 180 days" in lines(crm, timedelta(days=181))
    assert "there is no backup in the last 180 days" in lines(crm, timedelta(days=181))


def test_what_is_older_than_every_limit_is_not_read(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    id = crm._vault.workspace_id
    now = datetime.now(UTC)
    for days in (400, 200, 100, 1):

        class Clock(datetime):
            @classmethod
            def now(cls, tz: object = None, days: int = days) -> datetime:
                return now - timedelta(days=days)

        monkeypatch.setattr("crmkit.vault.audit.datetime", Clock)
        with crm._store.lock():
            crm._vault.note("ada", "reveal", entity="customer", record=id, plugin="nosy")
    read: list[int] = []
    newest = type(crm._vault.audit).newest

    def counted(self: Any) -> Iterator[dict[str, Any]]:
        for line in newest(self):
            read.append(line["seq"])
            yield line

    monkeypatch.setattr(type(crm._vault.audit), "newest", counted)
    report = crm.security.report()
    assert read == [4, 3, 2]  # once, and up to the first one that is too old
    assert [line["seq"] for line in recent(crm._vault, now).lines] == [4, 3]
    assert any("there is no backup in the last 180 days" in line for line in report.overdue)


def test_old_wrap_key(crm: CRM) -> None:
    assert "wraps all data keys" not in lines(crm)
    assert "is 366 days old: crmkit keys rotate" in lines(crm, timedelta(days=366))


def test_unfinished_rotation(crm: CRM) -> None:
    crm.customers.add(name="Ada")
    vault = crm._vault
    with crm._store.lock():
        vault._keyring.replace(vault._keyring.current.with_new("wrap"))
    assert "cut short" in lines(crm)
    with crm._store.lock():
        vault.finish()
    assert "cut short" not in lines(crm)


def test_identity_without_a_passphrase(crm: CRM, own_identity: Path) -> None:
    assert "has no passphrase" in lines(crm)
    identity = own_identity / "identity.txt"
    identity.write_bytes(b"age-encryption.org/v1\n-> scrypt ")  # only how it begins is looked at
    assert "has no passphrase" not in lines(crm)


@pytest.mark.parametrize("name", ["", "keys", "data", "keys/keyring.age"])
def test_open_doors(crm: CRM, name: str) -> None:
    path = crm.workspace.folder / name
    assert "everybody on this computer" not in lines(crm)
    mode = path.stat().st_mode & 0o7777
    path.chmod(mode | 0o004)
    assert f"everybody on this computer can get at {path}:" in lines(crm)
    path.chmod(mode)
    assert "everybody on this computer" not in lines(crm)


def test_tags_that_do_not_fit(crm: CRM) -> None:
    def told(records: int, bits: int) -> str:
        return lines(crm, indexes=[Index("customer", "iban", records, bits, records / 2**bits)])

    assert "crmkit keys rotate --scope index" in told(4_000, 12)  # each tag stands for one record, or none
    assert "crmkit keys rotate --scope index" in told(1_000_000, 6)  # a search opens thousands
    assert "scope index" not in told(10, 12)
    assert "scope index" not in told(1_000, planned_bits(1_000))


def test_doctor_prints_it(crm: CRM) -> None:
    crm.customers.add(name="Ada", notes="card 4111 1111 1111 1111")
    command = [sys.executable, "-m", "crmkit", "doctor", "--security", "-w", str(crm.workspace.folder)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert "sensitive, sealed: customer: iban (searchable), card, tax_id (searchable)" in told
    assert "mind: in texts there stand 1 card number: crm.security.payment_data()" in told
    assert "4111 1111" not in told
    told = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True, timeout=60).stdout
    assert json.loads(told)["seal"] == "personal"
