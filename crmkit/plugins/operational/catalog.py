"""The catalog: products, and who bought what, when, for how much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from crmkit import CRM, Code, Customer, Entry, F, Money, Page, Panel, Part, Record, Reference, Table, Unique, hookimpl


class Product(Record, type="product", plural="products"):
    """Something that is sold."""

    name: str
    sku: Annotated[Code | None, Unique()] = Field(None, title="SKU", description="The code that it is ordered by.")
    category: str | None = None
    price: Money | None = None
    cost: Money | None = None
    supplier: Reference[Customer] | None = None
    launched_on: date | None = None
    discontinued_on: date | None = None


class PurchaseLine(Part):
    """One product of a purchase.

    Attributes:
        quantity: How many; negative where they came back.
        unit_price: Price of one, in the purchase's currency, at any precision (a tenth of a cent is possible).
        discount: Percent off the line, 0 to 100; None for none.
    """

    product: Reference[Product]
    quantity: Annotated[Decimal, Field(max_digits=14)]  # twice 14 digits is what Decimal multiplies exactly
    unit_price: Annotated[Decimal, Field(ge=0, max_digits=14)]
    discount: Annotated[Decimal, Field(ge=0, le=100)] | None = None

    def amount(self, currency: str) -> Money:
        """Return what the line comes to, rounded half-even once."""
        exact = self.quantity * self.unit_price
        if self.discount:
            exact = exact * (100 - self.discount) / 100
        return Money.of(exact, currency, rounded=True)


class Purchase(Record, type="purchase", plural="purchases", subject="customer", lazy=True):
    """What a customer bought, or gave back (then quantities are negative)."""

    number: Annotated[Code, Unique()]
    customer: Reference[Customer] | None = None
    purchased_on: date
    lines: tuple[PurchaseLine, ...] = ()
    total: Money | None = Field(None, description="The sum of the lines; needed only where there are none.")

    @model_validator(mode="after")
    def _total_is_the_sum(self, info: ValidationInfo) -> Self:
        context = info.context or {}
        changed = context.get("changed")
        if context.get("trusted") and not changed:
            return self
        if not self.lines:
            if self.total is None:
                raise ValueError("needs lines, or a total")
            return self
        currency = self.total.currency if self.total else context.get("currency")
        if currency is None:
            raise ValueError('the total needs a currency here; give it as "12.30 EUR"')
        total = Money(sum(line.amount(currency).minor for line in self.lines), currency)
        derived = changed is not None and "total" not in changed  # lines changed: the stored total follows
        if self.total is not None and not derived and self.total != total:
            raise ValueError(f"total must be the sum of the lines, which is {total}")
        object.__setattr__(self, "total", total)  # frozen for its users, not while it is being made
        return self


@hookimpl
def crm_record_types() -> Iterable[type[Record]]:
    """Contribute products and purchases."""
    return [Product, Purchase]


@hookimpl
def crm_views() -> Iterable[Page | Panel]:
    """Contribute the lists, and a customer's purchases on the card."""
    return [
        Page("products", "Products", lambda _: Table("product", order="name", columns=PRODUCT_COLUMNS)),
        Page("purchases", "Purchases", lambda _: Table("purchase", order="-purchased_on", columns=PURCHASE_COLUMNS)),
        Panel("purchases", "Purchases", _purchases_of),
    ]


PRODUCT_COLUMNS = ("sku", "name", "category", "price", "supplier")
PURCHASE_COLUMNS = ("number", "purchased_on", "customer", "total")


def _purchases_of(crm: CRM, customer: Customer) -> Table:
    columns = ("number", "purchased_on", "total")
    return Table("purchase", where=F.customer == customer.id, order="-purchased_on", columns=columns)


@hookimpl
def crm_timeline(crm: CRM, customer: Customer) -> Iterator[Entry]:
    """Tell what a customer bought and gave back."""
    after: str | None = None
    while True:
        page = crm.collection(Purchase).find(F.customer == customer.id, limit=500, after=after)
        for purchase in page:
            kind: Literal["purchase", "return"] = "purchase"
            if purchase.total is not None and purchase.total.minor < 0:
                kind = "return"
            yield Entry(
                at=datetime.combine(purchase.purchased_on, time(), crm.zone).astimezone(UTC),
                kind=kind,
                title=f"{kind.capitalize()} {purchase.number}: {purchase.total}",
                record=purchase.id,
                all_day=True,
            )
        after = page.next
        if after is None:
            return
