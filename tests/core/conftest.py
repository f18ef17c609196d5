"""What the tests of history, undo, merging and the past share: a type with every kind of link, and snapshots."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import pytest

import crmkit
from crmkit import CRM, Change, Customer, Iban, Money, Part, Personal, Record, Reference, Sensitive, hookimpl

IBANS = ("GB33BUKB20201555555555", "DE75512108001245126199", "FR1420041010050500013M02606")
Snapshot = dict[tuple[str, str], dict[str, Any]]


class Visit(Part):
    """A row of a deal, with a reference of its own."""

    host: Reference[Customer]
    note: Personal[str] = ""


class Deal(Record, type="deal", plural="deals", subject="customer"):
    """Something with references in a field, in a list, in nested rows and in one nested row."""

    title: Personal[str]
    customer: Reference[Customer] | None = None
    partners: tuple[Reference[Customer], ...] = ()
    visits: tuple[Visit, ...] = ()
    last_visit: Visit | None = None
    account: Sensitive[Iban] | None = None
    stage: str = "qualified"
    amount: Money | None = None
    closes_on: date | None = None


class Deals:
    """The plugin of that type."""

    @hookimpl
    def crm_record_types(self) -> Iterable[type[Record]]:
        return [Deal]


@pytest.fixture
def deals() -> type[Deals]:
    """The plugin that brings deals; register an instance."""
    return Deals


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], CRM]]:
    """Makes empty workspaces that know deals."""
    with contextlib.ExitStack() as opened:

        def make() -> CRM:
            folder = tmp_path / f"fresh-{len(list(tmp_path.iterdir()))}"
            crm = opened.enter_context(crmkit.create(folder, currency="EUR", country="GB"))
            crm.register(Deals())
            return crm

        yield make


@pytest.fixture(scope="session")
def scale() -> Callable[[int], int]:
    """Multiplies a count of repetitions by CRMKIT_TEST_SCALE; never below 1."""
    factor = float(os.environ.get("CRMKIT_TEST_SCALE", "1"))
    return lambda count: max(1, round(count * factor))


def taken(crm: CRM) -> Snapshot:
    """Every document of the store with its secrets opened, but for what a write always changes."""
    found: Snapshot = {}
    for name, docs in crm._store.tables().items():
        for id, doc in docs.items():
            if not name.startswith("."):
                found[name, id] = opened(crm, name, doc)
    return found


def opened(crm: CRM, collection: str, doc: Any) -> dict[str, Any]:
    """A document with its secrets opened; exact search finds it, or its tags would be of no use."""
    plain = {name: value for name, value in doc.items() if name not in ("rev", "updated_at", "_bi")}
    fields = crm.collection(collection.removesuffix(".removed")).info.fields
    for name in plain:
        if name in fields and fields[name].klass == "sensitive":
            plain[name] = crm._codec.opened(collection, doc, name)
    plain["tags of"] = sorted(doc.get("_bi", ()))
    return plain


@pytest.fixture
def snapshot() -> Callable[[CRM], Snapshot]:
    """Takes a picture of everything that is stored, opened."""
    return taken


class Life:
    """Random edits of a workspace, by one seed: what people do to customers and deals, in and out of transactions."""

    def __init__(self, crm: CRM, seed: int) -> None:
        self.crm = crm
        self.random = Random(seed)

    def go_on(self) -> None:
        """Do one thing; what cannot be done is left."""
        one = self.random.random() < 0.7
        try:
            if one:
                self._edit()
            else:
                with self.crm.acting_as("ann"), self.crm.transaction(reason="a reason"):
                    for _ in range(self.random.randint(2, 4)):
                        self._edit()
        except (crmkit.Invalid, crmkit.NotFound, crmkit.Refused):
            pass

    def _edit(self) -> None:
        act = self.random.choice(
            [self._add, self._add, self._update, self._update, self._update, self._remove, self._restore]
        )
        act()

    def _add(self) -> None:
        if self.random.random() < 0.6:
            self.crm.customers.add(name=self._word(), **self._customer())
        else:
            self.crm.deals.add(title=self._word(), **self._deal())

    def _update(self) -> None:
        if self.random.random() < 0.5 and (id := self._id("customers")):
            self.crm.customers.update(id, **self._customer())
        elif id := self._id("deals"):
            self.crm.deals.update(id, **self._deal())

    def _remove(self) -> None:
        plural = self.random.choice(["customers", "deals"])
        if id := self._id(plural):
            self.crm[plural].remove(id)

    def _restore(self) -> None:
        plural = self.random.choice(["customers", "deals"])
        ids = sorted(self.crm._store.tables().get(f"{plural}.removed", ()))
        if ids:
            self.crm[plural].restore(self.random.choice(ids))

    def _customer(self) -> dict[str, Any]:
        return self._some(
            {
                "city": self._word(),
                "iban": self.random.choice(IBANS),
                "stage": self.random.choice(["active", "lapsed"]),
                "tags": (self._word(), self._word()),
                "organisation": self._id("customers"),
                "notes": None,
            }
        )

    def _deal(self) -> dict[str, Any]:
        others = [id for id in (self._id("customers"), self._id("customers")) if id]
        visits = [{"host": id, "note": self._word()} for id in others]
        return self._some(
            {
                "customer": self._id("customers"),
                "partners": others,
                "visits": visits,
                "last_visit": visits[0] if visits else None,
                "account": self.random.choice(IBANS),
                "amount": f"{self.random.randint(1, 99)}.00",
                "closes_on": date(2026, self.random.randint(1, 12), 1),
                "stage": self.random.choice(["qualified", "won", "lost"]),
            }
        )

    def _some(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if self.random.random() < 0.5}

    def _id(self, plural: str) -> str | None:
        ids = sorted(self.crm._store.tables().get(plural, ()))
        return self.random.choice(ids) if ids else None

    def _word(self) -> str:
        return self.random.choice(["Ada", "Bob", "Cid", "Dora", "Eve", "Finn"])


@pytest.fixture
def life() -> type[Life]:
    """Random edits of a workspace."""
    return Life


class Meanwhile:
    """A plugin during whose turn somebody else, in another process, comes to refer to a customer."""

    def __init__(self, other: CRM, customer: str) -> None:
        self.other = other
        self.customer = customer

    @hookimpl
    def crm_before_commit(self, changes: Iterable[Change]) -> None:
        if any(change.action == "remove" for change in changes):
            self.other.deals.add(title="Boat", customer=self.customer)


@pytest.fixture
def meanwhile() -> type[Meanwhile]:
    """A class of plugins during whose turn others write."""
    return Meanwhile
