"""Revenue by month and country."""

from __future__ import annotations

from datetime import date

import pytest

from crmkit import CRM, Invalid, NotFound

AS_OF = date(2026, 3, 15)


@pytest.fixture
def sold(crm: CRM) -> CRM:
    """Purchases in three months, two countries and two currencies."""
    ada = crm.customers.add(name="Ada", country="GB")
    eva = crm.customers.add(name="Eva", country="DE")
    rows = [
        (ada, "2026-01-10", "100"),
        (ada, "2026-01-31", "50"),
        (eva, "2026-01-05", "20"),
        (eva, "2026-03-15", "7"),
        (ada, "2026-03-10", "-30"),
        (ada, "2026-03-16", "999"),
        (None, "2026-03-01", "5"),
        (eva, "2026-02-01", "1000 GBP"),
        (ada, "2025-12-31", "40"),
    ]
    crm.purchases.add_many(
        {"number": number, "customer": customer, "purchased_on": day, "total": total}
        for number, (customer, day, total) in enumerate(rows)
    )
    return crm


def test_the_numbers(sold: CRM) -> None:
    result = sold.analyse("revenue", as_of=AS_OF, months=3)
    assert [(row["month"], row["country"], row["revenue"], row["purchases"]) for row in result.table] == [
        ("2026-01", "DE", 2000, 1),
        ("2026-01", "GB", 15000, 2),
        ("2026-03", "DE", 700, 1),
        ("2026-03", "GB", -3000, 1),
        ("2026-03", "unknown", 500, 1),
    ]
    assert result.metrics["revenue"] == 15200
    assert result.metrics["months"] == ["2026-01", "2026-02", "2026-03"]
    assert result.metrics["left_out_other_currencies"] == 1
    assert "152.00 EUR from 6 purchases in 3 months" in result.explain()
    assert result.explain().endswith(" Left out: 1 purchase in other currencies.")
    assert "5 rows>" in repr(result)
    one = sold.analyse("revenue", as_of=date(2025, 12, 31), months=1)
    assert one.explain().startswith("40.00 EUR from 1 purchase in 1 month up to")
    assert "1 row>" in repr(one)


def test_the_figure_adds_up_to_the_numbers_and_names_nobody(sold: CRM) -> None:
    result = sold.analyse("revenue", as_of=AS_OF, months=3)
    drawn = result.figure().to_dict()
    assert {trace["name"] for trace in drawn["data"]} == {"GB", "DE", "unknown"}
    assert sum(sum(trace["y"]) for trace in drawn["data"]) == pytest.approx(152.0)
    assert all(list(trace["x"]) == result.metrics["months"] for trace in drawn["data"])
    assert "Ada" not in str(drawn)


def test_small_countries_are_drawn_as_one(crm: CRM) -> None:
    for number, country in enumerate(["GB", "DE", "FR", "IT", "ES", "PT", "NL", "BE"]):
        customer = crm.customers.add(name=country, country=country)
        crm.purchases.add(number=number, customer=customer, purchased_on="2026-03-01", total=str(100 - number))
    drawn = crm.analyse("revenue", as_of=AS_OF, months=1).figure().to_dict()
    assert [trace["name"] for trace in drawn["data"]][-1] == "other"
    assert drawn["data"][-1]["y"][0] == pytest.approx(94 + 93)


def test_nothing_sold_is_nothing_drawn(crm: CRM) -> None:
    result = crm.analyse("revenue", as_of=AS_OF)
    assert result.table == []
    assert result.figure().to_dict()["data"] == []


def test_wrong_questions(crm: CRM) -> None:
    with pytest.raises(Invalid, match="months"):
        crm.analyse("revenue", months=0)
    with pytest.raises(NotFound, match="there are: revenue"):
        crm.analyse("revnue")
