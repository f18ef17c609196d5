"""Random walks of two open stores beside plain dicts that say what must be there, and what must have been."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from crmkit.errors import Conflict, Invalid, NotFound
from crmkit.store import ANY, NEW, Delete, Doc, Logged, Move, Put, Reseal, TinyStore, Write
from crmkit.store.checks import Outcome
from tests.store.sealing import Anew

COLLECTIONS = st.sampled_from(["customers", "customers.removed", "purchases"])
IDS = st.sampled_from("abcd")
VALUES = st.fixed_dictionaries({}, optional={"n": st.none() | st.integers(0, 3) | st.booleans(), "t": st.just(["x"])})
KINDS = st.sampled_from(["put", "put", "put", "put", "move", "delete", "reseal"])
AIMS = st.sampled_from(["right"] * 12 + ["any", "wrong"])


@st.composite
def intentions(draw: Any) -> tuple[Any, ...]:
    """Return what somebody wants to write: how, where, what, and whether they know the revision."""
    return tuple(draw(each) for each in (KINDS, COLLECTIONS, COLLECTIONS, IDS, VALUES, AIMS))


State = dict[tuple[str, str], Doc]


def write_of(state: State, kind: str, collection: str, to: str, id: str, values: Doc, aim: str) -> Write:
    """Return a write; who wants to move or delete what is not there takes something else, or puts."""
    if kind != "put" and (collection, id) not in state and aim == "right":
        collection, id = min(state, default=(collection, id))
    if kind == "reseal":
        return Reseal(collection, id)
    old = state.get((collection, id))
    right = old["rev"] if old else NEW
    expect = {"right": right, "any": ANY, "wrong": right + 1}[aim]
    doc = {**values, "id": id}
    if kind == "put" or expect == NEW:
        return Put(collection, doc, expect)
    return Delete(collection, id, expect) if kind == "delete" else Move(collection, to, doc, expect)


class Refusal(Exception):
    """The model says that a commit is not allowed."""


def after(state: State, writes: list[Write]) -> State:
    """Return what must be there after a commit."""
    state = dict(state)
    for write in writes:
        collection, id = write.collection, write.id if isinstance(write, Delete | Reseal) else write.doc["id"]
        old = state.get((collection, id))
        if isinstance(write, Reseal):
            if old is None:
                raise Refusal
            continue
        if write.expect == NEW:
            if old is not None:
                raise Refusal
        elif old is None or write.expect not in (ANY, old["rev"]):
            raise Refusal
        if isinstance(write, Move) and write.to != collection and (write.to, id) in state:
            raise Refusal
        state.pop((collection, id), None)
        if not isinstance(write, Delete):
            to = write.to if isinstance(write, Move) else collection
            state[to, id] = {**write.doc, "rev": old["rev"] + 1 if old else 1}
    return state


def exactly(state: State) -> dict[tuple[str, str], str]:
    """Return a state in which True is not 1."""
    return {place: repr(sorted(doc.items())) for place, doc in state.items()}


def undone(state: State, commit: Logged) -> State:
    """Return what was there before a commit, by what the history tells of it."""
    state = dict(state)
    for step in reversed(commit.steps):
        old = dict(state.pop((step.to, step.id), {}))
        if step.action != "add":
            assert step.before is not None
            kept = {name: value for name, value in old.items() if name not in step.changed}
            state[step.collection, step.id] = {**kept, **step.before}
    return state


class Machine(RuleBasedStateMachine):
    """Two stores on one folder, commits and refusals, compaction and reopening."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)) / "data"  # noqa: PTH112
        TinyStore.create(self.folder, "workspace-1")
        self.stores = [self.open(0), self.open(1)]
        self.past: dict[int, State] = {0: {}}
        self.state: State = {}

    def open(self, which: int) -> TinyStore:
        """Open one of the stores; the second one keeps the documents packed."""
        names = ("customers", "customers.removed", "purchases")
        store = TinyStore(self.folder, Anew("n"), lazy=frozenset(names if which else ()))
        for name in names:
            store.register(name, lazy=bool(which))
        return store

    @rule(which=st.integers(0, 1), wanted=st.lists(intentions(), min_size=1, max_size=4))
    def commit(self, which: int, wanted: list[tuple[Any, ...]]) -> None:
        writes: list[Write] = []
        expected = self.state
        try:
            for intention in wanted:
                writes.append(write_of(expected, *intention))
                expected = after(expected, writes[-1:])
        except Refusal:
            with pytest.raises((Conflict, NotFound, Invalid)):
                self.stores[which].commit(writes, {"by": "both"})
            return
        seq = self.stores[which].commit(writes, {"by": "both"})
        self.state = expected
        if not all(isinstance(write, Reseal) for write in writes):  # of which the history does not tell
            self.past[seq] = expected

    @rule(which=st.integers(0, 1), wanted=intentions())
    def commit_one(self, which: int, wanted: tuple[Any, ...]) -> None:
        self.commit(which, [wanted])

    @rule(which=st.integers(0, 1))
    def compact(self, which: int) -> None:
        assert self.stores[which].compact()

    @rule(which=st.integers(0, 1))
    def forget(self, which: int) -> None:
        self.stores[which].forget()

    @rule(which=st.integers(0, 1))
    def rewrite_history(self, which: int) -> None:
        store = self.stores[which]
        steps = [step for commit in store.commits() for step in commit.steps if step.action != "add"]
        assert store.rewrite_history(lambda step: dict(step.before)) == len(steps)

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.stores[which].close()
        self.stores[which] = self.open(which)

    @rule(which=st.integers(0, 1), newest_first=st.booleans(), back=st.integers(0, 8), id=IDS)
    def look(self, which: int, newest_first: bool, back: int, id: str) -> None:
        self.look_back(which, newest_first)
        self.what_changed(which, back)
        self.history_of_one(which, id)

    def look_back(self, which: int, newest_first: bool) -> None:
        commits = list(self.stores[which].commits(newest_first=newest_first))
        commits = commits if newest_first else commits[::-1]
        assert [commit.seq for commit in commits] == sorted(self.past.keys() - {0}, reverse=True)
        state = self.state
        for commit, before in zip(commits, [*sorted(self.past, reverse=True)[1:], 0]):
            state = undone(state, commit)
            assert exactly(state) == exactly(self.past[before])

    def what_changed(self, which: int, back: int) -> None:
        since = sorted(self.past)[-back - 1 :][0]
        changed = {(change.collection, change.id) for change in self.stores[which].changes(since)}
        then, now = exactly(self.past[since]), exactly(self.state)
        assert {place for place in then.keys() | now.keys() if then.get(place) != now.get(place)} <= changed
        for commit in self.stores[which].commits(since):
            assert commit.seq > since

    def history_of_one(self, which: int, id: str) -> None:
        all_of_it = [
            (commit.seq, step) for commit in self.stores[which].commits() for step in commit.steps if step.id == id
        ]
        about = [(commit.seq, step) for commit in self.stores[which].commits(about=id) for step in commit.steps]
        assert about == all_of_it

    @invariant()
    def all_agree(self) -> None:
        for store in getattr(self, "stores", []):
            found = {(name, id): dict(doc) for name, docs in store.tables().items() for id, doc in docs.items()}
            assert exactly(found) == exactly(self.state)

    def teardown(self) -> None:
        for store in getattr(self, "stores", []):
            assert store.verify() == []
            store.close()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder.parent)


def walk(times: int, steps: int = 50, *, shrinks: bool = True) -> None:
    """Let machines walk, each so many steps; look for the shortest walk that goes wrong, or be content with any."""
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=times,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, *([Phase.shrink] if shrinks else [])],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.proof
def test_a_store_is_what_dicts_say(scale: Any, record_property: Any) -> None:
    times = scale(30)
    walk(times)
    record_property("steps", 50 * times)


def test_control_a_store_that_does_not_look_at_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Outcome._put

    def careless(self: Outcome, write: Put | Move, to: str, doc: Doc, expect: int) -> Any:
        return put(self, write, to, doc, ANY if expect > NEW else expect)

    monkeypatch.setattr(Outcome, "_put", careless)
    with pytest.raises(BaseException, match=r"DID NOT RAISE|assert"):
        walk(20, shrinks=False)
