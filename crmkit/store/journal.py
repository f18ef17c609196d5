"""The journal: an append-only file of checksummed frames, one commit a line; seq rises by exactly 1.

Every frame is on disk before the next is appended, so a crash can leave only the last one unsound. That one
was never acknowledged: readers skip it and the next writer cuts it. Anything else that is unsound is damage.
"""

from __future__ import annotations

import io
import mmap
import os
import re
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from crmkit import durable
from crmkit.errors import CrmError, Damaged
from crmkit.store.base import closed
from crmkit.store.frames import Frame, Operation, damaged, decode, encoded, first_frame
from crmkit.store.synced import Synced

if sys.platform != "win32":
    import fcntl

_FRAME_START = re.compile(rb"[0-9a-f]{8} \[")
_PART = 1 << 22  # bytes that are read at once where a whole journal is read again


class Place(NamedTuple):
    """How far a journal has been taken in; both change together, in one assignment.

    Attributes:
        position: Bytes taken in; all of them are known to be on disk.
        next_seq: The number of the next frame.
    """

    position: int
    next_seq: int


class Journal:
    """An open journal.

    Attributes:
        first: Its first frame, which says what it is.
        place: How far its frames have been taken in.
    """

    def __init__(self, path: Path, synced: Synced | None = None) -> None:
        """Open a journal; nothing but its first frame is taken in yet.

        Args:
            path: The file.
            synced: Where writers tell how much of it is on disk; needed for writing only.

        Raises:
            Damaged: It does not begin as a journal does.
            OSError: It cannot be opened.
        """
        self.path = path
        self._failure: str | None = None
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._release = weakref.finalize(self, os.close, self._fd)  # also where nobody closes the store
        try:
            first = first_frame(path)
        except BaseException:
            self.close()
            raise
        self.first = first
        self._synced = synced
        self._generation = first.operations[0][1].get("generation", 0)
        self.place = Place(first.size, first.seq + 1)

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
        position = self.place.position  # before the size: another thread may be moving both on
        status = os.fstat(self._fd)
        if status.st_size < position or status.st_nlink == 0:
            raise Damaged(f"{self.path}: the journal was cut short, replaced or removed while it was open")
        return status.st_size > position

    def has_failed(self) -> bool:
        """Return whether the system could not write; what is on disk is unknown then."""
        return self._failure is not None

    def read(self) -> Iterator[Frame]:
        """Yield the frames that were not taken in yet, after making sure that they are on disk.

        Each counts as taken in when the next one is asked for.

        Raises:
            Damaged: A frame is unsound, and is not merely an append that did not finish.
        """
        frames = list(self._sound_frames())
        end = self.place.position + sum(frame.size for frame in frames)
        if frames and (self._synced is None or self._synced.position(self._generation) < end):
            self._sync()
        for frame in frames:
            yield frame
            self.advance(frame)

    def skip(self, seq: int) -> None:
        """Count the commits up to a number as taken in: what another journal held as well."""
        for frame in self._sound_frames():
            if frame.seq > seq:
                return
            self.advance(frame)

    def claim(self) -> bool:
        """Return whether nobody else has claimed this journal; the claim ends when it is closed."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def append(self, operations: list[Operation]) -> Frame:
        """Write a commit behind what was taken in; it is on disk when this returns, but not yet taken in.

        Raises:
            CrmError: The system cannot write; the text says whether anything may have been saved.
        """
        self.check_writable()
        position, seq = self.place
        line, as_read = encoded(seq, operations)
        try:
            durable.write_at(self._fd, line, position)
        except durable.NotSynced as error:
            raise self._fail(error) from error
        except OSError as error:
            if os.fstat(self._fd).st_size > position:
                raise self._fail(error) from error
            raise CrmError(f"{self.path}: nothing was saved ({error.strerror})") from error
        if self._synced is not None:
            self._synced.tell(self._generation, position + len(line))
        return Frame(seq, as_read, len(line))

    def advance(self, frame: Frame) -> None:
        """Count a frame as taken in."""
        self.place = Place(self.place.position + frame.size, frame.seq + 1)

    def cut_tail(self) -> None:
        """Remove an append that did not finish; only under the lock, when everything sound was taken in.

        What is removed is kept beside the journal: should it be more than that, it can still be looked into.
        """
        if self.has_grown():
            tail = self._bytes(self.place.position, os.fstat(self._fd).st_size)
            if tail.strip(b"\0"):
                durable.replace_file(self.path.with_name(f"torn.{self._generation}.{self.place.position}"), tail)
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

    def between(self, start: int, end: int) -> Iterator[Frame]:
        """Yield the frames that begin in a part of what was taken in before, reading them again.

        Args:
            start: Where a frame begins, in bytes; 0 for all of them, the first one left out.
            end: Where a frame ends.
        """
        position, rest = start or self.first.size, b""
        while position < end:
            part = os.pread(self._fd, min(_PART, end - position), position)
            position += len(part)
            *lines, rest = (rest + part).split(b"\n")
            for line in lines if part else [b""]:
                frame = decode(line + b"\n")
                if frame is None:
                    where = f"{self.path}, before byte {position}"
                    raise Damaged(f"{where}: changed while it was open; run a check of the workspace")
                yield frame

    def content(self) -> mmap.mmap:
        """Return what was taken in, the first frame included, for searching it; close it when done."""
        self.check_open()
        return mmap.mmap(self._fd, self.place.position, access=mmap.ACCESS_READ)

    def verify(self) -> list[str]:
        """Read all frames again and return the problems found.

        Bytes at the end that are no whole commit are told too: most likely a write was cut off before it was
        acknowledged, but damage to the last commit looks the same.
        """
        self.check_open()
        data = self._bytes(0, os.fstat(self._fd).st_size)
        problems: list[str] = []
        start, before = 0, self.first.seq - 1
        for number, line in enumerate(io.BytesIO(data), 1):
            frame = decode(line)
            if frame is None and _is_unfinished(data[start:]):
                what = f"{len(data) - start} bytes at the end are no whole commit; the next write takes them off"
                problems.append(f"{self.path}, line {number}: {what}")
                break
            if frame is None:
                problems.append(str(damaged(self.path, number)))
            elif frame is not None and frame.seq != before + 1:
                problems.append(f"{self.path}, line {number}: commit {frame.seq} comes after commit {before}")
            start, before = start + len(line), frame.seq if frame else before + 1
        return problems

    def close(self) -> None:
        """Close the file."""
        self._fd = -1
        self._release()

    def _sound_frames(self) -> Iterator[Frame]:
        position, seq = self.place
        data, start = self._bytes(position, os.fstat(self._fd).st_size), 0
        for line in io.BytesIO(data):
            frame = decode(line)
            if frame is None or frame.seq != seq:
                if frame is None and _is_unfinished(data[start:]):
                    return
                raise damaged(self.path, seq + 1 - self.first.seq)
            yield frame
            seq, start = seq + 1, start + len(line)

    def _bytes(self, start: int, end: int) -> bytes:
        """Return a part of the file; one read stops at 2 GiB."""
        parts = []
        while start < end and (part := os.pread(self._fd, end - start, start)):
            parts.append(part)
            start += len(part)
        return b"".join(parts)

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
