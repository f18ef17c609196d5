"""The ledger of erasures: who was erased stays erased, and nobody changes the list unnoticed."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crmkit.errors import CrmError, Damaged, Erased, Invalid
from crmkit.vault import Vault
from crmkit.vault.chain import Chain
from crmkit.vault.trust import Trust
from tests.store.disk import Disk, Fault

Scale = Callable[[int], int]
AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LINES = 12
SEED = 20261122


def erase(vault: Vault, subject: str, *tags: str) -> None:
    vault.erasures.record([subject], tags, AT)
    vault.destroy([subject])


def uses(vault: Vault, subject: str, sealed: str) -> list[Callable[[], object]]:
    return [
        lambda: vault.open("customer", "name", subject, subject, sealed),
        lambda: vault.seal("customer", "name", subject, subject, "Ada"),
        lambda: vault.ensure_subjects([subject]),
        lambda: vault.newest_generation(subject),
    ]


def test_nothing_can_be_kept_of_who_was_erased(vault: Vault, keys: Path, ada: str, new_id: Callable[[], str]) -> None:
    sealed, other = vault.seal("customer", "name", ada, ada, "Ada"), Vault.unlock(keys)
    erase(vault, ada)
    assert vault.erasures.subjects == {ada}
    for each in (vault, Vault.unlock(keys)):
        for use in uses(each, ada, sealed):
            with pytest.raises(Erased, match=f"{ada} was erased on 2026-11-22; nothing can be kept under it any more"):
                use()
    other.refresh()
    for use in uses(other, ada, sealed):
        with pytest.raises(Erased):
            use()
    id = new_id()
    with pytest.raises(Erased):
        vault.ensure_subjects([id, ada])
    assert id not in vault.subjects(), "all or none"


def test_who_still_has_a_key_can_be_read_until_it_is_destroyed(vault: Vault, ada: str) -> None:
    sealed = vault.seal("customer", "name", ada, ada, "Ada")
    vault.erasures.record([ada], [], AT)
    assert vault.open("customer", "name", ada, ada, sealed) == "Ada", "a crash may leave it so; it is finished later"
    assert vault.erasures.at(ada) == "2026-11-22T10:00:00+00:00"


def test_suppressed_addresses(vault: Vault, keys: Path, ada: str) -> None:
    tags = vault.suppression_tags("email", "ada@example.com")
    assert all(len(tag.split(".")[-1]) == 32 for tag in tags)
    assert tags != vault.suppression_tags("phone", "ada@example.com")
    erase(vault, ada, *tags)
    for each in (vault, Vault.unlock(keys)):
        assert each.erasures.is_suppressed(tags)
        assert not each.erasures.is_suppressed(each.suppression_tags("email", "bob@example.com"))
    vault.erasures.allow(tags[0])
    for each in (vault, Vault.unlock(keys)):
        assert not each.erasures.is_suppressed(tags)
        assert each.erasures.subjects == {ada}
    assert b"example" not in (keys / "erasures.jsonl").read_bytes()
    assert [entry["event"] for entry in vault.erasures.entries()] == ["erase", "allow"]


def test_what_is_no_id_is_not_recorded(vault: Vault, keys: Path) -> None:
    with pytest.raises(Invalid, match="must be a ULID"):
        vault.erasures.record(["ada"], [], AT)
    assert (keys / "erasures.jsonl").read_bytes() == b""


def test_a_workspace_without_a_ledger_gets_one(vault: Vault, keys: Path, ada: str) -> None:
    (keys / "erasures.jsonl").unlink()
    again = Vault.unlock(keys)
    assert again.erasures.subjects == frozenset()
    assert keys / "erasures.jsonl" not in again.files
    erase(again, ada)
    assert Vault.unlock(keys).erasures.subjects == {ada}
    assert keys / "erasures.jsonl" in again.files


def test_what_this_user_saw_erased_is_remembered_beyond_old_keys(vault: Vault, keys: Path, ada: str) -> None:
    kept = keys.with_name("kept")
    shutil.copytree(keys, kept)
    erase(vault, ada)
    with pytest.raises(Damaged, match="ends at line 0, but you saw line 1 before"):
        Vault.unlock(kept)
    restored = Vault.unlock(kept, accept=True)
    assert restored.erasures.subjects == frozenset()
    assert restored.erasures.known_elsewhere() == {ada: "2026-11-22T10:00:00+00:00"}
    restored.begin_branch("ann", "restore", "a test")
    erase(restored, ada)
    assert Vault.unlock(kept).erasures.known_elsewhere() == {}


def test_a_torn_last_line_is_ignored_and_cut(vault: Vault, keys: Path, new_id: Callable[[], str]) -> None:
    ids = [new_id() for _ in range(3)]
    for id in ids[:2]:
        vault.erasures.record([id], [], AT)
    path, whole = keys / "erasures.jsonl", (keys / "erasures.jsonl").read_bytes()
    for torn in (b'{"seq":3,', b"\0" * 40, b'{"seq":3\0\0\n'):
        path.write_bytes(whole + torn)
        again = Vault.unlock(keys)
        assert again.erasures.subjects == set(ids[:2])
        again.erasures.record([ids[2]], [], AT)
        assert path.read_bytes().startswith(whole + b'{"seq":3,"event":')
        assert b"\0" not in path.read_bytes()
        shutil.rmtree(keys.with_name("config"), ignore_errors=True)
        path.write_bytes(whole)
        Vault.unlock(keys, accept=True).begin_branch("ann", "accept", "a test")


# --------------------------------------------------------------------------------------- changed, cut, reordered


@pytest.fixture
def ledger(vault: Vault, keys: Path, new_id: Callable[[], str]) -> Path:
    """A ledger of some lines."""
    for _ in range(LINES):
        vault.erasures.record([new_id()], vault.suppression_tags("email", new_id()), AT)
    return keys / "erasures.jsonl"


def attacked(lines: list[bytes], rng: random.Random) -> list[bytes]:
    """Return the lines changed, cut or reordered."""
    lines, at = list(lines), rng.randrange(len(lines))
    match rng.choice(("flip", "drop", "swap", "repeat", "cut")):
        case "flip":
            place = rng.randrange(len(lines[at]) - 1)
            lines[at] = lines[at][:place] + bytes([lines[at][place] ^ 1 << rng.randrange(7)]) + lines[at][place + 1 :]
        case "drop":
            del lines[at]
        case "swap":
            other = (at + 1 + rng.randrange(len(lines) - 1)) % len(lines)
            lines[at], lines[other] = lines[other], lines[at]
        case "repeat":
            lines.insert(at, lines[at])
        case "cut":
            del lines[at:]
    return lines


def missed(ledger: Path, rounds: int) -> int:
    """Return how many attacks nobody notices, or nobody is told the place of."""
    whole, rng, count = ledger.read_bytes(), random.Random(SEED), 0
    for _ in range(rounds):
        ledger.write_bytes(b"".join(attacked(whole.splitlines(keepends=True), rng)))
        try:
            Vault.unlock(ledger.parent)
            count += 1
        except Damaged as problem:
            count += "erasures.jsonl" not in str(problem) or "line" not in str(problem)
    ledger.write_bytes(whole)
    return count


@pytest.mark.proof
def test_no_attack_on_the_ledger_is_missed(ledger: Path, scale: Scale) -> None:
    assert missed(ledger, scale(150)) == 0
    Vault.unlock(ledger.parent)


def test_control_without_seals_a_changed_line_is_missed(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one, that is, and by who has not seen it: the chain guards the others."""
    *lines, last = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines) + last.replace(b'"s1.0', b'"s1.f'))
    monkeypatch.setattr(Trust, "heads", lambda self, log: [])
    with pytest.raises(Damaged, match=f"line {LINES} was changed"):
        Vault.unlock(ledger.parent)
    monkeypatch.setattr(Chain, "_is_sealed", lambda self, line: True)
    Vault.unlock(ledger.parent)


def test_control_without_a_pin_a_cut_is_missed(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trust, "heads", lambda self, log: [])
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))
    assert len(Vault.unlock(ledger.parent).erasures.subjects) == LINES - 1


def test_who_has_no_key_cannot_add_a_line(ledger: Path, vault: Vault, new_id: Callable[[], str]) -> None:
    other = Vault.create(ledger.parent.with_name("other"), new_id())
    other.erasures.record([new_id()], [], AT)
    ledger.write_bytes(ledger.read_bytes() + (ledger.parent.with_name("other") / "erasures.jsonl").read_bytes())
    with pytest.raises(Damaged, match=f"line {LINES + 1} was changed"):
        Vault.unlock(ledger.parent)


# --------------------------------------------------------------------------------------- cut short


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what the end of a process leaves
@pytest.mark.proof
@pytest.mark.parametrize("kind", ["before", "within", "error"])
def test_an_erasure_may_be_cut_short_anywhere(
    vault: Vault, keys: Path, config: Path, ada: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, prepared, root = vault.seal("customer", "name", ada, ada, "Ada"), tmp_path / "prepared", tmp_path / "root"
    shutil.copytree(keys, prepared / "keys")
    shutil.copytree(config, prepared / "config")
    for number in range(1_000):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(prepared, root)
        monkeypatch.setenv("CRMKIT_CONFIG", str(root / "config"))
        each, disk, done = Vault.unlock(root / "keys"), Disk(root), False
        with disk.watching(Fault(number, kind, errno.EIO)):
            try:
                erase(each, ada)
                done = True
            except (CrmError, OSError):
                pass
        again = Vault.unlock(root / "keys")
        if done:
            assert ada in again.erasures.subjects
        try:
            assert again.open("customer", "name", ada, ada, sealed) == "Ada"
            assert not done
        except Erased:
            assert ada in again.erasures.subjects, "no key goes before the ledger has it"
        erase(again, ada)
        with pytest.raises(Erased):
            Vault.unlock(root / "keys").ensure_subjects([ada])
        if number >= len(disk.calls):
            break
    assert number > 10
