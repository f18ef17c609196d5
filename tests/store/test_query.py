"""Conditions and plans: the index plan must find what a full scan finds, page by page."""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from crmkit.errors import Invalid
from crmkit.query import And, Condition, F, Find, Not, Or, Order
from crmkit.store.documents import Documents
from crmkit.store.evaluate import predicate, rank, reader
from crmkit.store.indexes import SortedKeys, TextIndex
from crmkit.store.plan import accepted_by, find_page

PATHS = ["a", "b", "x.y"]
TEXTS = st.sampled_from(
    ["", "a", "A", "ab", "a%", "é", "e\u0301", "\U0010ffff", "\U0010ffffz", "\ue000", "\U0001f600", "\0"]
)
SCALARS = TEXTS | st.integers(-2, 2) | st.sampled_from([0.5, -0.0, 1.0, 2**60]) | st.booleans()
VALUES = SCALARS | st.none() | st.lists(SCALARS, max_size=3) | st.just({"z": 1})
DOCS = st.fixed_dictionaries(
    {}, optional={"a": VALUES, "b": VALUES, "x": VALUES | st.fixed_dictionaries({"y": VALUES})}
)


def _leaves() -> st.SearchStrategy[Condition]:
    field = st.sampled_from(PATHS).map(lambda path: F[path])
    comparing = st.sampled_from(["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "has"])
    return st.one_of(
        st.builds(lambda f, name, value: getattr(f, name)(value), field, comparing, SCALARS),
        st.builds(
            lambda f, name, text: getattr(f, name)(text), field, st.sampled_from(["startswith", "contains"]), TEXTS
        ),
        st.builds(lambda f, values: f.isin(values), field, st.lists(SCALARS, max_size=3)),
        st.builds(lambda f: f.exists(), field),
    )


CONDITIONS = st.recursive(
    _leaves(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Or(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=5,
)
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
    @given(st.lists(DOCS, max_size=25), CONDITIONS | st.none(), ORDERS, st.integers(1, 9), st.lists(DOCS, max_size=6))
    def run(docs: Any, where: Condition | None, order: tuple[Order, ...], limit: int, later: Any) -> None:
        documents = Documents()
        for number, doc in enumerate(docs):
            documents.put({**doc, "id": f"{number:02}"})
        for _ in range(2):  # the second with indexes that were there before the changes
            after, ids = None, []
            while True:
                page = found(documents, Find("c", where, order, limit, after))
                ids += [doc["id"] for doc in page]
                after = page.next
                if after is None:
                    break
            assert ids == scan(list(documents.by_id.values()), where, order)
            assert sorted(doc["id"] for doc in accepted_by(documents, where)) == sorted(ids)
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


def test_control_indexes_that_miss_changes_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Documents, "put", lambda self, doc: self.by_id.__setitem__(doc["id"], doc))
    with pytest.raises((AssertionError, KeyError)):
        differences(find_page, 300)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (F.n == 1, {"one", "float"}),
        (F.n == True, {"true"}),  # noqa: E712
        (F.n != 1, {"zero"}),
        (~(F.n == 1), {"zero", "true", "text", "none", "list", "empty"}),
        (F.n < "2", {"text"}),
        (F.n >= 0, {"zero", "one", "float"}),
        (F.n.isin([1, "1"]), {"one", "float", "text"}),
        (F.n.has(1), {"list"}),
        (F.n.exists(), {"zero", "one", "float", "true", "text", "list"}),
        (F.n.deeper == 1, set()),
        ((F.n == 0) | (F.n == "1"), {"zero", "text"}),
    ],
)
def test_a_value_of_another_type_is_missing(where: Condition, expected: set[str]) -> None:
    values = {"zero": 0, "one": 1, "float": 1.0, "true": True, "text": "1", "none": None, "list": [1, "a"]}
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
        patch.setattr("crmkit.store.indexes._CHUNK", 4)
        keys, model = SortedKeys([(5,), (3,)]), {3, 5}
        for is_added, number in steps:
            (keys.add if is_added else keys.discard)((number,))
            (model.add if is_added else model.discard)(number)
        inside = [(number,) for number in sorted(model) if low <= number < high]
        assert list(keys.walk((low,), (high,))) == inside
        assert list(keys.walk((low,), (high,), descending=True)) == inside[::-1]
        assert list(keys.walk()) == [(number,) for number in sorted(model)]
        assert keys.rank((low,)) == sum(number < low for number in model)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.text("ab ", max_size=6), max_size=30),
    st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=2),
)
def test_typed_search_against_a_plain_loop(texts: list[str], words: list[str]) -> None:
    docs = [{"id": f"{number:02}", "t": text} for number, text in enumerate(texts)]
    index = TextIndex(lambda doc: doc["t"], docs)
    rows = sorted((" ".join(doc["t"].split()), doc["id"]) for doc in docs)
    hits = [row for row in rows if all(word in row[0] for word in words)]

    def group(row: tuple[str, str]) -> int:
        return 0 if row[0].startswith(words[0]) else 1 if f" {words[0]}" in row[0] else 2

    assert index.match(words, 99) == [id for _, id in sorted(hits, key=group)]
