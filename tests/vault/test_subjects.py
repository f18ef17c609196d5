"""Data keys: on disk before they are used, one append for many, shared by processes, torn ends told from damage."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crmkit import durable
from crmkit.errors import Damaged, Locked, NotFound
from crmkit.vault import Vault, key_records, subjects
from crmkit.vault.subjects import RECORD_LENGTH, SubjectKeys

SCALE = float(os.environ.get("CRMKIT_TEST_SCALE", "1"))
SEED = 20261122


def _seal(vault: Vault, subject: str) -> str:
    return vault.seal("customer", "name", subject, subject, "Ada")


def _open(vault: Vault, subject: str, sealed: str) -> object:
    return vault.open("customer", "name", subject, subject, sealed)


def test_many_subjects_are_one_append_behind_a_heading(
    vault: Vault, keys: Path, new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("pwrite", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(durable.os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
    ids = [new_id() for _ in range(100)]
    vault.ensure_subjects(ids + ids)
    assert calls == ["pwrite", "fdatasync"] * 2
    assert (keys / "subjects.bin").stat().st_size == 101 * RECORD_LENGTH
    vault.ensure_subjects(ids)
    vault.ensure_subjects([new_id()])
    assert calls == ["pwrite", "fdatasync"] * 3, "a single key needs no heading"


def test_a_failed_append_leaves_nothing(
    vault: Vault, keys: Path, ada: str, new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (keys / "subjects.bin").read_bytes()
    id = new_id()
    with monkeypatch.context() as full:
        full.setattr(durable.os, "pwrite", lambda fd, data, offset, real=os.pwrite: real(fd, data[:7], offset))
        with pytest.raises(OSError, match="short write"):
            vault.ensure_subjects([id])
    assert (keys / "subjects.bin").read_bytes() == before
    with pytest.raises(NotFound):
        _seal(vault, id)
    vault.ensure_subjects([id])
    assert _open(Vault.unlock(keys), id, _seal(vault, id)) == "Ada"


def test_a_subject_without_a_key(vault: Vault, ada: str, new_id: Callable[[], str]) -> None:
    stranger = new_id()
    with pytest.raises(NotFound, match=f"there is no data key for {stranger}"):
        _seal(vault, stranger)
    with pytest.raises(Damaged, match=f"customer {stranger}: field name .*: data key 1 .* is not in subjects.bin"):
        _open(vault, stranger, _seal(vault, ada))


def test_keys_of_other_processes_are_picked_up(vault: Vault, keys: Path, new_id: Callable[[], str]) -> None:
    other = Vault.unlock(keys)
    id = new_id()
    other.ensure_subjects([id])
    assert _open(vault, id, _seal(other, id)) == "Ada"
    size = (keys / "subjects.bin").stat().st_size
    vault.ensure_subjects([id])
    assert (keys / "subjects.bin").stat().st_size == size


def test_threads_that_read_the_same_records_agree(vault: Vault, keys: Path, new_id: Callable[[], str]) -> None:
    other = Vault.unlock(keys)
    ids = [new_id() for _ in range(3)]
    other.ensure_subjects(ids)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda _: vault._subjects.refresh(), range(4)))
    vault.ensure_subjects([new_id()])
    assert (keys / "subjects.bin").stat().st_size == (1 + 3 + 1) * RECORD_LENGTH, "a heading, three keys, one more"


def test_more_keys_than_are_kept_open(keys: Path, new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "OPEN_KEYS", 3)
    vault = Vault.create(keys, new_id())
    ids = [new_id() for _ in range(10)]
    vault.ensure_subjects(ids)
    sealed = {id: _seal(vault, id) for id in ids}
    assert all(_open(vault, id, sealed[id]) == "Ada" for id in reversed(ids))


def test_a_key_filed_under_another_subject_does_not_open(
    vault: Vault, keys: Path, ada: str, new_id: Callable[[], str]
) -> None:
    other = new_id()
    vault.ensure_subjects([other])
    data = (keys / "subjects.bin").read_bytes()
    first, second = data[:RECORD_LENGTH], data[RECORD_LENGTH:]
    swapped = b""
    for id, wrapped in ((first[:16], second[16:-4]), (second[:16], first[16:-4])):
        swapped += id + wrapped + key_records.zlib.crc32(id + wrapped).to_bytes(4, "big")
    (keys / "subjects.bin").write_bytes(swapped)
    with pytest.raises(Damaged, match="its data key was changed, or wrapped for another subject"):
        _open(Vault.unlock(keys), ada, _seal(vault, ada))


# --------------------------------------------------------------------------------------- two processes

WORKER = """
import fcntl, sys
from pathlib import Path
from ulid import ULID
from crmkit.vault import Vault
from crmkit.vault.subjects import SubjectKeys

folder, count, naive = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "naive"
vault = Vault.unlock(folder)
print("ready", flush=True)
sys.stdin.readline()
if naive:
    SubjectKeys.refresh = lambda self: None
with (folder / "lock").open("w") as lock:
    for _ in range(count):
        id = str(ULID())
        fcntl.flock(lock, fcntl.LOCK_EX)
        vault.ensure_subjects([id])
        fcntl.flock(lock, fcntl.LOCK_UN)
        print(id, vault.seal("customer", "name", id, id, "Ada"), flush=True)
"""


def _lost_by_two_processes(keys: Path, count: int, kind: str) -> int:
    """Let two processes add subjects at once; return how many of their values do not open afterwards."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", WORKER, str(keys), str(count), kind]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    workers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    answers = []
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        answers += worker.communicate(timeout=60)[0].splitlines()
        assert worker.returncode == 0
    assert len(answers) == 2 * count
    vault = Vault.unlock(keys)
    lost = 0
    for id, sealed in map(str.split, answers):
        try:
            _open(vault, id, sealed)
        except Damaged:
            lost += 1
    return lost


@pytest.mark.proof
def test_two_processes_lose_no_key(vault: Vault, keys: Path) -> None:
    assert _lost_by_two_processes(keys, int(100 * SCALE), "sound") == 0


def test_control_without_catching_up_keys_are_lost(vault: Vault, keys: Path) -> None:
    assert _lost_by_two_processes(keys, 50, "naive") > 0


# --------------------------------------------------------------------------------------- torn and damaged


def _three(vault: Vault, new_id: Callable[[], str]) -> dict[str, str]:
    ids = [new_id() for _ in range(3)]
    for id in ids:
        vault.ensure_subjects([id])
    return {id: _seal(vault, id) for id in ids}


def test_a_torn_last_record_is_ignored_and_cut(vault: Vault, keys: Path, new_id: Callable[[], str]) -> None:
    sealed = _three(vault, new_id)
    path, whole = keys / "subjects.bin", (keys / "subjects.bin").read_bytes()
    tail = whole[2 * RECORD_LENGTH :]
    ends = [tail[:cut] for cut in range(RECORD_LENGTH)] + [tail[:40] + bytes(50), bytes(90), bytes(300)]
    for end in ends:
        path.write_bytes(whole[: 2 * RECORD_LENGTH] + end)
        again, id = Vault.unlock(keys), new_id()
        for known in list(sealed)[:2]:
            assert _open(again, known, sealed[known]) == "Ada"
        again.ensure_subjects([id])
        assert path.stat().st_size == 3 * RECORD_LENGTH
        assert _open(Vault.unlock(keys), id, _seal(again, id)) == "Ada"


def _silent_flips(keys: Path, whole: bytes, rounds: int) -> int:
    """Flip bits in all but the last record; return how often the file still opens."""
    rng, silent, named = random.Random(SEED), 0, 0
    for _ in range(rounds):
        data = bytearray(whole)
        at = rng.randrange(len(data) - RECORD_LENGTH)
        data[at] ^= 1 << rng.randrange(8)
        (keys / "subjects.bin").write_bytes(data)
        try:
            Vault.unlock(keys)
            silent += 1
        except Damaged as problem:
            named += f"record {at // RECORD_LENGTH + 1} is damaged" in str(problem)
    assert silent + named == rounds
    return silent


def test_a_wrong_bit_in_the_last_append_is_damage_and_no_torn_end(
    vault: Vault, keys: Path, new_id: Callable[[], str]
) -> None:
    """An append that did not finish may lack any of its records, but none with all its bits but one."""
    vault.ensure_subjects([new_id() for _ in range(10)])
    path, whole = keys / "subjects.bin", (keys / "subjects.bin").read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(Damaged, match=f"record {at // RECORD_LENGTH + 1} is damaged"):
            Vault.unlock(keys)
    path.write_bytes(whole[: 4 * RECORD_LENGTH] + bytes(RECORD_LENGTH) + whole[5 * RECORD_LENGTH :])
    Vault.unlock(keys)  # the control: what never reached the disk is no damage


@pytest.mark.proof
def test_a_bad_record_in_the_middle_is_named(vault: Vault, keys: Path, new_id: Callable[[], str]) -> None:
    _three(vault, new_id)
    assert _silent_flips(keys, (keys / "subjects.bin").read_bytes(), int(200 * SCALE)) == 0


def test_control_without_the_checksum_it_is_not_noticed(
    vault: Vault, keys: Path, new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _three(vault, new_id)
    monkeypatch.setattr(key_records, "checked", lambda body, crc: body)
    assert _silent_flips(keys, (keys / "subjects.bin").read_bytes(), 20) == 20


def test_a_missing_file_is_damage(vault: Vault, keys: Path) -> None:
    (keys / "subjects.bin").unlink()
    with pytest.raises(Damaged, match=r"subjects\.bin cannot be read: No such file"):
        Vault.unlock(keys)


def test_forgotten_keys_open_nothing(vault: Vault, ada: str) -> None:
    held = vault._subjects
    assert isinstance(held, SubjectKeys)
    vault.close()
    with pytest.raises(Locked):
        held.newest(ada)


# ------------------------------------------------------------------------------------------- what killed writers leave


def test_an_interrupted_writer_leaves_nothing(vault: Vault, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr("crmkit.durable.os.replace", interrupted)
        vault.rotate_wrap()
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before


@pytest.mark.parametrize("has_key", [True, False])
def test_destroying_keys_removes_what_killed_writers_left(
    vault: Vault, keys: Path, ada: str, new_id: Callable[[], str], has_key: bool
) -> None:
    copy = keys / ".subjects.bin.0123456789ab.tmp"
    copy.write_bytes((keys / "subjects.bin").read_bytes())
    vault.destroy([ada if has_key else new_id()])
    assert not copy.exists()
    copy.write_bytes(b"")
    vault.drop_generations(1)
    assert not copy.exists()
