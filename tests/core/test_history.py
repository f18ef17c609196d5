"""History: what happened to a record, by whom, when and why; sealed fields stay sealed in it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit import CRM, Damaged, Invalid, NotFound, Secret
from crmkit.history import versions as module
from crmkit.store import operations
from crmkit.store.frames import encode

IBAN = "GB33BUKB20201555555555"
OTHER_IBAN = "DE75512108001245126199"


@pytest.fixture
def crm(crm: CRM, deals: Any) -> CRM:
    """An open, empty workspace that knows deals."""
    crm.register(deals())
    return crm


def test_a_history_tells_who_did_what_when_and_why(crm: CRM) -> None:
    start = datetime.now(UTC)
    ada = crm.customers.add(name="Ada", city="Paris")
    with crm.acting_as("ann"), crm.transaction(reason="she moved"):
        ada = crm.customers.update(ada, city="London", phone="+442079460999")
    newest, oldest = crm.history(ada)
    assert (newest.action, newest.actor, newest.reason) == ("update", "ann", "she moved")
    assert newest.fields == ("city", "phone")
    assert newest.before == {"city": "Paris"}
    assert newest.after == {"city": "London", "phone": "+442079460999"}
    assert newest.commit == crm.seq()
    assert start <= oldest.at <= newest.at <= datetime.now(UTC)
    assert oldest.action == "add"
    assert oldest.before == {}
    assert oldest.after["name"] == "Ada"
    assert oldest.reason == ""
    assert newest.cause != oldest.cause


def test_values_are_as_the_record_shows_them(crm: CRM) -> None:
    deal = crm.deals.add(title="Boat", amount="12.30", closes_on="2026-10-01")
    crm.deals.update(deal, amount="14.00", closes_on="2026-11-01")
    newest = crm.history(deal).records[0]
    assert newest.before == {"amount": deal.amount, "closes_on": deal.closes_on}
    assert newest.after["amount"] == crm.deals[deal.id].amount


def test_sensitive_values_are_masked_and_no_text_shows_any_value(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada Canary", iban=IBAN)
    crm.customers.update(ada, iban=OTHER_IBAN, notes="canary notes")
    newest = crm.history(ada).records[0]
    assert {str(newest.before["iban"]), str(newest.after["iban"])} == {"GB•• •••• 5555", "DE•• •••• 6199"}
    for value in (newest.before["iban"], newest.after["iban"]):
        assert isinstance(value, Secret)
        with pytest.raises(crmkit.Refused):
            assert value.value
    text = repr(crm.history(ada).records) + repr(crm.batches())
    assert "anary" not in text
    assert "5555" not in text


def test_what_was_before_is_sealed_on_disk(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", city="Canaryville", region="Plainshire", iban=IBAN)
    with crm.transaction(reason="canary reason"):
        crm.customers.update(ada, city="London", region="Kent", iban=OTHER_IBAN)
    crm._store.compact()
    stored = b"".join(path.read_bytes() for path in crm.workspace.data.iterdir())
    for value in (b"Canaryville", IBAN.encode(), b"canary reason"):
        assert value not in stored
    assert b"Plainshire" in stored  # the control: what is plain is found


def test_a_history_outlives_removal_restoration_and_compaction(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    crm.customers.remove(ada)
    assert [entry.action for entry in crm.history(ada.id)] == ["remove", "add"]
    assert crm._store.compact()
    crm.customers.restore(ada.id)
    crm.customers.update(ada.id, city="London")
    assert crm._store.compact()
    assert [entry.action for entry in crm.history(ada)] == ["update", "restore", "remove", "add"]
    assert crm.history(ada).records[0].after == {"city": "London"}


def test_pages_follow_each_other(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    for number in range(6):
        ada = crm.customers.update(ada, city=f"City {number}")
    everything = crm.history(ada, limit=100).records
    pages, after = [], None
    while True:
        page = crm.history(ada, limit=3, after=after)
        pages.append(len(page))
        assert [entry.commit for entry in page] == [entry.commit for entry in everything[sum(pages) - len(page) :][:3]]
        after = page.next
        if after is None:
            break
    assert pages == [3, 3, 1]


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda crm: crm.history("01ARZ3NDEKTSV4RRFFQ69G5FAV"), NotFound),
        (lambda crm: crm.history(crm.customers.add(name="Ada"), limit=0), Invalid),
        (lambda crm: crm.history(crm.customers.add(name="Ada"), after="x"), Invalid),
        (lambda crm: crm.batches(limit=0), Invalid),
    ],
)
def test_what_cannot_be_asked(crm: CRM, ask: Callable[[CRM], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        ask(crm)


def test_records_of_an_absent_plugin_have_a_history(tmp_path: Path, deals: Any) -> None:
    with crmkit.create(tmp_path / "other", currency="EUR") as crm:
        crm.register(deals())
        deal = crm.deals.add(title="Canary", stage="won", account=IBAN)
        crm.deals.update(deal, stage="lost", title="Other canary")
    with crmkit.open(tmp_path / "other") as crm:
        newest, oldest = crm.history(deal.id)
        assert newest.before["stage"] == "won"
        assert newest.after["stage"] == "lost"
        assert str(newest.before["title"]) == str(oldest.after["account"]) == "••••••"
        assert crm.batches()[0].types == {"deals": 1}


def test_what_was_only_sealed_anew_did_not_change(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    """An early version sealed every field anew with every change, and a deal that changes hands still does."""
    with monkeypatch.context() as early:
        early.setattr(operations, "_differing", lambda old, new: {**old, **new})
        ada = crm.customers.add(name="Ada", city="Paris")
        with crm.acting_as("ann"):
            crm.customers.update(ada.id, name="Ada L", city="London")
        crm.customers.update(ada.id, language="de")
    assert [entry.fields for entry in crm.history(ada)][:2] == [("language",), ("name", "city")]
    assert {(row.field, row.actor == "ann") for row in crm.since(crm.history(ada).records[-1].at)} == {
        ("name", True),
        ("city", True),
        ("language", False),
    }
    deal = crm.deals.add(title="Boat", customer=ada, account=IBAN)
    crm.deals.update(deal, customer=crm.customers.add(name="Bob"))
    assert crm.history(deal).records[0].fields == ("customer",)
    assert [row.field for row in crm.since(crm.history(deal).records[-1].at, "deal")] == ["customer"]


def test_records_of_two_types_with_one_id_have_each_their_own_past(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", city="Paris")
    then = datetime.now(UTC)
    with crm.transaction():
        deal = crm.deals.add(id=ada.id, title="Boat", stage="won")
        crm.customers.update(ada, city="London")
    both = crm.batches(1)[0]
    assert (both.count, both.types) == (2, {"customer": 1, "deal": 1})
    assert crm.history(crm.customers[ada.id]).records[0].fields == ("city",)
    assert [entry.action for entry in crm.history(deal)] == ["add"]
    past = crm.at(then)
    assert (list(past.customers), list(past.deals)) == ([ada], [])
    assert [(row.type, row.what) for row in crm.since(then)] == [("customer", "changed"), ("deal", "entered")]
    crm.undo(both)
    assert crm.customers[ada.id].city == "Paris"
    assert len(crm.deals) == 0


def test_the_past_is_read_while_somebody_else_keeps_the_lock(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    then = datetime.now(UTC)
    crm.customers.update(ada, city="London")
    crm._store._lock._timeout = 0.1
    with crmkit.open(crm.workspace.folder) as other, other._store.lock():
        assert [entry.action for entry in crm.history(ada.id)] == ["update", "add"]
        assert crm.at(then).customers[ada.id] == ada
        assert [row.field for row in crm.since(then)] == ["city"]
        assert len(crm.batches()) == 2


def test_a_view_of_the_past_reads_the_log_once(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the newest line of the journal says nothing: one that closed left it."""
    ada = crm.customers.add(name="Ada")
    then = datetime.now(UTC)
    with crmkit.open(crm.workspace.folder) as other:
        other.customers.update(ada.id, city="London")
    asked: list[object] = []
    commits = crm._store.commits
    monkeypatch.setattr(crm._store, "commits", lambda *given, **more: asked.append(given) or commits(*given, **more))
    past = crm.at(then)
    first = len(asked)
    assert [past.customers.get(ada.id) for _ in range(5)] == [ada] * 5
    assert len(asked) == first


def test_what_was_written_through_a_table_is_told_and_undone(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", language="en")
    then = datetime.now(UTC)
    crm._store.table("customers").update({"language": "de"})
    newest, first = crm.history(ada)
    assert (newest.fields, newest.after, newest.actor) == (("language",), {"language": "de"}, "table")
    assert first.at < then < newest.at
    assert [batch.kind for batch in crm.batches()] == ["table", "edit"]
    assert [(row.field, row.after) for row in crm.since(then)] == [("language", "de")]
    crm.undo(newest)
    assert crm.customers[ada.id].language == "en"


def test_a_commit_that_says_neither_when_nor_why_hides_no_other(crm: CRM) -> None:
    """An early version wrote such ones through tables."""
    ada = crm.customers.add(name="Ada", language="en")
    change = ["u", "customers", ada.id, {"language": "de", "rev": 2}, {"language": "en", "rev": 1}]
    with (crm.workspace.data / "wal.1.jsonl").open("ab") as wal:
        wal.write(encode(crm.seq() + 1, [["m", {"reason": "table customers"}], change]))
    crm.customers.update(ada.id, language="fr")
    assert [(entry.before.get("language"), entry.reason) for entry in crm.history(ada)] == [
        ("de", ""),
        ("en", ""),
        (None, ""),
    ]
    assert [batch.kind for batch in crm.batches()] == ["edit", "edit"]
    assert [row.what for row in crm.since(ada.updated_at)] == ["entered"]


def test_batches_tell_what_was_done_together(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    with crm.transaction(reason="two things"):
        crm.customers.update(ada, city="London")
        crm.deals.add(title="Boat", customer=ada)
    made = crm.customers.add_many([{"name": f"N{number}"} for number in range(25)], batch=10, reason="a list")
    latest = crm.batches()
    assert [(batch.kind, batch.count, batch.types) for batch in latest] == [
        ("import", 25, {"customer": 25}),
        ("transaction", 2, {"customer": 1, "deal": 1}),
        ("edit", 1, {"customer": 1}),
    ]
    assert latest[0].id == made.id
    assert [batch.reason for batch in latest] == ["a list", "two things", ""]
    assert [batch.id for batch in crm.batches(limit=2)] == [batch.id for batch in latest[:2]]


@pytest.mark.proof
def test_a_history_agrees_with_what_was_seen(fresh: Callable[[], CRM], life: Any, scale: Callable[[int], int]) -> None:
    """Every entry's values are those that the record had."""
    for seed in range(scale(1)):
        crm = fresh()
        assert disagreements(crm, live_and_look(crm, life(crm, seed), 80)) == []


def test_a_walk_that_keeps_what_was_added_would_be_seen(crm: CRM, life: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a before-image alone does not say which fields were absent."""
    seen = live_and_look(crm, life(crm, 0), 80)

    def naive(codec: Any, step: Any, doc: Any) -> Any:
        was = {**(doc or {}), **step.before}
        return step.collection, {**was, **codec.open(step.collection, dict(step.before), was)}

    monkeypatch.setattr(module, "unwound", naive)
    assert disagreements(crm, seen) != []


def live_and_look(crm: CRM, life: Any, steps: int) -> dict[int, dict[str, dict[str, Any]]]:
    """Edit, and note after each commit what every record shows."""
    seen = {}
    for _ in range(steps):
        life.go_on()
        seen[crm.seq()] = {
            record.id: {name: value for name, value in dict(record).items() if value is not None}
            for collection in (crm.customers, crm.deals)
            for record in collection
        }
    return seen


def disagreements(crm: CRM, seen: dict[int, dict[str, dict[str, Any]]]) -> list[str]:
    """Return where the histories of all records differ from what was seen."""
    commits = sorted(seen)
    wrong = []
    for id in {id for records in seen.values() for id in records}:
        try:
            entries = crm.history(id, limit=10_000).records
        except Damaged:  # opened as if it belonged to another customer
            return [id]
        for entry in entries:
            earlier = next((seen[commit] for commit in reversed(commits) if commit < entry.commit), {})
            for said, records in ((entry.before, earlier), (entry.after, seen[entry.commit])):
                shown = records.get(id)
                if shown is not None and said != {name: shown[name] for name in entry.fields if name in shown}:
                    wrong.append(f"{id} at {entry.commit}")
    return wrong
