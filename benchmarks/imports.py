"""Imports as people do them: invoice lines as many as the real file of 2010 has, and 100,000 customers.

The lines are those of tests/data, repeated under new invoice numbers. The peer of the same run is what any import has
to do at the least: read the file with the csv module, make the figures decimals, and add them up.
"""

from __future__ import annotations

import csv
import gc
import resource
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks._scratch import scratch
from benchmarks._sizes import scaled
from benchmarks._timing import once

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
LINES = scaled(502_938)
CUSTOMERS = scaled(100_000)
MAP = {"StockCode": "lines.product.sku", "Description": "lines.product.name", "Customer ID": ""}
IBAN = "GB33BUKB20201555555555"


def run() -> dict[str, Any]:
    """Measure in a folder and with an identity of its own."""
    with scratch() as folder:
        return {**_lines(folder), **_customers(folder)}


def _lines(folder: Path) -> dict[str, Any]:
    import crmkit

    path = _many_lines(folder / "lines.csv")
    least = once(lambda: _add_up(path))
    with crmkit.create(folder / "lines", currency="GBP") as crm:
        cpu = time.process_time()
        started = time.perf_counter()
        plan = crm.import_file(path, as_="purchase", map=MAP, group_by="Invoice")
        planned = time.perf_counter()
        plan.apply(keep_good=True)
        ended = time.perf_counter()
        purchases = len(crm.purchases)
        cpu = time.process_time() - cpu
    del plan
    gc.collect()
    opened = once(lambda: crmkit.open(folder / "lines").close())
    return {
        "lines": LINES,
        "purchases": purchases,
        "lines_plan_s": round(planned - started, 1),
        "lines_apply_s": round(ended - planned, 1),
        "lines_import_s": round(ended - started, 1),
        "lines_import_cpu_s": round(cpu, 1),
        "lines_times_csv_and_decimal": round((ended - started) / least, 1),
        "lines_open_s": round(opened, 2),
        "lines_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _customers(folder: Path) -> dict[str, Any]:
    """Measure customers with six personal and two sensitive fields each, from the file to the disk."""
    import crmkit

    path = folder / "customers.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("number", "name", "email", "phone", "street", "postcode", "city", "iban", "tax_id"))
        for n in range(CUSTOMERS):
            contact = (
                f"c{n}@example.org",
                f"+4420794{n:06}"[:13],
                f"{n} High Street",
                f"EC{n % 10} {n % 9}AA",
                "London",
            )
            writer.writerow((n, f"Customer {n}", *contact, IBAN, f"GB{n:09}"))
    with crmkit.create(folder / "customers", currency="GBP", country="GB") as crm:
        seconds = once(lambda: crm.import_file(path, as_="customer").apply())
    return {"customers": CUSTOMERS, "customers_rows_per_s": round(CUSTOMERS / seconds)}


def _many_lines(path: Path) -> Path:
    """Write the sample's invoices again and again, each time under other numbers."""
    with (DATA / "online_retail_sample.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for count in range(LINES):
            turn, place = divmod(count, len(rows))
            writer.writerow((f"{rows[place][0]}-{turn}", *rows[place][1:]))
    return path


def _add_up(path: Path) -> Decimal:
    with path.open(encoding="utf-8", newline="") as file:
        return sum((Decimal(row["Quantity"]) * Decimal(row["Price"]) for row in csv.DictReader(file)), Decimal(0))
