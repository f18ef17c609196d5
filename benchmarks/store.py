"""The store alone, in one process, beside plain TinyDB, sqlite3 (WAL, FULL) and what the machine can do at the least.

A ``…_vs_…`` is how many times as fast the store is, a ``…_cost_vs_…`` how many times as much it costs; both sides are
of the same run. Writes take turns, so that a slow moment of the disk is everybody's.
"""

from __future__ import annotations

import gc
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from tinydb import Query, TinyDB
from tinydb.table import Document

from benchmarks._documents import (
    Doc,
    customer,
    fill_sqlite,
    fill_store,
    id_of,
    misspelt,
    name_of,
    open_sqlite,
    open_store,
)
from benchmarks._sizes import SIZES, scaled
from benchmarks._timing import median, once
from crmkit.durable import write_at
from crmkit.query import F, Find, Order
from crmkit.store import NEW, PlainCodec, Put, TinyStore

TURNS = scaled(300, 10)
BY_TIME = Find("customers", order=(Order("created_at", descending=True),))


def run() -> dict[str, float]:
    """Measure at 1,000, 10,000 and 100,000 documents."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as top:
        for label, size in SIZES.items():
            figures |= {f"{name}_{label}": value for name, value in _at_size(Path(top) / label, size).items()}
    figures["update_cpu_cost_100k_vs_1k"] = round(figures["update_cpu_us_100k"] / figures["update_cpu_us_1k"], 2)
    return figures


def _at_size(folder: Path, size: int) -> dict[str, float]:
    fill_store(folder, size)
    fill_sqlite(folder / "peer.sqlite", size)
    figures = _opening(folder, folder / "wal.1.jsonl")
    store, peer = open_store(folder), open_sqlite(folder / "peer.sqlite")
    ours, sqlite = _of_store(store, size), _of_sqlite(peer, size)
    figures["changes_us"], figures["history_ms"] = _log(store, size)
    writes, cpu = _writes(store, peer, folder / "raw", size)
    plain = _of_tinydb(folder / "plain.json", size)
    figures["open_plain_tinydb_s"] = round(once(lambda: _read_all(folder / "plain.json")), 3)
    figures["open_vs_tinydb"] = _ratio(figures["open_plain_tinydb_s"], figures["open_snapshot_s"])
    ours |= {name: writes[name] for name in ("insert", "update")}
    sqlite |= {name: writes[f"sqlite_{name}"] for name in ("insert", "update")}
    figures |= {f"{name}_us": _us(seconds) for name, seconds in ours.items()}
    figures |= {f"{name}_cpu_us": _us(seconds) for name, seconds in cpu.items()}
    figures |= {f"{name}_sqlite_us": _us(seconds) for name, seconds in sqlite.items()}
    figures |= {f"{name}_tinydb_us": _us(seconds) for name, seconds in plain.items()}
    figures |= {f"{name}_vs_tinydb": _ratio(seconds, ours[name]) for name, seconds in plain.items()}
    figures |= {f"{name}_vs_sqlite": _ratio(seconds, ours[name]) for name, seconds in sqlite.items() if name in ours}
    figures["append_and_sync_us"] = _us(writes["append"])
    figures["insert_beyond_two_appends_us"] = _us(writes["insert"] - 2 * writes["append"])
    figures["insert_cost_vs_append_and_sync"] = _ratio(writes["insert"], writes["append"])
    figures["insert_cpu_cost_vs_sqlite"] = _ratio(cpu["insert"], cpu["sqlite_insert"])
    figures["get_cost_vs_dict"] = _ratio(ours["get"], _dict_lookup(size))
    store.close()
    peer.close()
    return figures


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 2)


def _ratio(one: float, other: float) -> float:
    return float(f"{one / other:.3g}")


# --------------------------------------------------------------------------- reading


def _of_store(store: TinyStore, size: int) -> dict[str, float]:
    middle = store.find(Find("customers", order=BY_TIME.order, limit=size // 2)).next
    deep = Find("customers", order=BY_TIME.order, after=middle)
    back = Find("customers", order=BY_TIME.order, before=store.find(deep).previous)
    names = [name_of(number * 7 % size).casefold() for number in range(60)]
    first_search = once(lambda: store.match("customers", [names[0]], 1))
    store.match("customers", [misspelt(names[0])], 1, near=True)
    store.count("customers", F.name.contains(names[0]))
    store.count("customers", F.email == "")
    return {
        "get": median(2000, lambda number: store.get("customers", id_of(number % size))),
        "equality": median(500, lambda n: store.find(Find("customers", F.email == f"person{n % size}@example.org"))),
        "page": median(200, lambda _: store.find(BY_TIME)),
        "page_half": median(200, lambda _: store.find(deep)),
        "page_back": median(200, lambda _: store.find(back)),
        "substring": median(10, lambda number: store.count("customers", F.name.contains(names[number][-6:]))),
        "first_search": first_search,
        "typed_name": median(50, lambda number: store.match("customers", names[number][:-4].split(), 20)),
        "misspelt_name": median(20, lambda number: store.match("customers", [misspelt(names[number])], 20, near=True)),
    }


def _log(store: TinyStore, size: int) -> tuple[float, float]:
    """Return µs to ask for the last ten changes, and ms to ask for the history of one document of a journal."""
    for number in range(10):
        store.commit([Put("customers", {**_stored(store, number), "city": f"City {number}"}, 1)], {})
    since = store.seq() - 10
    changes = median(200, lambda _: store.changes(since))
    assert len(store.changes(since)) == 10
    history = median(3, lambda number: list(store.commits(about=id_of(number), newest_first=True)))
    return _us(changes), round(history * 1e3, 2)


def _stored(store: TinyStore, number: int) -> Doc:
    doc = store.get("customers", id_of(number))
    assert doc is not None
    return dict(doc)


def _of_sqlite(peer: sqlite3.Connection, size: int) -> dict[str, float]:
    def one(sql: str, *values: object) -> list[Doc]:
        return [json.loads(body) for (body,) in peer.execute(f"SELECT body FROM customers {sql}", values)]

    order = "ORDER BY body->>'created_at' DESC, id DESC LIMIT 50"
    skipped = f"{order} OFFSET {size // 2 - 1}"
    at, id = peer.execute(f"SELECT body->>'created_at', id FROM customers {skipped}").fetchone()
    keyset = (
        f"WHERE body->>'created_at' <= ? AND (body->>'created_at', id) < (?, ?) {order}"  # the first finds the place
    )
    substring = "WHERE instr(body->>'name', ?)"
    return {
        "get": median(2000, lambda number: one("WHERE id=?", id_of(number % size))),
        "equality": median(500, lambda n: one("WHERE body->>'email'=?", f"person{n % size}@example.org")),
        "page": median(200, lambda _: one(order)),
        "page_half": median(200, lambda _: one(keyset, at, at, id)),
        "substring": median(3, lambda number: one(substring, name_of(number * 7 % size)[-6:])),
    }


def _of_tinydb(file: Path, size: int) -> dict[str, float]:
    """Measure plain TinyDB, once only where a call takes seconds."""
    with TinyDB(file) as db:
        table, q, times = db.table("customers", cache_size=0), Query(), 5 if size <= 10_000 else 1
        table.insert_multiple(Document(customer(number), number) for number in range(size))

        def page(number: int) -> object:
            return sorted(table.all(), key=lambda doc: str(doc["created_at"]), reverse=True)[:50]

        return {
            "get": median(times, lambda number: table.get(doc_id=number)),
            "equality": median(times, lambda number: table.search(q.email == f"person{number}@example.org")),
            "page": median(times, page),
            "substring": median(times, lambda number: table.search(q.name.search(name_of(number * 7)[-6:]))),
            "update": median(times, lambda number: table.update({"city": f"City {number}"}, doc_ids=[number])),
            "insert": median(times, lambda number: table.insert(customer(size + number))),
        }


def _dict_lookup(size: int) -> float:
    docs = {id_of(number): None for number in range(size)}
    ids = list(docs)
    return once(lambda: [docs[id] for id in ids]) / size


# --------------------------------------------------------------------------- writing


def _writes(
    store: TinyStore, peer: sqlite3.Connection, raw: Path, size: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return median wall and CPU times of durable writes; all of them take turns."""
    fd, line = os.open(raw, os.O_RDWR | os.O_CREAT), b"x" * 1_000
    new = [customer(size + number) for number in range(TURNS)]

    def insert(number: int) -> None:
        store.commit([Put("customers", new[number], NEW)], {"actor": "ann"})

    def update(number: int) -> None:
        doc = _stored(store, number * 7 % size)
        store.commit([Put("customers", {**doc, "created_at": doc["created_at"] + "0"}, doc["rev"])], {"actor": "ann"})

    def sqlite_insert(number: int) -> None:
        doc = new[number]
        peer.execute("INSERT INTO customers VALUES (?, 1, ?)", (doc["id"], json.dumps(doc)))

    def sqlite_update(number: int) -> None:
        id = id_of(number * 7 % size)
        [(rev, body)] = peer.execute("SELECT rev, body FROM customers WHERE id=?", (id,))
        doc = json.loads(body)
        changed = json.dumps({**doc, "created_at": doc["created_at"] + "0"})
        peer.execute("UPDATE customers SET rev=rev+1, body=? WHERE id=? AND rev=?", (changed, id, rev))

    works: dict[str, Callable[[int], Any]] = {
        "append": lambda number: write_at(fd, line, number * len(line)),
        "insert": insert,
        "update": update,
        "sqlite_insert": sqlite_insert,
        "sqlite_update": sqlite_update,
    }
    wall: dict[str, list[float]] = {name: [] for name in works}
    cpu: dict[str, list[float]] = {name: [] for name in works}
    for number in range(TURNS):
        for name, work in works.items():
            started = time.process_time()
            wall[name].append(once(partial(work, number)))
            cpu[name].append(time.process_time() - started)
    os.close(fd)
    return _medians(wall), _medians(cpu)


def _medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(each) for name, each in times.items()}


# --------------------------------------------------------------------------- opening


def _opening(folder: Path, journal: Path) -> dict[str, float]:
    """Open what is all in the journal, and what was compacted; beside reading the same bytes as bare JSON."""
    bare = _bare_loads(journal)
    size = journal.stat().st_size
    from_journal = median(3, lambda _: TinyStore(folder, PlainCodec()).close())
    store = TinyStore(folder, PlainCodec())
    compacting = once(store.compact)
    store.close()
    from_snapshot = median(3, lambda _: TinyStore(folder, PlainCodec()).close())
    return {
        "journal_mb": round(size / 1e6, 1),
        "open_journal_s": round(from_journal, 3),
        "open_snapshot_s": round(from_snapshot, 3),
        "open_cost_vs_bare_loads": _ratio(from_snapshot, bare),
        "compaction_s": round(compacting, 3),
    }


def _bare_loads(journal: Path) -> float:
    """Return how long the JSON of a journal takes, decoded and nothing else."""
    lines = journal.read_bytes().splitlines()
    gc.collect()
    gc.disable()
    try:
        return median(3, lambda _: [orjson.loads(line[9:]) for line in lines])
    finally:
        gc.enable()


def _read_all(file: Path) -> None:
    with TinyDB(file) as db:
        db.table("customers").all()
