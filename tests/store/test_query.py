"""Conditions and plans: the index plan must find what a full scan finds, page by page."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from crmkit.errors import Invalid
from crmkit.query import And, AnyRow, Condition, F, Find, Not, Or, Order
from crmkit.store.cursors import Gap
from crmkit.store.documents import Documents
from crmkit.store.evaluate import predicate, rank, reader
from crmkit.store.indexes import TextIndex
from crmkit.store.ordered import SortedKeys
from crmkit.store.plan import accepted_by, find_page

PATHS = ["a", "b", "x.y", "a.number", "x.acme.tier"]
TEXTS = st.sampled_from(
    ["", "a", "A", "ab", "a%", "é", "e\u0301", "\U0010ffff", "\U0010ffffz", "\ue000", "\U0001f600", "\0"]
)
NUMBERS = st.sampled_from(["1.5", "1.50", "1E+1", "-0", "10", "NaN", "Infinity", "0.1000000000000000000000000001"])
SCALARS = TEXTS | st.integers(-2, 2) | st.sampled_from([0.5, -0.0, 1.0, 2**60]) | st.booleans()
WANTED = SCALARS | st.sampled_from([Decimal("1.5"), Decimal(10), Decimal("0.1")])
VALUES = SCALARS | NUMBERS | st.none() | st.lists(SCALARS, max_size=3) | st.just({"z": 1})
ROWS = st.lists(st.fixed_dictionaries({}, optional={"a": VALUES, "b": VALUES}) | SCALARS, max_size=3)
DOCS = st.fixed_dictionaries(
    {},
    optional={
        "a": VALUES,
        "b": VALUES,
        "x": VALUES | st.fixed_dictionaries({"y": VALUES}),
        "x.acme.tier": VALUES,
        "rows": ROWS | VALUES,
    },
)


def _leaves(paths: list[str]) -> st.SearchStrategy[Condition]:
    field = st.sampled_from(paths).map(lambda path: F[path])
    comparing = st.sampled_from(["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "has"])
    return st.one_of(
        st.builds(lambda f, name, value: getattr(f, name)(value), field, comparing, WANTED),
        st.builds(
            lambda f, name, text: getattr(f, name)(text), field, st.sampled_from(["startswith", "contains"]), TEXTS
        ),
        st.builds(lambda f, values: f.isin(values), field, st.lists(WANTED, max_size=3)),
        st.builds(lambda f: f.exists(), field),
    )


def _combined(leaves: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: And(tuple(parts))),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: Or(tuple(parts))),
            inner.map(Not),
        ),
        max_leaves=5,
    )


IN_ROWS = _combined(_leaves(["a", "b", "a.number"])).map(lambda condition: AnyRow("rows", condition))
CONDITIONS = _combined(_leaves([*PATHS, "rows"]) | IN_ROWS)
ORDERS = st.lists(st.builds(Order, st.sampled_from([*PATHS, "id"]), st.booleans()), max_size=3).map(tuple)


def scan(docs: list[dict[str, Any]], where: Condition | None, order: tuple[Order, ...]) -> list[str]:
    """What a page must hold, told in the plainest way: compare two documents path by path."""

    def compare(one: dict[str, Any], other: dict[str, Any]) -> int:
        last = order[-1].descending if order else False
        for key in (*order, Order("id", last)):
            first, second = reader(key.path)(one), reader(key.path)(other)
            low, high = (rank(first), first), (rank(second), second)
            if low[0] != high[0] or (low[0] and low[1] != high[1]):
                return (-1 if low < high else 1) * (-1 if key.descending else 1)
        return 0

    accepts = predicate(where)
    return [doc["id"] for doc in sorted(filter(accepts, docs), key=cmp_to_key(compare))]


def differences(found: Callable[[Documents, Find], Any], count: int) -> None:
    """Compare pages with full scans over random documents, conditions, orders and changes."""

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(DOCS, max_size=25),
        CONDITIONS | st.none(),
        ORDERS,
        st.integers(1, 9),
        st.lists(DOCS, max_size=6),
        st.booleans(),
    )
    def run(
        docs: Any, where: Condition | None, order: tuple[Order, ...], limit: int, later: Any, is_lazy: bool
    ) -> None:
        documents = Documents(lazy=is_lazy)
        for number, doc in enumerate(docs):
            documents.put({**doc, "id": f"{number:02}"})
        for _ in range(2):  # the second with indexes that were there before the changes
            pages = [found(documents, Find("c", where, order, limit))]
            while pages[-1].next is not None:
                pages.append(found(documents, Find("c", where, order, limit, after=pages[-1].next)))
            ids = [doc["id"] for page in pages for doc in page]
            assert ids == scan(list(documents.by_id.values()), where, order)
            assert sorted(doc["id"] for doc in accepted_by(documents, where)) == sorted(ids)
            back = pages[-1]
            for page in reversed(pages[:-1]):
                back = found(documents, Find("c", where, order, limit, before=back.previous))
                assert back == page
            assert (back.previous, back.next) == (None, pages[0].next)
            for number, doc in enumerate(later):
                documents.put({**doc, "id": f"{number * 5:02}"})
            documents.remove("01")

    run()


@pytest.mark.proof
def test_the_index_plan_finds_what_a_full_scan_finds(scale: Callable[[int], int]) -> None:
    differences(find_page, scale(400))


def test_control_a_plan_that_trusts_its_candidates_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crmkit.store.plan.predicate", lambda where: lambda doc: True)
    with pytest.raises(AssertionError):
        differences(find_page, 300)


def test_control_pages_that_begin_behind_their_edge_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crmkit.store.plan.Gap", lambda key, is_behind: Gap(key, True))
    with pytest.raises(AssertionError):
        differences(find_page, 300)


def test_control_indexes_that_miss_changes_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Documents, "put", lambda self, doc: self.by_id.take(doc))
    with pytest.raises((AssertionError, KeyError)):
        differences(find_page, 300)


def documents_of(*values: int) -> Documents:
    documents = Documents()
    for value in values:
        documents.put({"id": f"{value:02}", "n": value})
    return documents


@pytest.mark.parametrize("order", [(), (Order("n"),), (Order("n", descending=True),), (Order("n"), Order("m", True))])
def test_there_is_a_way_back_from_where_everything_went_away(order: tuple[Order, ...]) -> None:
    documents = documents_of(*range(6))
    first = find_page(documents, Find("c", None, order, 3))
    second = find_page(documents, Find("c", None, order, 3, after=first.next))
    for doc in second:
        documents.remove(doc["id"])
    empty = find_page(documents, Find("c", None, order, 3, after=first.next))
    assert (list(empty), empty.next) == ([], None)
    assert list(find_page(documents, Find("c", None, order, 9, before=empty.previous))) == list(first)
    for doc in first:
        documents.remove(doc["id"])
    documents.put(second.records[1])
    empty = find_page(documents, Find("c", None, order, 3, before=second.previous))
    assert (list(empty), empty.previous) == ([], None)
    assert list(find_page(documents, Find("c", None, order, 9, after=empty.next))) == [second.records[1]]


def test_a_page_has_one_edge_that_is_given() -> None:
    documents = documents_of(*range(6))
    second = find_page(documents, Find("c", limit=2, after=find_page(documents, Find("c", limit=2)).next))
    with pytest.raises(Invalid, match="before: cannot be given together with after"):
        find_page(documents, Find("c", after=second.next, before=second.previous))
    with pytest.raises(Invalid, match=r"before: is not a cursor of this order; give Page\.previous"):
        find_page(documents, Find("c", order=(Order("n"),), before=second.previous))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (F.n == 1, {"one", "float"}),
        (F.n == True, {"true"}),  # noqa: E712
        (F.n != 1, {"zero"}),
        (~(F.n == 1), {"zero", "true", "text", "none", "list", "empty", "none at all", "rows"}),
        (F.n < "2", {"text"}),
        (F.n >= 0, {"zero", "one", "float"}),
        (F.n.isin([1, "1"]), {"one", "float", "text"}),
        (F.n.has(1), {"list", "rows"}),
        (F.n.exists(), {"zero", "one", "float", "true", "text", "list", "rows"}),
        (F.n.deeper == 1, set()),
        (F.n.number == 1, {"text"}),
        (F.n.number < 2, {"text"}),
        (F.n.any(F.deeper == 1), {"rows"}),
        (F.n.any(~(F.deeper == 1)), {"rows"}),
        ((F.n == 0) | (F.n == "1"), {"zero", "text"}),
    ],
)
def test_a_value_of_another_type_is_missing(where: Condition, expected: set[str]) -> None:
    values: dict[str, Any] = {
        "zero": 0,
        "one": 1,
        "float": 1.0,
        "true": True,
        "text": "1",
        "none": None,
        "list": [1, "a"],
    }
    values |= {"none at all": [], "rows": [{"deeper": 1}, 1, {"deeper": 2}]}
    docs = [{"id": id, "n": value} for id, value in values.items()] + [{"id": "empty"}]
    assert {doc["id"] for doc in filter(predicate(where), docs)} == expected


def test_what_only_text_can_do() -> None:
    with pytest.raises(Invalid, match="n: startswith takes text"):
        predicate(F.n.startswith(1))  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="made with F"):
        predicate("n == 1")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=400), st.integers(-1, 301), st.integers(-1, 301)
)
def test_sorted_keys_against_a_sorted_list(steps: list[tuple[bool, int]], low: int, high: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crmkit.store.ordered._CHUNK", 4)
        keys, model = SortedKeys([(5,), (3,)]), {3, 5}
        for is_added, number in steps:
            (keys.add if is_added else keys.discard)((number,))
            (model.add if is_added else model.discard)(number)
        inside = [(number,) for number in sorted(model) if low <= number < high]
        assert list(keys.walk((low,), (high,))) == inside
        assert list(keys.walk((low,), (high,), descending=True)) == inside[::-1]
        assert list(keys.walk()) == [(number,) for number in sorted(model)]
        assert keys.rank((low,)) == sum(number < low for number in model)


def typed_search(count: int) -> None:
    """Compare typed search with a plain loop over random texts, of which some come later."""

    @settings(max_examples=count, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(
        st.lists(st.text("ab ", max_size=6), max_size=30),
        st.lists(st.text("ab", max_size=6), max_size=5),
        st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=3),
        st.integers(1, 30),
    )
    def run(texts: list[str], later: list[str], words: list[str], limit: int) -> None:
        docs = [{"id": f"{number:02}", "t": text} for number, text in enumerate(texts)]
        index = TextIndex(lambda doc: doc["t"], docs)
        for _ in range(2):
            rows = sorted((" ".join(doc["t"].split()), doc["id"]) for doc in docs)
            hits = [row for row in rows if all(word in row[0] for word in words)]
            assert index.match(words, limit) == [id for _, id in sorted(hits, key=group(words[0]))][:limit]
            for number, text in enumerate(later[: len(docs)]):
                new = {**docs[number * 3 % len(docs)], "t": text}
                index.replace(docs[number * 3 % len(docs)], new)
                docs[number * 3 % len(docs)] = new

    run()


def group(word: str) -> Callable[[tuple[str, str]], int]:
    return lambda row: 0 if row[0].startswith(word) else 1 if f" {word}" in row[0] else 2


def test_typed_search_against_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crmkit.store.ordered._CHUNK", 4)
    typed_search(400)


def test_control_joined_texts_that_outlive_a_change_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = SortedKeys._changed

    def keep_joined(self: SortedKeys, number: int) -> None:
        joined = self.chunks[number].joined
        changed(self, number)
        if number < len(self.chunks):
            self.chunks[number].joined = joined

    monkeypatch.setattr(SortedKeys, "_changed", keep_joined)
    with pytest.raises((AssertionError, IndexError)):
        typed_search(400)
