"""Documents that are dropped from memory: the next use reads them again, or says why it cannot."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crmkit.errors import Conflict, CrmError, Invalid, Locked
from crmkit.query import F, Find, parse_order
from crmkit.store import ANY, NEW, Delete, Put, TinyStore, compaction
from crmkit.store.journal import Journal
from crmkit.store.replica import Replica
from tests.store.sealing import Generations

CANARY = "a canary in memory"


@pytest.fixture
def codec() -> Generations:
    """The codec of all stores of a test."""
    return Generations()


@pytest.fixture
def open_sealed(folder: Path, codec: Generations) -> Iterator[Callable[..., TinyStore]]:
    """Opens the store of `folder`, with a collection that is open, one that is packed, and one that nobody knows."""
    opened: list[TinyStore] = []

    def open_one() -> TinyStore:
        opened.append(TinyStore(folder, codec, lazy=frozenset(["purchases"])))
        opened[-1].register("customers", unique=["email"], text=lambda doc: str(doc["name"]))
        opened[-1].register("purchases", lazy=True)
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def fill(store: TinyStore) -> None:
    """Put some documents into each collection."""
    for collection in ("customers", "purchases", "unknown"):
        docs = [
            {"id": f"{collection[0]}{number}", "name": f"name {number}", "email": f"{number}@x", "n": number}
            for number in range(5)
        ]
        store.commit([Put(collection, doc, NEW) for doc in docs], {})
    store.compact()
    store.commit([Put("customers", {"id": "c1", "name": "Ada", "email": "ada@x", "n": 1}, 1)], {})
    store.commit([Delete("customers", "c4", 1)], {})


def shown(store: TinyStore) -> list[Any]:
    """Return what all kinds of reading show."""
    return [
        *(sorted(store.scan(name), key=lambda doc: doc["id"]) for name in ("customers", "purchases", "unknown")),
        store.get("customers", "c1"),
        store.get("customers", "c4"),
        store.count("purchases"),
        store.count("customers", F.n >= 1),
        list(store.find(Find("customers", F.email == "ada@x"))),
        store.match("customers", ["Ad"], 5),
        store.changes(3),
        list(store.commits()),
        store.seq(),
        {name: dict(docs) for name, docs in store.tables().items()},
        store.verify(),
    ]


def test_the_next_use_shows_what_there_was(open_sealed: Any) -> None:
    store = open_sealed()
    fill(store)
    before = shown(store)
    store.forget()
    store.forget()
    assert shown(store) == before
    for number in range(len(before)):  # whichever comes first
        store.forget()
        assert shown(store)[number] == before[number]
    store.forget()
    with pytest.raises(Invalid, match="already taken"):
        store.commit([Put("customers", {"id": "new", "name": "X", "email": "ada@x"}, NEW)], {})


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.get("customers", "c1"),
        lambda store: list(store.find(Find("customers"))),
        lambda store: store.count("customers"),
        lambda store: list(store.scan("customers")),
        lambda store: store.match("customers", ["Ad"], 5),
        lambda store: store.changes(0),
        lambda store: store.tables(),
        lambda store: [store.compact(), shown(store)],
        lambda store: [store.commit([Delete("customers", "c1", ANY)], {"at": "now"}), shown(store)],
    ],
)
def test_each_use_may_be_the_next_one(open_sealed: Any, codec: Generations, folder: Path, use: Any) -> None:
    store, copy = open_sealed(), folder.with_name("copy")
    fill(store)
    shutil.copytree(folder, copy)
    store.forget()
    used = use(store)
    other = TinyStore(copy, codec)
    other.register("customers", unique=["email"], text=lambda doc: str(doc["name"]))
    other.register("purchases", lazy=True)
    assert used == use(other)
    other.close()


def is_in_memory() -> bool:
    """Return whether a list with the canary is there, as a document in memory has it."""
    gc.collect()
    return any(type(each) is list and each == [CANARY] for each in gc.get_objects())


def test_nothing_of_the_documents_is_left_in_memory(open_sealed: Any) -> None:
    store = open_sealed()
    store.commit([Put("customers", {"id": "a", "name": CANARY, "list": ["".join(CANARY)]}, NEW)], {})
    store.forget()
    store.match("customers", ["a"], 5)
    store.find(Find("customers", order=parse_order("name")))
    assert is_in_memory()
    store.forget()
    assert not is_in_memory()


# ----------------------------------------------------------------------------------------------- the keys are locked


def test_while_the_keys_are_locked_every_use_says_so(open_sealed: Any, codec: Generations) -> None:
    store = open_sealed()
    fill(store)
    before, seq = shown(store), store.seq()
    store.forget()
    for opens in (0, 1, 3):  # also where they are locked in the middle of it
        codec.opens = opens
        for _ in range(2):
            with pytest.raises(Locked):
                store.get("customers", "c0")
            codec.opens = 0
        for use in (
            lambda: store.count("unknown"),
            lambda: store.find(Find("customers")),
            lambda: store.scan("purchases"),
            lambda: store.seq(),
            lambda: store.changes(0),
            lambda: store.commit([Put("unknown", {"id": "new"}, NEW)], {}),
            lambda: store.commit([Delete("customers", "c0", ANY)], {}),
            lambda: store.register("purchases", lazy=True),
        ):
            with pytest.raises(Locked):
                use()
        assert not is_there(store)
    codec.opens = None
    assert store.seq() == seq
    assert shown(store) == before


def is_there(store: TinyStore) -> bool:
    """Return whether a store holds any document."""
    return any(documents.by_id for documents in store._replica.contents.collections.values())


def test_what_others_commit_meanwhile_is_taken_in_whole(open_sealed: Any, codec: Generations) -> None:
    store, other = open_sealed(), open_sealed()
    fill(store)
    before = shown(other)
    store.commit(
        [
            Put("customers", {"id": "c0", "name": "Eve", "n": 7}, 1),
            Put("customers", {"id": "c2", "name": "Eve", "n": 8}, 1),
        ],
        {},
    )
    for opens in (0, 1):
        codec.opens = opens
        with pytest.raises(Locked):
            other.get("customers", "c0")
        with pytest.raises(Locked):
            other.count("customers")
    codec.opens = None
    assert shown(other) == shown(store) != before
    assert [change.id for change in other.changes(5)] == ["c0", "c2"]


def test_what_is_saved_is_acknowledged_though_the_keys_are_locked_just_then(
    open_sealed: Any, codec: Generations, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_sealed()
    fill(store)
    append = Journal.append

    def then_locked(self: Journal, operations: Any) -> Any:
        codec.opens = 0
        return append(self, operations)

    with monkeypatch.context() as locked:
        locked.setattr(Journal, "append", then_locked)
        locked.setattr(compaction, "SMALLEST", 0)
        put = [Put("customers", {"id": id, "name": id}, NEW) for id in ("x", "y")]
        assert store.commit(put, {}) == 6
    with pytest.raises(Locked):
        store.get("customers", "x")
    codec.opens = None
    assert store.get("customers", "y")["name"] == "y"
    assert shown(store) == shown(open_sealed())
    assert not store.compaction_problem


def test_a_store_that_is_closed_while_locked(open_sealed: Any, codec: Generations) -> None:
    store = open_sealed()
    fill(store)
    store.forget()
    codec.opens = 0
    store.close()
    with pytest.raises(CrmError, match="the workspace is closed"):
        store.forget()
    codec.opens = None
    assert open_sealed().verify() == []


# ------------------------------------------------------------------------------------------------- others at work


def forgets_without_a_word(self: Replica) -> None:
    """Drop the documents as somebody would who does not think of the next use."""
    self.contents = self.contents.forgotten()


def test_a_commit_reads_first(open_sealed: Any) -> None:
    store = open_sealed()
    fill(store)
    store.forget()
    with pytest.raises(Conflict):
        store.commit([Put("customers", {"id": "c0", "name": "twice"}, NEW)], {})
    with store.lock():
        store.forget()
        with pytest.raises(Conflict):
            store.commit([Put("customers", {"id": "c0", "name": "twice"}, NEW)], {})
        store.commit([Put("customers", {"id": "c0", "name": "second"}, 1)], {})
    assert store.get("customers", "c0")["rev"] == 2


def test_control_a_commit_that_does_not_read_first(open_sealed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_sealed()
    fill(store)
    monkeypatch.setattr(Replica, "forget", forgets_without_a_word)
    store.forget()
    store.commit([Put("customers", {"id": "c0", "name": "twice"}, NEW)], {})


def test_while_a_block_reads(open_sealed: Any) -> None:
    store = open_sealed()
    fill(store)
    before = shown(store)
    with store.reading():
        store.forget()
        assert store.get("customers", "c1")["name"] == "Ada"
        assert shown(store) == before


def test_what_the_system_could_not_sync_is_not_read_again(open_sealed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_sealed()
    fill(store)

    def fails(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fails)
        with pytest.raises(CrmError):
            store.commit([Put("unknown", {"id": "lost"}, NEW)], {})
    store.forget()
    for _ in range(2):
        with pytest.raises(CrmError, match="read only until opened again"):
            store.get("customers", "c1")
    assert open_sealed().get("customers", "c1")["name"] == "Ada"


def at_once(store: TinyStore, seconds: float) -> list[str]:
    """Read, write and forget in some threads; return what went wrong."""
    problems: list[str] = []
    end = time.monotonic() + seconds
    written = 0

    def watched(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while time.monotonic() < end and not problems:
                    work()
            except Exception as error:
                problems.append(repr(error))

        return run

    def reads() -> None:
        if store.get("customers", "c1") is None or store.get("purchases", "p1") is None:
            problems.append("a document was not there")
        if store.count("customers") != 4:
            problems.append("documents were missing")

    def writes() -> None:
        nonlocal written
        doc = store.get("customers", "c2")
        assert doc is not None
        store.commit([Put("customers", {**doc, "n": doc["n"] + 1}, doc["rev"])], {})
        written += 1

    def forgets() -> None:
        store.forget()
        time.sleep(0.0005)

    threads = [threading.Thread(target=watched(work)) for work in (reads, reads, writes, forgets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    doc = store.get("customers", "c2")
    if doc is None or doc["n"] != written + 2:
        problems.append("a change was lost")
    return problems


@pytest.mark.proof
def test_threads_that_read_and_write_meanwhile(open_sealed: Any, scale: Callable[[int], int]) -> None:
    store = open_sealed()
    fill(store)
    assert at_once(store, min(scale(1), 10)) == []
    assert store.verify() == []


def test_control_forgetting_while_others_are_in_the_middle_of_it(
    open_sealed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_sealed()
    fill(store)
    monkeypatch.setattr(TinyStore, "forget", lambda self: self._replica.forget())
    assert at_once(store, 10) != []
