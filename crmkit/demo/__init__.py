"""The demo workspace: invented customers of a gift wholesaler, and two years of what they bought and said.

`build` writes what the generator makes up into a new workspace, through the facade as any program would; `figures`
says what is in one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path

import crmkit
from crmkit.demo.generator import FADING, Row, generate

__all__ = ["build", "figures"]


def build(
    folder: str | Path,
    seed: int = 7,
    as_of: date = date(2026, 11, 1),
    progress: Callable[[str], None] | None = None,
) -> crmkit.CRM:
    """Create the demo workspace in a new folder and return it open.

    Args:
        folder: Where the workspace is made.
        seed: The same seed gives the same customers, purchases and figures.
        as_of: The day after the last purchase.
        progress: Called with one line before each step.
    """
    tell = progress or _silent
    tell("inventing customers and purchases")
    demo = generate(seed, as_of)
    crm = crmkit.create(folder, currency="EUR", country="DE", name="Demo", time_zone="Europe/Berlin")
    tell(f"writing {len(demo.customers):,} customers")
    organisations = [row for row in demo.customers if row["kind"] == "organisation"]
    crm.customers.add_many(organisations, reason="demo")
    numbers = crm.customers.keys("number")
    crm.customers.add_many(
        _with_ids((row for row in demo.customers if row["kind"] == "person"), "organisation", numbers), reason="demo"
    )
    tell(f"writing {len(demo.products):,} products")
    crm.products.add_many(demo.products, reason="demo")
    numbers, skus = crm.customers.keys("number"), crm.products.keys("sku")
    tell(f"writing {len(demo.purchases):,} purchases")
    for purchase in demo.purchases:
        purchase["lines"] = [{**line, "product": skus[line["product"]]} for line in purchase.get("lines", ())]
    crm.purchases.add_many(_with_ids(demo.purchases, "customer", numbers), reason="demo")
    tell(f"writing {len(demo.interactions):,} interactions")
    crm.interactions.add_many(_with_ids(demo.interactions, "customer", numbers), reason="demo")
    return crm


def _with_ids(rows: Iterable[Row], field: str, ids: Mapping[str, str]) -> Iterator[Row]:
    """Name another record by its id where the generator named it by its number."""
    for row in rows:
        yield {**row, field: ids[row[field]]} if field in row else row


def figures(crm: crmkit.CRM, as_of: date = date(2026, 11, 1)) -> Row:
    """Return what the home notebook shows of a demo workspace, as plain data.

    Args:
        crm: An open demo workspace.
        as_of: The last day that the analysis counts.

    Returns:
        ``customers`` and ``purchases`` (counts), ``revenue`` (by month, as text with currency), ``sample`` (a
        customer, sensitive fields masked) and ``plugins`` (states by name).
    """
    sample = crm.customers.find(crmkit.F.number == FADING).records[0]
    return {
        "customers": len(crm.customers),
        "purchases": len(crm.purchases),
        "revenue": _by_month(crm.analyse("revenue", as_of=as_of)),
        "sample": {name: str(getattr(sample, name)) for name in ("number", "name", "country", "iban", "card")},
        "plugins": {plugin.name: plugin.state for plugin in crm.plugins},
    }


def _by_month(revenue: crmkit.Result) -> dict[str, str]:
    minor: Counter[str] = Counter()
    for row in revenue.table:
        minor[row["month"]] += row["revenue"]
    return {month: str(crmkit.Money(amount, revenue.metrics["currency"])) for month, amount in sorted(minor.items())}


def _silent(line: str) -> None:
    del line
