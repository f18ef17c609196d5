"""Merge: one record of several; nothing leads to a loser any more but its own id; undo brings all of it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import crmkit
from crmkit import CRM, Conflict, F, Invalid, NotFound, Refused, drafts, links
from crmkit import merge as module

IBAN = "GB33BUKB20201555555555"
OTHER_IBAN = "DE75512108001245126199"
Snapshots = Callable[[CRM], dict[tuple[str, str], dict[str, Any]]]


@pytest.fixture
def crm(crm: CRM, deals: Any) -> CRM:
    """An open, empty workspace that knows deals."""
    crm.register(deals())
    return crm


# --------------------------------------------------------------------------- the winner


def test_the_winner_keeps_what_it_has_and_gets_what_it_lacks(crm: CRM) -> None:
    mail = {"kind": "email", "value": "ada@example.com", "label": "work"}
    ada = crm.customers.add(name="Ada", city="London", tags=["vip"], number="1")
    twin = crm.customers.add(name="A. L.", city="Paris", phone="+442079460999", tags=["vip", "chess"], contacts=[mail])
    third = crm.customers.add(name="Ada L", phone="+442079460000", number="3", country="GB", roles=["client"])
    merged = crm.customers.merge(ada, [twin, third], reason="the same person")
    assert merged.count == 3
    now = crm.customers[ada.id]
    assert (now.name, now.city, now.number) == ("Ada", "London", "1")
    assert (now.phone, now.country, now.roles) == (twin.phone, "GB", ("client",))
    assert (now.tags, now.contacts[:1]) == (("vip", "chess"), twin.contacts)
    assert [point.value for point in now.contacts[1:]] == [third.phone]
    assert next((entry.action, entry.reason) for entry in crm.history(ada)) == ("merge", "the same person")
    assert crm.batches()[0].kind == "merge"


def test_a_number_that_the_winner_lacks_comes_to_it_and_goes_back(crm: CRM) -> None:
    ada, twin = crm.customers.add(name="Ada"), crm.customers.add(name="Twin", number="7")
    merged = crm.customers.merge(ada, [twin])
    assert crm.customers[ada.id].number == "7"
    crm.undo(merged)
    assert (crm.customers[ada.id].number, crm.customers[twin.id].number) == (None, "7")


def test_secrets_are_sealed_for_the_winner(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", iban=IBAN)
    twin = crm.customers.add(name="Twin", iban=OTHER_IBAN, tax_id="CANARYTAX99")
    deal = crm.deals.add(title="Boat", customer=twin, account=OTHER_IBAN)
    crm.customers.merge(ada, [twin])
    with crmkit.open(crm.workspace.folder) as other:
        now = other.customers[twin.id]
        assert other.reveal(now, "iban", reason="test").value == IBAN
        assert other.reveal(now, "tax_id", reason="test").value == "CANARYTAX99"
        assert other.customers.find(F.tax_id == "CANARYTAX99").records == [now]
    assert crm.reveal(crm.deals[deal.id], "account", reason="test").value == OTHER_IBAN
    assert crm._codec.subject("deals", crm._store.get("deals", deal.id)) == ada.id


def test_a_reference_to_itself_is_dropped(crm: CRM) -> None:
    firm = crm.customers.add(name="Firm")
    twin = crm.customers.add(name="Firm Ltd", organisation=firm)
    crm.customers.update(firm, organisation=twin)
    crm.customers.merge(firm.id, [twin])
    assert crm.customers[firm.id].organisation is None


# --------------------------------------------------------------------------- the losers


def test_the_id_of_a_loser_leads_to_the_winner(crm: CRM) -> None:
    ada, twin = crm.customers.add(name="Ada"), crm.customers.add(name="Twin Canary")
    crm.customers.merge(ada, [twin])
    assert crm.customers[twin.id] == crm.customers.get(twin.id) == crm.customers[ada.id]
    assert twin.id in crm.customers
    assert len(crm.customers) == crm.customers.count() == len(crm.customers.find()) == 1
    assert crm.customers.search("canary") == []
    assert crm.history(twin.id).records[0].action == "merge"
    for write in (
        lambda: crm.customers.update(twin.id, city="London"),
        lambda: crm.customers.update(twin, city="London"),
        lambda: crm.customers.remove(twin.id),
    ):
        with pytest.raises(NotFound):
            write()
    with pytest.raises(Refused, match="undo the merge"):
        crm.customers.restore(twin.id)


def test_a_winner_can_lose_later(crm: CRM) -> None:
    ada, bob, cid = (crm.customers.add(name=name) for name in ("Ada", "Bob", "Cid"))
    crm.customers.merge(bob, [ada])
    second = crm.customers.merge(cid, [bob.id])
    assert crm.customers[ada.id].id == cid.id
    crm.undo(second)
    assert crm.customers[ada.id].id == bob.id


def test_timelines_are_joined(crm: CRM) -> None:
    ada, twin = crm.customers.add(name="Ada"), crm.customers.add(name="Twin")
    deal = crm.deals.add(title="Boat", customer=twin)
    removed = crm.deals.add(title="Car", customer=twin, account=IBAN)
    crm.deals.remove(removed)
    crm.customers.merge(ada, [twin])
    assert [each.id for each in crm.deals.find(F.customer == ada.id)] == [deal.id]
    restored = crm.deals.restore(removed.id)
    assert restored.customer == ada.id
    assert crm.reveal(restored, "account", reason="test").value == IBAN


# --------------------------------------------------------------------------- all of it, and back


@pytest.mark.proof
def test_nothing_refers_to_a_loser_and_undo_brings_all_back(
    fresh: Callable[[], CRM], life: Any, snapshot: Snapshots, scale: Callable[[int], int]
) -> None:
    for seed in range(scale(1)):
        crm = fresh()
        assert merge_and_undo(crm, life(crm, seed), snapshot, 20) == (0, 0)


@pytest.mark.parametrize("mutant", ["no rows", "no removed", "no redirects"])
def test_a_merge_that_forgets_something_would_be_seen(
    crm: CRM, life: Any, snapshot: Snapshots, monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    """The controls: nested rows, removed records, or earlier redirects are left as they are."""
    if mutant == "no rows":
        monkeypatch.setattr(drafts, "redirected", lambda s, v, to: v if s.parts else links.redirected(s, v, to))
    elif mutant == "no removed":
        monkeypatch.setattr(links, "REMOVED", ".nowhere")
    else:
        monkeypatch.setattr(module, "MERGED", "_elsewhere")
        find = crm._store.find
        monkeypatch.setattr(
            crm._store, "find", lambda asked: find(asked) if "_elsewhere" not in repr(asked) else crmkit.query.Page([])
        )
    left, _ = merge_and_undo(crm, life(crm, 0), snapshot, 20, go_back=0.0)
    assert left > 0


def merge_and_undo(crm: CRM, life: Any, snapshot: Snapshots, rounds: int, go_back: float = 0.7) -> tuple[int, int]:
    """Merge random customers; return how many documents still named a loser, and how often undo was not exact."""
    left = different = 0
    for _ in range(rounds):
        for _ in range(6):
            life.go_on()
        ids = [customer.id for customer in crm.customers]
        if len(ids) < 4:
            continue
        winner, *losers = life.random.sample(ids, life.random.randint(2, 4))
        before = snapshot(crm)
        merged = crm.customers.merge(winner, losers)
        after = snapshot(crm)
        left += sum(names(doc, set(losers)) for doc in after.values())
        if life.random.random() < go_back:
            undone = crm.undo(merged)
            different += snapshot(crm) != before
            crm.undo(undone)
            different += snapshot(crm) != after
    return left, different


def names(value: Any, ids: set[str], key: str = "") -> bool:
    """Whether a value, other than a document's own id, is one of some ids, anywhere inside."""
    if isinstance(value, dict):
        return any(names(each, ids, name) for name, each in value.items())
    if isinstance(value, list):
        return any(names(each, ids) for each in value)
    return key != "id" and isinstance(value, str) and value in ids


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("merge", "error"),
    [
        (lambda crm, ada, bob: crm.customers.merge(ada, []), Invalid),
        (lambda crm, ada, bob: crm.customers.merge(ada, [ada]), Invalid),
        (lambda crm, ada, bob: crm.customers.merge(ada, [bob, ada.id]), Invalid),
        (lambda crm, ada, bob: crm.customers.merge(ada, [crm.deals.add(title="Boat")]), Invalid),
        (lambda crm, ada, bob: crm.deals.merge(ada, [bob]), Invalid),
        (lambda crm, ada, bob: crm.customers.merge(ada, ["01ARZ3NDEKTSV4RRFFQ69G5FAV"]), NotFound),
        (lambda crm, ada, bob: crm.customers.merge(ada, [7]), Invalid),
        (lambda crm, ada, bob: crm.customers.merge(ada, None), Invalid),
        (lambda crm, ada, bob: crm.customers.merge(None, [bob]), Invalid),
        (lambda crm, ada, bob: (crm.customers.remove(bob), crm.customers.merge(ada, [bob])), NotFound),
        (lambda crm, ada, bob: (crm.customers.update(bob, city="Rome"), crm.customers.merge(ada, [bob])), Conflict),
        (lambda crm, ada, bob: (crm.customers.update(ada, city="Rome"), crm.customers.merge(ada, [bob])), Conflict),
    ],
)
def test_what_cannot_be_merged(crm: CRM, merge: Callable[..., object], error: type[Exception]) -> None:
    ada, bob = crm.customers.add(name="Ada Canary"), crm.customers.add(name="Bob Canary")
    with pytest.raises(error) as caught:
        merge(crm, ada, bob)
    assert "anary" not in str(caught.value)
    assert all(batch.kind != "merge" for batch in crm.batches())


def test_a_merge_is_a_commit_of_its_own(crm: CRM) -> None:
    ada, bob = crm.customers.add(name="Ada"), crm.customers.add(name="Bob")
    with pytest.raises(Refused, match="transaction"), crm.transaction():
        crm.customers.merge(ada, [bob])
    seq = crm.seq()
    crm.customers.merge(ada, [bob])
    assert crm.seq() == seq + 1


@pytest.mark.parametrize("is_checked", [True, False])
def test_a_reference_that_comes_at_the_last_moment(
    crm: CRM, deals: Any, meanwhile: Any, monkeypatch: pytest.MonkeyPatch, is_checked: bool
) -> None:
    """It is a conflict; without the look under the lock it would lead to a loser."""
    ada, bob = crm.customers.add(name="Ada"), crm.customers.add(name="Bob")
    with crmkit.open(crm.workspace.folder, plugins=[deals()]) as other:
        crm.register(meanwhile(other, bob.id))
        if is_checked:
            with pytest.raises(Conflict):
                crm.customers.merge(ada, [bob])
        else:
            write = crm._committer.write_alone
            monkeypatch.setattr(crm._committer, "write_alone", lambda *given, **_: write(*given[:3], lambda: None))
            crm.customers.merge(ada, [bob])
    [deal] = crm.deals
    assert deal.customer == bob.id
    assert (crm.customers[bob.id].id == bob.id) is is_checked


@pytest.mark.shipped_plugins
def test_any_type_can_be_merged(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", iban=IBAN)
    pen = crm.products.add(name="Pen", sku="P1", price="1.20")
    twin = crm.products.add(name="Pen, blue", sku="P2", category="office", cost="0.40")
    line = {"product": twin, "quantity": 2, "unit_price": "1.20"}
    bought = crm.purchases.add(number="1", customer=ada, purchased_on="2026-10-01", lines=[line])
    crm.interactions.add(customer=ada, title="Called")
    crm.products.merge(pen, [twin])
    assert crm.purchases[bought.id].lines[0].product == pen.id
    assert crm.purchases[bought.id].total == bought.total
    now = crm.products[twin.id]
    assert (now.sku, now.category, now.cost) == ("P1", "office", twin.cost)


# --------------------------------------------------------------------------- what would otherwise be hidden


def test_mail_and_phone_of_a_loser_stay_and_are_found(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", email="ada@example.org")
    twin = crm.customers.add(name="A. L.", email="al@example.org", phone="+442079460999")
    third = crm.customers.add(name="A", email="al@example.org", phone="+442079460111")
    same = crm.customers.add(name="B", email="ada@example.org", phone="+442079460999")
    merged = crm.customers.merge(ada, [twin, third, same])
    now = crm.customers[ada.id]
    assert (now.email, now.phone) == ("ada@example.org", "+442079460999")
    assert [(point.kind, point.value) for point in now.contacts] == [
        ("email", "al@example.org"),
        ("phone", "+442079460111"),
    ]
    assert {point.label for point in now.contacts} == {"from the merged record"}
    for typed in ("al@example.org", "+44 20 7946 0111"):
        assert [found.id for found in crm.customers.search(typed)] == [ada.id]
    crm.undo(merged)
    assert crm.customers[ada.id].contacts == ()
    assert crm.customers[twin.id].contacts == ()


def test_history_says_who_was_merged_with_whom(crm: CRM) -> None:
    ada, bob, cid = (crm.customers.add(name=name) for name in ("Ada", "Bob", "Cid"))
    deal = crm.deals.add(title="Boat", customer=bob)
    crm.customers.merge(ada, [bob, cid])
    stayed, went, beside = (crm.history(id).records[0] for id in (ada.id, bob.id, deal.id))
    assert (stayed.merged_into, stayed.merged_from) == (None, (bob.id, cid.id))
    assert (went.merged_into, went.merged_from) == (ada.id, ())
    assert (beside.action, beside.merged_into, beside.merged_from) == ("merge", None, ())
