"""Customers through the whole house: saved, read, found, searched and reopened, at 1,000, 10,000 and 100,000 records.

The peers of the same run: a plain append with fdatasync for a save, plain TinyDB for reads at 10,000 records.
CPU times are means of this process, the system's part included; other times are wall times, minima.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks._documents import misspelt, name_of, never_compacted
from benchmarks._scratch import scratch
from benchmarks._sizes import SIZES
from benchmarks._timing import best, mean_cpu, median, once
from crmkit import Change, hookimpl

IBAN = "GB33BUKB20201555555555"
LISTENERS = 10
FIRST_SEARCH = "import crmkit, sys; print(len(crmkit.open(sys.argv[1]).customers.search(sys.argv[2])))"


def run() -> dict[str, Any]:
    """Measure in a folder and with an identity of its own."""
    with scratch() as folder:
        return _measure(folder)


def _measure(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {"append_and_sync_cpu_us": _append(folder / "raw")}
    for label, size in SIZES.items():
        results |= {f"{name}_{label}": value for name, value in _at_size(folder / label, size).items()}
    results |= _plain_tinydb(folder / "plain.json", SIZES["10k"])
    for name in ("get", "equality", "page"):
        ratio = results[f"{name}_tinydb_us_10k"] / results[f"{name}_us_10k"]
        results[f"{name}_vs_tinydb_10k"] = round(ratio)
    results["update_cpu_cost_100k_vs_1k"] = round(results["update_cpu_us_100k"] / results["update_cpu_us_1k"], 2)
    return results | _listeners(folder) | _timeline(folder / "1k")


class Listener:
    """A plugin that looks at every commit."""

    @hookimpl
    def crm_before_commit(self, changes: tuple[Change, ...]) -> None:
        """Let all of it pass."""


def _customer(number: int) -> dict[str, Any]:
    return {
        "number": str(number),
        "name": name_of(number),
        "email": f"customer{number}@example.org",
        "phone": f"+4420794{number:06}"[:13],
        "street": f"{number} High Street",
        "postcode": f"EC{number % 10} {number % 9}AA",
        "city": ("London", "Paris", "Rome", "Berlin")[number % 4],
        **({"iban": IBAN, "tax_id": f"GB{number:09}"} if number % 10 == 0 else {}),
    }


def _at_size(folder: Path, size: int) -> dict[str, float]:
    import crmkit
    from crmkit import F

    with never_compacted(), crmkit.create(folder) as crm:
        taken = once(lambda: crm.customers.add_many(_customer(number) for number in range(size)))
    times = 3 if size <= 10_000 else 1
    opened = best(lambda: crmkit.open(folder).close(), times)
    with crmkit.open(folder) as crm:
        compacted = once(crm._store.compact)
    results = {"add_many_rows_per_s": size / taken, "open_journal_s": opened, "compact_s": compacted}
    results["snapshot_mb"] = max(file.stat().st_size for file in (folder / "data").glob("snap.*.jsonl")) / 1e6
    results["open_snapshot_s"] = best(lambda: crmkit.open(folder).close(), times)
    results["new_process_first_search_s"] = best(lambda: _first_search(folder, name_of(size // 3)), times)
    with crmkit.open(folder) as crm:
        some = crm.customers.find(F.number == str(size // 2)).records[0]
        names = [name_of(number * 7 % size) for number in range(20)]
        last = names[0].split()[1]
        first = crm.customers.find(order="name", limit=size // 2)
        half = crm.customers.find(order="name", after=first.next)
        crm.customers.search(last)
        crm.customers.search(misspelt(names[0]))
        cities = (f"City {number}" for number in count())
        results |= {
            "get_us": 1e6 * best(lambda: crm.customers.get(some.id)),
            "equality_us": 1e6 * best(lambda: crm.customers.find(F.email == some.email)),
            "page_us": 1e6 * best(lambda: crm.customers.find(order="name"), 50),
            "page_half_us": 1e6 * best(lambda: crm.customers.find(order="name", after=first.next), 50),
            "page_back_us": 1e6 * best(lambda: crm.customers.find(order="name", before=half.previous), 50),
            "substring_ms": 1e3 * best(lambda: crm.customers.find(F.name.contains(last[2:]), limit=20), 5),
            "typed_name_ms": 1e3 * median(20, lambda number: crm.customers.search(names[number][:-4])),
            "misspelt_name_ms": 1e3 * median(20, lambda number: crm.customers.search(misspelt(names[number]))),
            "exact_iban_us": 1e6 * best(lambda: crm.customers.find(F.tax_id == f"GB{size // 20 * 10:09}"), 50),
            "columns_ms": 1e3 * best(lambda: crm.customers.columns("number", "city", "created_at"), 3),
            "update_cpu_us": 1e6 * mean_cpu(lambda: crm.customers.update(some.id, city=next(cities))),
            "add_cpu_us": 1e6 * mean_cpu(lambda: crm.customers.add(name="New", city="London", email="new@example.org")),
        }
    return {name: round(value, 3) for name, value in results.items()}


def _first_search(folder: Path, name: str) -> None:
    """Let a new Python process open the workspace and answer one search."""
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_SEARCH, folder, name], check=True, capture_output=True, env=usual
    )
    assert int(done.stdout) > 0


def _listeners(folder: Path) -> dict[str, float]:
    """Compare the CPU time of a save with ten plugins that are asked, and with none, in turn and without the disk."""
    import crmkit

    with (
        mock.patch.object(os, "fdatasync", return_value=None),
        crmkit.create(folder / "alone") as alone,
        crmkit.create(folder / "heard") as heard,
    ):
        for _ in range(LISTENERS):
            heard.register(Listener())
        saves = [partial(_save, crm, crm.customers.add(name="Ada").id, count()) for crm in (alone, heard)]
        more = statistics.median(mean_cpu(saves[1], 50) - mean_cpu(saves[0], 50) for _ in range(20))
    return {"ten_listeners_us": round(more * 1e6, 1)}


def _save(crm: Any, id: str, numbers: Iterator[int]) -> None:
    crm.customers.update(id, city=f"Town {next(numbers)}")


def _timeline(folder: Path) -> dict[str, float]:
    """Show the 200 newest things that happened with a customer."""
    import crmkit

    with crmkit.open(folder) as crm:
        some = crm.customers.find(limit=1).records[0]
        notes = (
            {"customer": some.id, "happened_at": f"2026-01-01T00:{n // 60:02}:{n % 60:02}Z", "title": f"Note {n}"}
            for n in range(200)
        )
        crm.interactions.add_many(notes)
        assert len(crm.timeline(some, limit=200).records) == 200
        return {"timeline_of_200_ms": round(best(lambda: crm.timeline(some, limit=200), 20) * 1e3, 2)}


def _plain_tinydb(path: Path, size: int) -> dict[str, float]:
    from tinydb import TinyDB, where

    with TinyDB(path) as db:
        table = db.table("customers", cache_size=0)
        table.insert_multiple(_customer(number) for number in range(size))
        taken = {
            "get": best(lambda: table.get(doc_id=size // 2), 3),
            "equality": best(lambda: table.search(where("number") == str(size // 2)), 3),
            "page": best(lambda: sorted(table.all(), key=lambda doc: str(doc["name"]))[:50], 3),
        }
    return {f"{name}_tinydb_us_10k": round(seconds * 1e6) for name, seconds in taken.items()}


def _append(path: Path) -> float:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    offsets = iter(range(0, 10**9, 1_000))

    def append() -> None:
        os.pwrite(fd, b"x" * 1_000, next(offsets))
        os.fdatasync(fd)

    cost = mean_cpu(append)
    os.close(fd)
    return round(cost * 1e6, 1)
