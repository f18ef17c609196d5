"""An erasure that ends at any of its calls, or of which one fails: not begun, or finished by whoever opens next."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit import CRM, Customer, Personal, Record, Reference, hookimpl
from crmkit.codec import ERASED
from crmkit.privacy.erasure import Eraser
from crmkit.vault.erasures import Erasures
from tests.store.disk import Disk, Fault

Scale = Callable[[int], int]
LEVELS = ("personal", "sensitive")


class Visit(Record, type="visit", plural="visits", subject="customer"):
    customer: Reference[Customer]
    title: Personal[str]


class Dinner(Record, type="dinner", plural="dinners", subject=("guests",)):
    title: Personal[str]
    guests: tuple[Reference[Customer], ...] = ()


class Types:
    """The plugin of those types."""

    @hookimpl
    def crm_record_types(self) -> Iterable[type[Record]]:
        return [Visit, Dinner]


class Place:
    """A folder with a workspace and the config folder of its user, which each round gets a fresh copy of."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, level: Any) -> None:
        self.root, self.template = root / "now", root / "template"
        monkeypatch.setenv("CRMKIT_CONFIG", str(self.template / "config"))
        with crmkit.create(self.template / "acme", seal=level) as crm:
            crm.register(Types())
            ada, bob = crm.customers.add(name="Ada canary", email="canary@example.org"), crm.customers.add(name="Bob")
            crm.visits.add(customer=ada, title="with canary")
            dinner = crm.dinners.add(title="with canary", guests=[ada, bob])
            crm.dinners.update(dinner, title="Dinner")
            crm.customers.update(ada, name="Ada Lovelace canary")
            crm.customers.update(ada.id, city="canary")
            self.ada, self.bob = ada.id, bob.id
        monkeypatch.setenv("CRMKIT_CONFIG", str(self.root / "config"))

    def open(self) -> CRM:
        return crmkit.open(self.root / "acme", plugins=[Types()])

    def run(self, fault: Fault | None = None) -> tuple[Disk, int, BaseException | None]:
        """Erase in a fresh copy; return what was done, at which call the erasure began, and what it raised."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.template, self.root)
        disk, began, error = Disk(self.root), 0, None
        with disk.watching(fault):
            crm = self.open()
            began = len(disk.calls)
            try:
                crm.erase(self.ada, reason="request 7")
            except Exception as problem:
                error = problem
        return disk, began, error

    def problem(self, *, must_be_gone: bool = False) -> str:
        """Return what is wrong with what is there, once somebody has opened it."""
        with self.open() as crm:
            if crm.verify():
                return f"not sound: {crm.verify()}"
            ada = crm.customers.get(self.ada)
            if ada is not None and must_be_gone:
                return "the erasure was acknowledged and is not there"
            if ada is not None and (ada.name, crm.visits.find().records[0].title) != (
                "Ada Lovelace canary",
                "with canary",
            ):
                return "half of her is gone"
            if ada is not None:
                crm.erase(ada, reason="again")
            told = [(each.finished, self.ada in each.subjects) for each in crm.erasures()]
            if (True, True) not in told or (False, True) in told:
                return f"certificates: {told}"
            if [visit.title for visit in crm.visits.find()] != [ERASED]:
                return "her visit tells of her"
            if [dinner.guests for dinner in crm.dinners.find()] != [(self.bob,)]:
                return "the dinner is not right"
            if crm.customers[self.bob].name != "Bob":
                return "somebody else is gone"
            if crm.customers.check(name="X", email="canary@example.org") == {}:
                return "her address is not suppressed"
        files = [path for path in self.root.rglob("*") if path.is_file()]
        shown = [path.name for path in files if b"canary" in path.read_bytes()]
        return f"in the clear: {shown}" if shown else self._behind_a_key()

    def _behind_a_key(self) -> str:
        """Return whether any key that is left opens what the journal and the logs say of her."""
        with self.open() as crm:
            told = [str([(e.before, e.after, e.reason) for e in crm.history(each)]) for each in crm.dinners.find()]
            return "the history of the dinner tells of her" if "canary" in "".join(told) else ""


@pytest.fixture(params=LEVELS)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    yield Place(folder, monkeypatch, request.param)
    shutil.rmtree(folder)


def ended(place: Place, most: int) -> Iterator[str]:
    """Let the process end at each call of an erasure; yield what is wrong afterwards, or nothing."""
    disk, began, _ = place.run()
    calls = list(enumerate(disk.calls))[began:]
    yield place.problem(must_be_gone=True)
    for number, call in calls[:: max(1, len(calls) // most)]:
        for kind in ("before", "within") if call in ("pwrite", "write") else ("before",):
            place.run(Fault(number, kind))
            problem = place.problem()
            yield f"{kind} call {number}, {call}: {problem}" if problem else ""


def disturbed(place: Place, most: int) -> Iterator[str]:
    """Let each call of an erasure fail; yield what is wrong afterwards, or nothing."""
    disk, began, _ = place.run()
    calls = [(n, call) for n, call in enumerate(disk.calls) if n >= began and call != "unlock"]
    for number, call in calls[:: max(1, len(calls) // most)]:
        _, _, error = place.run(Fault(number, "error", errno.EIO))
        problem = place.problem(must_be_gone=error is None)
        if error is not None and not isinstance(error, crmkit.CrmError):
            problem = f"raised {error!r}"
        yield f"EIO at call {number}, {call}: {problem}" if problem else ""


@pytest.mark.proof
def test_an_erasure_may_end_at_any_call(place: Place, scale: Scale, record_property: Any) -> None:
    found = list(ended(place, scale(40)))
    record_property("points", len(found))
    assert [problem for problem in found if problem] == []


@pytest.mark.proof
def test_any_call_of_an_erasure_may_fail(place: Place, scale: Scale, record_property: Any) -> None:
    found = list(disturbed(place, scale(25)))
    record_property("errors", len(found))
    assert [problem for problem in found if problem] == []


def test_control_an_erasure_that_nobody_finishes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Eraser, "finish", lambda self: None)
    assert any(found_or_broken(place))


def test_control_a_ledger_that_is_not_on_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: Erasures, subjects: Any, tags: Any, at: Any) -> None:
        self._take(iter([{"event": "erase", "at": at.isoformat(), "subjects": list(subjects), "tags": list(tags)}]))

    monkeypatch.setattr(Erasures, "record", forgetful)
    assert any(found_or_broken(place))


def found_or_broken(place: Place) -> Iterator[str]:
    """Yield what is wrong; a workspace that cannot even be opened is wrong too."""
    try:
        yield from ended(place, 40)
    except crmkit.CrmError as error:
        yield str(error)
