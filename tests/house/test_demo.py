"""The demo workspace: the same for the same seed, shaped like real trade, and made of nobody's data."""

from __future__ import annotations

import time
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path

import phonenumbers
import pytest
from stdnum import iban, luhn

from crmkit.demo import build, figures
from crmkit.demo.generator import FADING, Demo, Row, generate

AS_OF = date(2026, 11, 1)


@pytest.fixture(scope="module")
def demo() -> Demo:
    return generate(7, AS_OF)


def amount(purchase: Row) -> Decimal:
    if "total" in purchase:
        return Decimal(purchase["total"])
    return sum((Decimal(line["quantity"]) * Decimal(line["unit_price"]) for line in purchase["lines"]), Decimal(0))


def test_one_seed_gives_one_demo(demo: Demo) -> None:
    assert generate(7, AS_OF) == demo
    assert generate(8, AS_OF) != demo


def test_counts(demo: Demo) -> None:
    found = len(demo.customers), len(demo.products), len(demo.purchases), len(demo.interactions)
    assert found == (2_000, 60, 20_000, 3_000)
    assert len({row["category"] for row in demo.products}) == 8
    for rows, key in ((demo.customers, "number"), (demo.products, "sku"), (demo.purchases, "number")):
        assert len({row[key] for row in rows}) == len(rows)


def test_purchases_lie_in_the_two_years_before_the_day(demo: Demo) -> None:
    days = [row["purchased_on"] for row in demo.purchases]
    assert date(2024, 11, 1) <= min(days) <= max(days) < AS_OF


def test_autumn_is_the_season_and_few_customers_buy_most(demo: Demo) -> None:
    months: Counter[int] = Counter()
    for row in demo.purchases:
        months[row["purchased_on"].month] += 1
    assert {month for month, _ in months.most_common(3)} == {9, 10, 11}
    ranked = [count for _, count in Counter(row["customer"] for row in demo.purchases).most_common()]
    assert sum(ranked[: len(ranked) // 10]) > 0.35 * sum(ranked)


def test_one_customer_fades_from_about_1000_a_month_to_500(demo: Demo) -> None:
    own = [row for row in demo.purchases if row["customer"] == FADING]
    late = [row for row in own if (AS_OF - row["purchased_on"]).days <= 120]
    assert float(sum(map(amount, late))) / 4 == pytest.approx(500, rel=0.1)
    assert float(sum(map(amount, own)) - sum(map(amount, late))) / 20 == pytest.approx(1000, rel=0.1)


def test_some_lapse_some_return_and_some_have_not_bought(demo: Demo) -> None:
    stages = Counter(row["stage"] for row in demo.customers)
    assert min(stages["active"], stages["lapsed"], stages["prospect"]) > 100
    returns = [row for row in demo.purchases if row["number"].startswith("R-")]
    assert 300 < len(returns) < 900
    assert all(amount(row) < 0 for row in returns)


def test_contact_data_is_well_formed_and_reaches_nobody(demo: Demo) -> None:
    for row in demo.customers:
        domain = row["email"].partition("@")[2]
        assert domain in ("example.org", "example.com", "example.net") or domain.endswith(".example")
        assert "phone" not in row or phonenumbers.is_valid_number(phonenumbers.parse(row["phone"]))
        assert "iban" not in row or iban.is_valid(row["iban"], check_country=False)
        assert "iban" not in row or row["iban"][4:].startswith(("00", "XMPL"))
        assert "card" not in row or luhn.is_valid(row["card"])


def test_build_writes_the_demo_into_a_workspace_in_time(demo: Demo, tmp_path: Path) -> None:
    steps: list[str] = []
    started = time.process_time()  # the processor's time: other load on the machine is not the demo's
    with build(tmp_path / "demo", as_of=AS_OF, progress=steps.append) as crm:
        seconds = time.process_time() - started
        shown = figures(crm, AS_OF)
        assert (len(crm.customers), len(crm.purchases), len(crm.interactions)) == (2_000, 20_000, 3_000)
    assert steps
    assert seconds < 20
    assert shown["customers"] == 2_000
    october = sum(amount(row) for row in demo.purchases if row["purchased_on"].strftime("%Y-%m") == "2026-10")
    assert shown["revenue"]["2026-10"] == f"{october:,.2f} EUR"
    assert "•" in shown["sample"]["iban"]
    fading = next(row for row in demo.customers if row["number"] == FADING)
    assert fading["iban"] not in str(shown)
    assert fading["card"] not in str(shown)
