"""Rewriting the history: former values are replaced in every log, whoever else is at work, and whatever happens."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crmkit.errors import CrmError, Damaged, Invalid, StoreBusy
from crmkit.store import ANY, NEW, Delete, Move, Put, Step, Store, rewriting, tiny
from crmkit.store.compaction import LineWriter
from crmkit.store.journal import Journal
from tests.store.scenarios import REWRITING, SECRET, without_secrets
from tests.store.test_crash_points import ended
from tests.store.test_kill import wait_until

SECRETS = re.compile(rb"(canary-\d+)")


def redacted(step: Step) -> Mapping[str, Any]:
    """Return the former values of a step without the secret ones."""
    kept = {name: value for name, value in step.before.items() if not str(value).startswith("canary")}
    return kept if len(kept) < len(step.before) else step.before


def with_a_past(store: Store, generations: int = 3, documents: int = 4) -> None:
    """Fill a store with documents whose secrets were changed, moved and deleted, in some generations."""
    for number in range(generations):
        ids = [f"{number}-{each}" for each in range(documents)]
        store.commit([Put("customers", {"id": id, "name": f"canary-{number}", "n": 1}, NEW) for id in ids], {"is": 1})
        store.commit([Put("customers", {"id": id, "name": "open", "n": 2}, 1) for id in ids[1:]], {})
        store.commit([Move("customers", "customers.removed", {"id": ids[1], "n": 3}, 2)], {})
        store.commit([Delete("customers", ids[0], 1)], {})
        if number < generations - 1:
            store.compact()


def past(store: Store) -> list[tuple[int, str, str, dict[str, Any]]]:
    """Return all steps, with what was before."""
    return [
        (commit.seq, step.action, step.id, dict(step.before)) for commit in store.commits() for step in commit.steps
    ]


def found_in(folder: Path) -> list[str]:
    """Return the names of the files that hold a secret."""
    return sorted(path.name for path in folder.iterdir() if SECRETS.search(path.read_bytes()))


def test_every_former_value_is_asked_for_newest_first_and_replaced(
    store: Store, open_store: Callable[[], Store]
) -> None:
    with_a_past(store)
    before = past(store)
    asked: list[Step] = []

    def change(step: Step) -> Mapping[str, Any]:
        asked.append(step)
        return redacted(step)

    documents = {doc["id"]: dict(doc) for doc in store.scan("customers")}
    seq = store.seq()
    told = [step for commit in store.commits() for step in commit.steps if step.action != "add"]
    assert store.rewrite_history(change) == 3 * 4
    assert asked == told[::-1]
    expected = [
        (seq, action, id, {name: value for name, value in was.items() if not str(value).startswith("canary")})
        for seq, action, id, was in before
    ]
    for each in (store, open_store()):
        assert past(each) == expected
        assert {doc["id"]: dict(doc) for doc in each.scan("customers")} == documents
        assert each.seq() == seq
        assert each.verify() == []
        for since in range(seq):
            assert [commit.seq for commit in each.commits(since)] == list(range(since + 1, seq + 1))
        assert [commit.seq for commit in each.commits(about="1-1", newest_first=True)] == [7, 6, 5]
    assert store.rewrite_history(redacted) == 0


def test_nothing_of_it_is_left_on_the_disk(open_tiny: Any, folder: Path) -> None:
    store, other = open_tiny(), open_tiny()
    with_a_past(store)
    assert store.count_on_disk(SECRETS) == {b"canary-0": 4, b"canary-1": 4, b"canary-2": 8}
    assert found_in(folder) == ["log.1.jsonl", "log.2.jsonl", "wal.2.jsonl", "wal.3.jsonl"]
    other.compact()
    assert found_in(folder) == ["log.1.jsonl", "log.2.jsonl", "log.3.jsonl", "wal.3.jsonl"]
    assert store.rewrite_history(redacted) == 12
    assert found_in(folder) == []
    assert store.count_on_disk(SECRETS) == {}
    assert sorted(path.name for path in folder.iterdir()) == [
        *("CURRENT", "LOCK", "log.1.jsonl", "log.2.jsonl", "log.3.jsonl", "snap.4.jsonl", "wal.4.jsonl")
    ]
    other.commit([Put("customers", {"id": "later"}, NEW)], {})
    assert store.get("customers", "later")
    assert store.verify() == other.verify() == []


def test_only_logs_that_change_are_touched(open_tiny: Any, folder: Path) -> None:
    store = open_tiny()
    with_a_past(store)
    marks = {name: (folder / name).stat().st_ino for name in ("log.1.jsonl", "log.2.jsonl")}
    store.rewrite_history(lambda step: redacted(step) if "canary-1" in step.before.values() else step.before)
    assert (folder / "log.1.jsonl").stat().st_ino == marks["log.1.jsonl"]
    assert (folder / "log.2.jsonl").stat().st_ino != marks["log.2.jsonl"]
    assert (folder / "log.2.jsonl").stat().st_mode == (folder / "log.1.jsonl").stat().st_mode


def test_what_was_deleted_keeps_its_id_and_revision(store: Store) -> None:
    with_a_past(store)
    assert store.rewrite_history(lambda step: {}) == 15
    assert [was for _, action, _, was in past(store) if action == "delete"] == [
        {"id": f"{number}-0", "rev": 1} for number in range(3)
    ]
    assert store.verify() == []


def test_a_store_without_a_past(store: Store) -> None:
    assert store.rewrite_history(redacted) == 0
    store.commit([Put("customers", {"id": "a"}, NEW)], {})
    assert store.rewrite_history(redacted) == 0


def test_commits_that_come_meanwhile_stay(store: Store, open_store: Callable[[], Store]) -> None:
    with_a_past(store)
    other, came = open_store(), 0

    def change(step: Step) -> Mapping[str, Any]:
        nonlocal came
        came += 1
        other.commit([Put("customers", {"id": f"new-{came}", "name": "canary-9"}, NEW)], {})
        other.commit([Put("customers", {"id": f"new-{came}"}, ANY)], {})
        if came % 5 == 0:
            other.compact()
        return redacted(step)

    assert store.rewrite_history(change) == 12
    assert sum("canary-9" in was.values() for *_, was in past(store)) == came == 15
    assert store.verify() == other.verify() == []
    assert store.rewrite_history(redacted) == 15


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_an_error_on_the_way_leaves_whole_logs_and_it_can_be_done_again(open_tiny: Any, folder: Path) -> None:
    store = open_tiny()
    with_a_past(store)
    before = past(store)

    def fails(step: Step) -> Mapping[str, Any]:
        if step.id == "1-3":
            raise RuntimeError
        return redacted(step)

    with pytest.raises(RuntimeError):
        store.rewrite_history(fails)
    assert [each for each in past(store) if each[0] <= 8] == [each for each in before if each[0] <= 8]
    assert found_in(folder) == ["log.1.jsonl", "log.2.jsonl"]
    with pytest.raises(Invalid, match="only JSON values"):
        store.rewrite_history(lambda step: {**step.before, "name": {1, 2}})
    assert store.verify() == []
    assert not list(folder.glob(".*"))
    assert store.rewrite_history(redacted) == 8


def test_a_damaged_log_is_named_and_left(open_tiny: Any, folder: Path) -> None:
    store = open_tiny()
    with_a_past(store)
    log = folder / "log.1.jsonl"
    log.write_bytes(log.read_bytes().replace(b"canary-0", b"canary-X", 1))
    with pytest.raises(Damaged, match=r"log\.1\.jsonl, byte \d+: not what crmkit wrote"):
        store.rewrite_history(redacted)
    assert found_in(folder) == ["log.1.jsonl"]


def in_place(log: Path, data: Any, changed: Mapping[int, bytes]) -> None:
    """Give a log some other lines, as `rewriting._replace` does, but where it stands."""
    lines = [changed.get(start) or data[start:end] for start, end in rewriting._lines(data)]
    with LineWriter(log) as writer:
        for line in lines:
            writer.write(line)


def test_control_a_log_that_is_written_in_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "_replace", in_place)
    alone = replace(REWRITING, run=lambda stage: stage.open().rewrite_history(without_secrets))
    assert any(ended(alone, root, 10_000))


def test_what_somebody_left_who_was_killed_is_removed(open_tiny: Any, folder: Path) -> None:
    store = open_tiny()
    with_a_past(store)
    (folder / ".log.1.jsonl.anew").write_text("canary-0")
    store.rewrite_history(redacted)
    assert found_in(folder) == []


class Overtaken(LineWriter):
    """A log that is written while another process compacts."""

    other: Store

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.other.commit([Put("customers", {"id": self._path.name}, NEW)], {})
        assert self.other.compact()


def test_compaction_does_not_remove_a_log_that_is_being_written(
    open_tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, Overtaken.other = open_tiny(), open_tiny()
    with_a_past(store)
    monkeypatch.setattr(rewriting, "LineWriter", Overtaken)
    assert store.rewrite_history(redacted) == 12
    assert store.verify() == []


def test_control_compaction_removes_files_with_usual_temporary_names(
    open_tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, Overtaken.other = open_tiny(), open_tiny()
    with_a_past(store)
    monkeypatch.setattr(rewriting, "LineWriter", Overtaken)
    monkeypatch.setattr(rewriting, "_ANEW", ".{}.tmp")
    with pytest.raises(CrmError):
        store.rewrite_history(redacted)


# ------------------------------------------------------------------------------------------------------ one at a time


def test_a_second_one_is_told_so(open_tiny: Any) -> None:
    store, other = open_tiny(), open_tiny()
    with_a_past(store)
    refused = 0

    def change(step: Step) -> Mapping[str, Any]:
        nonlocal refused
        with pytest.raises(StoreBusy, match="the history is being rewritten"):
            other.rewrite_history(redacted)
        refused += 1
        return step.before

    store.rewrite_history(change)
    assert refused == 15
    assert other.rewrite_history(redacted) == 12


def test_a_claim_ends_with_the_process(
    open_tiny: Any, folder: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    store = open_tiny()
    with_a_past(store)
    worker = start("rewrite_and_wait", folder)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "asked\n"
    with pytest.raises(StoreBusy):
        store.rewrite_history(redacted)
    worker.kill()
    worker.wait()
    assert store.rewrite_history(redacted) == 12


def test_somebody_who_never_finishes_compacting(open_tiny: Any, wal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_tiny()
    with_a_past(store, generations=1)
    compacting = Journal(wal)
    assert compacting.claim()
    monkeypatch.setattr(tiny, "_REWRITING", 0.1)
    with pytest.raises(StoreBusy, match="kept compacting"):
        store.rewrite_history(redacted)
    compacting.close()
    assert store.rewrite_history(redacted) == 4


# ---------------------------------------------------------------------------------------------------- other readers


def test_whoever_is_reading_goes_on_with_what_there_was(open_tiny: Any) -> None:
    store, other = open_tiny(), open_tiny()
    with_a_past(store)
    before = [step for commit in other.commits() for step in commit.steps]
    reading = other.commits()
    read = list(next(reading).steps)
    store.rewrite_history(redacted)
    store.commit([Put("customers", {"id": "new"}, NEW)], {})
    read += [step for commit in reading for step in commit.steps]
    assert [(step.action, step.id) for step in read] == [(step.action, step.id) for step in before]


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.count("customers"),
        lambda store: store.commit([Delete("customers", "2-2", ANY)], {}),
        lambda store: store.compact(),
        lambda store: store.register("customers", lazy=True),
        lambda store: list(store.commits()),
        lambda store: store.verify() == [] or pytest.fail("problems"),
        lambda store: store.forget(),
    ],
)
def test_whoever_was_a_generation_behind_finds_the_next_one(open_tiny: Any, use: Any) -> None:
    store, sleeper = open_tiny(), open_tiny()
    with_a_past(store)
    sleeper.register("customers")
    sleeper.seq()
    store.commit([Put("customers", {"id": "new"}, NEW)], {})
    store.rewrite_history(redacted)
    assert store.generation == sleeper.generation + 1
    use(sleeper)
    assert sleeper.get("customers", "new") == {"id": "new", "rev": 1}
    assert past(sleeper) == past(store)
    assert sleeper.verify() == store.verify() == []


def test_control_whoever_is_reading_a_log_that_is_written_in_place(
    open_tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_tiny(), open_tiny()
    with_a_past(store)
    reading = other.commits()
    next(reading)
    monkeypatch.setattr(rewriting, "_replace", in_place)
    store.rewrite_history(redacted)
    with pytest.raises(Damaged):
        list(reading)


@pytest.mark.proof
def test_another_process_reads_the_past_while_its_logs_are_replaced(
    open_tiny: Any, folder: Path, start: Any, finish: Any, tmp_path: Path, scale: Callable[[int], int]
) -> None:
    store, stop = open_tiny(), tmp_path / "stop"
    with_a_past(store, documents=30)
    workers = [start("read_the_past", folder, stop) for _ in range(2)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    try:
        for time in range(scale(30)):
            assert store.rewrite_history(lambda step, time=time: {**step.before, "name": f"{time}"}) >= 90
            store.commit([Put("customers", {"id": f"new-{time}"}, NEW)], {})
    finally:
        stop.touch()
    for worker in workers:
        assert int(finish(worker)) > 1


@pytest.mark.proof
def test_killed_at_any_moment_it_can_be_run_again(
    open_tiny: Any, folder: Path, start: Any, scale: Callable[[int], int], record_property: Any
) -> None:
    store = open_tiny()
    with_a_past(store, documents=40)
    kills = scale(5)
    for number in range(kills):
        worker = start("rewrite_forever", folder, number)
        assert worker.stdout.readline() == "begun\n"
        wait_until(lambda moment=number % 7: len(list(folder.glob(".*.anew"))) > 0 or moment % 2 == 0)
        worker.kill()
        worker.wait()
        assert store.verify() == []
    record_property("kills", kills)
    store.rewrite_history(lambda step: {**step.before, "name": "-"})
    assert {was["name"] for _, action, _, was in past(store) if action != "add"} == {"-"}
    assert found_in(folder) == []


def test_the_secrets_of_the_crash_proof_are_there_before(root: Path) -> None:
    REWRITING.prepare(root)
    counts = [path.read_text().count(SECRET) for path in sorted((root / "data").glob("log.*"))]
    assert counts == [3, 3]
