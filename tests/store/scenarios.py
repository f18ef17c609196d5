"""What crmkit does to its files in the crash proofs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ulid import ULID

from crmkit.codec import RecordCodec
from crmkit.durable import frame
from crmkit.records import Customer
from crmkit.schema import info
from crmkit.store import NEW, Delete, PlainCodec, Put, TinyStore, compaction
from crmkit.vault import Vault
from tests.store.stage import Scenario, Stage


def open_plain(root: Path) -> TinyStore:
    """Open a store that seals nothing."""
    return TinyStore(root / "data", PlainCodec(), timeout=1)


def with_a_store(root: Path) -> None:
    """Make a store with two customers."""
    TinyStore.create(root / "data", "workspace-1")
    store = open_plain(root)
    store.commit([Put("customers", {"id": id, "name": "before"}, NEW) for id in ("a", "b")], {})
    store.close()


def open_sealed(root: Path) -> TinyStore:
    """Open a store that seals the fields of customers, with a data key for each."""
    codec = RecordCodec(Vault.unlock(root / "keys"))
    codec.know(info(Customer))
    store = TinyStore(root / "data", codec, timeout=1)
    store.register("customers")
    return store


def with_keys(root: Path) -> None:
    """Make a store and the keys beside it, with one customer."""
    workspace = str(ULID())
    TinyStore.create(root / "data", workspace)
    Vault.create(root / "keys", workspace)
    store = open_sealed(root)
    store.commit([Put("customers", {"id": str(ULID()), "name": "before"}, NEW)], {})
    store.close()


def nothing(root: Path) -> None:
    """Leave the folder empty."""


# ------------------------------------------------------------------------------------------------------- scenarios


def _create(stage: Stage) -> None:
    stage.may_become({})
    TinyStore.create(stage.data, "workspace-1")
    stage.is_now({})
    stage.add(stage.open(), "c")


def _commits(stage: Stage) -> None:
    store = stage.open()
    stage.add(store, "c")
    stage.add(store, "d")
    stage.commit(
        store,
        Put("customers", {"id": "a", "name": "changed"}, 1),
        Put("purchases", {"id": "p", "total": stage.chance.randrange(100)}, NEW),
        Delete("customers", "b", 1),
    )
    stage.add(store, "e", stage.chance.choice((0, 40, 700)))
    store.close()


def _a_writer_is_killed(fault: str) -> Callable[[Stage], None]:
    """A writer ends in the middle of a commit; one that was open before goes on, and then a new one."""

    def run(stage: Stage) -> None:
        other = stage.open()
        with stage.process():
            first = stage.open()
            stage.add(first, "c")
            with stage.process(fault):
                stage.add(first, "d", stage.chance.choice((40, 300)))
        stage.add(other, "e")
        stage.add(other, "f")
        stage.add(stage.open(), "g")

    return run


def _new_keys(stage: Stage) -> None:
    """Every commit brings a customer with a data key of its own; one writer ends between key and commit."""
    store = stage.open()
    with stage.process():
        other = stage.open()
        stage.add(other, str(ULID()))
        with stage.process("half a pwrite"):
            stage.add(other, str(ULID()))
    stage.add(store, str(ULID()))
    ids = [str(ULID()) for _ in range(3)]
    stage.commit(store, *(Put("customers", {"id": id, "name": "one of many"}, NEW) for id in ids))


def _compaction(stage: Stage) -> None:
    """Commits before, during and after compaction, by the one who compacts and by another, who was open before."""
    store, other = stage.open(), stage.open()
    stage.add(store, "c")
    stage.disk.meanwhile("pwrite", lambda: stage.add(other, "d"))
    store.compact()
    stage.sees(store)
    stage.add(other, "e")
    stage.commit(store, Put("customers", {"id": "a", "name": "changed"}, 1), Delete("customers", "b", 1))
    other.compact()
    stage.add(store, "f")
    stage.sees(stage.open())


def _two_compactions(stage: Stage) -> None:
    """While one compacts, another does so twice; the first one has to give up, and one that slept reads all again."""
    store, other, sleeper = stage.open(), stage.open(), stage.open()
    store.compact()
    stage.add(store, "c")

    def overtake() -> None:
        other.compact()
        stage.add(other, "d")
        other.compact()

    stage.disk.meanwhile("sync", overtake)
    store.compact()
    stage.sees(sleeper)
    stage.add(sleeper, "e")
    stage.add(store, "f")


def _compaction_by_itself(stage: Stage) -> None:
    """Commits that set off compaction, and a writer that is killed in the middle of that."""
    usual, compaction.SMALLEST = compaction.SMALLEST, 600
    try:
        store = stage.open()
        for id in "cdef":
            stage.add(store, id, 200)
        with stage.process("replace"):
            first = stage.open()
            for id in "ghij":
                stage.add(first, id, 200)
        stage.add(store, "k", 200)
        store.close()
    finally:
        compaction.SMALLEST = usual


def with_an_old_store(root: Path) -> None:
    """Write a store as the first version of crmkit did, with a write at its end that was cut off."""
    data = root / "data"
    data.mkdir(parents=True)
    a, b, p = {"id": "a", "rev": 1}, {"id": "b", "rev": 1}, {"id": "p", "rev": 1}
    commits: list[list[Any]] = [
        [["m", {"format": 0, "workspace": "workspace-1"}]],
        [["m", {}], ["b", "customers", [a, b]], ["p", "purchases", "p", p]],
        [["m", {}], ["p", "customers", "a", {**a, "rev": 2, "name": "changed"}]],
        [["m", {}], ["d", "customers", "b"], ["p", "customers.removed", "b", {**b, "rev": 2}]],
        [["m", {}], ["d", "purchases", "p"]],
    ]
    lines = [frame(json.dumps([seq, operations]).encode()) for seq, operations in enumerate(commits)]
    (data / "wal.1.jsonl").write_bytes(b"".join(lines) + lines[-1][:20])
    (data / "LOCK").write_bytes(b"")
    (data / "CURRENT").write_bytes(b"1\n")


def _migration(stage: Stage) -> None:
    stage.add(stage.open(), "c")
    stage.add(stage.open(), "d")


CREATE = Scenario("create", nothing, _create, open_plain)
COMMITS = Scenario("commits", with_a_store, _commits, open_plain)
BEFORE_SYNC = Scenario("a writer is killed before its sync", with_a_store, _a_writer_is_killed("sync"), open_plain)
WITHIN_WRITE = Scenario(
    "a writer is killed within its write", with_a_store, _a_writer_is_killed("half a pwrite"), open_plain
)
NEW_KEYS = Scenario("new keys", with_keys, _new_keys, open_sealed)
COMPACTION = Scenario("compaction", with_a_store, _compaction, open_plain)
TWO_COMPACTIONS = Scenario("two compactions", with_a_store, _two_compactions, open_plain)
BY_ITSELF = Scenario("compaction by itself", with_a_store, _compaction_by_itself, open_plain)
MIGRATION = Scenario("migration", with_an_old_store, _migration, open_plain)
SCENARIOS = (CREATE, COMMITS, BEFORE_SYNC, WITHIN_WRITE, NEW_KEYS, COMPACTION, TWO_COMPACTIONS, BY_ITSELF, MIGRATION)
