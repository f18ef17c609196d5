"""Migration: a store in an older format goes on in the newest one.

The documents and commits of the old files are written to those of a new generation; the old ones stay as they are
until the switch, so that a crash at any point leaves either the old store or the new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from crmkit import durable
from crmkit.errors import Damaged, Unsupported
from crmkit.store.base import Doc
from crmkit.store.compaction import Compaction
from crmkit.store.documents import patched
from crmkit.store.files import Files
from crmkit.store.frames import FORMAT, Frame, Operation, damaged


def format_of(path: Path) -> tuple[int, str]:
    """Return the format and the workspace that the first line of a journal names.

    Raises:
        Damaged: It names none.
        Unsupported: The format is newer than this version of crmkit.
    """
    with path.open("rb") as file:
        payload = durable.unframe(file.readline())
    try:
        first = orjson.loads(payload) if payload else None
    except ValueError:
        first = None
    match first:
        case [int(), [["m", {"format": int(number), "workspace": str(workspace)}], *_]]:
            if number > FORMAT:
                known = f"this version of crmkit reads up to {FORMAT}; install a newer one"
                raise Unsupported(f"{path}: has format {number}, and {known}")
            return number, workspace
    raise Damaged(f"{path}, line 1: does not say which workspace it belongs to")


def needs_migration(files: Files) -> bool:
    """Return whether a store is in an older format, or an old journal was left over by a migration cut short."""
    generation = files.generation()
    with suppress(FileNotFoundError):  # the usual case for the former one, or another process removes it just now
        if format_of(files.wal(generation - 1))[0] < FORMAT:
            return True
    return format_of(files.wal(generation))[0] < FORMAT


def migrate(files: Files) -> None:
    """Bring a store to the newest format, where it is in an older one; the caller holds the lock.

    Whoever still has the store open with an older version is told, at the next use, that its journal was removed.

    Raises:
        Damaged: The old journal is not sound; nothing was changed.
    """
    generation = files.generation()
    former = files.wal(generation)
    number, workspace = format_of(former)
    if number < FORMAT:
        frames = list(_upgraded(former))
        compaction = Compaction(files, generation, {"workspace": workspace}, frames[-1].seq if frames else 0)
        try:
            compaction.write(frames, frames)
            compaction.switch(())
        finally:
            compaction.give_up()
    else:
        former = files.wal(generation - 1)  # left over, where the last migration was cut short at its end
    if former.exists() and format_of(former)[0] < FORMAT:
        former.unlink()


def _upgraded(path: Path) -> Iterator[Frame]:
    """Yield the commits of a journal of format 0, with what each document was before."""
    known: dict[tuple[str, str], Doc] = {}
    for seq, operations, size in _old_frames(path):
        if seq > 0:
            yield Frame(seq, list(_with_history(operations, known)), size)


def _with_history(operations: list[Operation], known: dict[tuple[str, str], Doc]) -> Iterator[Operation]:
    leaving: dict[str, tuple[str, Doc]] = {}
    for operation in operations:
        match operation:
            case ["d", collection, id]:
                leaving[id] = collection, known.pop((collection, id))
            case ["p", collection, id, doc] if id in leaving:
                origin, old = leaving.pop(id)
                yield ["v", origin, collection, id, *_difference(old, doc)]
                known[collection, id] = doc
            case ["p", collection, id, doc]:
                former = known.get((collection, id))
                yield operation if former is None else ["u", collection, id, *_difference(former, doc)]
                known[collection, id] = doc
            case ["b", collection, docs]:
                yield from _with_history([["p", collection, doc["id"], doc] for doc in docs], known)
            case _:
                yield operation
    yield from (["d", collection, id, doc] for id, (collection, doc) in leaving.items())


def _difference(old: Doc, new: Doc) -> tuple[Doc, Doc]:
    """Return the fields that differ, as they are now and as they were."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) or (name in old) != (name in new)]
    after = {name: new[name] for name in names if name in new}
    before = {name: old[name] for name in names if name in old}
    assert patched(old, after, before) == new
    return after, before


def _old_frames(path: Path) -> Iterator[tuple[int, list[Operation], int]]:
    """Yield the sound frames of a journal of format 0; an append at its end that did not finish is left out."""
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        payload = durable.unframe(line)
        if payload is None and number == len(lines) - 1:
            return
        if payload is None:
            raise damaged(path, number + 1)
        frame: Any = orjson.loads(payload)
        if frame[0] != number:
            raise damaged(path, number + 1)
        yield frame[0], frame[1], len(line)
