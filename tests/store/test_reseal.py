"""A document that is sealed anew: nothing of it changes but its bytes on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crmkit.errors import NotFound
from crmkit.store import ANY, NEW, Delete, Move, Put, Reseal, TinyStore
from crmkit.store.compaction import Fates
from crmkit.store.frames import Frame
from crmkit.store.salvage import PARTS, salvage
from tests.store.sealing import SEALED, Generations


@pytest.fixture
def codec() -> Generations:
    """The codec of all stores of a test."""
    return Generations()


@pytest.fixture
def open_sealed(folder: Path, codec: Generations) -> Iterator[Callable[..., TinyStore]]:
    """Opens the store of `folder`, its collections registered; as often as wanted."""
    opened: list[TinyStore] = []

    def open_one(*, lazy: bool = False) -> TinyStore:
        opened.append(TinyStore(folder, codec))
        for name in ("customers", "customers.removed"):
            opened[-1].register(name, lazy=lazy)
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def with_two(store: TinyStore) -> int:
    """Put Ada and Bob, and return the number of the commit."""
    return store.commit([Put("customers", {"id": id, "name": name}, NEW) for id, name in ("aA", "bB")], {})


def documents(store: TinyStore) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what a store holds, empty collections aside."""
    return {name: {id: dict(doc) for id, doc in docs.items()} for name, docs in store.tables().items() if docs}


@pytest.mark.parametrize("lazy", [False, True])
def test_only_the_bytes_on_disk_are_others(open_sealed: Any, codec: Generations, lazy: bool) -> None:
    store, other = open_sealed(lazy=lazy), open_sealed(lazy=not lazy)
    first = with_two(store)
    before = documents(store)
    codec.generation = 2
    assert store.commit([Reseal("customers", "a")], {"cause": "rotation"}) == first + 1
    for each in (store, other, open_sealed(lazy=lazy)):
        assert documents(each) == before
        assert each.seq() == first + 1
        assert each.changes(first) == []
        assert list(each.commits(first)) == []
        assert [commit.seq for commit in each.commits()] == [first]
    assert store.count_on_disk(SEALED) == {b"k1": 2, b"k2": 1}
    codec.generation = 3
    store.commit([Reseal("customers", "a"), Reseal("customers", "b")], {})
    assert store.compact()
    assert store.count_on_disk(SEALED) == {b"k3": 2}
    assert documents(open_sealed(lazy=lazy)) == documents(other) == before
    assert store.verify() == []


def test_control_compaction_that_knows_nothing_of_it(
    open_sealed: Any, codec: Generations, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Fates.take

    def blind(self: Fates, frame: Frame) -> None:
        take(self, Frame(frame.seq, [["m", {}] if each[0] == "s" else each for each in frame.operations], frame.size))

    monkeypatch.setattr(Fates, "take", blind)
    store = open_sealed()
    with_two(store)
    codec.generation = 2
    store.commit([Reseal("customers", "a"), Reseal("customers", "b")], {})
    store.compact()
    assert store.count_on_disk(SEALED) == {b"k1": 2}


def test_the_log_keeps_the_line_of_the_commit_and_nothing_of_the_fields(
    open_sealed: Any, codec: Generations, folder: Path
) -> None:
    store = open_sealed()
    first = with_two(store)
    codec.generation = 2
    store.commit([Reseal("customers", "a")], {"cause": "rotation"})
    store.commit([Put("customers", {"id": "a", "name": "Eve"}, 1)], {})
    store.compact()
    log = (folder / "log.1.jsonl").read_text().splitlines()
    assert [int(line[10:].split(",")[0]) for line in log[1:-1]] == [first, first + 1, first + 2]
    assert '"rotation"' in log[2]
    assert '"s"' not in log[2]
    assert [change.id for change in open_sealed().changes(first)] == ["a"]


def test_among_other_writes(open_sealed: Any, codec: Generations) -> None:
    store, packed = open_sealed(), open_sealed(lazy=True)
    with_two(store)
    codec.generation = 2
    store.commit(
        [
            Put("customers", {"id": "c", "name": "C"}, NEW),
            Reseal("customers", "c"),
            Put("customers", {"id": "a", "name": "Eve"}, 1),
            Reseal("customers", "a"),
            Reseal("customers", "b"),
            Move("customers", "customers.removed", {"id": "b", "name": "B", "why": "gone"}, 1),
            Reseal("customers.removed", "b"),
            Delete("customers", "c", ANY),
        ],
        {},
    )
    expected = {
        "customers": {"a": {"id": "a", "name": "Eve", "rev": 2}},
        "customers.removed": {"b": {"id": "b", "name": "B", "why": "gone", "rev": 2}},
    }
    assert documents(store) == documents(packed) == documents(open_sealed()) == expected
    (commit,) = list(store.commits(1))
    assert [(step.action, step.id) for step in commit.steps] == [
        *(("add", "c"), ("change", "a"), ("move", "b"), ("delete", "c"))
    ]
    store.compact()
    assert documents(store) == documents(packed) == documents(open_sealed()) == expected
    assert list(store.commits(1)) == [commit]


def test_a_document_that_is_not_there(open_sealed: Any) -> None:
    store = open_sealed()
    seq = with_two(store)
    with pytest.raises(NotFound, match="customers c does not exist"):
        store.commit([Reseal("customers", "a"), Reseal("customers", "c")], {})
    with pytest.raises(NotFound):
        store.commit([Delete("customers", "a", 1), Reseal("customers", "a")], {})
    assert store.seq() == seq


def test_what_is_deleted_to_be_forgotten_leaves_its_id_and_revision(open_sealed: Any, folder: Path) -> None:
    store = open_sealed()
    seq = with_two(store)
    store.commit([Delete("customers", "b", 1, forget=True), Delete("customers", "a", 1)], {})
    for _ in range(2):
        forgotten, usual = [step for commit in store.commits(seq) for step in commit.steps]
        assert (forgotten.action, forgotten.id, dict(forgotten.before)) == ("delete", "b", {"id": "b", "rev": 1})
        assert dict(usual.before) == {"id": "a", "rev": 1, "name": "k1<A"}
        store.compact()
    assert b"k1<B" not in (folder / "log.1.jsonl").read_bytes()
    assert documents(open_sealed()) == {}


# ------------------------------------------------------------------------------------------------------- salvage


def damage(path: Path, holding: bytes, size: int = 4) -> None:
    """Spoil the line that holds some bytes: so many of its first ones."""
    data = path.read_bytes()
    line = data.rfind(b"\n", 0, data.index(holding)) + 1
    path.write_bytes(data[:line] + b"?" * size + data[line + size :])


def resealed(open_sealed: Any, codec: Generations) -> None:
    """Put two documents in a commit each, seal the first one anew, change the second one."""
    store = open_sealed()
    for id in "ab":
        store.commit([Put("customers", {"id": id, "name": id.upper()}, NEW)], {})
    codec.generation = 2
    store.commit([Reseal("customers", "a")], {})
    store.commit([Put("customers", {"id": "b", "name": "Eve"}, 1)], {})
    store.close()


def salvaged(folder: Path) -> tuple[dict[str, Any], str]:
    """Salvage a store; return what is found in the new one, as it is on disk, and the losses."""
    result = salvage(folder, folder.with_name("new"))
    store = TinyStore(folder.with_name("new"), Generations())
    try:
        assert store.verify() == []
        return documents(store), "\n".join(result.losses)
    finally:
        store.close()


def test_salvage_takes_the_fields_that_were_sealed_anew(
    open_sealed: Any, codec: Generations, folder: Path, wal: Path
) -> None:
    resealed(open_sealed, codec)
    damage(wal, b'"k1<B"')
    found, losses = salvaged(folder)
    assert found["customers"] == {"a": {"id": "a", "name": "k2<A", "rev": 1}}
    assert "line 3" in losses


def test_salvage_without_the_line_that_sealed_it_anew(
    open_sealed: Any, codec: Generations, folder: Path, wal: Path
) -> None:
    resealed(open_sealed, codec)
    damage(wal, b'["s"')
    found, losses = salvaged(folder)
    assert found["customers"]["a"] == {"id": "a", "name": "k1<A", "rev": 1}
    assert "customers a" in losses


def test_salvage_of_a_document_of_which_only_what_was_sealed_anew_is_left(
    open_sealed: Any, codec: Generations, folder: Path, wal: Path
) -> None:
    resealed(open_sealed, codec)
    damage(wal, b'"k1<A"', 60)
    found, losses = salvaged(folder)
    assert found["customers" + PARTS]["a"]["name"] == "k2<A"
    assert "customers a" in losses
