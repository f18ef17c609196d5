"""Threads, forks and interrupts around a compaction and inside the lock: nothing is lost, and the store opens again."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crmkit import durable
from crmkit.errors import CrmError
from crmkit.store import NEW, Move, PlainCodec, Put, TinyStore, compaction
from crmkit.store.journal import Journal
from crmkit.store.lock import WorkspaceLock

Opener = Callable[..., TinyStore]


def written_by_threads(store: TinyStore, folder: Path, threads: int, times: int) -> list[str]:
    """Let threads of one store write while its journal outgrows the threshold; return what is wrong afterwards."""
    begin = threading.Barrier(threads)

    def write(name: int) -> None:
        begin.wait()
        for number in range(times):
            store.commit([Put("customers", {"id": f"{name}-{number}", "text": "x" * 2000}, NEW)], {})

    workers = [threading.Thread(target=write, args=(name,)) for name in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    problems = store.verify()
    try:
        again = TinyStore(folder, PlainCodec())
    except CrmError as error:
        return [*problems, str(error)]
    count = again.count("customers")
    again.close()
    return problems + ([f"{count} of {threads * times} are there"] if count != threads * times else [])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let journals be compacted early."""
    monkeypatch.setattr(compaction, "SMALLEST", 20_000)


@pytest.mark.proof
def test_threads_that_all_want_to_compact(
    small: None, folder: Path, open_tiny: Opener, scale: Callable[[int], int]
) -> None:
    for _ in range(scale(3)):
        shutil.rmtree(folder)
        TinyStore.create(folder, "workspace-1")
        assert written_by_threads(open_tiny(), folder, 3, 60) == []


def test_control_threads_that_write_into_one_snapshot(
    small: None, folder: Path, open_tiny: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "claim", lambda self: True)
    monkeypatch.setattr(durable, "temporary_name", lambda name: f".{name}.tmp")
    for _ in range(10):
        shutil.rmtree(folder)
        TinyStore.create(folder, "workspace-1")
        store = open_tiny()
        if written_by_threads(store, folder, 3, 60) or store.compaction_problem:
            return
    pytest.fail("nobody got in anybody's way")


def test_a_snapshot_of_another_journal_is_told_by_verify(folder: Path, open_tiny: Opener) -> None:
    store = open_tiny()
    for number in range(3):
        store.commit([Put("customers", {"id": f"{number}"}, NEW)], {})
        assert store.compact()
        shutil.copy(folder / f"snap.{store.generation}.jsonl", folder.parent / f"{number}")
    assert store.verify() == []
    shutil.copy(folder.parent / "1", folder / "snap.4.jsonl")
    (problem,) = store.verify()
    assert "snap.4.jsonl, line 1: begins after commit 2, and what comes before it ends with commit 3" in problem


def test_a_log_that_is_not_the_next_is_told_by_verify(folder: Path, open_tiny: Opener) -> None:
    store = open_tiny()
    for number in range(3):
        store.commit([Put("customers", {"id": f"{number}"}, NEW)], {})
        assert store.compact()
    shutil.copy(folder / "log.1.jsonl", folder / "log.2.jsonl")
    assert "log.2.jsonl, line 1: begins after commit 0" in store.verify()[0]


def written_by_a_child_that_was_made_under_the_lock(folder: Path) -> bool:
    """Fork inside the lock; tell whether the child, after its block ended, wrote while the parent held the lock."""
    store = TinyStore(folder, PlainCodec(), timeout=0.3)
    child = 1
    with store.lock():
        child = os.fork()
        if child:
            status = os.waitpid(child, 0)[1]
    if not child:
        try:
            store.commit([Put("customers", {"id": "child"}, NEW)], {})
        except BaseException:
            os._exit(1)
        os._exit(0)
    store.close()
    return status == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_that_was_made_under_the_lock_does_not_hold_it(folder: Path) -> None:
    assert not written_by_a_child_that_was_made_under_the_lock(folder)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_control_a_child_that_shares_the_lock_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkspaceLock, "_begin_anew", lambda self: None)
    assert written_by_a_child_that_was_made_under_the_lock(folder)


@pytest.mark.parametrize("stop", range(1, 9))
def test_an_interrupt_while_a_new_generation_is_taken_in_is_made_good(
    folder: Path, open_tiny: Opener, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    writer, reader = open_tiny(), open_tiny()
    writer.commit([Put("customers", {"id": "a", "n": 0}, NEW)], {})
    assert reader.count("customers") == 1
    assert writer.compact()
    for number in range(1, 4):
        writer.commit([Put("customers", {"id": "a", "n": number}, number)], {})
        writer.commit([Put("customers", {"id": f"b{number}"}, NEW)], {})
    writer.commit([Move("customers", "trash", {"id": "b1"}, 1)], {})
    left = stop

    def interrupted(self: Any, *arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return real(self, *arguments)

    real = Journal.advance
    monkeypatch.setattr(Journal, "advance", interrupted)
    try:
        reader.count("customers")
    except KeyboardInterrupt:
        pass
    monkeypatch.undo()
    assert reader.tables() == writer.tables()
    assert reader.get("customers", "a") == {"id": "a", "n": 3, "rev": 4}


def test_an_interrupt_while_everything_is_read_again_is_made_good(
    folder: Path, open_tiny: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = open_tiny(), open_tiny()
    for number in range(3):
        writer.commit([Put("customers", {"id": f"{number}"}, NEW)], {})
        assert writer.compact()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crmkit.store.replica.Replica._replace_journal", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reader.count("customers")
    monkeypatch.undo()
    assert reader.tables() == writer.tables()


def test_a_store_that_nobody_closes_lets_go_of_its_files(folder: Path) -> None:
    import gc

    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        TinyStore(folder, PlainCodec())
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_is_cut_off_the_journal_is_kept(folder: Path, wal: Path, open_tiny: Opener) -> None:
    store = open_tiny()
    store.commit([Put("customers", {"id": "a"}, NEW)], {})
    store.commit([Put("customers", {"id": "b"}, NEW)], {})
    store.close()
    lines = wal.read_bytes().splitlines(keepends=True)
    sound = b"".join(lines[:2])
    wal.write_bytes(sound + lines[2][:-5])
    again = open_tiny()
    again.commit([Put("customers", {"id": "c"}, NEW)], {})
    assert (folder / f"torn.1.{len(sound)}").read_bytes() == lines[2][:-5]
    assert [doc["id"] for doc in again.scan("customers")] == ["a", "c"]
