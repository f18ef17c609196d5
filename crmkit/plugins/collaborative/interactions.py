"""Interactions: calls, mails, meetings and notes, filed once and seen by everybody on the customer's timeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from crmkit import (
    CRM,
    Change,
    Customer,
    Entry,
    F,
    Instant,
    LongText,
    Page,
    Panel,
    Personal,
    Record,
    Reference,
    Table,
    Timeline,
    hookimpl,
)


class Interaction(Record, type="interaction", plural="interactions", subject="customer", lazy=True):
    """Something that happened with a customer."""

    customer: Reference[Customer]
    kind: Literal["call", "mail", "meeting", "note"] = "note"
    happened_at: Instant = Field(default_factory=lambda: datetime.now(UTC))
    title: Personal[str]
    text: Personal[LongText] | None = None
    direction: Literal["in", "out"] | None = None
    colleague: str | None = Field(None, description="Who of us; the one who files it when left out.")


@hookimpl
def crm_record_types() -> Iterable[type[Record]]:
    """Contribute interactions."""
    return [Interaction]


@hookimpl
def crm_before_commit(crm: CRM, changes: tuple[Change, ...]) -> Iterable[Change]:
    """Fill in who filed an interaction."""
    return [
        change.set(colleague=crm.actor)
        for change in changes
        if change.type == "interaction" and change.action == "add" and not change.fields.get("colleague")
    ]


@hookimpl
def crm_views() -> Iterable[Page | Panel]:
    """Contribute the timeline of a card and the list of everything that happened."""
    columns = ("happened_at", "kind", "customer", "title", "colleague")
    return [
        Panel("timeline", "Timeline", lambda _, customer: Timeline(customer)),
        Page("interactions", "Interactions", lambda _: Table("interaction", order="-happened_at", columns=columns)),
    ]


@hookimpl
def crm_timeline(crm: CRM, customer: Customer) -> Iterator[Entry]:
    """Tell what happened with a customer."""
    after: str | None = None
    while True:
        page = crm.collection(Interaction).find(F.customer == customer.id, limit=500, after=after)
        for each in page:
            yield Entry(each.happened_at, each.kind, each.title, each.text or "", each.id, each.colleague or "")
        after = page.next
        if after is None:
            return
