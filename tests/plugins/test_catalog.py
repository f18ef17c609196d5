"""Products and purchases."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmkit import CRM, Invalid, Money
from crmkit.plugins.operational.catalog import Product, PurchaseLine


def line(product: Product, **fields: object) -> dict[str, object]:
    return {"product": product, "quantity": "1", "unit_price": "1", **fields}


def test_the_total_is_the_sum_of_the_lines(crm: CRM) -> None:
    tea = crm.products.add(name="Tea", sku="T1", price="2.50")
    purchase = crm.purchases.add(
        number="1", purchased_on="2026-01-01", lines=[line(tea, quantity="3", unit_price="2.5"), line(tea)]
    )
    assert purchase.total == Money(850, "EUR")
    changed = crm.purchases.update(purchase, lines=[line(tea)])
    assert changed.total == Money(100, "EUR")
    assert crm.purchases.update(changed, lines=[line(tea, unit_price="2")], total="2").total == Money(200, "EUR")
    with pytest.raises(Invalid, match=r"sum of the lines, which is 2\.00 EUR"):
        crm.purchases.update(changed.id, total="3")
    with pytest.raises(Invalid, match="sum of the lines"):
        crm.purchases.add(number="2", purchased_on="2026-01-01", total="3", lines=[line(tea)])


def test_without_lines_a_total_is_enough_and_with_neither_it_says_so(crm: CRM) -> None:
    assert crm.purchases.add(number="1", purchased_on="2026-01-01", total="12.30 GBP").total == Money(1230, "GBP")
    with pytest.raises(Invalid, match="needs lines, or a total"):
        crm.purchases.add(number="2", purchased_on="2026-01-01")


def test_what_comes_back_is_negative(crm: CRM) -> None:
    tea = crm.products.add(name="Tea")
    ada = crm.customers.add(name="Ada")
    back = crm.purchases.add(
        number="C1", customer=ada, purchased_on="2026-01-01", lines=[line(tea, quantity=-2, unit_price="1.25")]
    )
    assert back.total == Money(-250, "EUR")
    assert [entry.kind for entry in crm.timeline(ada)] == ["return"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"unit_price": "-1"}, "unit_price"),
        ({"discount": 101}, "discount"),
        ({"quantity": "x"}, "quantity"),
        ({"qty": 1}, "qty"),
    ],
)
def test_a_wrong_line_is_named_by_its_place(crm: CRM, wrong: dict[str, object], says: str) -> None:
    tea = crm.products.add(name="Tea")
    with pytest.raises(Invalid) as caught:
        crm.purchases.add(number="1", purchased_on="2026-01-01", lines=[line(tea), line(tea, **wrong)])
    assert any(path.startswith(f"lines.1.{says}") for path in caught.value.problems)


def test_a_tenth_of_a_cent_does_not_vanish(crm: CRM) -> None:
    tea = crm.products.add(name="Tea")
    purchase = crm.purchases.add(
        number="1", purchased_on="2026-01-01", lines=[line(tea, quantity=1000, unit_price="0.001")]
    )
    assert purchase.total == Money(100, "EUR")
    assert purchase.lines[0].unit_price == Decimal("0.001")


@given(
    quantity=st.decimals(-999, 999, places=2),
    unit_price=st.decimals(0, 999, places=4),
    discount=st.integers(0, 100),
)
def test_an_amount_is_rounded_half_even_once(quantity: Decimal, unit_price: Decimal, discount: int) -> None:
    amount = PurchaseLine.model_construct(
        product="", quantity=quantity, unit_price=unit_price, discount=Decimal(discount)
    ).amount("EUR")
    exact = quantity * unit_price * (100 - discount) / 100
    assert abs(amount.amount - exact) <= Decimal("0.005")


def test_an_interaction_is_filed_by_whom_acts(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    with crm.acting_as("ann"):
        assert crm.interactions.add(customer=ada, title="Called").colleague == "ann"
        assert crm.interactions.add(customer=ada, title="Called", colleague="bob").colleague == "bob"
