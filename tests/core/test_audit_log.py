"""The audit log for people: newest first, reasons opened for members, nothing of them anywhere else."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage
import pytest

import crmkit
from crmkit import CRM, Damaged, Invalid
from crmkit.codec import ERASED
from crmkit.errors import Erased
from crmkit.vault import Vault
from crmkit.vault.identity import load_identity
from crmkit.vault.trust import Head

IBAN = "GB33BUKB20201555555555"
REASON = "refund of CANARY Lovelace"


@pytest.fixture
def people(crm: CRM) -> list[Any]:
    found = [crm.customers.add(name=f"Customer {number}", iban=IBAN) for number in range(3)]
    for number, person in enumerate(found):
        with crm.acting_as("ann" if number else "bob"):
            crm.reveal(person, "iban", reason=f"{REASON} {number}")
    return found


def test_entries_are_newest_first_and_opened(crm: CRM, people: list[Any]) -> None:
    entries = crm.audit.entries()
    assert [entry.seq for entry in entries] == [3, 2, 1]
    assert [entry.reason for entry in entries] == [f"{REASON} {number}" for number in (2, 1, 0)]
    assert [entry.record for entry in entries] == [person.id for person in reversed(people)]
    assert {(entry.action, entry.entity, entry.fields, entry.plugin) for entry in entries} == {
        ("reveal", "customer", ("iban",), None)
    }
    assert list(crm.audit) == entries
    assert all(entry.at.tzinfo is not None and datetime.now(UTC) - entry.at < timedelta(minutes=5) for entry in entries)


def test_filters(crm: CRM, people: list[Any]) -> None:
    def seqs(**asked: Any) -> list[int]:
        return [entry.seq for entry in crm.audit.entries(**asked)]

    middle = crm.audit.entries()[1].at
    assert seqs(actor="ann") == [3, 2]
    assert seqs(actor="ann", limit=1) == [3]
    assert seqs(record=people[0].id) == [1]
    assert seqs(action="export") == []
    assert seqs(since=middle) == [3, 2]
    assert seqs(since=datetime.now(UTC) + timedelta(hours=1)) == []
    with pytest.raises(Invalid, match="since: must have a time zone"):
        seqs(since=datetime(2026, 1, 1))
    with pytest.raises(Invalid, match="limit: must be 1 or more"):
        seqs(limit=0)


def test_a_reason_is_in_no_repr_and_in_no_file(crm: CRM, people: list[Any]) -> None:
    shown = repr(crm.audit.entries()) + str(crm.audit) + repr(crm.audit)
    assert "CANARY" not in shown
    for path in crm.workspace.folder.rglob("*"):
        if path.is_file():
            assert b"CANARY" not in path.read_bytes(), path


def test_an_erased_reason_shows_as_that(crm: CRM, people: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gone, real = people[1].id, Vault.open

    def open(self: Vault, entity: str, field: str, record: str, subject: str, sealed: str) -> Any:
        if subject == gone:
            raise Erased("its key is gone")
        return real(self, entity, field, record, subject, sealed)

    monkeypatch.setattr(Vault, "open", open)
    assert [entry.reason for entry in crm.audit] == [f"{REASON} 2", ERASED, f"{REASON} 0"]
    assert crm.audit.verify() == []


def test_an_erased_person_takes_the_reasons_along(crm: CRM, people: list[Any]) -> None:
    crm.erase(people[1], reason="request 17")
    reasons = {entry.record: entry.reason for entry in crm.audit if entry.action == "reveal"}
    assert reasons[people[1].id] == ERASED
    assert reasons[people[0].id] == f"{REASON} 0"
    assert crm.audit.verify() == []


def test_a_changed_line_is_told(crm: CRM, people: list[Any]) -> None:
    log = crm.workspace.keys / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"seq":2', b'"seq":7'))
    assert [problem.rpartition(": ")[2] for problem in crm.audit.verify()] == ["line 2 was changed"]
    assert [entry.seq for entry in crm.audit.entries(limit=1)] == [3]
    with pytest.raises(Damaged, match="crmkit audit verify names the first one"):
        crm.audit.entries()


@pytest.mark.parametrize("size", [1, 7, 100, 1000, 4096, 1 << 20])
def test_the_log_is_read_backwards_in_pieces_of_any_size(
    crm: CRM, people: list[Any], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("crmkit.vault.audit._BLOCK", size)
    assert [line["seq"] for line in crm._vault.audit.newest()] == [3, 2, 1]
    log = crm.workspace.keys / "audit.jsonl"
    whole = log.read_bytes()
    for torn in (b'{"seq":4,"ts":"2026', b"\0" * 50 + b"\n", b"\0" * 20):
        log.write_bytes(whole + torn)
        assert [line["seq"] for line in crm._vault.audit.newest()] == [3, 2, 1]
    log.write_bytes(b"")
    assert list(crm._vault.audit.newest()) == []


def _about(path: Path, what: str, tmp_path: Path) -> dict[str, Any]:
    """What a file of a backup says of itself, read with the means of the documentation."""
    archive = tmp_path / f"{what}.zip"
    archive.write_bytes(pyrage.decrypt(path.read_bytes(), [load_identity()]))
    with zipfile.ZipFile(archive) as found:
        about: dict[str, Any] = json.loads(found.read(f"{what}.json"))
    return about


def test_the_head_goes_into_backups_and_is_asked_for_on_restore(crm: CRM, people: list[Any], tmp_path: Path) -> None:
    first = crm.backup(tmp_path / "backups")
    head = crm._vault.audit.head()
    assert head.seq == 4  # the backup itself is in the log
    for path, what in ((first.data, "data"), (first.keys, "keys")):
        assert _about(path, what, tmp_path)["audit"] == asdict(head)
    crm.reveal(people[0], "iban", reason="later")
    crm.backup(tmp_path / "backups")
    with crmkit.restore(first.data, tmp_path / "back") as back:  # older data, newer keys
        assert [entry.seq for entry in back.audit.entries() if entry.action == "reveal"] == [5, 3, 2, 1]


def test_a_log_without_that_head_is_not_restored(
    crm: CRM, people: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # as if somebody with the keys had made the file of keys from another log
        real = crm._vault.audit.head()
        patch.setattr(type(crm._vault.audit), "head", lambda self: Head(real.seq, "0" * 64))
        made = crm.backup(tmp_path / "backups")
    with pytest.raises(Damaged, match="its audit log is not the one that the backup of"):
        crmkit.restore(made.data, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    with monkeypatch.context() as without:  # control: unchecked, it is restored
        without.setattr("crmkit.safekeeping.backup._check_audit_log", lambda *_: None)
        crmkit.restore(made.data, tmp_path / "back").close()


def test_holds_knows_every_head_and_no_other(crm: CRM, people: list[Any]) -> None:
    audit = crm._vault.audit
    heads = [audit._start]
    for line in audit._lines(0):
        heads.append(audit._next(heads[-1], line))
    assert all(audit.holds(head) for head in heads)
    assert not any(audit.holds(Head(head.seq + 1, head.hash)) for head in heads)
    assert not audit.holds(Head(2, heads[1].hash))
