"""Revealing: in the audit log before the value is there, not too often, and known whose plugin asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import crmkit
import crmkit.audit
import crmkit.vault.audit
from crmkit import CRM, Entry, Refused, hookimpl
from crmkit.audit import REVEALS, note_unlock

IBAN = "GB33BUKB20201555555555"


@pytest.fixture
def ada(crm: CRM) -> Any:
    return crm.customers.add(name="Ada Lovelace", iban=IBAN)


# ------------------------------------------------------------------------------------------- durable first


def _sync_fails(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    """From now on nothing of the audit log reaches the disk."""
    inode = log.stat().st_ino

    def fdatasync(fd: int, real: Any = os.fdatasync) -> None:
        if os.fstat(fd).st_ino == inode:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)


def test_no_value_without_a_line_on_disk(crm: CRM, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = crm.workspace.keys / "audit.jsonl"
    with monkeypatch.context() as broken:
        _sync_fails(broken, log)
        with pytest.raises((OSError, crmkit.CrmError)) as failure:
            crm.reveal(ada, "iban", reason="refund 812")
    assert IBAN not in str(failure.value)
    assert IBAN.encode() not in log.read_bytes()
    assert crm.reveal(ada, "iban", reason="refund 812").value == IBAN


def test_control_a_reveal_that_appends_afterwards_leaks(crm: CRM, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def afterwards(record: Any, field: str) -> None:
        doc = crm._committer.document("customers", record.id)
        shown.append(crm._codec.opened("customers", doc, field))
        crm._vault.audit.append(actor="ann", action="reveal", entity="customer", record=record.id, subject=record.id)

    with monkeypatch.context() as broken:
        _sync_fails(broken, crm.workspace.keys / "audit.jsonl")
        with pytest.raises((OSError, crmkit.CrmError)):
            afterwards(ada, "iban")
    assert shown == [IBAN]


def test_the_value_is_opened_after_the_line_is_synced(crm: CRM, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_sync, real_open = os.fdatasync, crm._codec.opened
    monkeypatch.setattr(os, "fdatasync", lambda fd: (done.append("sync"), real_sync(fd))[1])
    monkeypatch.setattr(crm._codec, "opened", lambda *args: (done.append("open"), real_open(*args))[1])
    crm.reveal(ada, "iban", reason="refund 812")
    assert done[0] == "sync"
    assert done[-1] == "open"


# ------------------------------------------------------------------------------------------- not too often


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[datetime]]:
    """``clock[0]`` is what reveals take for now."""
    now = [datetime.now(UTC)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return now[0]

    for module in (crmkit.audit, crmkit.vault.audit):
        monkeypatch.setattr(module, "datetime", Clock)
    yield now  # noqa: PT022


def _reveal_all(crm: CRM, ada: Any, count: int = REVEALS) -> None:
    for number in range(count):
        crm.reveal(ada, "iban", reason=f"refund {number}")


def test_twenty_in_ten_minutes(crm: CRM, ada: Any, clock: list[datetime], tmp_path: Path) -> None:
    first = clock[0]
    for number in range(REVEALS):
        clock[0] = first + timedelta(seconds=10 * number)
        crm.reveal(ada, "iban", reason=f"refund {number}")
    again = (first + timedelta(minutes=10, seconds=1)).strftime("%Y-%m-%d %H:%M:%S UTC")
    command = f"crmkit unlock -w {tmp_path / 'acme'} with"  # the count is that of one workspace
    with pytest.raises(Refused, match=f"20 sensitive values were shown to .* may be at {again}.*{command}"):
        crm.reveal(ada, "iban", reason="one more")
    assert len(crm.audit.entries()) == REVEALS  # what was refused is no reveal
    with crmkit.open(tmp_path / "acme") as another, pytest.raises(Refused):  # all handles and processes count together
        another.reveal(another.customers[ada.id], "iban", reason="one more")
    clock[0] = first + timedelta(minutes=10, milliseconds=1)
    assert crm.reveal(ada, "iban", reason="later").value == IBAN
    with pytest.raises(Refused):
        crm.reveal(ada, "iban", reason="the second one is still within ten minutes")


def test_unlock_begins_the_count_anew(crm: CRM, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _reveal_all(crm, ada)
    with pytest.raises(Refused):
        crm.reveal(ada, "iban", reason="one more")
    crm.lock()
    crm.unlock()  # anybody's code can do that
    with pytest.raises(Refused):
        crm.reveal(ada, "iban", reason="one more")
    with monkeypatch.context() as another:
        another.setattr("crmkit.vault.audit.user_name", lambda: "somebody else")
        note_unlock(crm.workspace)
    with pytest.raises(Refused):
        crm.reveal(ada, "iban", reason="one more")
    note_unlock(crm.workspace)
    assert crm.reveal(ada, "iban", reason="one more").value == IBAN
    assert [entry.action for entry in crm.audit.entries(limit=3)] == ["reveal", "unlock", "unlock"]


def test_another_name_begins_no_count(crm: CRM, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(REVEALS):
        with crm.acting_as(f"u{number}"):
            crm.reveal(ada, "iban", reason="r")
    for actor in ("one more", crm.actor):
        with crm.acting_as(actor), pytest.raises(Refused, match=f"were shown to {actor} within"):
            crm.reveal(ada, "iban", reason="r")
    assert {(entry.actor, entry.user) for entry in crm.audit.entries(limit=2)} == {
        ("u19", crm.actor),
        ("u18", crm.actor),
    }
    for module in (crmkit.audit, crmkit.vault.audit):  # another system user
        monkeypatch.setattr(module, "user_name", lambda: "ben")
    with crm.acting_as("u1"):
        for _ in range(REVEALS - 1):
            crm.reveal(ada, "iban", reason="r")
        with pytest.raises(Refused):  # was shown one of them already, by the first user
            crm.reveal(ada, "iban", reason="r")


def test_a_line_of_a_clock_that_is_behind_does_not_end_the_count(
    crm: CRM, ada: Any, clock: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = clock[0]
    _reveal_all(crm, ada)
    for hours, looks_past in ((1, True), (23, True), (25, False)):
        clock[0] = first - timedelta(hours=hours)
        crm._note("export")
        clock[0] = first + timedelta(minutes=1)
        if looks_past:
            with pytest.raises(Refused):
                crm.reveal(ada, "iban", reason="one more")
        else:  # the log is not read to its beginning each time
            assert crm.reveal(ada, "iban", reason="one more").value == IBAN


def test_control_a_count_in_memory_is_forgotten_by_another_process(
    crm: CRM, ada: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: dict[int, int] = {}

    def in_memory(vault: Any, actor: str, folder: Path) -> None:
        counts[id(vault)] = counts.get(id(vault), 0) + 1
        if counts[id(vault)] > REVEALS:
            raise Refused("too many")

    monkeypatch.setattr("crmkit.protected.check_reveals", in_memory)
    _reveal_all(crm, ada)
    with crmkit.open(tmp_path / "acme") as another:
        assert another.reveal(another.customers[ada.id], "iban", reason="one more").value == IBAN


# ------------------------------------------------------------------------------------------- whose plugin


class Curious:
    """A plugin that reveals while it tells a timeline."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def crm_timeline(self, crm: CRM, customer: Any) -> list[Entry]:
        self.seen.append(crm.reveal(customer, "iban", reason="for the timeline").value)
        return []


def test_a_reveal_names_the_plugin_that_asked(crm: CRM, ada: Any) -> None:
    plugin = Curious()
    crm.register(plugin, "curious")
    crm.timeline(ada)
    crm.reveal(ada, "iban", reason="refund 812")
    assert plugin.seen == [IBAN]
    assert [(entry.plugin, entry.reason) for entry in crm.audit] == [
        (None, "refund 812"),
        ("curious", "for the timeline"),
    ]


def test_the_limit_holds_for_plugins_too(crm: CRM, ada: Any) -> None:
    plugin = Curious()
    crm.register(plugin, "curious")
    _reveal_all(crm, ada)
    crm.timeline(ada)
    assert plugin.seen == []
    assert (crm.failures[-1].plugin, crm.failures[-1].error) == ("curious", "Refused")
