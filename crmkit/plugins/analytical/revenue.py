"""Revenue: what was sold, less what came back, by month and country."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from typing import TYPE_CHECKING

from crmkit import CRM, Analysis, Chart, Invalid, Measurement, Money, Page, hookimpl

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NO_COUNTRY = "unknown"
SHOWN = 6  # countries with a colour of their own; the rest is drawn as one
COLOURS = ("#2f6fb7", "#e08a2e", "#3f9b6e", "#b4559b", "#8a6d3b", "#5f6b7a", "#b8bec6")


def measure(crm: CRM, as_of: date, months: int = 24) -> Measurement:
    """Add up purchases by month and country.

    Args:
        crm: The open CRM.
        as_of: The last day that counts.
        months: How many calendar months to look at, the one of `as_of` included.

    Returns:
        A row for each month and country that has purchases: ``month`` (YYYY-MM), ``country`` (ISO 3166 or
        ``unknown``), ``revenue`` (minor units of the workspace's currency) and ``purchases``.

    Raises:
        Invalid: `months` is not 1 or more.
    """
    if months < 1:
        raise Invalid({"months": "must be 1 or more"})
    shown = set(_months(as_of, months))
    countries = _countries(crm)
    revenue: Counter[tuple[str, str]] = Counter()
    purchases: Counter[tuple[str, str]] = Counter()
    others = 0
    for customer, day, minor, currency in _rows(crm):
        if day[:7] not in shown or day > as_of.isoformat():
            continue
        if currency != crm.profile.currency:
            others += 1
            continue
        key = day[:7], countries.get(customer, NO_COUNTRY)
        revenue[key] += minor
        purchases[key] += 1
    table = [
        {"month": month, "country": country, "revenue": revenue[month, country], "purchases": count}
        for (month, country), count in sorted(purchases.items())
    ]
    total = Money(sum(revenue.values()), crm.profile.currency)
    metrics = {
        "revenue": total.minor,
        "currency": total.currency,
        "purchases": purchases.total(),
        "left_out_other_currencies": others,
        "months": _months(as_of, months),
    }
    text = (
        f"{total} from {_counted(purchases.total(), 'purchase')} in {_counted(months, 'month')} up to {as_of};"
        " returns are taken off."
    )
    if others:
        text += f" Left out: {_counted(others, 'purchase')} in other currencies."
    return Measurement(table, metrics, text)


def figure(measured: Measurement) -> Figure:
    """Draw revenue by month, stacked by country."""
    from plotly.graph_objects import Bar, Figure

    months, currency = measured.metrics["months"], measured.metrics["currency"]
    by_country: Counter[str] = Counter()
    for row in measured.table:
        by_country[row["country"]] += row["revenue"]
    top = [country for country, _ in by_country.most_common(SHOWN)]
    drawn = Figure()
    for place, country in enumerate([*top, "other"] if len(by_country) > SHOWN else top):
        sums: Counter[str] = Counter()
        for row in measured.table:
            if row["country"] == country or (country == "other" and row["country"] not in top):
                sums[row["month"]] += row["revenue"]
        amounts = [float(Money(sums[month], currency).amount) for month in months]
        drawn.add_trace(Bar(name=country, x=months, y=amounts, marker_color=COLOURS[place]))
    drawn.update_layout(
        barmode="relative",
        title="Revenue by month and country",
        yaxis_title=currency,
        bargap=0.25,
        xaxis_type="category",
    )
    return drawn


def _rows(crm: CRM) -> Iterator[tuple[str, str, int, str]]:
    columns = crm.collection("purchase").columns("customer", "purchased_on", "total.minor", "total.currency")
    return zip(*columns.values(), strict=True)


def _countries(crm: CRM) -> dict[str, str]:
    columns = crm.customers.columns("id", "country")
    return {id: country or NO_COUNTRY for id, country in zip(columns["id"], columns["country"], strict=True)}


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _months(as_of: date, count: int) -> list[str]:
    """Return the last `count` months as YYYY-MM, oldest first."""
    last = as_of.year * 12 + as_of.month - 1
    return [f"{month // 12:04}-{month % 12 + 1:02}" for month in range(last - count + 1, last + 1)]


@hookimpl
def crm_analyses() -> Iterable[Analysis]:
    """Contribute the analysis."""
    return [Analysis("revenue", "Revenue", measure, figure)]


@hookimpl
def crm_views() -> Iterable[Page]:
    """Contribute its page."""
    return [Page("revenue", "Revenue", _page)]


def _page(crm: CRM) -> Chart:
    result = crm.analyse("revenue")
    return Chart("Revenue", result.figure, result.explain())
