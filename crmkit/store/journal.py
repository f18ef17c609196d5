"""The journal: an append-only file of checksummed frames, one commit a line.

A frame holds ``[seq, [operation…]]``; seq rises by exactly 1. Operations are ``["m", meta]``,
``["p", collection, id, doc]``, ``["b", collection, [doc…]]`` and ``["d", collection, id]``.

Every frame is on disk before the next is appended, so a crash can leave only the last one unsound. That one
was never acknowledged: readers skip it and the next writer cuts it. Anything else that is unsound is damage.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from crmkit import durable
from crmkit.errors import CrmError, Damaged, Invalid
from crmkit.store.base import closed

Operation = list[Any]
_FRAME_START = re.compile(rb"[0-9a-f]{8} \[")
_as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Place(NamedTuple):
    """How far a journal has been taken in; both change together, in one assignment.

    Attributes:
        position: Bytes taken in; all of them are known to be on disk.
        next_seq: The number of the next frame.
    """

    position: int
    next_seq: int


class Frame(NamedTuple):
    """One commit, and how many bytes of the journal it takes."""

    seq: int
    operations: list[Operation]
    size: int


def encode(seq: int, operations: list[Operation]) -> bytes:
    """Return a commit as one line of the journal.

    Raises:
        Invalid: A value cannot be written as JSON.
    """
    return _encoded(seq, operations)[0]


def _encoded(seq: int, operations: list[Operation]) -> tuple[bytes, list[Operation]]:
    """Return a commit as one line, and its operations as whoever reads that line will get them."""
    try:
        text = _as_json([seq, operations])
        return durable.frame(text.encode()), json.loads(text)[1]
    except (TypeError, ValueError, RecursionError) as error:
        reason = "text holds half of a surrogate pair" if isinstance(error, UnicodeError) else str(error)
        raise Invalid({"document": f"only JSON values can be stored ({reason})"}) from None


def decode(line: bytes) -> Frame | None:
    """Return the frame of a line, or None where the line is not one that `encode` makes."""
    payload = durable.unframe(line)
    if payload is None:
        return None
    try:
        match json.loads(payload.decode()):
            case [int(seq), list(operations)] if all(map(_is_operation, operations)):
                return Frame(seq, operations, len(line))
    except (ValueError, RecursionError):
        pass
    return None


def _is_operation(value: object) -> bool:
    match value:
        case ["m", dict()] | ["d", str(), str()]:
            return True
        case ["p", str(), str(id), dict(doc)]:
            return _is_document(doc) and doc["id"] == id
        case ["b", str(), list(docs)]:
            return all(map(_is_document, docs))
    return False


def _is_document(value: Any) -> bool:
    return type(value) is dict and type(value.get("id")) is str and type(value.get("rev")) is int


class Journal:
    """An open journal.

    Attributes:
        place: How far its frames have been taken in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = Place(0, 0)
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._failure: str | None = None

    @property
    def seq(self) -> int:
        """The number of the newest commit that was taken in."""
        return self.place.next_seq - 1

    def has_grown(self) -> bool:
        """Return whether there is more than was taken in.

        Raises:
            Damaged: The file was cut short or removed by somebody else.
        """
        self.check_open()
        if self._failure is not None:
            return False  # what the system could not sync must not be shown
        position = self.place.position  # before the size: another thread may be moving both on
        status = os.fstat(self._fd)
        if status.st_size < position or status.st_nlink == 0:
            raise Damaged(f"{self.path}: the journal was cut short, replaced or removed while it was open")
        return status.st_size > position

    def read(self) -> Iterator[Frame]:
        """Yield the frames that were not taken in yet, after making sure that they are on disk.

        Each counts as taken in when the next one is asked for.

        Raises:
            Damaged: A frame is unsound, and is not merely an append that did not finish.
        """
        frames = list(self._sound_frames())
        if frames:
            self._sync()
        for frame in frames:
            yield frame
            self.advance(frame)

    def append(self, operations: list[Operation]) -> Frame:
        """Write a commit behind what was taken in; it is on disk when this returns, but not yet taken in.

        Raises:
            CrmError: The system cannot write; the text says whether anything may have been saved.
        """
        self.check_writable()
        position, seq = self.place
        line, as_read = _encoded(seq, operations)
        try:
            durable.write_at(self._fd, line, position)
        except OSError as error:
            if os.fstat(self._fd).st_size > position:
                raise self._fail(error) from error
            raise CrmError(f"{self.path}: nothing was saved ({error.strerror})") from error
        return Frame(seq, as_read, len(line))

    def advance(self, frame: Frame) -> None:
        """Count a frame as taken in."""
        self.place = Place(self.place.position + frame.size, frame.seq + 1)

    def cut_tail(self) -> None:
        """Remove an append that did not finish; only under the lock, when everything sound was taken in."""
        if self.has_grown():
            os.ftruncate(self._fd, self.place.position)
            self._sync()

    def check_open(self) -> None:
        """Raise `CrmError` after `close`."""
        if self._fd < 0:
            raise closed()

    def check_writable(self) -> None:
        """Raise `CrmError` after a failed sync: what is on disk is unknown until the file is opened again."""
        self.check_open()
        if self._failure is not None:
            raise CrmError(f"{self.path}: read only until opened again, because {self._failure}")

    def first(self) -> Frame:
        """Return the first frame, which says what the journal is.

        Raises:
            Damaged: There is no sound first frame.
        """
        with self.path.open("rb") as file:
            frame = decode(file.readline())
        if frame is None or frame.seq != 0:
            raise self._damaged(1)
        return frame

    def taken_in(self) -> Iterator[Frame]:
        """Yield the frames that were taken in before, reading them again."""
        for number, line in enumerate(io.BytesIO(self._bytes(0, self.place.position)), 1):
            frame = decode(line)
            if frame is None:
                raise Damaged(f"{self.path}, line {number}: changed while it was open; run a check of the workspace")
            yield frame

    def verify(self) -> list[str]:
        """Read all frames again and return the problems found.

        Bytes at the end that are no whole commit are told too: most likely a write was cut off before it was
        acknowledged, but damage to the last commit looks the same.
        """
        self.check_open()
        data = self._bytes(0, os.fstat(self._fd).st_size)
        problems: list[str] = []
        start, before = 0, -1
        for number, line in enumerate(io.BytesIO(data), 1):
            frame = decode(line)
            if frame is None and _is_unfinished(data[start:]):
                what = f"{len(data) - start} bytes at the end are no whole commit; the next write takes them off"
                problems.append(f"{self.path}, line {number}: {what}")
                break
            if frame is None:
                problems.append(str(self._damaged(number)))
            elif frame is not None and frame.seq != before + 1:
                problems.append(f"{self.path}, line {number}: commit {frame.seq} comes after commit {before}")
            start, before = start + len(line), frame.seq if frame else before + 1
        return problems

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _sound_frames(self) -> Iterator[Frame]:
        position, seq = self.place
        data, start = self._bytes(position, os.fstat(self._fd).st_size), 0
        for line in io.BytesIO(data):
            frame = decode(line)
            if frame is None or frame.seq != seq:
                if frame is None and _is_unfinished(data[start:]):
                    return
                raise self._damaged(seq + 1)
            yield frame
            seq, start = seq + 1, start + len(line)

    def _bytes(self, start: int, end: int) -> bytes:
        """Return a part of the file; one read stops at 2 GiB."""
        parts = []
        while start < end and (part := os.pread(self._fd, end - start, start)):
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def _damaged(self, line: int) -> Damaged:
        return Damaged(f"{self.path}, line {line}: not what crmkit wrote; restore this file from a backup")

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._fail(error) from error

    def _fail(self, error: OSError) -> CrmError:
        """A failed sync may have dropped data that a second one would report as safe: never try again."""
        self._failure = f"the system could not write to it ({error.strerror})"
        return CrmError(f"{self.path}: may not be saved; {self._failure}; open the workspace again and look")


def _is_unfinished(tail: bytes) -> bool:
    """Return whether unsound bytes at the end can be one append that did not finish.

    Such a tail has no newline but at its very end, and no sound frame inside; nor is its checksum right.
    """
    if b"\n" in tail[:-1] or durable.unframe(tail) is not None:
        return False
    return not any(durable.unframe(tail[found.start() :]) for found in _FRAME_START.finditer(tail, 1))
