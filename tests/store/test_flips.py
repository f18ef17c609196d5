"""One bit of a file is another one: whoever checks the store is told, and whoever opens it where it matters then."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crmkit import durable
from crmkit.errors import CrmError
from crmkit.store import ANY, NEW, Delete, PlainCodec, Put, TinyStore

NEEDED_TO_OPEN = ("CURRENT", "snap.2.jsonl", "wal.2.jsonl")


@pytest.fixture
def compacted(folder: Path) -> Path:
    """A store with a log, a snapshot and a journal, closed as usual."""
    store = TinyStore(folder, PlainCodec())
    for part in range(2):
        for number in range(15):
            store.commit([Put("customers", {"id": f"{part}{number:02}", "text": "text é " * (number % 5)}, NEW)], {})
        store.commit([Put("customers", {"id": f"{part}00", "text": "changed"}, ANY)], {"reason": "a reason"})
        store.commit([Delete("customers", f"{part}01", ANY)], {})
        if part == 0:
            assert store.compact()
    store.close()
    return folder


def flipped(path: Path, count: int) -> Iterator[int]:
    """Flip a bit anywhere in a file but in the last line of a journal; yield its place, then put the file back."""
    data, chance = path.read_bytes(), random.Random(20)
    end = data.rindex(b"\n", 0, -1) + 1 if path.name.startswith("wal") else len(data)
    for _ in range(count):
        place = chance.randrange(end)
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :])
        yield place
    path.write_bytes(data)


def unnoticed_by_a_check(folder: Path, name: str, count: int) -> list[int]:
    """Return the places of flipped bits of which a check of the open store says nothing."""
    store = TinyStore(folder, PlainCodec())
    unnoticed = [place for place in flipped(folder / name, count) if store.verify() == []]
    assert store.verify() == []
    store.close()
    return unnoticed


def unnoticed_at_opening(folder: Path, name: str, count: int) -> list[int]:
    """Return the places of flipped bits with which the store opens as if nothing was wrong."""
    return [place for place in flipped(folder / name, count) if opens(folder)]


def opens(folder: Path) -> bool:
    """Return whether a store opens; without checksums it may fail in any way."""
    try:
        store = TinyStore(folder, PlainCodec())
    except CrmError:
        return False
    except Exception:
        return True
    store._has_written = False  # leave the files as they are
    store.close()
    return True


@pytest.mark.proof
@pytest.mark.parametrize("name", ["snap.2.jsonl", "wal.2.jsonl", "log.1.jsonl"])
def test_a_check_reports_every_flipped_bit(compacted: Path, name: str, scale: Callable[[int], int]) -> None:
    assert unnoticed_by_a_check(compacted, name, scale(100)) == []


@pytest.mark.proof
@pytest.mark.parametrize("name", NEEDED_TO_OPEN)
def test_opening_reports_every_flipped_bit_of_what_it_reads(
    compacted: Path, name: str, scale: Callable[[int], int]
) -> None:
    assert unnoticed_at_opening(compacted, name, scale(100)) == []


@pytest.mark.parametrize("name", ["snap.2.jsonl", "wal.2.jsonl", "log.1.jsonl"])
def test_control_without_checksums_flipped_bits_go_unnoticed(
    compacted: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "unframe", lambda line: line[9:-1] if line[-1:] == b"\n" else None)
    assert unnoticed_by_a_check(compacted, name, 100) != []
