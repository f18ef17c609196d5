"""The audit log: whatever is done to it before a head that somebody holds is found."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crmkit.errors import Damaged
from crmkit.vault import Vault
from crmkit.vault.audit import AuditLog
from crmkit.vault.chain import head_of
from crmkit.vault.trust import Head, Trust

SCALE = float(os.environ.get("CRMKIT_TEST_SCALE", "1"))
SEED = 20261122
LINES = 12


def _reveal(vault: Vault, ada: str, **more: str) -> dict[str, object]:
    sealed = vault.seal("audit", "reason", ada, ada, "refund 812")
    return vault.audit.append(
        actor="ann", action="reveal", entity="customer", record=ada, subject=ada, fields=["iban"], reason=sealed, **more
    )


@pytest.fixture
def log(vault: Vault, keys: Path, ada: str) -> Path:
    """A log of twelve lines, whose head this user has seen."""
    for _ in range(LINES):
        _reveal(vault, ada)
    return keys / "audit.jsonl"


def test_an_entry_says_who_what_and_why(vault: Vault, keys: Path, ada: str) -> None:
    entry = _reveal(vault, ada, plugin="webhooks")
    names = ["seq", "ts", "actor", "user", "action", "entity", "record", "subject", "fields", "reason", "plugin"]
    names += ["prev", "mac"]
    assert list(entry) == names
    assert (entry["seq"], entry["actor"], entry["fields"], entry["plugin"]) == (1, "ann", ["iban"], "webhooks")
    assert vault.open("audit", "reason", ada, ada, str(entry["reason"])) == "refund 812"
    assert json.loads((keys / "audit.jsonl").read_bytes()) == entry
    assert b"refund" not in (keys / "audit.jsonl").read_bytes()
    assert list(Vault.unlock(keys).audit.entries()) == [entry]


def test_an_entry_is_synced_before_it_returns(vault: Vault, ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("pwrite", "fdatasync", "rename", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
    _reveal(vault, ada)
    assert calls[:2] == ["pwrite", "fdatasync"]


def test_processes_continue_each_others_chain(vault: Vault, keys: Path, ada: str) -> None:
    other = Vault.unlock(keys)
    entries = [_reveal(which, ada) for which in (vault, other, other, vault)]
    assert [entry["seq"] for entry in entries] == [1, 2, 3, 4]
    assert vault.audit.verify() == other.audit.verify() == []


def test_a_sound_log_is_pinned_by_who_opens_it_first(
    vault: Vault, keys: Path, log: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRMKIT_IDENTITY", str(config / "identity.txt"))
    monkeypatch.setenv("CRMKIT_CONFIG", str(config.with_name("config-of-bob")))
    bobs = Vault.unlock(keys)
    assert Trust(bobs.workspace_id).heads("audit") == [head_of(LINES, log.read_bytes().splitlines(keepends=True)[-1])]


def test_a_head_that_cannot_be_pinned_locks_nobody_out(
    vault: Vault, ada: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Trust, *heads: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Trust, "pin_head", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                _reveal(vault, ada)
    assert _reveal(vault, ada)["seq"] == LINES + 4
    assert vault.audit.verify() == []


# ---------------------------------------------------------------------------------------- tampering


def _edit(rng: random.Random, lines: list[bytes]) -> int:
    at = rng.randrange(LINES)
    line = bytearray(lines[at])
    line[rng.randrange(len(line) - 1)] ^= 1 << rng.randrange(7)
    lines[at] = bytes(line)
    return at + 1


def _rewrite(rng: random.Random, lines: list[bytes]) -> int:
    at = rng.randrange(LINES)
    lines[at] = lines[at].replace(b'"ann"', b'"bob"')
    return at + 1


def _delete(rng: random.Random, lines: list[bytes]) -> int:
    at = rng.randrange(LINES - 1)
    del lines[at]
    return at + 1


def _reorder(rng: random.Random, lines: list[bytes]) -> int:
    one, two = sorted(rng.sample(range(LINES), 2))
    lines[one], lines[two] = lines[two], lines[one]
    return one + 1


def _repeat(rng: random.Random, lines: list[bytes]) -> int:
    at = rng.randrange(LINES)
    lines.insert(at, lines[at])
    return at + 2


def _cut(rng: random.Random, lines: list[bytes]) -> int:
    at = rng.randrange(LINES)
    del lines[at:]
    return at


ATTACKS = [_edit, _rewrite, _delete, _reorder, _repeat, _cut]


def _missed(vault: Vault, log: Path, attack: Callable[[random.Random, list[bytes]], int], rounds: int) -> int:
    """Tamper with copies of the log; return how often nothing was found."""
    rng, whole, missed = random.Random(SEED), log.read_bytes(), 0
    for _ in range(rounds):
        lines = whole.splitlines(keepends=True)
        line = attack(rng, lines)
        log.write_bytes(b"".join(lines))
        problems = vault.audit.verify()
        missed += not problems
        assert all(re.search(rf"line {line}\b", problem) for problem in problems)
    log.write_bytes(whole)
    return missed


@pytest.mark.proof
@pytest.mark.parametrize("attack", ATTACKS)
def test_tampering_is_found(vault: Vault, log: Path, attack: Callable[[random.Random, list[bytes]], int]) -> None:
    assert _missed(vault, log, attack, int(200 * SCALE)) == 0
    assert vault.audit.verify() == []


def _rewritten_by_a_member(rng: random.Random, lines: list[bytes], vault: Vault) -> None:
    """Change a line as somebody would who has the audit key: every line from there on is sealed anew."""
    at = rng.randrange(len(lines))
    entries = [json.loads(line) for line in lines]
    entries[at]["actor"] = f"actor {rng.random()}"
    if rng.random() < 0.3 and at < len(lines) - 1:
        del entries[at]
    elif rng.random() < 0.3:
        entries.insert(at, {**entries[at], "actor": "eve"})
    head = vault.audit._start
    lines.clear()
    for seq, entry in enumerate(entries, 1):
        entry.pop("mac")
        body = json.dumps({**entry, "seq": seq, "prev": head.hash}, separators=(",", ":")).encode()[:-1]
        lines.append(vault.audit._with_mac(body))
        head = head_of(seq, lines[-1])


def _tamper(rng: random.Random, lines: list[bytes], vault: Vault) -> None:
    """Do one to three random things to a log, the last of which changes it for certain."""
    before = list(lines)
    while lines == before:
        for _ in range(rng.randint(1, 3)):
            if not lines:
                return
            what = rng.choice(["flip", "delete", "swap", "repeat", "cut", "insert", "splice", "resealed"])
            at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            if what == "flip":
                line = bytearray(lines[at])
                line[rng.randrange(len(line))] ^= 1 << rng.randrange(8)
                lines[at : at + 1] = bytes(line).splitlines(keepends=True)
            elif what == "delete":
                del lines[at]
            elif what == "swap":
                lines[at], lines[other] = lines[other], lines[at]
            elif what == "repeat":
                lines.insert(other, lines[at])
            elif what == "cut":
                del lines[at:]
            elif what == "insert":
                lines.insert(at, b'{"seq":%d}\n' % at)
            elif what == "splice":
                cut = rng.randrange(len(lines[at]))
                lines[at] = lines[at][:cut] + lines[other][cut:]
            elif lines == before:  # of a log that is sound so far
                _rewritten_by_a_member(rng, lines, vault)


def _unnoticed(vault: Vault, log: Path, rounds: int) -> int:
    rng, whole, unnoticed = random.Random(SEED), log.read_bytes(), 0
    for _ in range(rounds):
        lines = whole.splitlines(keepends=True)
        _tamper(rng, lines, vault)
        log.write_bytes(b"".join(lines))
        unnoticed += not vault.audit.verify()
    log.write_bytes(whole)
    return unnoticed


@pytest.mark.proof
def test_random_tampering_is_found_by_who_holds_the_head(
    vault: Vault, log: Path, record_property: Callable[[str, object], None]
) -> None:
    rounds = max(1, round(500 * SCALE))
    assert _unnoticed(vault, log, rounds) == 0
    assert vault.audit.verify() == []
    record_property("audit_logs_tampered_with", rounds)


def test_control_who_holds_no_head_misses_some(vault: Vault, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trust, "heads", lambda self, name: [])
    monkeypatch.setattr(Trust, "pin_head", lambda *_: None)
    assert _unnoticed(vault, log, 100) > 5


def test_control_without_the_chain_random_tampering_is_missed(
    vault: Vault, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trust, "heads", lambda self, name: [])
    monkeypatch.setattr(Trust, "pin_head", lambda *_: None)
    held = _unnoticed(vault, log, 100)
    monkeypatch.setattr(
        AuditLog, "_next", lambda self, head, line: head_of(head.seq + 1, line) if self._is_sealed(line) else _refuse()
    )
    assert _unnoticed(vault, log, 100) > held


def _refuse() -> None:
    raise Damaged("line was changed")


def test_tampering_stops_the_log(vault: Vault, keys: Path, log: Path, ada: str) -> None:
    whole = log.read_bytes()
    tampered = whole.replace(b'"seq":4', b'"seq":5')
    for content in (tampered, b"".join(whole.splitlines(keepends=True)[:-1])):
        log.write_bytes(content)
        with pytest.raises(Damaged, match=r"line 4 was changed|ends at line 11, but you saw line 12 before"):
            _reveal(Vault.unlock(keys), ada)
        assert log.read_bytes() == content


@pytest.mark.parametrize("attack", [_delete, _reorder, _repeat])
def test_control_without_the_chain_it_is_missed(
    vault: Vault,
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    attack: Callable[[random.Random, list[bytes]], int],
) -> None:
    def without_chain(self: AuditLog, head: Head, line: bytes) -> Head:
        if not self._is_sealed(line):
            raise Damaged(f"line {head.seq + 1} was changed")
        return head_of(head.seq + 1, line)

    monkeypatch.setattr(AuditLog, "_next", without_chain)
    monkeypatch.setattr(Trust, "heads", lambda self, log: [])
    assert _missed(vault, log, attack, 50) == 50


def test_control_without_the_mac_edits_are_missed(vault: Vault, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AuditLog, "_is_sealed", lambda self, line: True)
    monkeypatch.setattr(Trust, "heads", lambda self, log: [])

    def rewrite_the_last(rng: random.Random, lines: list[bytes]) -> int:
        lines[-1] = lines[-1].replace(b'"ann"', b'"bob"')
        return LINES

    assert _missed(vault, log, rewrite_the_last, 5) == 5


def test_control_without_the_pin_a_cut_is_missed(vault: Vault, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trust, "heads", lambda self, log: [])
    assert _missed(vault, log, _cut, 50) == 50


def test_the_log_of_another_workspace_is_found(
    vault: Vault, log: Path, tmp_path: Path, new_id: Callable[[], str]
) -> None:
    other, id = Vault.create(tmp_path / "other", new_id()), new_id()
    other.ensure_subjects([id])
    _reveal(other, id)
    log.write_bytes((tmp_path / "other" / "audit.jsonl").read_bytes())
    assert vault.audit.verify() == [f"{log}: line 1 was changed"]


# ---------------------------------------------------------------------------------------- crashes


def test_a_torn_last_line_is_ignored_and_cut(vault: Vault, keys: Path, log: Path, ada: str) -> None:
    whole = log.read_bytes()
    next_line = whole.splitlines(keepends=True)[-1]  # whatever an unfinished append left
    for end in [next_line[:cut] for cut in range(0, len(next_line), 7)] + [next_line[:40] + bytes(60) + b"\n"]:
        log.write_bytes(whole + end)
        again = Vault.unlock(keys)
        assert again.audit.verify() == []
        assert len(list(again.audit.entries())) == LINES
    _reveal(again, ada)
    assert log.read_bytes().startswith(whole)
    assert again.audit.verify() == []
    assert len(list(again.audit.entries())) == LINES + 1


def test_a_failed_append_leaves_nothing(vault: Vault, log: Path, ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = log.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", lambda fd, data, offset, real=os.pwrite: real(fd, data[:7], offset))
        with pytest.raises(OSError, match="short write"):
            _reveal(vault, ada)
    assert log.read_bytes() == whole
    assert _reveal(vault, ada)["seq"] == LINES + 1


def test_a_missing_log_is_found(vault: Vault, log: Path) -> None:
    log.unlink()
    assert vault.audit.verify() == [f"{log} cannot be read: No such file or directory"]


def test_a_line_that_is_added_while_somebody_reads_is_no_damage(
    vault: Vault, keys: Path, ada: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes the line and pins it, between what is read here of the two."""
    other, lines, begun = Vault.unlock(keys), AuditLog._lines, list[int]()

    def beside_a_writer(audit: AuditLog, offset: int) -> list[bytes]:
        found = lines(audit, offset)
        if not begun:
            begun.append(offset)
            _reveal(other, ada)
        return found

    for use in (vault.audit.verify, vault.audit.head):
        begun.clear()
        with monkeypatch.context() as racing:
            racing.setattr(AuditLog, "_lines", beside_a_writer)
            assert use() in ([], head_of(LINES + 1, log.read_bytes().splitlines(keepends=True)[LINES]))
    assert vault.audit.verify() == other.audit.verify() == []
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    assert "ends at line" in vault.audit.verify()[0], "control: what is cut is still found"
