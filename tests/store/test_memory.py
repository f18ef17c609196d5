"""What a store keeps in memory, and that nothing of it stays when it is closed."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from crmkit.query import F
from crmkit.store import PlainCodec, TinyStore


class Opened(dict[str, Any]):
    """A document that a test can follow."""


class Followed(PlainCodec):
    """Opens documents to some that can be followed."""

    def __init__(self) -> None:
        self._opened: list[weakref.ref[Opened]] = []

    def open(self, collection: str, fields: dict[str, Any], doc: dict[str, Any]) -> dict[str, Any]:
        opened = Opened(fields)
        self._opened.append(weakref.ref(opened))
        return opened

    def alive(self) -> int:
        """Return how many of the opened documents are in memory."""
        return sum(1 for document in self._opened if document() is not None)


@pytest.fixture
def codec() -> Followed:
    """Knows which of the documents that it opened are still in memory."""
    return Followed()


def used(folder: Path, codec: Followed, put: Any) -> TinyStore:
    """Return an open store with some documents, indexes, a feed and a table."""
    store = TinyStore(folder, codec)
    store.register("customers", unique=["n"], text=lambda doc: f"text {doc['n']}")
    put(store, *({"id": f"{n}", "n": n, "tags": ["vip"]} for n in range(100)))
    store.match("customers", ["text"], 5)
    store.count("customers", F.n > 5)
    store.table("customers").all()
    return store


def test_closing_lets_go_of_every_opened_value_at_once(folder: Path, codec: Followed, put: Any) -> None:
    store = used(folder, codec, put)
    assert codec.alive() == 100
    gc.disable()  # at once means: without waiting for a collection
    try:
        store.close()
        assert codec.alive() == 0
    finally:
        gc.enable()


def test_a_closed_store_is_collected(folder: Path, codec: Followed, put: Any) -> None:
    store = used(folder, codec, put)
    store.close()
    left = weakref.ref(store)
    del store
    gc.collect()
    assert left() is None


def test_opening_hides_nothing_from_the_garbage_collector(folder: Path) -> None:
    before, was_enabled = gc.get_freeze_count(), gc.isenabled()
    TinyStore(folder, PlainCodec()).close()
    assert gc.get_freeze_count() == before, "what is frozen is never collected, in the whole process"
    assert gc.isenabled() == was_enabled


GROWN = """
from pathlib import Path
import orjson
from crmkit.store.documents import PackedDocs

def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))

docs = [{{"id": str(n), "rev": 1, "text": "x" * 800}} for n in range(5_000)]
packed = PackedDocs()
before = private()
kept = [{keep} for doc in docs]
print((private() - before) / sum(len(orjson.dumps(doc)) for doc in docs))
"""


def grown(keep: str) -> float:
    """Return how much a process grows by documents that it keeps, in times the size of their JSON."""
    code = GROWN.format(keep=keep)
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)


def test_packed_documents_take_little_more_than_their_json(record_property: Any) -> None:
    times = grown("packed.take(doc)")
    record_property("packed_memory_times_json", round(times, 2))
    assert times < 1.5


def test_packed_documents_that_bring_their_buffer_along_would_be_seen() -> None:
    """The control: what orjson returns keeps the unused end of its buffer."""
    assert grown("orjson.dumps(doc)") > 3
