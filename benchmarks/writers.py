"""Several processes on one store: four writers, a writer beside a compaction, and the system calls of one commit.

``python -m benchmarks writers``
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._documents import fill_sqlite, fill_store, id_of, open_sqlite, open_store
from benchmarks._scratch import scratch
from benchmarks._sizes import SCALE, scaled
from benchmarks._timing import once, percentile
from crmkit.store import PlainCodec, Put, TinyStore

WRITERS = 4
SECONDS = max(0.5, 4.0 * min(SCALE, 1.0))  # that four writers work at the same time
CALLS = ("pwrite64", "fdatasync", "fsync")
COMMITS = 20
_SPAWN = multiprocessing.get_context("spawn")


def run() -> dict[str, float | str]:
    """Measure in a folder and with an identity of its own."""
    with scratch() as folder:
        return {**_four_writers(folder), **_beside_compaction(folder / "compacted"), **_calls(folder)}


# --------------------------------------------------------------------------- four writers


def _four_writers(top: Path) -> dict[str, float | str]:
    """Let four processes update documents of their own for some seconds, in a store and then in sqlite3."""
    size = WRITERS * 250
    fill_store(top / "shared", size)
    fill_sqlite(top / "shared.sqlite", size)
    ours, theirs = _together(_write_to_store, top / "shared"), _together(_write_to_sqlite, top / "shared.sqlite")
    store = TinyStore(top / "shared", PlainCodec())
    revisions = sum(doc["rev"] - 1 for doc in store.scan("customers"))
    store.close()
    figures: dict[str, float | str] = {"lost_updates": sum(map(len, ours)) - revisions}
    for name, writers in (("", ours), ("sqlite_", theirs)):
        counts = [len(times) for times in writers]
        all_times = [each for times in writers for each in times]
        figures |= {
            f"{name}commits_per_s": round(sum(counts) / SECONDS),
            f"{name}slowest_over_fastest": round(min(counts) / max(counts), 2),
            f"{name}p50_ms": round(statistics.median(all_times) * 1e3, 2),
            f"{name}p99_ms": round(percentile(all_times, 99) * 1e3, 2),
            f"{name}longest_ms": round(max(all_times) * 1e3, 1),
        }
    figures["commits_vs_sqlite"] = round(sum(map(len, ours)) / sum(map(len, theirs)), 2)
    return figures


def _together(write: Callable[[Path, int, Any, Any], None], place: Path) -> list[list[float]]:
    """Return how long each commit of each of four processes took, all of them working at the same time."""
    barrier, done = _SPAWN.Barrier(WRITERS), _SPAWN.Queue()
    writers = [_SPAWN.Process(target=write, args=(place, number, barrier, done)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    times = [done.get(timeout=120) for _ in writers]
    for writer in writers:
        writer.join()
    return times


def _write_to_store(folder: Path, writer: int, barrier: Any, done: Any) -> None:
    store = TinyStore(folder, PlainCodec(), timeout=60)
    done.put(_acknowledged(lambda number: _update(store, number, f"City {writer}"), writer, barrier))
    store.close()


def _update(store: TinyStore, number: int, city: str) -> None:
    doc = store.get("customers", id_of(number))
    assert doc is not None
    store.commit([Put("customers", {**doc, "city": city}, doc["rev"])], {"actor": "ann"})


def _write_to_sqlite(file: Path, writer: int, barrier: Any, done: Any) -> None:
    """Do the same: read a document, and write it where it is still at the revision that was read."""
    peer = open_sqlite(file)

    def update(number: int) -> None:
        id = id_of(number)
        rev, body = peer.execute("SELECT rev, body FROM customers WHERE id=?", (id,)).fetchone()
        changed = json.dumps({**json.loads(body), "city": f"City {writer}"})
        peer.execute("BEGIN IMMEDIATE")
        found = peer.execute("UPDATE customers SET rev=rev+1, body=? WHERE id=? AND rev=?", (changed, id, rev))
        assert found.rowcount == 1
        peer.execute("COMMIT")

    done.put(_acknowledged(update, writer, barrier))
    peer.close()


def _acknowledged(update: Callable[[int], None], writer: int, barrier: Any) -> list[float]:
    """Return how long each update took of a writer that has 250 documents of its own."""
    barrier.wait(60)
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        times.append(once(lambda: update(writer * 250 + len(times) % 250)))
    return times


# --------------------------------------------------------------------------- beside a compaction


def _beside_compaction(folder: Path) -> dict[str, float | str]:
    """Compact 100,000 documents while another process commits, and say how long that one had to wait at most."""
    size = scaled(100_000)
    fill_store(folder, size)
    ready, stop, done = _SPAWN.Event(), _SPAWN.Event(), _SPAWN.Queue()
    writer = _SPAWN.Process(target=_write_on, args=(folder, size, ready, stop, done))
    writer.start()
    store = open_store(folder)
    if not ready.wait(120):
        raise RuntimeError("the other writer did not come up")
    time.sleep(1)  # commits with nothing beside them, to compare with
    began = time.time()
    seconds = once(store.compact)
    ended = time.time()
    stop.set()
    commits = done.get(timeout=60)
    writer.join()
    store.close()
    quiet = [took for at, took in commits if at + took < began]
    beside = [took for at, took in commits if at + took >= began and at <= ended]
    return {
        "compaction_beside_a_writer_s": round(seconds, 2),
        "commits_beside_compaction": len(beside),
        "longest_commit_beside_compaction_ms": round(max(beside) * 1e3, 1),
        "median_commit_beside_compaction_ms": round(statistics.median(beside) * 1e3, 2),
        "longest_commit_before_ms": round(max(quiet) * 1e3, 1),
        "median_commit_before_ms": round(statistics.median(quiet) * 1e3, 2),
    }


def _write_on(folder: Path, size: int, ready: Any, stop: Any, done: Any) -> None:
    store = open_store(folder)
    store.compaction_problem = "left to the other process"
    _update(store, 0, "Bonn")  # the first one builds indexes
    commits: list[tuple[float, float]] = []
    ready.set()
    while not stop.is_set():
        commits.append((time.time(), once(lambda: _update(store, len(commits) % size, "Rome"))))
        time.sleep(0.002)
    done.put(commits)
    store.close()


# --------------------------------------------------------------------------- system calls


def _calls(top: Path) -> dict[str, float | str]:
    """Count the system calls of one commit: strace over a few commits, less strace over none."""
    strace = shutil.which("strace")
    if strace is None:
        return {"calls": "not counted: strace is not installed"}
    import crmkit

    fill_store(top / "counted", 100)
    fill_sqlite(top / "counted.sqlite", 100)
    with crmkit.create(top / "workspace", currency="EUR") as crm:
        crm.customers.add(name="First")
    places = {"documents": "counted", "rows": "counted.sqlite", "customers": "workspace", "new_customers": "workspace"}
    figures: dict[str, float | str] = {}
    for what, place in places.items():
        some, none = (_counted(strace, what, top / place, commits) for commits in (COMMITS, 0))
        counts = {call: (some[call] - none[call]) / COMMITS for call in CALLS}
        figures |= {f"{call}_per_commit_of_{what}": count for call, count in counts.items()}
        figures[f"most_calls_of_{what}"] = max(counts.values())
    return figures


def _counted(strace: str, what: str, place: Path, commits: int) -> dict[str, int]:
    output = place.parent / "strace.txt"
    traced = [strace, "-f", "-qq", "-e", f"trace={','.join(CALLS)}", "-o", str(output)]
    work = [sys.executable, "-m", "benchmarks.writers", what, str(place), str(commits)]
    subprocess.run([*traced, *work], check=True, cwd=Path(__file__).resolve().parents[1])
    found = re.findall(r"^\d+ +(\w+)\(", output.read_text("utf-8"), re.MULTILINE)
    return {call: found.count(call) for call in CALLS}


def _commit(what: str, place: Path, commits: int) -> None:
    """Make so many commits and leave without closing, which has calls of its own; this is what `_counted` runs."""
    work = {
        "documents": _update_documents,
        "rows": _update_rows,
        "customers": _update_customers,
        "new_customers": _add_customers,
    }
    work[what](place, commits)
    os._exit(0)


def _update_documents(folder: Path, commits: int) -> None:
    store = open_store(folder)
    for number in range(commits):
        _update(store, number, f"City {commits}")


def _update_rows(file: Path, commits: int) -> None:
    peer = open_sqlite(file)
    for number in range(commits):
        peer.execute("UPDATE customers SET rev=rev+1 WHERE id=?", (id_of(number),))


def _update_customers(folder: Path, commits: int) -> None:
    import crmkit

    crm = crmkit.open(folder)
    customer = crm.customers.find(limit=1).records[0]
    for number in range(commits):
        customer = crm.customers.update(customer, city=f"City {number}")


def _add_customers(folder: Path, commits: int) -> None:
    import crmkit

    crm = crmkit.open(folder)
    for number in range(commits):
        crm.customers.add(name=f"Customer {number}")


if __name__ == "__main__":
    _commit(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
