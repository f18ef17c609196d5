"""What visibility asks of a store: documents that have a field without an index, and typed search among some only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crmkit.query import Compare, Find, In, Not
from crmkit.store import NEW, Put, TinyStore
from crmkit.store.documents import Documents


def fill(store: TinyStore, count: int = 200) -> None:
    """Write documents of which every tenth has a mark, and every third says the word."""
    docs = [
        {"id": f"{number:03}", "rev": 1, "name": f"same{number:03}" + (" mark" if number % 3 == 0 else "")}
        | ({"mark": "x"} if number % 10 == 0 else {})
        for number in range(count)
    ]
    store.commit([Put("people", doc, NEW) for doc in docs], {})


@pytest.mark.parametrize("lazy", [False, True])
def test_documents_that_have_a_field(
    open_tiny: Callable[..., TinyStore], monkeypatch: pytest.MonkeyPatch, lazy: bool
) -> None:
    store = open_tiny(lazy=frozenset({"people"} if lazy else ()))
    store.register("people", text=lambda doc: doc["name"], lazy=lazy)
    fill(store)
    monkeypatch.setattr(Documents, "by_value", None)  # no index is built for it
    marked = [f"{number:03}" for number in range(0, 200, 10)]
    assert sorted(doc["id"] for doc in store.having("people", "mark")) == marked
    assert store.having("people", "name") != []
    assert store.having("people", "x") == store.having("nobody", "mark") == []  # x is a value, and no field


@pytest.mark.parametrize("limit", [1, 5, 60, 500])
def test_typed_search_among_some_is_as_if_there_were_no_others(open_tiny: Callable[..., TinyStore], limit: int) -> None:
    store, where = open_tiny(), Not(In("mark", ("x",)))
    store.register("people", text=lambda doc: doc["name"])
    fill(store)
    for typed in (["same"], ["mark"], ["maek"], ["same", "mark"]):
        every = store.match("people", typed, 500, near=True)
        found = store.match("people", typed, limit, near=True, where=where)
        assert found == [doc for doc in every if "mark" not in doc][:limit], typed
        assert found


def test_near_words_are_sought_where_every_exact_one_is_left_out(
    open_tiny: Callable[..., TinyStore],
) -> None:
    store = open_tiny()
    store.register("people", text=lambda doc: doc["name"])
    docs = [{"id": "1", "rev": 1, "name": "maria"}, {"id": "2", "rev": 1, "name": "marla"}]
    store.commit([Put("people", doc, NEW) for doc in docs], {})
    only = Compare("id", "==", "2")
    assert [doc["id"] for doc in store.match("people", ["maria"], 9, near=True)] == ["1"]
    assert [doc["id"] for doc in store.match("people", ["maria"], 9, near=True, where=only)] == ["2"]
    assert store.match("people", ["maria"], 9, where=only) == []


def test_one_of_many_values_keeps_types_apart(open_tiny: Callable[..., TinyStore], folder: Path) -> None:
    store = open_tiny()
    values = [1, True, "1", 1.0, 0, False, None, [1], "a"]
    docs = [{"id": str(number), "rev": 1, "value": value} for number, value in enumerate(values)]
    store.commit([Put("things", doc, NEW) for doc in docs], {})
    found = store.find(Find("things", Not(Not(In("value", (1, "a"))))))  # no index helps: every document is looked at
    assert [doc["id"] for doc in found] == ["0", "3", "8"]
    assert [doc["id"] for doc in store.find(Find("things", Not(Not(In("value", (True,))))))] == ["1"]
