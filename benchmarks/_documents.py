"""Documents of the size of a customer, and a store, a TinyDB file and an sqlite3 file that hold them."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from crmkit.store import NEW, PlainCodec, Put, TinyStore, compaction

Doc = dict[str, Any]
_SYLLABLES = (
    "ba",
    "den",
    "fir",
    "gol",
    "har",
    "jun",
    "kel",
    "lor",
    "mis",
    "nam",
    "per",
    "qui",
    "ros",
    "sto",
    "tav",
    "wen",
)


def customer(number: int) -> Doc:
    """Return a document of about 900 bytes of JSON."""
    chance = random.Random(number)
    doc: Doc = {"id": id_of(number), "number": f"C-{number}", "email": f"person{number}@example.org"}
    doc |= {"name": name_of(number), "country": chance.choice(("GB", "DE", "FR"))}
    doc |= {"created_at": f"2026-01-01T00:00:{chance.random():.9f}+00:00", "tags": ["vip"] if number % 9 == 0 else []}
    return doc | {f"field_{n}": "some text that people type" for n in range(18)}


def id_of(number: int) -> str:
    """Return the id of a document."""
    return f"01K{number:023}"


def name_of(number: int) -> str:
    """Return a first and a last name: 256 first ones, 65,536 last ones."""
    chance = random.Random(number)
    first, last = ("".join(chance.choice(_SYLLABLES) for _ in range(length)) for length in (2, 4))
    return f"{first.capitalize()} {last.capitalize()}"


def misspelt(name: str) -> str:
    """Return a last name with two letters changed over, as it is typed in a hurry."""
    last = name.split()[1]
    return f"{last[:3]}{last[4]}{last[3]}{last[5:]}"


def open_store(folder: Path) -> TinyStore:
    """Open a store of `fill_store`, indexed and searchable."""
    store = TinyStore(folder, PlainCodec(), timeout=60)
    store.register("customers", unique=["number"], text=lambda doc: doc["name"].casefold())
    return store


def fill_store(folder: Path, size: int) -> None:
    """Make a store with so many customers, all of them in the journal still."""
    TinyStore.create(folder, "benchmark")
    with never_compacted():
        store = TinyStore(folder, PlainCodec())
        for start in range(0, size, 10_000):
            batch = range(start, min(start + 10_000, size))
            store.commit([Put("customers", customer(number), NEW) for number in batch], {})
        store.close()


@contextmanager
def never_compacted() -> Iterator[None]:
    """Let journals grow however long they get."""
    with mock.patch.object(compaction, "SMALLEST", 1 << 60):
        yield


def open_sqlite(file: Path) -> sqlite3.Connection:
    """Open an sqlite3 file as safely as a store: what was acknowledged is on disk."""
    peer = sqlite3.connect(file, isolation_level=None)
    peer.execute("PRAGMA journal_mode=WAL")
    peer.execute("PRAGMA synchronous=FULL")
    peer.execute("PRAGMA busy_timeout=60000")
    return peer


def fill_sqlite(file: Path, size: int) -> None:
    """Make an sqlite3 file with so many customers, the same JSON, and indexes for the same questions."""
    peer = open_sqlite(file)
    peer.execute("CREATE TABLE customers (id TEXT PRIMARY KEY, rev INTEGER, body TEXT)")
    peer.execute("BEGIN")
    rows = ((doc["id"], json.dumps(doc)) for doc in map(customer, range(size)))
    peer.executemany("INSERT INTO customers VALUES (?, 1, ?)", rows)
    peer.execute("CREATE INDEX by_email ON customers (body->>'email')")
    peer.execute("CREATE INDEX by_time ON customers (body->>'created_at', id)")
    peer.execute("COMMIT")
    peer.close()
