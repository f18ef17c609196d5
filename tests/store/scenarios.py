"""What crmkit does to its files in the crash proofs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ulid import ULID

from crmkit.codec import RecordCodec
from crmkit.durable import frame
from crmkit.records import Customer
from crmkit.schema import info
from crmkit.store import ANY, NEW, Delete, PlainCodec, Put, Reseal, Step, TinyStore, compaction
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
        Reseal("customers", "a"),
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


SECRET = "a former value"


def with_a_past(root: Path) -> None:
    """Make a store with two logs, in each of which former values of three documents are kept."""
    with_a_store(root)
    store = open_plain(root)
    for _ in range(2):
        store.commit([Put("customers", {"id": id, "note": SECRET}, ANY) for id in ("a", "b")], {})
        store.commit([Put("customers", {"id": id}, ANY) for id in ("a", "b")], {})
        store.commit([Put("customers", {"id": "c", "note": SECRET}, NEW)], {})
        store.commit([Delete("customers", "c", 1)], {})
        store.compact()
    store.close()


def without_secrets(step: Step) -> Mapping[str, Any]:
    """Return the former values of a step with the secret ones replaced."""
    return {**step.before, "note": "-"} if step.before.get("note") == SECRET else step.before


def _rewriting(stage: Stage) -> None:
    """The history is rewritten while another process writes, reads the past and compacts."""
    store, other = stage.open(), stage.open()
    stage.add(store, "d")
    past = other.commits()
    next(past)
    asked = 0

    def change(step: Step) -> Mapping[str, Any]:
        nonlocal asked
        asked += 1
        if asked in (1, 8):  # in the second log, and in the first one
            stage.add(other, "ef"[asked // 8])
            other.compact()
        return without_secrets(step)

    store.rewrite_history(change)
    list(past)
    stage.sees(other)
    stage.add(store, "g")


def _half_rewritten(store: TinyStore) -> str:
    """Return what is wrong with logs that are being rewritten, and go on with that."""
    folder = store._files.folder
    kept = [(folder / f"log.{number}.jsonl").read_bytes().count(SECRET.encode()) for number in (1, 2)]
    if kept not in ([3, 3], [3, 0], [0, 0]):
        return f"the logs keep {kept} secrets"
    before = [[(step.action, step.id) for step in commit.steps] for commit in store.commits()]
    changed = store.rewrite_history(without_secrets)
    after = [[(step.action, step.id) for step in commit.steps] for commit in store.commits()]
    if changed != sum(kept) or after[: len(before)] != before:
        return f"{changed} of {sum(kept)} steps were changed, and there are {after}"
    left = [path.name for path in folder.iterdir() if SECRET.encode() in path.read_bytes()]
    return f"secrets are left in {left}" if left else ""


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
REWRITING = Scenario("rewriting", with_a_past, _rewriting, open_plain, also=_half_rewritten)
SCENARIOS = (
    *(CREATE, COMMITS, BEFORE_SYNC, WITHIN_WRITE, NEW_KEYS, COMPACTION, TWO_COMPACTIONS, BY_ITSELF, MIGRATION),
    REWRITING,
)
