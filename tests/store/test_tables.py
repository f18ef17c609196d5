"""The collections are TinyDB tables: stock methods work on them and write through the journal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from tinydb import Query, TinyDB
from tinydb.operations import delete, increment
from tinydb.table import Document, Table

from crmkit.errors import Conflict, CrmError, Invalid, Unsupported
from crmkit.query import F
from crmkit.store import TinyStore, to_tinydb

Q = Query()


@pytest.fixture
def store(open_tiny: Callable[..., TinyStore]) -> TinyStore:
    """A store with an indexed collection."""
    store = open_tiny()
    store.register("customers", unique=["email"], text=lambda doc: doc.get("name", ""))
    return store


@pytest.fixture
def other(open_tiny: Callable[..., TinyStore]) -> TinyStore:
    """Another handle on the same store."""
    return open_tiny()


def test_they_are_what_they_say(store: TinyStore) -> None:
    assert isinstance(store.db, TinyDB)
    assert isinstance(store.table("customers"), Table)
    assert store.table("customers") is store.db.table("customers")


def test_insert_gives_ulids(store: TinyStore, other: TinyStore) -> None:
    table = store.table("customers")
    first = table.insert({"name": "Ada"})
    more = table.insert_multiple([{"name": "Bob"}, Document({"name": "Cleo"}, "chosen")])  # type: ignore[arg-type]
    assert len(str(first)) == 26
    assert more[1] == "chosen"
    assert other.get("customers", str(first)) == {"id": first, "name": "Ada", "rev": 1}
    assert other.seq() == 2, "one commit for each call"
    assert [doc["name"] for doc in store.match("customers", ["Cl"], 5)] == ["Cleo"]
    with pytest.raises(ValueError, match="already exists"):
        table.insert(Document({}, "chosen"))  # type: ignore[arg-type]


def test_every_way_to_change(store: TinyStore, other: TinyStore) -> None:
    table = store.table("customers")
    table.insert_multiple(Document({"name": name, "n": 1}, name) for name in "abcd")  # type: ignore[arg-type]
    assert table.update({"n": 2}, Q.name == "a") == ["a"]
    assert table.update(increment("n"), doc_ids=["b", "nobody"]) == ["b"]  # type: ignore[list-item]
    assert table.update_multiple([({"x": {"y": 1}}, Q.n == 2), (delete("n"), Q.name == "c")]) == ["a", "b", "c"]
    assert table.upsert(Document({"n": 5}, "d")) == ["d"]  # type: ignore[arg-type]
    assert len(table.upsert({"name": "e"}, Q.name == "e")) == 1
    assert table.remove(doc_ids=["b"]) == ["b"]  # type: ignore[list-item]
    rows = {doc["name"]: {k: v for k, v in doc.items() if k not in ("id", "name")} for doc in other.scan("customers")}
    assert rows == {"a": {"n": 2, "x": {"y": 1}, "rev": 3}, "c": {"rev": 2}, "d": {"n": 5, "rev": 2}, "e": {"rev": 1}}
    assert [doc["name"] for doc in table.all()] == [doc["name"] for doc in other.table("customers")]
    seq = store.seq()
    table.update({"n": 2}, Q.name == "a")
    assert store.seq() == seq, "nothing changed, nothing written"


def test_every_way_to_read(store: TinyStore, other: TinyStore) -> None:
    table = store.table("customers")
    other.table("customers").insert_multiple(Document({"n": n}, str(n)) for n in range(5))  # type: ignore[arg-type]
    assert table.search(Q.n >= 3) == [{"n": 3, "id": "3", "rev": 1}, {"n": 4, "id": "4", "rev": 1}]
    assert table.get(Q.n == 2).doc_id == "2"
    assert table.get(doc_id="1")["n"] == 1
    assert table.get(doc_id="nobody") is None
    assert [doc.doc_id for doc in table.get(doc_ids=["0", "4"])] == ["0", "4"]
    assert (len(table), table.count(Q.n < 2), table.contains(doc_id="3")) == (5, 2, True)  # type: ignore[arg-type]
    assert [doc["n"] for doc in table.search(to_tinydb((F.n > 1) & ~(F.n == 3)))] == [2, 4]


def test_results_are_copies(store: TinyStore) -> None:
    table = store.table("customers")
    table.insert(Document({"tags": ["vip"]}, "a"))  # type: ignore[arg-type]
    for doc in (table.get(doc_id="a"), table.all()[0], table.search(Q.tags.any(["vip"]))[0]):
        doc["tags"].append("changed")
    assert store.get("customers", "a") == {"id": "a", "tags": ["vip"], "rev": 1}


def test_no_query_is_answered_from_before_a_foreign_commit(store: TinyStore, other: TinyStore) -> None:
    table = store.table("customers")
    assert table.search(Q.name == "Ada") == []
    other.table("customers").insert({"name": "Ada"})
    assert len(table.search(Q.name == "Ada")) == 1


def test_a_stale_document_is_refused(store: TinyStore, other: TinyStore) -> None:
    table = store.table("customers")
    table.insert(Document({"name": "Ada"}, "a"))  # type: ignore[arg-type]
    mine = table.get(doc_id="a")
    other.table("customers").update({"city": "Rome"}, Q.name == "Ada")
    mine["city"] = "Oslo"
    with pytest.raises(Conflict):
        table.upsert(mine)
    assert store.get("customers", "a")["city"] == "Rome"  # type: ignore[index]
    fresh = table.get(doc_id="a")
    table.upsert({**fresh, "city": "Bern"}, Q.id == "a")
    assert store.get("customers", "a")["rev"] == 3  # type: ignore[index]


def test_unique_values_hold_here_too_and_nothing_is_written(store: TinyStore) -> None:
    table = store.table("customers")
    with pytest.raises(Invalid, match="email: already taken"):
        table.insert_multiple([{"email": "a@x"}, {"email": "a@x"}])
    assert len(table) == 0


def test_an_updater_that_fails_writes_nothing(store: TinyStore) -> None:
    table = store.table("customers")
    table.insert_multiple([{"n": 1}, {"n": "no number"}])
    with pytest.raises(TypeError):
        table.update(increment("n"))
    assert [doc["n"] for doc in table] == [1, "no number"]


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), b"bytes", datetime(2026, 1, 1)], ids=type)
def test_what_is_not_json_is_refused_by_every_way_to_write(store: TinyStore, value: object) -> None:
    table = store.table("customers")
    table.insert(Document({"n": 1}, "a"))  # type: ignore[arg-type]
    for write in (
        lambda: table.insert({"x": value}),
        lambda: table.insert_multiple([{"x": 1}, {"x": [value]}]),
        lambda: table.update({"x": {"y": value}}),
        lambda: table.upsert({"x": value}, Q.n == 1),
    ):
        with pytest.raises(Invalid, match="document: only JSON values can be stored"):
            write()
    assert table.all() == [{"id": "a", "n": 1, "rev": 1}]
    assert store.verify() == []


def test_an_id_that_is_no_text_is_refused(store: TinyStore) -> None:
    with pytest.raises(Invalid, match="id: must be text"):
        store.table("customers").insert(Document({"n": 1}, 7))
    assert store.seq() == 0


def test_a_closed_store_has_no_tables(store: TinyStore) -> None:
    table = store.table("customers")
    table.insert({"n": 1})
    store.close()
    for use in (table.all, lambda: table.insert({"n": 2}), lambda: len(table), store.db.tables, store.tables):
        with pytest.raises(CrmError, match="the workspace is closed"):
            use()


def test_truncate_and_drop(store: TinyStore, other: TinyStore) -> None:
    store.table("customers").insert_multiple([{"n": n} for n in range(3)])
    store.table("deals").insert({"n": 1})
    assert store.db.tables() == {"customers", "deals"}
    store.table("customers").truncate()
    assert (other.count("customers"), other.count("deals")) == (0, 1)
    store.db.drop_tables()
    assert (other.count("customers"), other.count("deals")) == (0, 0)
    assert len(store.changes(0) or []) == 8


def test_a_whole_database_cannot_be_written_at_once(store: TinyStore) -> None:
    with pytest.raises(Unsupported):
        store.db.storage.write({})
