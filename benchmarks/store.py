"""The store alone, with documents of the size of a customer, against plain TinyDB and against the bare disk.

Ratios of one run: above 1 the store is faster, unless the name says ``_cost`` (then it is how many times as much).
``python -m benchmarks store``
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinydb import Query, TinyDB
from tinydb.table import Document

from crmkit.durable import write_at
from crmkit.query import F, Find, Order
from crmkit.store import NEW, PlainCodec, Put, TinyStore

Doc = dict[str, Any]
_WRITING = 4.0  # seconds that four writers work at the same time


def run() -> dict[str, float | str]:
    """Measure at 1,000, 10,000 and 100,000 documents."""
    figures: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as top:
        for size in (1_000, 10_000, 100_000):
            folder = Path(top) / str(size)
            store = _filled(folder, size)
            ours = _of_store(store, size)
            figures |= {f"{name}_{size}_us": round(time * 1e6, 2) for name, time in ours.items()}
            if size < 100_000:
                plain = _of_tinydb(folder / "plain.json", size)
                figures |= {f"{name}_vs_tinydb_{size}": round(plain[name] / ours[name]) for name in plain}
            if size == 1_000:
                small = ours["update_cpu"]
                figures |= _against_the_disk(store, folder / "raw")
            store.close()
        figures["update_cpu_cost_100000_vs_1000"] = round(ours["update_cpu"] / small, 2)
        figures |= _opening(folder, folder / "wal.1.jsonl")
        figures |= _four_writers(Path(top))
    return figures


def customer(number: int) -> Doc:
    """Return a document of about 900 bytes of JSON."""
    chance = random.Random(number)
    doc: Doc = {"id": f"01K{number:023}", "number": f"C-{number}", "email": f"person{number}@example.org"}
    doc |= {"name": f"{chance.choice('ABCDEFGH')}. Person {number}", "country": chance.choice(("GB", "DE", "FR"))}
    doc |= {"created_at": f"2026-01-01T00:00:{chance.random():.9f}+00:00", "tags": ["vip"] if number % 9 == 0 else []}
    return doc | {f"field_{n}": "some text that people type" for n in range(18)}


def _filled(folder: Path, size: int) -> TinyStore:
    TinyStore.create(folder, "benchmark")
    store = TinyStore(folder, PlainCodec())
    store.register("customers", unique=["number"], text=lambda doc: doc["name"].casefold())
    for start in range(0, size, 10_000):
        batch = range(start, min(start + 10_000, size))
        store.commit([Put("customers", customer(number), NEW) for number in batch], {})
    return store


def _median(times: int, task: Callable[[int], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the median seconds of a task that gets 0, then 1, and so on."""
    taken = []
    for number in range(times):
        start = clock()
        task(number)
        taken.append(clock() - start)
    return statistics.median(taken)


def _of_store(store: TinyStore, size: int) -> dict[str, float]:
    by_time = Find("customers", order=(Order("created_at", descending=True),))
    middle = store.find(Find("customers", order=by_time.order, limit=size // 2)).next
    deep = Find("customers", order=by_time.order, after=middle)

    def update(number: int) -> None:
        doc = store.get("customers", f"01K{number * 7 % size:023}")
        assert doc is not None
        changed = {**doc, "city": f"City {number}", "created_at": doc["created_at"] + "0"}
        store.commit([Put("customers", changed, doc["rev"])], {"actor": "ann"})

    def insert(number: int) -> None:
        store.commit([Put("customers", customer(size + number), NEW)], {"actor": "ann"})

    store.match("customers", ["person"], 1)
    store.count("customers", F.name.contains("person"))
    store.count("customers", F.email == "")
    return {
        "get": _median(2000, lambda number: store.get("customers", f"01K{number % size:023}")),
        "equality": _median(500, lambda n: store.find(Find("customers", F.email == f"person{n % size}@example.org"))),
        "page_of_50": _median(200, lambda number: store.find(by_time)),
        "page_of_50_at_half_depth": _median(200, lambda number: store.find(deep)),
        "substring": _median(5, lambda number: store.count("customers", F.name.contains(f"son {number}99"))),
        "typed_name": _median(50, lambda number: store.match("customers", ["person", str(number * 7)], 20)),
        "update": _median(300, update),
        "update_cpu": _median(300, update, time.process_time),
        "insert": _median(300, insert),
    }


def _of_tinydb(file: Path, size: int) -> dict[str, float]:
    with TinyDB(file) as db:
        table, q, times = db.table("customers", cache_size=0), Query(), 5
        table.insert_multiple(Document(customer(number), number) for number in range(size))

        def page(number: int) -> object:
            return sorted(table.all(), key=lambda doc: str(doc["created_at"]), reverse=True)[:50]

        return {
            "get": _median(times, lambda number: table.get(doc_id=number)),
            "equality": _median(times, lambda number: table.search(q.email == f"person{number}@example.org")),
            "page_of_50": _median(times, page),
            "update": _median(times, lambda number: table.update({"city": f"City {number}"}, doc_ids=[number])),
            "insert": _median(times, lambda number: table.insert(customer(size + number))),
        }


def _against_the_disk(store: TinyStore, file: Path) -> dict[str, float | str]:
    """Compare a commit with an append and a sync of as many bytes, the two taking turns."""
    line, fd, raw, ours = b"x" * 1_000, os.open(file, os.O_RDWR | os.O_CREAT), [], []
    for number in range(500):
        raw.append(_median(1, lambda _: write_at(fd, line, number * 1_000)))  # noqa: B023
        put = [Put("appended", customer(number), NEW)]
        ours.append(_median(1, lambda _: store.commit(put, {})))  # noqa: B023
    os.close(fd)
    append, commit = statistics.median(raw), statistics.median(ours)
    return {
        "append_and_sync_us": round(append * 1e6, 1),
        "commit_cost_vs_append_and_sync": round(commit / append, 2),
        "commit_beyond_append_and_sync_us": round((commit - append) * 1e6, 1),
    }


def _opening(folder: Path, wal: Path) -> dict[str, float | str]:
    lines = wal.read_bytes().splitlines()
    gc.collect()
    gc.disable()
    bare = _median(3, lambda _: [json.loads(line[9:]) for line in lines])
    gc.enable()
    opening = _median(3, lambda _: TinyStore(folder, PlainCodec()).close())
    return {
        "open_100000_s": round(opening, 2),
        "open_100000_cost_vs_bare_loads": round(opening / bare, 2),
        "journal_100000_mb": round(wal.stat().st_size / 1e6, 1),
    }


def _four_writers(top: Path) -> dict[str, float | str]:
    """Let four processes update documents of their own for some seconds, in a store and then in sqlite3."""
    TinyStore.create(top / "shared", "benchmark")
    store = TinyStore(top / "shared", PlainCodec())
    store.commit([Put("customers", customer(number), NEW) for number in range(1_000)], {})
    store.close()
    with sqlite3.connect(top / "shared.sqlite") as peer:
        peer.execute("PRAGMA journal_mode=WAL")
        peer.execute("CREATE TABLE customers (id TEXT PRIMARY KEY, rev INTEGER, body TEXT)")
        rows = ((doc["id"], json.dumps(doc)) for doc in map(customer, range(1_000)))
        peer.executemany("INSERT INTO customers VALUES (?, 1, ?)", rows)
    peer.close()
    ours, theirs = _together(_write_to_store, top / "shared"), _together(_write_to_sqlite, top / "shared.sqlite")
    return {
        "four_writers_commits_per_s": round(sum(ours) / _WRITING),
        "four_writers_slowest_over_fastest": round(min(ours) / max(ours), 2),
        "four_writers_sqlite_commits_per_s": round(sum(theirs) / _WRITING),
        "four_writers_sqlite_slowest_over_fastest": round(min(theirs) / max(theirs), 2),
        "four_writers_vs_sqlite": round(sum(ours) / max(1, sum(theirs)), 2),
    }


def _together(write: Callable[[Path, int, Any, Any], None], place: Path) -> list[int]:
    """Return how many commits each of four processes got acknowledged, all of them working at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, done = context.Barrier(4), context.Queue()
    writers = [context.Process(target=write, args=(place, number, barrier, done)) for number in range(4)]
    for writer in writers:
        writer.start()
    counts = [done.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join()
    return counts


def _write_to_store(folder: Path, writer: int, barrier: Any, done: Any) -> None:
    store = TinyStore(folder, PlainCodec(), timeout=60)

    def update(number: int) -> None:
        doc = store.get("customers", f"01K{number:023}")
        assert doc is not None
        store.commit([Put("customers", {**doc, "city": f"City {writer}"}, doc["rev"])], {"actor": "ann"})

    done.put(_acknowledged(update, writer, barrier))
    store.close()


def _write_to_sqlite(file: Path, writer: int, barrier: Any, done: Any) -> None:
    """Do the same: read a document, and write it where it is still at the revision that was read."""
    peer = sqlite3.connect(file, isolation_level=None)
    peer.execute("PRAGMA synchronous=FULL")
    peer.execute("PRAGMA busy_timeout=60000")

    def update(number: int) -> None:
        id = f"01K{number:023}"
        rev, body = peer.execute("SELECT rev, body FROM customers WHERE id=?", (id,)).fetchone()
        changed = json.dumps({**json.loads(body), "city": f"City {writer}"})
        peer.execute("BEGIN IMMEDIATE")
        found = peer.execute("UPDATE customers SET rev=rev+1, body=? WHERE id=? AND rev=?", (changed, id, rev))
        assert found.rowcount == 1
        peer.execute("COMMIT")

    done.put(_acknowledged(update, writer, barrier))
    peer.close()


def _acknowledged(update: Callable[[int], None], writer: int, barrier: Any) -> int:
    """Return how often a writer, with 250 documents of its own, can update one of them in `_WRITING` seconds."""
    barrier.wait(60)
    count, end = 0, time.perf_counter() + _WRITING
    while time.perf_counter() < end:
        update(writer * 250 + count % 250)
        count += 1
    return count


if __name__ == "__main__":
    for name, figure in run().items():
        print(f"{name:50} {figure}")
