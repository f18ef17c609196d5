"""The log: every commit that there ever was, read from the files when somebody asks for the past.

Finished generations have a log file each, the current one has its journal. Both are lines in the order of their
numbers, so a number is found by bisection and an id by searching for its bytes; nothing of it is kept in memory.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from crmkit.errors import Damaged
from crmkit.store.base import Change, Logged, Step
from crmkit.store.frames import Frame, Operation, decode

_SEQ = re.compile(rb"[0-9a-f]{8} \[(\d+),")


def commits(
    logs: list[Path], journal: mmap.mmap, since: int, about: str | None, under: str | None, *, newest_first: bool
) -> Iterator[Logged]:
    """Yield commits; see `Store.commits`.

    Args:
        logs: The logs of the finished generations, oldest first.
        journal: What the journal of the current one holds; closed at the end.
        since: The number of a commit.
        about: The id of a document, or None.
        under: The id of a cause, or None.
        newest_first: The direction.
    """
    with closing(journal):
        for frame in _found(logs, journal, since, about or under, newest_first=newest_first):
            told = logged(frame, about)
            if told is not None and (under is None or under in (told.meta.get("cause"), told.meta.get("undoes"))):
                yield told


def logged(frame: Frame, about: str | None = None) -> Logged | None:
    """Return what a frame tells of documents, or of one; None where it tells nothing."""
    meta: dict[str, Any] = {}
    steps: list[Step] = []
    for operation in frame.operations:
        if operation[0] == "m":
            meta = operation[1]
        elif about is None or _touches(operation, about):
            steps += [step for step in steps_of(operation) if about is None or step.id == about]
    return Logged(frame.seq, meta, tuple(steps)) if steps else None


def changes(commit: Logged) -> Iterator[Change]:
    """Yield what a commit changed, as `Store.changes` tells it."""
    for step in commit.steps:
        if step.action in ("move", "delete"):
            yield Change(commit.seq, step.collection, step.id, "delete")
        if step.to:
            yield Change(commit.seq, step.to, step.id, "put")


def steps_of(operation: Operation) -> Iterator[Step]:
    """Yield what an operation did to documents; nothing where it only sealed something anew."""
    match operation:
        case ["p", collection, id, _]:
            yield Step("add", collection, id, collection)
        case ["b", collection, docs]:
            yield from (Step("add", collection, doc["id"], collection) for doc in docs)
        case ["a", collection, ids]:
            yield from (Step("add", collection, id, collection) for id in ids)
        case ["u", collection, id, after, before]:
            yield Step("change", collection, id, collection, _names(after, before), before)
        case ["v", collection, to, id, after, before]:
            yield Step("move", collection, id, to, _names(after, before), before)
        case ["d", collection, id, doc]:
            yield Step("delete", collection, id, "", tuple(doc), doc)


def _touches(operation: Operation, id: str) -> bool:
    """Return whether an operation is about a document; a commit may have thirty thousand that are not."""
    match operation[0]:
        case "a":
            return id in operation[2]
        case "b":
            return any(doc["id"] == id for doc in operation[2])
        case "v":
            return bool(operation[3] == id)
    return bool(operation[2] == id) if len(operation) > 2 else False


def _names(after: dict[str, Any] | list[str], before: dict[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*after, *before)))


def _found(logs: list[Path], journal: mmap.mmap, since: int, id: str | None, *, newest_first: bool) -> Iterator[Frame]:
    """Yield frames after a number, those that hold an id only."""
    text = None if id is None else json.dumps(id, ensure_ascii=False).encode()
    files: list[Path | mmap.mmap] = [*logs, journal]
    for source in reversed(files) if newest_first else files:
        if isinstance(source, mmap.mmap):
            yield from _in(source, "the journal", since, text, newest_first=newest_first)
        elif _ends_after(source, since):
            with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield from _in(data, str(source), since, text, newest_first=newest_first)


def _in(data: mmap.mmap, name: str, since: int, text: bytes | None, *, newest_first: bool) -> Iterator[Frame]:
    start, end = _after(data, since), len(data)
    lines = backward(data, start, end, text) if newest_first else _forward(data, start, end, text)
    for first, last in lines:
        frame = decode(data[first:last])
        if frame is None:
            raise Damaged(f"{name}, byte {first}: not what crmkit wrote; run crmkit doctor")
        yield frame


def _forward(data: mmap.mmap, start: int, end: int, text: bytes | None) -> Iterator[tuple[int, int]]:
    """Yield where lines begin and end, those that hold a text only."""
    while start < end:
        found = start if text is None else data.find(text, start, end)
        if found < 0:
            return
        first = max(data.rfind(b"\n", start, found) + 1, start)
        start = data.find(b"\n", found) + 1
        yield first, start


def backward(data: mmap.mmap, start: int, end: int, text: bytes | None = None) -> Iterator[tuple[int, int]]:
    """Yield where lines begin and end, those that hold a text only, the last one first."""
    while start < end:
        found = end - 1 if text is None else data.rfind(text, start, end)
        if found < 0:
            return
        last = data.find(b"\n", found) + 1
        end = max(data.rfind(b"\n", start, found) + 1, start)
        yield end, last


def _after(data: mmap.mmap, since: int) -> int:
    """Return where the first commit after a number begins; the first line of a file is never one."""
    low, high = data.find(b"\n") + 1, len(data)
    while low < high:
        middle = max(data.rfind(b"\n", low, (low + high) // 2) + 1, low)
        if _seq(data, middle) > since:
            high = middle
        else:
            low = data.find(b"\n", middle) + 1
    return low


def _ends_after(log: Path, since: int) -> bool:
    """Return whether a log holds commits after a number; its last line says which was the last."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 200))
        last = file.read().rsplit(b"\n", 2)[-2:-1]
    match = _SEQ.match(last[0]) if last else None
    return match is None or int(match[1]) > since


def _seq(data: mmap.mmap, line: int) -> int:
    match = _SEQ.match(data, line)
    if match is None:
        raise Damaged(f"byte {line} of the log: not what crmkit wrote; run crmkit doctor")
    return int(match[1])
