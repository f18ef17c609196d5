"""Salvage: whatever is done to the files, every good record is kept and every loss is named."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crmkit.errors import CrmError, Damaged, NotFound
from crmkit.store import ANY, NEW, Delete, Move, PlainCodec, Put, Reseal, TinyStore
from crmkit.store import salvage as module
from crmkit.store.compaction import Compaction
from crmkit.store.frames import decode
from crmkit.store.salvage import PARTS, UNSURE, Salvaged, salvage
from tests.store.sealing import Anew

SEED = 20261122
State = dict[tuple[str, str], dict[str, Any]]


def _doc(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"c{number:03}", "name": f"name {number}", "city": "x" * (number % 50), **fields}


def _busy(folder: Path) -> None:
    """Fill a store over three generations with all kinds of commits."""
    store = TinyStore(folder, Anew("name"))
    for generation in range(3):
        first = 100 * generation
        store.commit([Put("customers", _doc(first + n), NEW) for n in range(20)], {"cause": "import"})
        for n in range(20, 30):
            store.commit([Put("customers", _doc(first + n), NEW)], {})
        for n in range(0, 30, 3):
            store.commit([Put("customers", _doc(first + n, city="Paris", rev=1), ANY)], {})
        for n in range(0, 30, 5):
            store.commit([Reseal("customers", f"c{first + n:03}")], {})
        for n in range(0, 30, 6):
            store.commit([Put("customers", _doc(first + n, city="Rome", tags=["a"]), ANY)], {})
        store.commit([Move("customers", "customers.removed", _doc(first + 7), ANY)], {})
        store.commit([Delete("customers", f"c{first + 8:03}", ANY)], {})
        store.commit([Put("customers", _doc(1, city=f"city {generation}"), ANY)], {})
        if generation < 2:
            assert store.compact()
    store.close()


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in its third generation, with commits since; closed without a compaction."""
    folder = tmp_path_factory.mktemp("busy") / "data"
    TinyStore.create(folder, "workspace-1")
    _busy(folder)
    return folder


def state(folder: Path) -> State:
    """Return every document of a store, as it is on disk."""
    store = TinyStore(folder, PlainCodec())
    try:
        return {(name, id): dict(doc) for name, docs in store.tables().items() for id, doc in docs.items()}
    finally:
        store.close()


@pytest.fixture
def wreck(busy: Path, tmp_path: Path) -> Path:
    """A copy of that store, to be damaged."""
    return Path(shutil.copytree(busy, tmp_path / "wreck"))


def _files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}.*.jsonl"), key=lambda path: int(path.name.split(".")[1]))


def _named(saved: Salvaged, id: str) -> bool:
    return any(re.search(rf"\b{id}\b", loss) for loss in saved.losses)


def _takes_writes(folder: Path, seq: int) -> None:
    store = TinyStore(folder, PlainCodec())
    assert store.workspace == "workspace-1"
    assert store.verify() == []
    assert store.commit([Put("customers", _doc(900), NEW)], {"cause": "after"}) == seq + 1
    assert next(commit.seq for commit in store.commits(newest_first=True)) == seq + 1
    assert store.compact()
    store.close()
    assert ("customers", "c900") in state(folder)


# --------------------------------------------------------------------------- nothing lost


def test_of_a_sound_store_everything_is_saved(busy: Path, wreck: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in wreck.iterdir()}
    saved = salvage(wreck, tmp_path / "new")
    assert saved.losses == ()
    assert state(tmp_path / "new") == state(busy)
    assert saved.records == {"customers": 84, "customers.removed": 3}
    assert before == {path.name: path.read_bytes() for path in wreck.iterdir()}  # nothing of the old one is touched
    one, two = (TinyStore(folder, PlainCodec()) for folder in (busy, tmp_path / "new"))
    assert list(one.commits()) == list(two.commits())  # the history as well
    one.close()
    two.close()
    _takes_writes(tmp_path / "new", saved.seq)


@pytest.mark.parametrize("content", [None, b"", b"9\n", b"three\n"])
def test_the_current_generation_is_found_without_its_file(
    busy: Path, wreck: Path, tmp_path: Path, content: bytes | None
) -> None:
    (wreck / "CURRENT").unlink()
    if content is not None:
        (wreck / "CURRENT").write_bytes(content)
    saved = salvage(wreck, tmp_path / "new")
    assert state(tmp_path / "new") == state(busy)
    [loss] = saved.losses
    assert "CURRENT, line 1: missing or damaged; generation 3" in loss


def test_a_lost_snapshot_is_made_up_for_by_the_generation_before(busy: Path, wreck: Path, tmp_path: Path) -> None:
    (wreck / "snap.3.jsonl").unlink()
    saved = salvage(wreck, tmp_path / "new")
    assert state(tmp_path / "new") == state(busy)
    assert [loss.split("/")[-1] for loss in saved.losses] == ["snap.3.jsonl: is missing"]


def test_a_damaged_end_of_line_loses_nothing(busy: Path, wreck: Path, tmp_path: Path) -> None:
    wal = wreck / "wal.3.jsonl"
    wal.write_bytes(wal.read_bytes().replace(b"\n", b"\x0b"))
    salvage(wreck, tmp_path / "new")
    assert state(tmp_path / "new") == state(busy)


@pytest.mark.parametrize("name", ["wal.3.jsonl", "snap.3.jsonl", "log.2.jsonl"])
def test_a_wrong_bit_is_put_right(busy: Path, wreck: Path, tmp_path: Path, name: str) -> None:
    whole, rng = (wreck / name).read_bytes(), random.Random(SEED)
    for round in range(60):
        at = rng.randrange(len(whole))
        flipped = whole[at] ^ 1 << rng.randrange(8)
        if 10 in (whole[at], flipped):
            continue  # an end of a line more or less
        (wreck / name).write_bytes(whole[:at] + bytes([flipped]) + whole[at + 1 :])
        saved = salvage(wreck, tmp_path / f"new {round}")
        assert saved.losses == ()
        assert len(saved.mended) == 1
        assert f"{name}, line " in saved.mended[0]
        assert state(tmp_path / f"new {round}") == state(busy)


def test_control_without_putting_it_right_records_are_lost(
    busy: Path, wreck: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "mended", lambda piece: None)
    wal = wreck / "wal.3.jsonl"
    wal.write_bytes(wal.read_bytes().replace(b'"name 220"', b'"name 221"'))
    saved = salvage(wreck, tmp_path / "new")
    assert saved.losses
    assert state(tmp_path / "new") != state(busy)


def test_what_unfinished_writes_left_is_taken_along(wreck: Path, tmp_path: Path) -> None:
    (wreck / "torn.3.4711").write_bytes(b"12345678 [99,")
    salvage(wreck, tmp_path / "new")
    assert (tmp_path / "new" / "torn.3.4711").read_bytes() == b"12345678 [99,"


def test_what_was_being_written_is_said_to_be_so(busy: Path, wreck: Path, tmp_path: Path) -> None:
    with (wreck / "wal.3.jsonl").open("ab") as wal:
        wal.write(b'12345678 [99,[["m",{}],["p","customers","c777",{"id":"c77')
    saved = salvage(wreck, tmp_path / "new")
    assert state(tmp_path / "new") == state(busy)
    [loss] = saved.losses
    assert "was being written when the system stopped and never acknowledged; lost: customers c777" in loss


# --------------------------------------------------------------------------- something lost


def test_a_bad_line_of_the_journal_loses_only_itself(busy: Path, wreck: Path, tmp_path: Path) -> None:
    """The commit that made c220 is lost; c220 was not changed later."""
    wal = wreck / "wal.3.jsonl"
    wal.write_bytes(wal.read_bytes().replace(b'"name 220"', b'"name 22\x00\xff'))
    saved = salvage(wreck, tmp_path / "new")
    expected = state(busy)
    del expected["customers", "c220"]
    assert state(tmp_path / "new") == expected
    assert "wal.3.jsonl, line 3: is damaged; lost: customers c220" in saved.losses[0]
    _takes_writes(tmp_path / "new", saved.seq)


def test_a_change_whose_base_is_lost_is_kept_apart(busy: Path, wreck: Path, tmp_path: Path) -> None:
    """c224 was made by a commit of its own, then changed twice."""
    wal = wreck / "wal.3.jsonl"
    wal.write_bytes(wal.read_bytes().replace(b'"name 224"', b'"name 22\x00\xff', 1))
    saved = salvage(wreck, tmp_path / "new")
    kept = state(tmp_path / "new")
    assert ("customers", "c224") not in kept
    assert kept["customers" + PARTS, "c224"] == {"id": "c224", "city": "Rome", "tags": ["a"], "rev": 3}
    text = "\n".join(saved.losses)
    assert "what customers c224 was before; its fields city are kept in customers.parts" in text


def test_records_of_a_bad_line_that_can_be_read_are_kept_apart(busy: Path, wreck: Path, tmp_path: Path) -> None:
    """An import of twenty records stands in one line; c206 was changed twice by later ones."""
    wal = wreck / "wal.3.jsonl"
    wal.write_bytes(wal.read_bytes().replace(b'"name 203"', b'"nam\x00\xff203 ', 1))
    saved = salvage(wreck, tmp_path / "new")
    before, after = state(busy), state(tmp_path / "new")
    lost = [id for collection, id in before if (collection, id) not in after and collection == "customers"]
    assert len(lost) == 18  # one of the twenty was removed since, another deleted for good
    assert after["customers" + UNSURE, "c201"] == before["customers", "c201"]
    assert after["customers" + UNSURE, "c206"] == before["customers", "c206"]
    assert ("customers" + UNSURE, "c203") not in after
    assert ("customers" + UNSURE, "c208") not in after
    assert saved.lost == {"customers": ["c208"]}  # of c203, which was changed later, there are parts
    assert "kept apart in customers.unsure: 17 customers; " in saved.losses[0]
    assert "c201" not in saved.losses[0]


def test_a_change_after_a_lost_one_is_named(busy: Path, wreck: Path, tmp_path: Path) -> None:
    wal = wreck / "wal.3.jsonl"
    lines = wal.read_bytes().splitlines(keepends=True)
    lost = next(line for line in lines if b'"u","customers","c206"' in line)
    wal.write_bytes(b"".join(line for line in lines if line != lost))
    saved = salvage(wreck, tmp_path / "new")
    assert state(tmp_path / "new")["customers", "c206"]["city"] == "Rome"
    assert any("changes of customers c206 between revisions 1 and 3" in loss for loss in saved.losses)
    assert any("commit" in loss and "is missing before it" in loss for loss in saved.losses)


def test_a_store_that_says_nowhere_whose_it_is(wreck: Path, tmp_path: Path) -> None:
    for path in wreck.glob("*.jsonl"):
        path.write_bytes(path.read_bytes().replace(b"workspace-1", b"workspace-2"))
    with pytest.raises(Damaged, match="no file says which workspace it belongs to"):
        salvage(wreck, tmp_path / "one")
    assert not (tmp_path / "one").exists()
    saved = salvage(wreck, tmp_path / "two", "workspace-1")
    assert saved.records["customers"] == 84
    _takes_writes(tmp_path / "two", saved.seq)


def test_a_folder_with_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="holds no journal and no snapshot"):
        salvage(tmp_path / "empty", tmp_path / "new")


# --------------------------------------------------------------------------- anything at all


def _flip(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _overwrite(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    data[start : start + 600] = rng.randbytes(min(600, len(data) - start))
    path.write_bytes(data)


def _cut(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def _drop_a_line(rng: random.Random, path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    path.write_bytes(b"".join(lines))


def _remove(rng: random.Random, path: Path) -> None:
    path.unlink()


def _misses(
    busy: Path, tmp_path: Path, damage: Callable[[random.Random, Path], None], rounds: int, save: Any = salvage
) -> list[str]:
    """Damage copies of a store, and return what salvage got wrong."""
    rng, before, wrong = random.Random(SEED), state(busy), []
    for round in range(rounds):
        wreck, new = tmp_path / "wreck", tmp_path / "new"
        for folder in (wreck, new):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(busy, wreck)
        path = rng.choice(sorted(path for path in wreck.iterdir() if path.stat().st_size))
        sound = {(frame.seq, str(frame.operations)) for frame in map(decode, _lines(wreck)) if frame}
        damage(rng, path)
        left = {(frame.seq, str(frame.operations)) for frame in map(decode, _lines(wreck)) if frame}
        what = f"round {round}, {path.name}"
        try:
            saved = save(wreck, new)
        except CrmError as error:
            wrong.append(f"{what}: {error}")
            continue
        after = state(new)
        wrong += [f"{what}: {problem}" for problem in _problems(new)]
        gone = "".join(str(operations) for seq, operations in sound - left)
        is_cut = damage is _cut and path.name == "wal.3.jsonl"  # a journal does not say how long it was
        for (collection, id), doc in before.items():
            found = after.get((collection, id)) or after.get((collection + PARTS, id))
            if found != doc and id not in gone:
                wrong.append(f"{what}: {id} is not in a damaged line, and was not saved as it was")
            if found != doc and not (saved.losses or is_cut):
                wrong.append(f"{what}: {id} is lost, and nothing is said")
        for collection, id in after.keys() - before.keys():
            if id not in gone and not collection.endswith((PARTS, UNSURE)):
                wrong.append(f"{what}: {id} was not there")
    return wrong


def _problems(folder: Path) -> list[str]:
    store = TinyStore(folder, PlainCodec())
    try:
        return store.verify()
    finally:
        store.close()


def _lines(folder: Path) -> list[bytes]:
    return [line for path in folder.glob("*.jsonl") for line in path.read_bytes().splitlines(keepends=True)]


@pytest.mark.proof
@pytest.mark.parametrize("damage", [_flip, _overwrite, _cut, _drop_a_line, _remove])
def test_every_good_record_is_kept(
    busy: Path,
    root: Path,
    damage: Callable[[random.Random, Path], None],
    scale: Callable[[int], int],
    record_property: Callable[[str, object], None],
) -> None:
    assert _misses(busy, root, damage, scale(100)) == []
    record_property("damaged stores", scale(100))


def test_control_reading_up_to_the_first_bad_line_loses_good_records(
    busy: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.pieces

    def up_to_the_first(path: Path) -> Any:
        for number, piece in real(path):
            yield number, piece
            if isinstance(piece, bytes):
                return

    monkeypatch.setattr(module, "pieces", up_to_the_first)
    assert _misses(busy, root, _overwrite, 10)


def test_control_without_the_generation_before_records_are_lost(
    busy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module._Wreck, "_has_records", lambda self, generation: generation == 3)
    (tmp_path / "one").mkdir()
    wreck = Path(shutil.copytree(busy, tmp_path / "one" / "wreck"))
    (wreck / "snap.3.jsonl").unlink()
    salvage(wreck, tmp_path / "one" / "new")
    assert state(tmp_path / "one" / "new") != state(busy)


def test_commits_of_a_lost_journal_are_taken_from_the_one_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that was made while the store was compacted stands in both journals."""
    store, other = TinyStore(folder, PlainCodec()), TinyStore(folder, PlainCodec())
    store.commit([Put("customers", _doc(1), NEW)], {})
    real = Compaction.write

    def slowly(self: Compaction, *frames: Any) -> None:
        real(self, *frames)
        other.commit([Put("customers", _doc(2), NEW)], {})

    monkeypatch.setattr(Compaction, "write", slowly)
    assert store.compact()
    store.close()
    other.close()
    (folder / "wal.2.jsonl").write_bytes(b"")
    assert sorted(id for _, id in _saved(folder, tmp_path / "new")) == ["c001", "c002"]
    with pytest.MonkeyPatch.context() as control:
        control.setattr(module._Wreck, "_copied", lambda self, generation: {})
        assert sorted(id for _, id in _saved(folder, tmp_path / "control")) == ["c001"]


def _saved(folder: Path, new: Path) -> State:
    salvage(folder, new)
    return state(new)
