"""Customers through the whole house: saved, read, found, searched and reopened, at 1,000, 10,000 and 100,000 records.

The peers of the same run: a plain append with fdatasync for a save, plain TinyDB for reads at 10,000 records.
Times of writes are CPU times of this process, beside the wall times of the disk; reads are wall times, minima.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._scratch import scratch

SIZES = (1_000, 10_000, 100_000)
IBAN = "GB33BUKB20201555555555"


def run() -> dict[str, Any]:
    """Measure in a folder and with an identity of its own."""
    with scratch() as folder:
        return _measure(folder)


def _measure(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {"append_fdatasync_us": _append(folder / "raw")}
    for size in SIZES:
        results |= {f"{name}_at_{size}": value for name, value in _at_size(folder / str(size), size).items()}
    results |= _plain_tinydb(folder / "plain.json", 10_000)
    for name in ("get", "equality", "page_of_50"):
        ratio = results[f"tinydb_{name}_ms_at_10000"] * 1000 / results[f"{name}_us_at_10000"]
        results[f"{name}_times_faster_than_tinydb_at_10000"] = round(ratio)
    ratio = results["update_cpu_us_at_100000"] / results["update_cpu_us_at_1000"]
    results["update_cost_at_100k_over_1k"] = round(ratio, 2)
    return results


def _customer(number: int) -> dict[str, Any]:
    return {
        "number": str(number),
        "name": f"Customer {number:06}",
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

    with crmkit.create(folder) as crm:
        started = time.perf_counter()
        crm.customers.add_many(_customer(number) for number in range(size))
        rows_per_second = size / (time.perf_counter() - started)
        some = crm.customers.find(F.number == str(size // 2)).records[0]
        crm.customers.find(order="name", limit=50)
        crm.customers.search("warm")
        counter = iter(range(10**9))
        results = {
            "import_rows_per_s": round(rows_per_second),
            "get_us": _best(lambda: crm.customers.get(some.id)) * 1e6,
            "equality_us": _best(lambda: crm.customers.find(F.email == some.email)) * 1e6,
            "page_of_50_us": _best(lambda: crm.customers.find(order="name", limit=50), 50) * 1e6,
            "substring_ms": _best(lambda: crm.customers.find(F.name.contains("0999"), limit=20), 5) * 1e3,
            "typed_name_ms": _best(lambda: crm.customers.search(f"customer {size - 2:06}"), 5) * 1e3,
            "exact_iban_us": _best(lambda: crm.customers.find(F.tax_id == f"GB{size - 10:09}"), 50) * 1e6,
            "update_cpu_us": _cpu(lambda: crm.customers.update(some.id, city=f"City {next(counter)}")) * 1e6,
            "add_cpu_us": _cpu(lambda: crm.customers.add(name="New", city="London", email="new@example.org")) * 1e6,
        }
    started = time.perf_counter()
    with crmkit.open(folder) as crm:
        crm.customers.search("customer 0007")
        results["open_and_first_search_s"] = time.perf_counter() - started
    return {name: round(value, 3) for name, value in results.items()}


def _plain_tinydb(path: Path, size: int) -> dict[str, float]:
    from tinydb import TinyDB, where

    with TinyDB(path) as db:
        db.insert_multiple(_customer(number) for number in range(size))
        return {
            f"tinydb_get_ms_at_{size}": _best(lambda: db.get(doc_id=size // 2), 3) * 1e3,
            f"tinydb_equality_ms_at_{size}": _best(lambda: _uncached(db, where("number") == str(size // 2)), 3) * 1e3,
            f"tinydb_page_of_50_ms_at_{size}": _best(lambda: sorted(db.all(), key=_by_name)[:50], 3) * 1e3,
        }


def _uncached(db: Any, condition: Any) -> Any:
    db.clear_cache()  # TinyDB would answer the same question again without looking
    return db.search(condition)


def _by_name(doc: Any) -> str:
    return str(doc["name"])


def _append(path: Path) -> float:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    line, offset = b"x" * 1000, 0

    def append() -> None:
        nonlocal offset
        os.pwrite(fd, line, offset)
        os.fdatasync(fd)
        offset += len(line)

    cost = _cpu(append)
    os.close(fd)
    return round(cost * 1e6, 1)


def _best(work: Callable[[], object], times: int = 300) -> float:
    """Return the least wall time of one call, in seconds."""
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def _cpu(work: Callable[[], object], times: int = 300) -> float:
    """Return the mean CPU time of one call of this process, the system's part included, in seconds."""
    gc.collect()  # what was loaded before is looked through once, at a time that is not the work's
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times
