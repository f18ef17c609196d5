"""What crmkit does to its files in the crash proofs, and how a store is looked at afterwards."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulid import ULID

from crmkit.codec import RecordCodec
from crmkit.durable import frame
from crmkit.errors import CrmError
from crmkit.records import Customer
from crmkit.schema import info
from crmkit.store import NEW, Delete, PlainCodec, Put, TinyStore, Write, compaction
from crmkit.vault import Vault
from tests.store.disk import Disk, Fault

State = dict[tuple[str, str], Any] | None
"""The documents of a store by collection and id; None where no store needs to be there yet."""


def state_of(store: TinyStore) -> State:
    """Return the documents of a store."""
    return {(name, id): dict(doc) for name, docs in store.tables().items() for id, doc in docs.items()}


def told_by_history(store: TinyStore) -> set[tuple[str, str]]:
    """Return the collections and ids of the documents that there are, by what the history says was done."""
    there: set[tuple[str, str]] = set()
    for step in (step for commit in store.commits() for step in commit.steps):
        there -= {(step.collection, step.id)}
        there |= {(step.to or step.collection, step.id)} if step.action != "delete" else set()
    return there


def _after(state: State, writes: tuple[Write, ...]) -> State:
    state = dict(state or {})
    for write in writes:
        match write:
            case Put(collection, doc):
                old = state.get((collection, doc["id"]), {"rev": 0})
                state[collection, doc["id"]] = {**doc, "rev": old["rev"] + 1}
            case Delete(collection, id):
                del state[collection, id]
    return state


class Stage:
    """A watched folder, and the states of its store that may be found after a crash.

    Attributes:
        root: The folder.
        data: The folder of the store inside it.
        disk: What watches the folder.
        allowed: The state that was acknowledged or seen last, and those that are being written.
        ever: All states that were allowed at some time.
        stores: What was opened.
        error: What ended the scenario before its time.
        problems: What was wrong with the stores while they were open.
        chance: Makes two runs of a scenario differ.
    """

    def __init__(self, root: Path, open_store: Callable[[Path], TinyStore], disk: Disk, seed: int = 0) -> None:
        self.root, self.data, self.disk = root, root / "data", disk
        self._open_store = open_store
        self.chance = random.Random(seed)
        self.allowed: list[State] = [None]
        self.ever: list[State] = []
        self.stores: list[TinyStore] = []
        self.error: Exception | None = None
        self.problems: list[str] = []

    def open(self) -> TinyStore:
        """Open the store and look at it."""
        store = self._open_store(self.root)
        self.stores.append(store)
        self.sees(store)
        return store

    @contextmanager
    def process(self, until: str = "") -> Iterator[None]:
        """What the block opens belongs to a process of its own; see `Disk.process`."""
        before = list(self.stores)
        try:
            with self.disk.process(until):
                yield
        finally:
            if not self.error:
                self.stores = before

    def goes_on(self) -> None:
        """Read and write again with every store that is open: it may refuse, but not lie."""
        for store in self.stores:
            try:
                found = state_of(store)
                if found not in self.ever:  # one that cannot sync what others wrote goes on showing what it has
                    self.problems.append(f"shows {found}, which was never there")
                self.add(store, LATE)
            except CrmError:
                pass
            except Exception as error:
                self.problems.append(f"goes on with {error!r}")

    def starts_again(self) -> None:
        """Open the store anew, in the same system, and write."""
        try:
            self.add(self.open(), LATEST)
        except CrmError as error:
            if None not in self.allowed:
                self.problems.append(f"does not open again: {error}")

    def may_become(self, state: State) -> None:
        """From now on this state may be found too."""
        self.allowed.append(state)
        self.ever.append(state)
        self.disk.note(self.allowed)

    def is_now(self, state: State) -> None:
        """Somebody was told of this state: from now on nothing else may be found."""
        self.allowed = [state]
        self.ever.append(state)
        self.disk.note(self.allowed)

    def sees(self, store: TinyStore) -> None:
        """Read all: what was acknowledged has to be shown, and what was shown has to stay."""
        found = state_of(store)
        if found not in self.allowed and self.allowed != [None]:
            self.problems.append(f"shows {found}, allowed are {self.allowed}")
        self.is_now(found)

    def commit(self, store: TinyStore, *writes: Write) -> None:
        """Commit and write down what was acknowledged."""
        with store.lock():  # so that what is seen is what the commit changes
            self.sees(store)
        after = _after(self.allowed[0], writes)
        self.may_become(after)
        store.commit(writes, {})
        self.is_now(after)

    def add(self, store: TinyStore, id: str, size: int = 40) -> None:
        """Add a customer with a name; ids and sizes of equal lengths make lines of equal lengths."""
        letter = self.chance.choice("abcdefgh")
        self.commit(store, Put("customers", {"id": id, "name": letter * size}, NEW))


@dataclass(frozen=True)
class Scenario:
    """Something that a crash interrupts.

    Attributes:
        prepare: Makes the files that are there before, for good.
        run: Does what is interrupted.
        open: Opens the store in a folder, in the usual way.
        states: How many states after a loss of power are looked at, at scale 1.
    """

    name: str
    prepare: Callable[[Path], None]
    run: Callable[[Stage], None]
    open: Callable[[Path], TinyStore]
    states: int = 300

    @contextmanager
    def started(self, root: Path, fault: Fault | None = None, seed: int = 0, **disk: Any) -> Iterator[Stage]:
        """Prepare a folder, run the scenario in it and leave what is there, for the block to look at."""
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        self.prepare(root)
        stage = Stage(root, self.open, Disk(root, **disk), seed)
        if (root / "data").exists():
            stage.allowed = [self._state_of_a_copy(root)]
        with stage.disk.watching(fault):
            stage.is_now(stage.allowed[0])
            try:
                self.run(stage)
            except Exception as error:
                stage.error = error
                stage.goes_on()
                stage.starts_again()
        assert fault or stage.error is None, stage.error
        yield stage

    def _state_of_a_copy(self, root: Path) -> State:
        copy = root.with_name("copy")  # opening may change files
        shutil.copytree(root, copy)
        store = self.open(copy)
        state = state_of(store)
        store.close()
        shutil.rmtree(copy)
        return state

    def problem(self, root: Path, allowed: tuple[State, ...]) -> str:
        """Open what a crash left, look, write, open it again; return what is wrong, or nothing."""
        try:
            return self._problem(root, allowed)
        except Exception as error:  # a broken variant of crmkit may raise anything
            return f"{type(error).__name__}: {error}"

    def _problem(self, root: Path, allowed: tuple[State, ...]) -> str:
        try:
            store = self.open(root)
        except CrmError:
            if None not in allowed:
                raise
            TinyStore.create(root / "data", "workspace-1")  # what was not finished can be done again
            store = self.open(root)
            allowed = (*allowed, {})
        try:
            found = state_of(store)
            if found not in allowed:
                return f"found {found}, allowed are {allowed}"
            if told_by_history(store) != set(found or {}):
                return f"the history tells of {told_by_history(store)}, there are {set(found or {})}"
            store.commit([Put("customers", {"id": LATER, "name": "later"}, NEW)], {})
            expected = _after(found, (Put("customers", {"id": LATER, "name": "later"}, NEW),))
        finally:
            store.close()
        again = self.open(root)
        try:
            if state_of(again) != expected:
                return f"found {state_of(again)} after writing, expected {expected}"
            return "; ".join(again.verify())
        finally:
            again.close()


def lay_out(root: Path, files: dict[str, bytes]) -> None:
    """Put files where they were, and nothing else."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "data").mkdir(parents=True)
    for path, content in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)


LATE, LATEST, LATER = (f"01ZZZZZZZZZZZZZZZZZZZZZZZ{end}" for end in "XYZ")


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
