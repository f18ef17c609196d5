"""Make up the demo's customers, products, purchases and interactions: pure, and the same for the same seed and day."""

from __future__ import annotations

import math
import tomllib
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

Row = dict[str, Any]

DAYS = 730
LAPSED_AFTER = 180  # days without a purchase
TEST_CARDS = ("4111111111111111", "4242424242424242", "5555555555554444", "378282246310005", "6011111111111117")
FADING = "10001"  # the customer whose purchases fall from about 1,000 a month to 500 in the last four months


@dataclass(frozen=True)
class Demo:
    """Everything that a demo workspace gets; records name each other by number and sku."""

    customers: list[Row]
    products: list[Row]
    purchases: list[Row]
    interactions: list[Row]


def generate(
    seed: int, as_of: date, customers: int = 2_000, purchases: int = 20_000, interactions: int = 3_000
) -> Demo:
    """Return a demo's records as mappings that the collections accept.

    Args:
        seed: Of the only source of chance.
        as_of: The day after the last purchase.
        customers: How many, about a third of them organisations.
        purchases: How many.
        interactions: How many.
    """
    rng = Random(seed)  # noqa: S311  # nothing secret is drawn from it
    made = _customers(rng, customers)
    goods = _products(rng, as_of)
    calendar = Calendar(as_of)
    spans = _spans(rng, made, calendar)
    bought = _purchases(rng, made, goods, spans, calendar, purchases)
    _stages(made, bought, as_of)
    return Demo(made, goods, bought, _interactions(rng, made, as_of, interactions))


@cache
def _data() -> dict[str, Any]:
    data = tomllib.loads(Path(__file__).with_name("people.toml").read_text("utf-8"))
    for code, country in data["countries"].items():
        country["code"] = code
    return data


class Calendar:
    """Two years of days, each as likely as its month is busy."""

    def __init__(self, as_of: date) -> None:
        self.days = [as_of - timedelta(days=DAYS - n) for n in range(DAYS)]
        weights = _data()["season"]["weights"]
        growth = 0.15 / DAYS
        self._until = list(accumulate(weights[day.month - 1] * (1 + growth * n) for n, day in enumerate(self.days)))

    def pick(self, rng: Random, first: int, last: int) -> date:
        """Return a day from number `first` up to number `last`."""
        low = self._until[first - 1] if first else 0.0
        return self.days[min(bisect_left(self._until, rng.uniform(low, self._until[last])), last)]


def _customers(rng: Random, count: int) -> list[Row]:
    countries = _data()["countries"]
    homes = rng.choices(list(countries.values()), [country["share"] for country in countries.values()], k=count)
    mails: set[str] = set()
    rows = [_fading(rng)]
    organisations = max(1, count // 3)
    for n, country in enumerate(homes[1:], start=1):
        make = _organisation if n < organisations else _person
        row = make(rng, country) | _common(rng, country, n)
        row["email"] = _unused(row["email"], mails)
        rows.append(row)
    _employ(rng, rows, organisations)
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _fading(rng: Random) -> Row:
    country = _data()["countries"]["DE"]
    row = {"name": "Ebert & Söhne Interiors GmbH", "kind": "organisation", "email": "einkauf@ebert-soehne.example"}
    return {**row, **_common(rng, country, 0), "card": TEST_CARDS[0], "iban": _iban(rng, country)}


def _organisation(rng: Random, country: Row) -> Row:
    family = rng.choice(country["family"])
    name = f"{family} {rng.choice(_data()['organisations']['trades'])} {country['legal']}"
    slug = _slug(name.removesuffix(country["legal"]))
    return {
        "name": name,
        "kind": "organisation",
        "email": f"{rng.choice(('office', 'orders', 'info'))}@{slug}.example",
        "website": f"https://{slug}.example",
        "tax_id": f"{country['code']}{rng.randrange(10**8, 10**9)}" if rng.random() < 0.6 else None,
    }


def _person(rng: Random, country: Row) -> Row:
    given, family = rng.choice(country["given"]), rng.choice(country["family"])
    domain = rng.choice(("example.org", "example.com", "example.net", "mail.example"))
    born = date(1945, 1, 1) + timedelta(days=rng.randrange(58 * 365))
    return {
        "name": f"{given} {family}",
        "kind": "person",
        "email": f"{_slug(given)}.{_slug(family)}@{domain}",
        "birthday": born if rng.random() < 0.4 else None,
        "card": rng.choice(TEST_CARDS) if rng.random() < 0.05 else None,
    }


def _common(rng: Random, country: Row, n: int) -> Row:
    data = _data()
    phone = _digits(rng, rng.choice(country["phones"])) if country["phones"] and rng.random() < 0.9 else None
    return {
        "number": str(int(FADING) + n),
        "roles": ("client",),
        "country": country["code"],
        "city": rng.choice(country["cities"]),
        "language": country["language"],
        "phone": phone,
        "iban": _iban(rng, country) if rng.random() < 0.3 else None,
        "owner": rng.choice(data["staff"]["owners"]),
        "source": rng.choice(data["staff"]["sources"]),
        "interests": tuple(sorted(rng.sample(list(data["products"]), rng.randrange(3)))),
    }


def _employ(rng: Random, rows: list[Row], organisations: int) -> None:
    """Make some of the persons the people of an organisation."""
    for row in rows[organisations:]:
        if rng.random() < 0.2:
            employer = rows[rng.randrange(organisations)]
            row["organisation"] = employer["number"]
            row["job_title"] = rng.choice(_data()["organisations"]["job_titles"])


def _unused(mail: str, taken: set[str]) -> str:
    local, _, domain = mail.partition("@")
    n = 1
    while mail in taken:
        n += 1
        mail = f"{local}{n}@{domain}"
    taken.add(mail)
    return mail


_LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "å": "a", "é": "e", "è": "e", "ê": "e", "ë": "e", "ç": "c", "ı": "i"}
    | {"í": "i", "ï": "i", "ó": "o", "ú": "u", "á": "a", "ñ": "n", " ": "-", "&": "", ".": ""}
)


def _slug(text: str) -> str:
    plain = "".join(c for c in text.strip().lower().translate(_LETTERS) if c.isascii() and (c.isalnum() or c == "-"))
    return "-".join(part for part in plain.split("-") if part)


def _digits(rng: Random, pattern: str) -> str:
    return "".join(str(rng.randrange(10)) if sign == "x" else sign for sign in pattern)


def _iban(rng: Random, country: Row) -> str:
    """Return an account at no bank, with the check digits that ISO 13616 asks for."""
    account = _digits(rng, country["iban"])
    as_number = int("".join(str(int(sign, 36)) for sign in f"{account}{country['code']}00"))
    return f"{country['code']}{98 - as_number % 97:02d}{account}"


def _products(rng: Random, as_of: date) -> list[Row]:
    rows = []
    for c, (category, names) in enumerate(_data()["products"].items(), start=1):
        for n, name in enumerate(names, start=1):
            # About 9 EUR, in steps of 5 cents.
            price = Decimal(round(math.exp(rng.gauss(2.2, 0.6)) * 20) * 5).scaleb(-2)
            rows.append(
                {
                    "name": name,
                    "sku": f"{c}{n:02d}",
                    "category": category,
                    "price": str(price),
                    "cost": str((price * Decimal(rng.randrange(40, 65)) / 100).quantize(Decimal("0.01"))),
                    "launched_on": as_of - timedelta(days=rng.randrange(100, 2500)),
                }
            )
    return rows


def _spans(rng: Random, customers: list[Row], calendar: Calendar) -> list[tuple[int, int] | None]:
    """Return the first and last day number that each customer may buy on; None for one who has not bought yet."""
    spans: list[tuple[int, int] | None] = []
    last = len(calendar.days) - 1
    for _ in customers:
        fate = rng.random()
        first = rng.randrange(400) if rng.random() < 0.4 else 0
        if fate < 0.08:
            spans.append(None)
        elif fate < 0.22:
            spans.append((0, last - rng.randrange(150, 500)))  # lapsed
        else:
            spans.append((first, last))
    return spans


def _purchases(
    rng: Random,
    customers: list[Row],
    products: list[Row],
    spans: list[tuple[int, int] | None],
    calendar: Calendar,
    count: int,
) -> list[Row]:
    """Return purchases by day: few customers buy most, autumn is high, about 3 % are returns of an earlier line."""
    rows = _fading_purchases(rng, calendar.days[-1] + timedelta(days=1))
    buyers = [n for n, span in enumerate(spans) if span is not None and n > 0]
    weights = [min(rng.paretovariate(1.2), 80.0) for _ in buyers]
    popularity = [rng.paretovariate(1.5) for _ in products]
    for n in rng.choices(buyers, weights, k=count - len(rows)):
        first, last = spans[n] or (0, 0)
        lines = _lines(rng, products, popularity, bulk=customers[n]["kind"] == "organisation")
        rows.append(
            {"customer": customers[n]["number"], "purchased_on": calendar.pick(rng, first, last), "lines": lines}
        )
    rows.sort(key=lambda row: row["purchased_on"])
    return _numbered(rng, rows)


def _fading_purchases(rng: Random, as_of: date) -> list[Row]:
    """Return four purchases of about 250 in each of 20 months, then two of about 250 in each of the last four."""
    rows: list[Row] = []
    for month in range(24):
        for day in (3, 10, 17, 24)[: 4 if month >= 4 else 2]:
            on = as_of - timedelta(days=month * 30 + day)
            rows.append({"customer": FADING, "purchased_on": on, "total": str(250 + rng.randrange(-10, 11))})
    return rows


def _lines(rng: Random, products: list[Row], popularity: list[float], *, bulk: bool) -> list[Row]:
    lines = []
    for product in rng.choices(products, popularity, k=min(1 + int(rng.expovariate(0.6)), 8)):
        quantity = rng.choice((6, 12, 24, 48) if bulk else (1, 1, 2, 3, 6))
        lines.append({"product": product["sku"], "quantity": str(quantity), "unit_price": product["price"]})
    return lines


def _numbered(rng: Random, rows: list[Row]) -> list[Row]:
    """Number purchases by day and turn some into returns: R-… and a negative quantity of what was bought before."""
    bought: dict[str, list[Row]] = defaultdict(list)
    for n, row in enumerate(rows, start=1):
        row["number"] = f"P-{n:06d}"
        earlier = bought[row["customer"]]
        if "lines" in row and earlier and rng.random() < 0.03:
            line = rng.choice(earlier)
            row["number"] = f"R-{n:06d}"
            row["lines"] = [{**line, "quantity": str(-max(1, int(line["quantity"]) // 2))}]
        else:
            earlier.extend(row.get("lines", ()))
    return rows


def _stages(customers: list[Row], purchases: list[Row], as_of: date) -> None:
    last = {row["customer"]: row["purchased_on"] for row in purchases}
    for row in customers:
        seen = last.get(row["number"])
        if seen is None:
            row["stage"] = "prospect"
        else:
            row["stage"] = "lapsed" if (as_of - seen).days > LAPSED_AFTER else "active"


def _interactions(rng: Random, customers: list[Row], as_of: date, count: int) -> list[Row]:
    texts = _data()["texts"]
    rows = []
    for n in range(count):
        customer = customers[0] if n < 12 else rng.choice(customers)
        kind = rng.choices(list(texts), (40, 35, 10, 15))[0]
        on = as_of - timedelta(days=1 + int(rng.triangular(0, DAYS - 1, 0)))
        at = datetime.combine(on, time(rng.randrange(8, 18), rng.randrange(60)), UTC)
        title = rng.choice(texts[kind]["titles"])
        row = {"customer": customer["number"], "kind": kind, "happened_at": at, "title": title}
        row["colleague"] = rng.choice((customer["owner"], rng.choice(_data()["staff"]["owners"])))
        if kind in ("call", "mail"):
            row["direction"] = rng.choice(("in", "out"))
        rows.append(row)
    return rows
