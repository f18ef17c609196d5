"""The stage of the crash proofs: a watched folder, what its store may hold, and how it is looked at afterwards."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crmkit.errors import CrmError
from crmkit.store import NEW, Delete, Put, TinyStore, Write
from tests.store.disk import Disk, Fault

LATE, LATEST, LATER = (f"01ZZZZZZZZZZZZZZZZZZZZZZZ{end}" for end in "XYZ")

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
        also: Looks at something else that a crash left, and returns what is wrong, or nothing.
    """

    name: str
    prepare: Callable[[Path], None]
    run: Callable[[Stage], None]
    open: Callable[[Path], TinyStore]
    states: int = 300
    also: Callable[[TinyStore], str] = lambda store: ""  # nothing else

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
            return self.also(again) or "; ".join(again.verify())
        finally:
            again.close()


def lay_out(root: Path, files: dict[str, bytes]) -> None:
    """Put files where they were, and nothing else."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "data").mkdir(parents=True)
    for path, content in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)
