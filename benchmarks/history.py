"""What is done with a whole workspace: undo of an import, histories, the feed, backup and restore."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks._documents import name_of
from benchmarks._scratch import scratch
from benchmarks._sizes import scaled
from benchmarks._timing import median, once

ROWS = scaled(30_000)
SAVED = scaled(10_000)


def run() -> dict[str, Any]:
    """Measure in a folder and with an identity of its own."""
    with scratch() as folder:
        return {**_undo(folder), **_backup(folder)}


def _undo(folder: Path) -> dict[str, Any]:
    """Import customers into a workspace with a few, take the import back, and look what its history costs."""
    import crmkit

    with crmkit.create(folder / "undo", currency="EUR", country="GB") as crm:
        crm.customers.add_many({"name": name_of(number)} for number in range(100))
        before = datetime.now(UTC)
        plan = crm.import_file(_file(folder / "rows.csv", ROWS), as_="customer")
        commit = plan.apply()
        del plan
        some = crm.customers.find(limit=20).records
        for number in range(5):
            some = [crm.customers.update(each, city=f"City {number}") for each in some]
        since = crm.seq() - 10
        figures = {
            "rows": ROWS,
            "history_of_one_ms": round(median(5, lambda number: crm.history(some[number])) * 1e3, 1),
            "changes_us": round(median(100, lambda _: crm.changes(since)) * 1e6, 1),
            "batches_ms": round(median(3, lambda _: crm.batches()) * 1e3, 1),
        }
        undone: list[Any] = []
        figures["undo_s"] = round(once(lambda: undone.append(crm.undo(commit, skip_changed=True))), 1)
        assert len(crm.customers) < 200
        figures["undo_of_undo_s"] = round(once(lambda: crm.undo(undone[0])), 1)
        assert len(crm.customers) == ROWS + 100
        figures["as_it_was_before_s"] = round(once(lambda: len(crm.at(before).customers)), 1)
    return figures


def _backup(folder: Path) -> dict[str, Any]:
    import crmkit

    with crmkit.create(folder / "saved", currency="EUR", country="GB") as crm:
        crm.import_file(_file(folder / "saved.csv", SAVED), as_="customer").apply()
        backup = once(lambda: crm.backup(folder / "backups"))
    restore = once(lambda: crmkit.restore(folder / "backups", folder / "restored").close())
    return {
        "saved_customers": SAVED,
        "backup_s": round(backup, 2),
        "backup_mb": round(sum(file.stat().st_size for file in (folder / "backups").iterdir()) / 1e6, 1),
        "restore_s": round(restore, 2),
    }


def _file(path: Path, rows: int) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("number", "name", "email", "phone", "street", "postcode", "city"))
        for n in range(rows):
            contact = (f"c{n}@example.org", f"+4420794{n:06}"[:13], f"{n} High Street", f"EC{n % 10} {n % 9}AA")
            writer.writerow((n, name_of(n), *contact, "London"))
    return path
