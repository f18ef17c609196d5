"""What every store must do; runs once for each class of store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crmkit.errors import Conflict, CrmError, Invalid, NotFound
from crmkit.query import F, Find, parse_order
from crmkit.store import ANY, NEW, Change, Delete, Move, Put, Requirement, Store

Opener = Callable[[], Store]


def test_a_commit_is_seen_by_its_writer_by_others_and_after_reopening(open_store: Opener, put: Any) -> None:
    writer, reader = open_store(), open_store()
    put(writer, {"id": "a", "name": "Ada ½ \u2028 \0"})
    for store in (writer, reader, open_store()):
        assert store.get("customers", "a") == {"id": "a", "name": "Ada ½ \u2028 \0", "rev": 1}
        assert store.seq() == 1


def test_what_was_committed_is_no_longer_the_callers(store: Store) -> None:
    doc = {"id": "a", "tags": ["vip"]}
    store.commit([Put("customers", doc, NEW)], {})
    doc["tags"].append("late")  # type: ignore[attr-defined]
    assert store.get("customers", "a") == {"id": "a", "tags": ["vip"], "rev": 1}
    assert "rev" not in doc


@pytest.mark.parametrize(
    ("expect", "is_stored"), [(NEW, True), (1, True), (3, True), (7, True), (ANY, False), (1, False), (-2, True)]
)
def test_a_put_at_another_revision_is_refused(store: Store, expect: int, is_stored: bool) -> None:
    if is_stored:
        store.commit([Put("customers", {"id": "a", "n": 1}, NEW)], {})
        store.commit([Put("customers", {"id": "a", "n": 2}, 1)], {})
    before = store.seq(), store.get("customers", "a")
    with pytest.raises(Conflict) as error:
        store.commit([Put("customers", {"id": "a", "n": 3}, expect)], {})
    assert (error.value.type, error.value.id) == ("customers", "a")
    assert (store.seq(), store.get("customers", "a")) == before


def test_the_store_counts_revisions(store: Store) -> None:
    store.commit([Put("customers", {"id": "a"}, NEW)], {})
    store.commit([Put("customers", {"id": "a", "rev": 99}, 1)], {})
    store.commit([Put("customers", {"id": "a"}, ANY)], {})
    assert store.get("customers", "a") == {"id": "a", "rev": 3}


def test_a_document_that_comes_back_goes_on_counting(store: Store) -> None:
    store.commit([Put("customers", {"id": "a", "rev": 5}, NEW)], {})
    store.commit([Put("customers", {"id": "a"}, 5)], {})
    assert store.get("customers", "a") == {"id": "a", "rev": 6}


def test_deletes(store: Store, put: Any) -> None:
    put(store, {"id": "a"}, {"id": "b"})
    with pytest.raises(NotFound):
        store.commit([Delete("customers", "c", ANY)], {})
    with pytest.raises(Conflict):
        store.commit([Delete("customers", "a", 2)], {})
    assert store.count("customers") == 2
    store.commit([Delete("customers", "a", 1), Delete("customers", "b", ANY)], {})
    assert store.count("customers") == 0
    assert store.get("customers", "a") is None


def test_all_or_nothing_over_collections(open_store: Opener) -> None:
    store = open_store()
    good = Put("customers", {"id": "a"}, NEW)
    with pytest.raises(Conflict):
        store.commit([good, Put("purchases", {"id": "p"}, 4)], {})
    assert store.count("customers") == 0
    store.commit([good, Put("purchases", {"id": "p"}, NEW)], {})
    assert [open_store().count(name) for name in ("customers", "purchases", "unknown")] == [1, 1, 0]


def test_writes_of_one_commit_follow_each_other(store: Store) -> None:
    store.commit(
        [
            Put("customers", {"id": "a", "n": 1}, NEW),
            Put("customers", {"id": "a", "n": 2}, 1),
            Put("customers", {"id": "b"}, NEW),
            Delete("customers", "b", 1),
        ],
        {},
    )
    assert [dict(doc) for doc in store.scan("customers")] == [{"id": "a", "n": 2, "rev": 2}]


def test_nothing_to_write_writes_nothing(store: Store) -> None:
    assert store.commit([], {"reason": "none"}) == 0
    assert store.seq() == 0


def _nested() -> list[object]:
    nested: list[object] = []
    for _ in range(5_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), "\ud800", b"bytes", 2**70, _nested()], ids=type)
def test_what_is_not_json_is_refused(open_store: Opener, value: object) -> None:
    store = open_store()
    with pytest.raises(Invalid, match="only JSON values"):
        store.commit([Put("customers", {"id": "a", "x": value}, NEW)], {})
    assert store.get("customers", "a") is None
    assert open_store().seq() == 0


@pytest.mark.parametrize(
    ("collection", "doc", "field"),
    [
        ("customers", {}, "id"),
        ("customers", {"id": 7}, "id"),
        ("customers", {"id": ["a"]}, "id"),
        (7, {"id": "a"}, "id"),
        ("customers", {"id": "a", "rev": "1"}, "rev"),
        ("customers", {"id": "a", "rev": 0}, "rev"),
        ("customers", {"id": "a", "rev": True}, "rev"),
    ],
)
def test_what_no_store_could_read_again_is_refused(open_store: Opener, collection: Any, doc: Any, field: str) -> None:
    with pytest.raises(Invalid, match=f"{field}: must be"):
        open_store().commit([Put(collection, doc, NEW)], {})
    assert open_store().seq() == 0


# ---------------------------------------------------------------------------------------- unique values, references


def test_unique_values(store: Store) -> None:
    store.register("customers", unique=["number", "x.acme.code"])
    store.commit([Put("customers", {"id": "a", "number": "7", "x.acme.code": 1}, NEW)], {})
    with pytest.raises(Invalid) as error:
        store.commit([Put("customers", {"id": "b", "number": "7", "x.acme.code": 1.0}, NEW)], {})
    assert set(error.value.problems) == {"number", "x.acme.code"}
    assert "already taken" in str(error.value)
    assert "'7'" not in str(error.value), "a message holds no value"
    assert store.count("customers") == 1


def test_missing_values_and_values_of_other_types_never_collide(store: Store) -> None:
    store.register("customers", unique=["number"])
    values: list[object] = [None, None, 1, True, "1", ["1"], ["1"], {}, {}]
    store.commit([Put("customers", {"id": str(i), "number": v}, NEW) for i, v in enumerate(values)], {})
    store.commit([Put("customers", {"id": "none"}, NEW), Put("customers", {"id": "nothing"}, NEW)], {})
    assert store.count("customers") == 11


def test_duplicates_inside_one_commit(store: Store) -> None:
    store.register("customers", unique=["number"])
    with pytest.raises(Invalid, match="number: already taken"):
        store.commit([Put("customers", {"id": id, "number": "7"}, NEW) for id in "ab"], {})
    assert store.seq() == 0


def test_values_freed_in_the_same_commit_are_free(store: Store) -> None:
    store.register("customers", unique=["number"])
    store.commit([Put("customers", {"id": id, "number": id}, NEW) for id in "abc"], {})
    swap = [Put("customers", {"id": "a", "number": "b"}, 1), Put("customers", {"id": "b", "number": "a"}, 1)]
    store.commit(swap, {})
    store.commit([Delete("customers", "c", 1), Put("customers", {"id": "d", "number": "c"}, NEW)], {})
    assert {doc["id"]: doc["number"] for doc in store.scan("customers")} == {"a": "b", "b": "a", "d": "c"}


def test_a_record_may_keep_its_unique_value(store: Store) -> None:
    store.register("customers", unique=["number"])
    store.commit([Put("customers", {"id": "a", "number": "7"}, NEW)], {})
    store.commit([Put("customers", {"id": "a", "number": "7", "city": "Rome"}, 1)], {})
    assert store.count("customers", F.number == "7") == 1


def test_requirements(store: Store, put: Any) -> None:
    purchase = Put("purchases", {"id": "p", "customer": "a"}, NEW)
    needed = [Requirement("customers", "a", "customer")]
    with pytest.raises(Invalid) as error:
        store.commit([purchase], {}, needed)
    assert "does not exist" in error.value.problems["customer"]
    put(store, {"id": "a"})
    with pytest.raises(Invalid):
        store.commit([purchase, Delete("customers", "a", 1)], {}, needed)
    store.commit([purchase], {}, needed)
    both = [Put("purchases", {"id": "q", "customer": "b"}, NEW), Put("customers", {"id": "b"}, NEW)]
    store.commit(both, {}, [Requirement("customers", "b", "customer")])
    assert store.count("purchases") == 2


# ------------------------------------------------------------------------------------------------------ registration


class Rot13:
    """A codec of which a test can see whether it ran: names are readable in memory only."""

    def __init__(self) -> None:
        self.prepared: list[str] = []

    def prepare(self, puts: Any) -> None:
        self.prepared += [doc["id"] for _, doc in puts]

    def seal(self, collection: str, doc: dict[str, Any], names: Any = None) -> dict[str, Any]:
        fields = {name: value for name, value in doc.items() if names is None or name in names}
        return {**fields, "name": "sealed " + doc["name"][::-1]} if "name" in fields else fields

    def open(self, collection: str, fields: dict[str, Any], doc: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "name": fields["name"].removeprefix("sealed ")[::-1]} if "name" in fields else fields

    def bound(self, collection: str, old: dict[str, Any], new: dict[str, Any]) -> tuple[str, ...]:
        return ()


def test_fields_are_sealed_on_disk_and_open_in_registered_collections(folder: Any, wal: Any) -> None:
    from crmkit.store import TinyStore

    codec = Rot13()
    first, second = TinyStore(folder, codec), TinyStore(folder, codec)
    first.register("customers")
    first.commit([Put("customers", {"id": "a", "name": "Ada"}, NEW)], {})
    first.commit([Put("customers", {"id": id, "name": "Bob"}, NEW) for id in "bc"], {})
    assert codec.prepared == ["a", "b", "c"]
    assert b"Ada" not in wal.read_bytes()
    assert b"sealed adA" in wal.read_bytes()
    names = {store: store.get("customers", "a")["name"] for store in (first, second)}  # type: ignore[index]
    assert names == {first: "Ada", second: "sealed adA"}
    second.register("customers")
    second.register("customers", text=lambda doc: doc["name"])
    first.commit([Put("customers", {"id": "d", "name": "Cleo"}, NEW), Delete("customers", "c", 1)], {})
    assert sorted(doc["name"] for doc in second.scan("customers")) == ["Ada", "Bob", "Cleo"]
    assert [doc["id"] for doc in second.match("customers", ["Cl"], 5)] == ["d"]
    first.close()
    second.close()


def test_registering_again_replaces_the_settings(store: Store, put: Any) -> None:
    store.register("customers", unique=["number"], text=lambda doc: doc["name"])
    put(store, {"id": "a", "number": "7", "name": "ada"})
    store.register("customers", text=lambda doc: "number " + doc["number"])
    put(store, {"id": "b", "number": "7", "name": "bob"})
    assert store.match("customers", ["ada"], 5) == []
    assert [doc["id"] for doc in store.match("customers", ["number", "7"], 5)] == ["a", "b"]


# -------------------------------------------------------------------------------------------------- pages, the feed


def test_pages(store: Store, put: Any) -> None:
    put(store, *({"id": f"{n:03}", "city": "Rome" if n % 3 else None, "n": n % 7} for n in range(100)))
    for order in (None, "n", "-n", ("city", "-n"), ("-city", "-n"), "-id"):
        for where in (None, F.city == "Rome", F.n >= 3, ~F.city.exists()):
            found, after = [], None
            while True:
                page = store.find(Find("customers", where, parse_order(order), 7, after))
                found += [doc["id"] for doc in page]
                if page.next is None:
                    break
                assert len(page) == 7
                after = page.next
            assert len(found) == len(set(found)) == store.count("customers", where)


def test_missing_values_sort_first_and_last_descending(store: Store, put: Any) -> None:
    values = [None, True, 3, 2.5, "b", "a", [], "B", "é", -1]
    put(store, *({"id": str(n), "v": value} for n, value in enumerate(values)))
    up = [doc["v"] for doc in store.find(Find("customers", order=parse_order("v")))]
    assert up == [None, [], True, -1, 2.5, 3, "B", "a", "b", "é"]
    down = [doc["v"] for doc in store.find(Find("customers", order=parse_order("-v")))]
    assert down == up[::-1]


def test_a_page_goes_on_although_its_last_record_was_removed(store: Store, put: Any) -> None:
    put(store, *({"id": id, "v": 1} for id in "abcd"))
    page = store.find(Find("customers", order=parse_order("v"), limit=2))
    store.commit([Delete("customers", "b", 1)], {})
    rest = store.find(Find("customers", order=parse_order("v"), limit=2, after=page.next))
    assert [doc["id"] for doc in rest] == ["c", "d"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "bnVsbA==", "W10=", "W1tdLCBbXV0=", "W1sidiJdLCBbMywgMSwgImEiXV0=", 7]
)
def test_a_bad_cursor_is_invalid(store: Store, put: Any, cursor: Any) -> None:
    put(store, {"id": "a", "v": 1})
    with pytest.raises(Invalid, match="after: is not a cursor"):
        store.find(Find("customers", order=parse_order("v"), after=cursor))


def test_a_cursor_of_another_order_is_invalid(store: Store, put: Any) -> None:
    put(store, *({"id": id, "v": 1, "w": 1} for id in "ab"))
    page = store.find(Find("customers", order=parse_order("v"), limit=1))
    with pytest.raises(Invalid, match="cursor"):
        store.find(Find("customers", order=parse_order("w"), limit=1, after=page.next))


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "9"])
def test_a_bad_limit_is_invalid(store: Store, limit: Any) -> None:
    for use in (lambda: store.find(Find("customers", limit=limit)), lambda: store.match("customers", ["a"], limit)):
        with pytest.raises(Invalid, match="limit: must be a whole number from 1"):
            use()


@pytest.mark.parametrize("limit", [2**63 - 1, 2**63, 10**30])
def test_a_limit_beyond_all_documents_is_all_documents(store: Store, put: Any, limit: int) -> None:
    for docs in ([], [{"id": id, "n": 1, "name": id} for id in "abc"]):
        store.register("customers", text=lambda doc: doc["name"])
        if docs:
            put(store, *docs)
        for order in ("n", "-n", ("n", "-name")):
            for where in (None, F.n == 1, F.n >= 1):
                page = store.find(Find("customers", where, parse_order(order), limit))
                assert (sorted(doc["id"] for doc in page), page.next) == ([doc["id"] for doc in docs], None)
        assert len(store.match("customers", [], limit)) == len(store.match("customers", ["a"], limit)) + 2 * bool(docs)


@pytest.mark.parametrize("where", [F.a == None, F.a < [1], F.a.has({}), F.a.isin([None]), F.a == b"x"])  # noqa: E711
def test_values_that_cannot_be_compared_are_invalid(store: Store, where: Any) -> None:
    with pytest.raises(Invalid, match="a: can be compared with"):
        store.find(Find("customers", where))


def test_the_change_feed(open_store: Opener, put: Any) -> None:
    store, other = open_store(), open_store()
    put(store, {"id": "a"}, {"id": "b"})
    other.commit([Delete("customers", "a", 1), Put("purchases", {"id": "p"}, NEW)], {})
    expected = [
        Change(1, "customers", "a", "put"),
        Change(1, "customers", "b", "put"),
        Change(2, "customers", "a", "delete"),
        Change(2, "purchases", "p", "put"),
    ]
    for reader in (store, other, open_store()):
        assert reader.changes(0) == expected
        assert reader.changes(1) == expected[2:]
        assert reader.changes(2) == []


def test_typed_search_ranks(store: Store) -> None:
    store.register("customers", text=lambda doc: doc["name"])
    names = ["ada lovelace", "lovelace ada", "bada love", "ada zuse", "ada\nlove", "zada", "eve"]
    store.commit([Put("customers", {"id": name, "name": name}, NEW) for name in names], {})

    def found(*words: str, limit: int = 9) -> list[str]:
        return [doc["name"] for doc in store.match("customers", words, limit)]

    assert found("ada") == ["ada\nlove", "ada lovelace", "ada zuse", "lovelace ada", "bada love", "zada"]
    assert found("ada", limit=4) == ["ada\nlove", "ada lovelace", "ada zuse", "lovelace ada"]
    assert found("lov", "ad") == ["lovelace ada", "ada\nlove", "ada lovelace", "bada love"]
    assert found("x") == []
    assert found(limit=2) == ["ada\nlove", "ada lovelace"]
    store.commit([Put("customers", {"id": "zada", "name": "eve"}, 1), Delete("customers", "bada love", 1)], {})
    assert found("ada", limit=9)[4:] == []
    assert found("eve") == ["eve", "eve"]


# ------------------------------------------------------------------------------------------------------------- ends


def test_the_lock_may_be_nested(store: Store, put: Any) -> None:
    with store.lock(), store.lock():
        put(store, {"id": "a"})
    assert store.verify() == []


USES: dict[str, Callable[[Store], object]] = {
    "register": lambda store: store.register("customers"),
    "get": lambda store: store.get("customers", "a"),
    "find": lambda store: store.find(Find("customers")),
    "count": lambda store: store.count("customers"),
    "scan": lambda store: store.scan("customers"),
    "match": lambda store: store.match("customers", ["a"], 5),
    "commit": lambda store: store.commit([Put("customers", {"id": "b"}, NEW)], {}),
    "commit of nothing": lambda store: store.commit([], {}),
    "seq": lambda store: store.seq(),
    "changes": lambda store: store.changes(0),
    "lock": lambda store: store.lock().__enter__(),
    "verify": lambda store: store.verify(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_closed_store_says_so(store: Store, put: Any, use: Callable[[Store], object]) -> None:
    put(store, {"id": "a"})
    store.close()
    store.close()
    with pytest.raises(CrmError, match="the workspace is closed") as error:
        use(store)
    assert type(error.value) is CrmError


def test_what_was_read_before_closing_stays(store: Store, put: Any) -> None:
    put(store, {"id": "a"}, {"id": "b"})
    some, all_of_them, page = store.get("customers", "a"), store.scan("customers"), store.find(Find("customers"))
    store.close()
    assert some == page.records[0] == {"id": "a", "rev": 1}
    assert len(list(all_of_them)) == 2


@pytest.mark.parametrize("registered", [(), ("customers",), ("trash",), ("customers", "trash"), ("trash", "customers")])
@pytest.mark.parametrize("lazy", [(), ("customers",), ("trash",)])
def test_a_document_moves_between_collections_of_every_kind(
    open_store: Opener, put: Any, registered: tuple[str, ...], lazy: tuple[str, ...]
) -> None:
    writer, reader = open_store(), open_store()
    for name in registered:
        reader.register(name, lazy=name in lazy)
    put(writer, {"id": "a", "name": "Ada"}, {"id": "b", "name": "Bob"})
    assert reader.count("customers") == 2
    writer.commit([Move("customers", "trash", {"id": "a", "name": "Ada!"}, 1)], {})
    assert (reader.get("customers", "a"), reader.get("trash", "a")) == (None, {"id": "a", "name": "Ada!", "rev": 2})
    writer.commit([Move("trash", "customers", {"id": "a", "age": 36}, 2)], {})
    assert (reader.get("customers", "a"), reader.get("trash", "a")) == ({"id": "a", "age": 36, "rev": 3}, None)
    assert reader.count("customers") == 2


# --------------------------------------------------------------------------------------------- the log


def test_commits_are_found_by_their_cause_and_by_what_they_undo(store: Store) -> None:
    for id, cause, undoes in [
        ("a", "one", ""),
        ("b", "two", ""),
        ("c", "one", ""),
        ("d", "three", "one"),
        ("one", "four", ""),
    ]:
        store.commit([Put("customers", {"id": id}, NEW)], {"cause": cause, "undoes": undoes})
    store.compact()
    store.commit([Put("customers", {"id": "e"}, NEW)], {"cause": "one"})
    assert [commit.seq for commit in store.commits(under="one")] == [1, 3, 4, 6]
    assert [commit.seq for commit in store.commits(3, under="one", newest_first=True)] == [6, 4]
    assert [commit.seq for commit in store.commits(under="one", about="c")] == [3]
    assert list(store.commits(under="five")) == []


def test_what_a_thread_reads_stays_while_it_reads(open_store: Opener, put: Any) -> None:
    writer, reader = open_store(), open_store()
    put(writer, {"id": "a"})
    with reader.reading():
        put(writer, {"id": "b"})
        assert (reader.seq(), reader.count("customers"), len(list(reader.commits()))) == (1, 1, 1)
        assert reader.get("customers", "b") is None
    assert (reader.seq(), reader.count("customers"), len(list(reader.commits()))) == (2, 2, 2)


def test_what_is_forgotten_leaves_names_and_no_values(store: Store) -> None:
    store.commit([Put("people", {"id": "A", "name": "Ada", "city": "London", "age": 36}, NEW)], {"cause": "1"})
    store.commit([Put("people", {"id": "A", "city": "Paris", "age": 36}, 1, forget=True)], {"cause": "2"})
    newest = next(iter(store.commits(newest_first=True)))
    assert dict(store.get("people", "A") or {}) == {"id": "A", "rev": 2, "city": "Paris", "age": 36}
    assert newest.steps[0].before == {"name": None, "rev": 1}
    assert set(newest.steps[0].changed) == {"name", "city", "rev"}
