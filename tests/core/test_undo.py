"""Undo: exactly as it was; refused where something was changed since; one more commit that can be undone too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

import crmkit
from crmkit import CRM, ChangedSince, Invalid, NotFound, Refused, hookimpl
from crmkit.commits import Commit
from crmkit.history import undo as module
from crmkit.store import log

IBAN = "GB33BUKB20201555555555"
Snapshots = Callable[[CRM], dict[tuple[str, str], dict[str, Any]]]


@pytest.fixture
def crm(crm: CRM, deals: Any) -> CRM:
    """An open, empty workspace that knows deals."""
    crm.register(deals())
    return crm


def latest(crm: CRM) -> crmkit.Batch:
    return crm.batches(limit=1)[0]


# --------------------------------------------------------------------------- what can be undone


def test_an_edit_is_undone_by_its_entry_its_batch_or_its_id(crm: CRM) -> None:
    for name in (
        lambda ada: crm.history(ada).records[0],
        lambda _: latest(crm),
        lambda _: latest(crm).id,
        lambda _: Commit(latest(crm).id, 1),
    ):
        ada = crm.customers.add(name="Ada", city="Paris", iban=IBAN)
        crm.customers.update(ada, city="London", iban=None, phone="+442079460999")
        crm.undo(name(ada))
        again = crm.customers[ada.id]
        assert (again.city, again.phone, again.rev) == ("Paris", None, 3)
        assert crm.reveal(again, "iban", reason="test").value == IBAN
        assert crm.customers.find(crmkit.F.iban == IBAN).records[-1:] == [again]
        assert crm.history(ada).records[0].action == "undo"


def test_an_undone_add_lies_among_the_removed_and_comes_back(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", number="1")
    undone = crm.undo(latest(crm))
    assert crm.customers.get(ada.id) is None
    assert [entry.action for entry in crm.history(ada.id)] == ["undo", "add"]
    crm.undo(undone)
    assert crm.customers[ada.id].number == "1"


def test_undo_reads_what_it_takes_back_and_nothing_else(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control counts what reading every commit would take."""
    ada = crm.customers.add(name="Ada")
    crm.customers.update(ada, city="London")
    edit = latest(crm)
    for number in range(100):
        crm.customers.add(name=f"N{number}")
    decoded: list[bytes] = []
    decode = log.decode
    monkeypatch.setattr(log, "decode", lambda line: decoded.append(line) or decode(line))
    undone = crm.undo(edit)
    assert len(decoded) == 1
    crm.undo(undone)
    assert crm.customers[ada.id].city == "London"
    assert len(decoded) == 2
    assert len(list(crm._store.commits())) == len(decoded) - 2 == 104


def test_a_removal_and_a_restoration_are_undone(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    crm.customers.remove(ada)
    crm.undo(latest(crm))
    assert ada.id in crm.customers
    crm.customers.remove(ada.id)
    crm.customers.restore(ada.id)
    crm.undo(latest(crm))
    assert ada.id not in crm.customers


def test_batches_say_what_was_undone(crm: CRM) -> None:
    made = crm.customers.add_many([{"name": "Ada"}, {"name": "Bob"}])
    undone = crm.undo(made)
    assert [batch.undone for batch in crm.batches()] == [False, True]
    with pytest.raises(Refused, match="undone already"):
        crm.undo(made)
    crm.undo(undone)
    assert [batch.undone for batch in crm.batches()] == [False, True, False]
    crm.undo(made)
    assert len(crm.customers) == 0


@pytest.mark.proof
def test_undo_restores_exactly(
    fresh: Callable[[], CRM], life: Any, snapshot: Snapshots, scale: Callable[[int], int]
) -> None:
    """Whatever was done last is undone, redone and undone again, opened values and all."""
    for seed in range(scale(1)):
        crm = fresh()
        assert differences(crm, life(crm, seed), snapshot, 60) == 0


def test_an_undo_that_keeps_what_came_would_be_seen(
    crm: CRM, life: Any, snapshot: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: before-images are put over what is there, and fields that had been absent stay."""

    def naive(codec: Any, step: Any, doc: Any) -> Any:
        if step.action == "add":
            return None
        was = {**doc, **step.before}
        return step.collection, {**doc, **codec.open(step.collection, dict(step.before), was)}

    monkeypatch.setattr(module, "unwound", naive)
    assert differences(crm, life(crm, 0), snapshot, 40) > 0


def differences(crm: CRM, life: Any, snapshot: Snapshots, rounds: int) -> int:
    """Return how often an undo did not bring back what was before, or its undo what was after."""
    wrong = 0
    for _ in range(rounds):
        before, seq = snapshot(crm), crm.seq()
        life.go_on()
        if crm.seq() == seq:
            continue
        after, batch = snapshot(crm), latest(crm)
        added = after.keys() - before.keys()
        try:
            undone = crm.undo(batch)
            wrong += not is_as_before(snapshot(crm), before, added)
            crm.undo(undone)
            wrong += snapshot(crm) != after
            if life.random.random() < 0.3:
                crm.undo(batch)
        except (crmkit.Damaged, Invalid, Refused) as error:
            wrong += "does not exist" not in str(error)  # it referred to what was removed long before: refused
    return wrong


def is_as_before(now: dict[Any, Any], before: dict[Any, Any], added: set[Any]) -> bool:
    """Whether all is as it was, but for what was added, which lies among the removed."""
    left = {id for collection, id in added if not collection.endswith(".removed")} - {id for _, id in before}
    return {key: doc for key, doc in now.items() if key[1] not in left} == before and all(
        collection.endswith(".removed") for collection, id in now if id in left
    )


# --------------------------------------------------------------------------- what was changed since


def test_what_was_changed_since_is_named(crm: CRM) -> None:
    made = crm.customers.add_many([{"name": "Ada"}, {"name": "Bob"}, {"name": "Cid"}])
    ada, bob, cid = crm.customers
    crm.customers.update(bob, city="London")
    crm.customers.remove(cid)
    seq = crm.seq()
    with pytest.raises(ChangedSince, match=bob.id) as caught:
        crm.undo(made)
    assert set(caught.value.records) == {("customer", bob.id), ("customer", cid.id)}
    assert crm.seq() == seq
    undone = crm.undo(made, skip_changed=True)
    assert undone.count == 1
    assert [customer.id for customer in crm.customers] == [bob.id]
    assert ada.id not in crm.customers


def test_a_change_in_between_is_not_overwritten(crm: CRM) -> None:
    """The same cause before and after somebody else's change: the revisions do not follow each other."""
    made = crm.customers.add_many([{"name": "Ada", "city": "Paris"}])
    [ada] = crm.customers
    crm.customers.update(ada, city="Rome")
    undone = crm.undo(latest(crm))
    crm.undo(undone)
    with pytest.raises(ChangedSince):
        crm.undo(made)
    assert crm.customers[ada.id].city == "Rome"


def test_what_others_refer_to_since_is_not_taken_away(crm: CRM) -> None:
    made = crm.customers.add_many([{"name": "Ada"}, {"name": "Bob"}])
    ada, bob = crm.customers
    deal = crm.deals.add(title="Boat", visits=[{"host": ada}])
    with pytest.raises(ChangedSince, match=deal.id) as caught:
        crm.undo(made)
    assert caught.value.records == (("deal", deal.id),)
    crm.undo(made, skip_changed=True)
    assert [customer.id for customer in crm.customers] == [ada.id]
    assert bob.id not in crm.customers


def test_what_is_undone_together_is_no_obstacle(crm: CRM) -> None:
    old = crm.deals.add(title="Old")
    with crm.transaction():
        ada = crm.customers.add(name="Ada")
        crm.deals.add(title="Boat", customer=ada)
        crm.deals.update(old, partners=[ada])
    crm.undo(latest(crm))
    assert (len(crm.customers), crm.deals[old.id].partners) == (0, ())


def test_skipping_leaves_what_the_skipped_refer_to(crm: CRM) -> None:
    with crm.transaction():
        ada = crm.customers.add(name="Ada")
        deal = crm.deals.add(title="Boat", customer=ada)
    batch = latest(crm)
    crm.deals.update(deal, stage="won")
    with pytest.raises(Refused, match="nothing is left"):
        crm.undo(batch, skip_changed=True)
    assert ada.id in crm.customers


@pytest.mark.parametrize("is_checked", [True, False])
def test_a_reference_that_comes_at_the_last_moment(
    crm: CRM, deals: Any, meanwhile: Any, monkeypatch: pytest.MonkeyPatch, is_checked: bool
) -> None:
    """It keeps the customer; without the look under the lock it would refer to nothing."""
    ada = crm.customers.add(name="Ada")
    batch = latest(crm)
    with crmkit.open(crm.workspace.folder, plugins=[deals()]) as other:
        crm.register(meanwhile(other, ada.id))
        if is_checked:
            with pytest.raises(ChangedSince):
                crm.undo(batch)
        else:
            monkeypatch.setattr(module.Undo, "_obstacle", lambda *_: None)
            crm.undo(batch)
    assert (ada.id in crm.customers) is is_checked
    assert len(crm.deals) == 1


# --------------------------------------------------------------------------- what is refused


def test_unique_values_and_references_stay_checked(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", number="1")
    crm.customers.update(ada, number="2")
    batch = latest(crm)
    crm.customers.add(name="Bob", number="1")
    with pytest.raises(Invalid, match="number"):
        crm.undo(batch)
    deal = crm.deals.add(title="Boat", customer=ada.id)
    crm.deals.update(deal, customer=None)
    batch = latest(crm)
    crm.customers.remove(ada.id)
    with pytest.raises(Invalid, match="customer"):
        crm.undo(batch)


def test_plugins_are_asked_as_for_any_other_write(crm: CRM) -> None:
    asked: list[tuple[str, str]] = []

    class Guard:
        @hookimpl
        def crm_before_commit(self, changes: Iterable[crmkit.Change]) -> None:
            asked.extend((change.type, change.action) for change in changes)
            if any(change.fields.get("city") == "Paris" for change in changes):
                raise Refused("nobody goes back to Paris")

    ada = crm.customers.add(name="Ada", city="Paris")
    ada = crm.customers.update(ada, city="London")
    crm.register(Guard())
    with pytest.raises(Refused, match="Paris"):
        crm.undo(latest(crm))
    assert crm.customers[ada.id] == ada
    assert asked == [("customer", "update")]


@pytest.mark.parametrize(
    ("what", "error"), [("01ARZ3NDEKTSV4RRFFQ69G5FAV", NotFound), ("", NotFound), (7, Invalid), (None, Invalid)]
)
def test_what_is_no_commit(crm: CRM, what: Any, error: type[Exception]) -> None:
    crm.customers.add(name="Ada")
    with pytest.raises(error):
        crm.undo(what)


def test_an_open_transaction_is_refused(crm: CRM) -> None:
    crm.customers.add(name="Ada")
    batch = latest(crm)
    with pytest.raises(Refused, match="finish the transaction"), crm.transaction():
        crm.undo(batch)
    assert len(crm.customers) == 1


def test_records_of_an_absent_plugin_are_not_touched(crm: CRM) -> None:
    deal = crm.deals.add(title="Boat")
    with crmkit.open(crm.workspace.folder) as other, pytest.raises(Refused, match="deals"):
        other.undo(latest(crm))
    assert deal.id in crm.deals


# --------------------------------------------------------------------------- size


@pytest.mark.proof
def test_a_large_import_is_undone_in_one_commit_in_about_the_time_that_it_took(
    crm: CRM, scale: Callable[[int], int], record_property: Callable[[str, object], None]
) -> None:
    rows = scale(1500)
    people = [
        {"name": f"N{row}", "number": str(row), "email": f"n{row}@example.org", "city": "London", "iban": IBAN}
        for row in range(rows)
    ]
    start = time.process_time()  # of this process alone: others may be busy too
    made = crm.customers.add_many(people)
    imported = time.process_time()
    seq = crm.seq()
    assert crm.undo(made).count == rows
    undone = time.process_time()
    assert crm.seq() == seq + 1
    assert len(crm.customers) == 0
    record_property("rows_undone", rows)
    record_property("undo_cpu_seconds", round(undone - imported, 2))
    assert undone - imported < 2 * (imported - start)


def test_an_undo_says_why_and_what_it_left_out(crm: CRM) -> None:
    made = crm.customers.add_many([{"name": name} for name in ("Ada", "Bob", "Cid")], reason="the fair")
    ada, bob, cid = crm.customers
    crm.customers.update(ada, city="Rome")
    crm.customers.add(name="Dora", organisation=bob)
    undone = crm.undo(made, skip_changed=True)
    assert undone.left_out == (("customer", ada.id), ("customer", bob.id))
    assert (undone.count, cid.id in crm.customers) == (1, False)
    assert crm.batches()[0].reason == "undo of: the fair"
    assert crm.undo(undone).left_out == ()
    crm.undo(crm.customers.add_many([{"name": "Eve"}]))
    assert crm.batches()[0].reason == ""
