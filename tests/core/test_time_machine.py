"""The time machine: records as they were, and what came of them since."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

import crmkit
from crmkit import CRM, F, Invalid, NotFound, Refused
from crmkit.history import versions as module
from crmkit.store import tiny
from crmkit.values import instant_text

IBAN = "GB33BUKB20201555555555"
Picture = dict[str, dict[str, Any]]


@pytest.fixture
def crm(crm: CRM, deals: Any) -> CRM:
    """An open, empty workspace that knows deals."""
    crm.register(deals())
    return crm


# --------------------------------------------------------------------------- as it was


def test_records_are_read_as_they_were(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", city="Paris", iban=IBAN)
    bob = crm.customers.add(name="Bob", city="Paris")
    then = datetime.now(UTC)
    crm.customers.update(ada, city="London", iban=None)
    crm.customers.remove(bob)
    cid = crm.customers.add(name="Cid")
    past = crm.at(then)
    assert [customer.city for customer in past.customers] == ["Paris", "Paris"]
    assert past.customers[ada.id] == ada == past.get("customer", ada.id)
    assert past.get(crmkit.Customer, bob.id) == bob
    assert past.customers.get(cid.id) is None
    assert (len(past.customers), bob.id in past.customers, cid.id in past.customers) == (2, True, False)
    assert past.customers.find(F.city == "Paris", limit=1) == [ada]
    assert past.customers.find(F.iban == IBAN) == [ada]
    assert past.customers.find(F.city == "London") == []
    assert "Ada" not in repr(past) + repr(past.customers)
    assert len(crm.at(ada.created_at - timedelta(days=1)).customers) == 0


def test_a_view_stays_as_it_is(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", city="Paris")
    bob = crm.customers.add(name="Bob")
    past = crm.at(datetime.now(UTC))
    with crmkit.open(crm.workspace.folder) as other:
        other.customers.update(ada.id, city="London")
        other.customers.remove(bob.id)
        other.customers.add(name="Cid")
    assert list(past.customers) == [ada, bob]
    assert past.customers[ada.id].city == "Paris"


def test_what_was_saved_late_is_no_part_of_what_was_before(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited for the lock is stamped when it is got: the log is in the order of time."""
    ada, bob = crm.customers.add(name="Ada"), crm.customers.add(name="Bob")
    drafted, commit = threading.Event(), crm._store.commit

    def waiting(*given: Any) -> int:
        drafted.set()
        return commit(*given)

    monkeypatch.setattr(crm._store, "commit", waiting)
    with crmkit.open(crm.workspace.folder) as other:
        with other._store.lock():
            slow = threading.Thread(target=crm.customers.update, args=(ada,), kwargs={"city": "Paris"})
            slow.start()
            assert drafted.wait(20)
            then = datetime.now(UTC)
            other.customers.update(bob.id, city="London")
        slow.join()
        assert list(other.at(then).customers) == [ada, bob]
        assert [(row.id, row.field) for row in other.since(then)] == [(ada.id, "city"), (bob.id, "city")]


@pytest.mark.parametrize("is_guarded", [True, False])
def test_a_clock_that_is_set_back_hides_nothing(crm: CRM, is_guarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control believes the clock."""
    bob = crm.customers.add(name="Bob")
    then = datetime.now(UTC)
    crm._store.compact()  # the newest time is in a log now
    monkeypatch.setattr(tiny, "now", lambda: then - timedelta(hours=1))
    if not is_guarded:
        monkeypatch.setattr(tiny.TinyStore, "_instant", lambda _: instant_text(tiny.now()))
    with crmkit.open(crm.workspace.folder) as other:
        other.customers.update(bob.id, city="London")
        stamps = [logged.meta["at"] for logged in other._store.commits()]
    assert (stamps == sorted(stamps)) is is_guarded


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda crm: crm.at(datetime(2026, 1, 1)), Invalid),
        (lambda crm: crm.at(date(2026, 1, 1)), Invalid),
        (lambda crm: crm.at(datetime.now(UTC) + timedelta(hours=1)), Invalid),
        (lambda crm: crm.since("yesterday"), Invalid),
        (lambda crm: crm.since(datetime.now(UTC), "parcel"), NotFound),
        (lambda crm: crm.at(datetime.now(UTC)).get("parcel", "x"), NotFound),
        (lambda crm: crm.at(datetime.now(UTC)).customers["x"], NotFound),
        (lambda crm: crm.at(datetime.now(UTC)).parcels, AttributeError),
        (lambda crm: crm.at(datetime.now(UTC)).customers.find(F.no_such == 1), Invalid),
    ],
)
def test_what_cannot_be_asked(crm: CRM, ask: Callable[[CRM], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        ask(crm)


@pytest.mark.proof
def test_the_past_is_what_was_seen(fresh: Callable[[], CRM], life: Any, scale: Callable[[int], int]) -> None:
    """Every view agrees with a picture taken at its instant, also one that was opened before later edits."""
    for seed in range(scale(1)):
        crm = fresh()
        assert disagreements(crm, life(crm, seed)) == 0


def test_a_past_that_keeps_what_came_would_be_seen(
    fresh: Callable[[], CRM], life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: before-images are put over what is there."""

    def naive(codec: Any, step: Any, doc: Any) -> Any:
        if step.action == "add":
            return None
        was = {**doc, **step.before}
        return step.collection, {**doc, **codec.open(step.collection, dict(step.before), was)}

    monkeypatch.setattr(module, "unwound", naive)
    crm = fresh()
    assert disagreements(crm, life(crm, 0)) > 0


def disagreements(crm: CRM, life: Any) -> int:
    """Edit, taking pictures; return how many instants look different afterwards."""
    pictures: list[tuple[datetime, Picture]] = []
    opened = []
    try:
        for number in range(80):
            life.go_on()
            pictures.append((datetime.now(UTC), picture(crm)))
            if number % 10 == 0:
                opened.append((crm.at(pictures[-1][0]), pictures[-1][1]))
            if number == 40:
                crm._store.compact()
        views = [*opened, *((crm.at(instant), seen) for instant, seen in pictures)]
        return sum(picture(view) != seen for view, seen in views)
    except crmkit.Damaged:  # opened as if it belonged to another customer
        return 1


def picture(source: Any) -> Picture:
    """What every customer and deal shows."""
    return {record.id: dict(record) for plural in ("customers", "deals") for record in source[plural]}


# --------------------------------------------------------------------------- what came of it


def test_since_says_what_became_of_the_records(crm: CRM) -> None:
    kept = crm.deals.add(title="Boat", stage="qualified", amount="10.00", closes_on="2026-10-01")
    small = crm.deals.add(title="Canoe", amount="5.00", closes_on="2026-10-01")
    lost = crm.deals.add(title="Car")
    passing = crm.deals.add(title="Bike")
    then = datetime.now(UTC)
    new = crm.deals.add(title="Kite")
    with crm.acting_as("ann"), crm.transaction(reason="he called"):
        crm.deals.update(kept.id, stage="won", amount="12.00", title="Big boat", closes_on="2026-12-01")
    crm.deals.update(small.id, amount="4.00", closes_on="2026-09-01")
    crm.deals.remove(lost)
    crm.deals.update(passing.id, stage="won")
    crm.deals.update(passing.id, stage="qualified")
    short_lived = crm.deals.add(title="Gone")
    crm.deals.remove(short_lived)
    crm.customers.add(name="Ada")
    said = crm.since(then, "deal")
    assert {(row.id, row.field, row.what) for row in said} == {
        (new.id, "", "entered"),
        (lost.id, "", "left"),
        (kept.id, "stage", "moved"),
        (kept.id, "amount", "grew"),
        (kept.id, "closes_on", "slipped"),
        (kept.id, "title", "changed"),
        (small.id, "amount", "shrank"),
        (small.id, "closes_on", "changed"),
    }
    moved = next(row for row in said if row.what == "moved")
    assert (moved.before, moved.after, moved.actor, moved.reason) == ("qualified", "won", "ann", "he called")
    assert then < moved.at
    assert said.table[0].keys() == vars(moved).keys()
    assert "boat" not in repr(said) + repr(said.rows)
    assert "1 deal entered" in repr(said)
    assert [row.type for row in crm.since(then) if row.what == "entered"] == ["deal", "customer"]
    assert len(crm.since(datetime.now(UTC))) == 0


def test_a_removed_record_that_comes_back_has_entered(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", iban=IBAN)
    crm.customers.remove(ada)
    then = datetime.now(UTC)
    crm.customers.restore(ada.id)
    crm.customers.update(ada.id, iban=None)
    assert [row.what for row in crm.since(then)] == ["entered"]


def test_who_brought_it_in_is_told_not_who_was_last(crm: CRM) -> None:
    gone = crm.deals.add(title="Car")
    then = datetime.now(UTC)
    with crm.acting_as("ann"):
        new = crm.deals.add(title="Kite")
        crm.deals.remove(gone)
    with crm.acting_as("bob"):
        crm.deals.update(new.id, stage="won", title="Big kite")
    told = crm.since(then, "deal")
    assert [(row.what, row.actor) for row in told] == [("left", "ann"), ("entered", "ann")]


def test_a_text_counts_records_not_fields(crm: CRM) -> None:
    ada, bob = crm.customers.add(name="Ada"), crm.customers.add(name="Bob")
    then = datetime.now(UTC)
    crm.customers.update(ada, city="Rome", postcode="1")
    assert repr(crm.since(then)).endswith(": 1 customer changed>")
    crm.customers.update(bob, city="Rome")
    assert len(crm.since(then)) == 3
    assert repr(crm.since(then)).endswith(": 2 customers changed>")


# --------------------------------------------------------------------------- asked as now


def test_the_past_is_sorted_and_searched_as_now(crm: CRM) -> None:
    for name, city in (("John Smith", "Rome"), ("Ada Lovelace", "Paris"), ("Bob", None)):
        crm.customers.add(name=name, city=city, iban=IBAN if city else None)
    now = crm.customers
    found = [now.find(order="-city").records, now.find(F.iban == IBAN, order=("city",), limit=1).records]
    searched = [now.search(text) for text in ("john smtih", "ada", "", "nobody")]
    then = crm.at(datetime.now(UTC)).customers
    crm.customers.add(name="Ada Later", city="Zürich")
    for each in list(crm.customers):
        crm.customers.update(each, city="London", name="Changed")
    assert [then.find(order="-city"), then.find(F.iban == IBAN, order=("city",), limit=1)] == found
    assert [then.search(text) for text in ("john smtih", "ada", "", "nobody")] == searched
    assert then.search("lovel", limit=1)[0].name == "Ada Lovelace"


def test_the_past_is_read_only_and_lists_its_collections(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    past = crm.at(datetime.now(UTC))
    assert {"customers", "deals"} <= {*dir(past)}
    for write in (
        lambda: past.customers.update(ada, city="Rome"),
        lambda: past.customers.add(name="Bob"),
        lambda: past.customers.remove(ada),
    ):
        with pytest.raises(Refused, match="the past is read-only"):
            write()
    with pytest.raises(Invalid, match=r"datetime\(2026, 11, 16, tzinfo=crm.zone\)"):
        crm.since(datetime(2026, 11, 16).date())  # type: ignore[arg-type]
