"""The number of the current generation: one changed bit of it must not bring back an older state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crmkit.errors import Damaged
from crmkit.store import NEW, PlainCodec, Put, TinyStore
from crmkit.store.files import last_seq
from crmkit.store.replica import Replica


def _fill(folder: Path, generations: int) -> None:
    store = TinyStore(folder, PlainCodec())
    for number in range(generations):
        store.commit([Put("customers", {"id": f"c{number}"}, NEW)], {})
        if number < generations - 1:
            assert store.compact()
    store.close()


def _silent(folder: Path, generations: int) -> list[bytes]:
    """Flip every bit of the file; return what opened as if nothing were wrong."""
    current = folder / "CURRENT"
    whole, silent = current.read_bytes(), []
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        current.write_bytes(flipped)
        try:
            store = TinyStore(folder, PlainCodec())
            if store.count("customers") != generations:
                silent.append(bytes(flipped))
            store.close()
        except Damaged:
            pass
    current.write_bytes(whole)
    return silent


@pytest.mark.parametrize("generations", [1, 2, 3, 4, 12])
def test_every_flipped_bit_is_reported_or_harmless(folder: Path, generations: int) -> None:
    _fill(folder, generations)
    assert _silent(folder, generations) == []


def test_control_without_a_look_at_the_neighbours_an_older_state_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(folder, 3)
    monkeypatch.setattr(Replica, "wrong_generation", lambda self: iter(()))
    assert _silent(folder, 3) == [b"2\n"]


def test_an_open_store_reports_it_too(folder: Path) -> None:
    _fill(folder, 3)
    (folder / "CURRENT").write_bytes(b"2\n")
    with pytest.raises(Damaged, match="CURRENT, line 1: was changed; generation 3 has newer commits"):
        TinyStore(folder, PlainCodec())


def test_what_a_compaction_left_that_did_not_come_to_its_end_is_no_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the next generation are there, and ``CURRENT`` does not name it."""
    store = TinyStore(folder, PlainCodec())
    store.commit([Put("customers", {"id": "c0"}, NEW)], {})
    with monkeypatch.context() as crash:
        crash.setattr("crmkit.store.files.Files.switch", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.compact()
    assert (folder / "wal.2.jsonl").exists()
    store.commit([Put("customers", {"id": "c1"}, NEW)], {})
    assert store.verify() == []
    store.close()
    store = TinyStore(folder, PlainCodec())
    assert store.count("customers") == 2
    store.close()


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_generation_that_begins_meanwhile_is_no_damage(
    folder: Path, open_tiny: Callable[..., TinyStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_tiny()
    real = Replica.load

    def slowly(self: Replica) -> None:
        real(self)
        if self is not other._replica:
            other.commit([Put("customers", {"id": "c0"}, NEW)], {})
            assert other.compact()
            other.commit([Put("customers", {"id": "c1"}, NEW)], {})

    monkeypatch.setattr(Replica, "load", slowly)
    assert open_tiny().count("customers") == 2


@pytest.mark.parametrize(
    ("content", "seq"),
    [
        (b"", 0),
        (b"\n", 0),
        (b"00000000 [7,[]]\n", 7),
        (b"00000000 [7,[]]\n00000000 [8,[", 7),
        (b"00000000 [7,[]]\n\0\0\0\n", 7),
        (b"00000000 [7,[]]\n00000000 [8,[]]\n", 8),
        (b"garbage\n", 0),
    ],
)
def test_the_last_number_of_a_journal(tmp_path: Path, content: bytes, seq: int) -> None:
    (tmp_path / "wal.1.jsonl").write_bytes(content)
    assert last_seq(tmp_path / "wal.1.jsonl") == seq
    assert last_seq(tmp_path / "nowhere") == 0
