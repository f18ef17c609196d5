"""What one process holds of a store: the documents in memory, taken in from the files, which many processes write."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from crmkit import durable
from crmkit.errors import Damaged
from crmkit.store.base import Change, Codec
from crmkit.store.contents import Contents
from crmkit.store.documents import nothing_is_garbage
from crmkit.store.files import FIRST, Files, last_seq
from crmkit.store.frames import Frame, first_frame, read_finished
from crmkit.store.journal import Journal
from crmkit.store.synced import Synced

_CHANGES_KEPT = 50_000  # in memory; older ones are read from the log


class Replica:
    """The documents of a store as of the last look, and how far its files were taken in.

    Args:
        files: The files of the store.
        codec: Opens what is sealed.
        lazy: The collections that are packed from the beginning.
        synced: How much of the journal is known to be on disk.

    Attributes:
        memory: Guards everything that a frame changes when it is taken in.
        contents: The documents.
        journal: The journal that is being read and written.
        generation: The number of its generation.
        is_whole: Whether the documents are there: not while everything is read, nor when that was interrupted, nor
            after `forget`.
    """

    def __init__(self, files: Files, codec: Codec, lazy: frozenset[str], synced: Synced) -> None:
        self.memory = threading.RLock()
        self.contents = Contents(codec, lazy)
        self.journal: Journal
        self.generation = 0
        self._files = files
        self._synced = synced
        self._former: Journal | None = None
        self._mark = (0, 0)
        self.is_whole = False
        self._feed: deque[Change] = deque()
        self._feed_start = 0

    def has_news(self) -> bool:
        """Return whether somebody committed something, or began another generation."""
        if not self.is_whole:
            return True
        if self.journal.has_failed():
            return False  # what the system could not sync must not be shown
        try:
            return self._files.mark() != self._mark or self.journal.has_grown()
        except OSError as error:
            raise durable.explained(error, self._files.folder) from error
        except Damaged:
            if self._files.mark() == self._mark:
                raise
            return True  # the generation after the next one began between the two looks

    def catch_up(self) -> None:
        """Take in what was committed since the last look; the caller holds `memory`."""
        while self.has_news():
            if not self.is_whole:
                self.journal.check_writable()  # reading again what could not be synced would show it
                self.load()
            has_switched = self._files.mark() != self._mark  # asked first: then nothing more comes to this journal
            try:
                for frame in self.journal.read():
                    self._apply(frame)
            except Damaged:
                if not has_switched:
                    raise
                self.load()  # the codec may not open any more what was written, and rewritten, in between
                continue
            if not has_switched:
                return
            self._follow()

    def _follow(self) -> None:
        """Go on in the journal of the current generation; nothing is written there before its name is on disk."""
        mark, generation = self._files.mark(), self._files.generation()
        durable.sync_folder(self._files.folder)
        if generation > self.generation + 1:
            self.load()
            return
        if generation == self.generation + 1:
            try:
                journal = Journal(self._files.wal(generation), self._synced)
            except FileNotFoundError:  # the next one but one has begun
                self.load()
                return
            journal.skip(self.journal.seq)  # these were copied from the journal that was read
            self._replace_journal(journal)
            self.generation = generation
        self._mark = mark

    def _replace_journal(self, journal: Journal) -> None:
        """Read another journal from now on; the one before stays open, since another thread may be looking at it."""
        if self._former is not None:
            self._former.close()
        self._former = getattr(self, "journal", None)
        self.journal = journal

    def load(self) -> None:
        """Read everything from the files of the current generation."""
        self.is_whole = False
        while True:
            mark, generation = self._files.mark(), self._files.generation()
            durable.sync_folder(self._files.folder)
            try:
                journal = Journal(self._files.wal(generation), self._synced)
                self._take_all(generation, journal)
                break
            except FileNotFoundError:
                if self._files.generation() == generation:
                    raise
        self._feed.clear()
        self._feed_start = journal.seq
        self._replace_journal(journal)
        self.generation, self._mark = generation, mark
        self.is_whole = True

    def forget(self) -> None:
        """Drop every document, and whatever is derived from them, until `catch_up`; the caller holds `memory`."""
        self.is_whole = False
        self.contents = self.contents.forgotten()
        self._feed.clear()
        self._feed_start = self.journal.seq

    def _take_all(self, generation: int, journal: Journal) -> None:
        """Take in a snapshot and a journal in place of what is in memory."""
        contents = self.contents.fresh()
        try:
            with nothing_is_garbage():
                self._read_snapshot(generation, journal, contents)
                for frame in journal.read():
                    contents.apply(frame)
                self.contents.take_over(contents)
        except BaseException:
            journal.close()
            raise

    def _read_snapshot(self, generation: int, journal: Journal, contents: Contents) -> None:
        """Take in the snapshot that a generation began with.

        Raises:
            Damaged: It is not sound, or belongs to another journal.
        """
        if generation == FIRST:
            return
        path = self._files.snapshot(generation)
        if first_frame(path).seq != journal.first.seq:
            raise Damaged(f"{path}, line 1: belongs to another journal than {journal.path.name}")
        for frame in read_finished(path):
            contents.apply(frame)

    def read_again(self) -> Contents:
        """Return what is on disk, as far as it was taken in, in the form on disk."""
        contents = self.contents.fresh()
        self._read_snapshot(self.generation, self.journal, contents)
        for frame in self.journal.between(0, self.journal.place.position):
            contents.apply(frame)
        return contents

    def take_in(self, frame: Frame) -> None:
        """Take in a frame that was appended just now."""
        self._apply(frame)
        self.journal.advance(frame)

    def _apply(self, frame: Frame) -> None:
        self._feed.extend(self.contents.apply(frame))
        while len(self._feed) > _CHANGES_KEPT:
            self._feed_start = self._feed.popleft().seq

    def broken_chain(self) -> Iterator[str]:
        """Yield what is wrong where a file does not go on after the commit that the one before it ends with."""
        paths = [self._files.log(number) for number in range(FIRST, self.generation)]
        end = 0
        with suppress(OSError, Damaged):  # files that are missing or damaged are told of elsewhere
            for path in paths:
                yield from _gap(path, end)
                end = last_seq(path)
            if self.generation > FIRST:
                yield from _gap(self._files.snapshot(self.generation), end)
            yield from _gap(self.journal.path, end)

    def wrong_generation(self) -> Iterator[str]:
        """Yield what is wrong where the generation beside the current one has newer commits."""
        for number in (self.generation - 1, self.generation + 1):
            newest = last_seq(self._files.wal(number))
            if newest > self.journal.seq:
                with self.memory:  # another process may have begun that generation just now
                    self.catch_up()
            if newest > self.journal.seq:
                yield f"{self._files.current}, line 1: was changed; generation {number} has newer commits"

    def changes(self, since: int) -> list[Change] | None:
        """Return what was changed after commit `since`, oldest first; None where that is no longer in memory."""
        if since < self._feed_start:
            return None
        newer: list[Change] = []
        for change in reversed(self._feed):
            if change.seq <= since:
                break
            newer.append(change)
        return newer[::-1]

    def close(self) -> None:
        """Close the files and forget every document."""
        self.journal.close()
        if self._former is not None:
            self._former.close()
        self.contents = self.contents.fresh()
        self._feed.clear()


def _gap(path: Path, end: int) -> Iterator[str]:
    first = first_frame(path).seq
    if first != end:
        yield f"{path}, line 1: begins after commit {first}, and what comes before it ends with commit {end}"
