"""The default store: TinyDB in memory over an append-only journal."""

from __future__ import annotations

import mmap
import os
import re
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any

from crmkit import durable
from crmkit.errors import CrmError, Damaged, Locked, Refused, StoreBusy, Unsupported
from crmkit.query import Condition, Find, Page
from crmkit.records import now
from crmkit.store import compaction, log, rewriting
from crmkit.store.base import Change, Codec, Doc, Logged, Requirement, Step, Store, Write
from crmkit.store.checks import Outcome
from crmkit.store.documents import nothing_is_garbage
from crmkit.store.files import FIRST, Files
from crmkit.store.frames import FORMAT, Operation, encode, verify_finished
from crmkit.store.journal import Journal, Place
from crmkit.store.lock import LOCK_TIMEOUT, WorkspaceLock
from crmkit.store.migration import format_of, migrate, needs_migration
from crmkit.store.operations import operations
from crmkit.store.places import check_place
from crmkit.store.plan import accepted_by, accepted_of, at_most, find_page
from crmkit.store.replica import Replica
from crmkit.store.synced import Synced
from crmkit.store.tables import CrmDB, JournalTable
from crmkit.values import instant_text

_PAUSE = 0.05  # seconds between two looks whether others have compacted
_CLOSING = 1.0  # seconds that closing waits for others before it leaves the journal as it is
_REWRITING = 60.0  # seconds that somebody who rewrites the history waits for others who compact


class TinyStore(Store):
    """Documents in memory as TinyDB tables; every commit is one line of a journal, shared by many processes.

    Attributes:
        db: The same documents as a TinyDB database.
        workspace: The id of the workspace that the store was made for.
        compaction_problem: Why the journal could not be compacted lately; empty where nothing went wrong.
    """

    def __init__(
        self, folder: Path, codec: Codec, *, timeout: float = LOCK_TIMEOUT, lazy: frozenset[str] = frozenset()
    ) -> None:
        """Open a store and read all of it; one in an older format is brought to the newest first.

        Args:
            folder: The folder that `create` made.
            codec: Seals and opens fields.
            timeout: Seconds to wait for the lock.
            lazy: Collections that will be registered as lazy; known now, they are never unpacked as a whole.

        Raises:
            Damaged: A file is missing, or not what crmkit wrote.
            Refused: The system does not let this user read or write a file.
            Unsupported: The format is newer than this version, the system is Windows, or the folder lies where locks
                do not hold.
        """
        _check_platform()
        self._codec = codec
        self._files = Files(folder)
        self._has_written = False
        self._reader = 0  # the thread that is reading
        self.compaction_problem = ""
        with ExitStack() as on_failure, self._plainly():
            check_place(folder)
            self._lock = WorkspaceLock(self._files.lock, timeout)
            on_failure.callback(self._lock.close)
            self._synced = Synced(self._files.lock)
            on_failure.callback(self._synced.close)
            self._bring_up_to_date()
            self._replica = Replica(self._files, codec, lazy, self._synced)
            self._replica.load()
            on_failure.callback(self._replica.close)
            for problem in self._replica.wrong_generation():
                raise Damaged(problem)
            on_failure.pop_all()
        self.db = CrmDB(self)
        _stores.add(self)

    @property
    def generation(self) -> int:
        """The number of the generation that is being read and written."""
        return self._replica.generation

    @staticmethod
    def create(folder: Path, workspace_id: str) -> None:
        """Make the files of an empty store.

        Raises:
            Refused: There is a store in the folder already.
            Unsupported: The system is Windows, or the folder lies where locks do not hold.
        """
        _check_platform()
        files = Files(folder)
        meta = {"format": FORMAT, "workspace": workspace_id, "generation": FIRST}
        try:
            check_place(folder)
            if files.current.exists():
                raise Refused(f"{folder}: there is a store here already")
            durable.make_folder(folder)
            durable.replace_file(files.lock, b"")
            durable.replace_file(files.wal(FIRST), encode(0, [["m", meta]]))
            files.switch(FIRST)
        except OSError as error:
            raise durable.explained(error, folder) from error

    def register(
        self,
        collection: str,
        *,
        unique: Sequence[str] = (),
        text: Callable[[Doc], str] | None = None,
        lazy: bool = False,
    ) -> None:
        """Make a collection known; a second call reads its documents from disk again."""
        settings = {"unique": tuple(unique), "text": text, "lazy": lazy}
        with self.reading(), nothing_is_garbage(), self._plainly():
            self._replica.contents.register(collection, settings, self._replica.read_again)

    def get(self, collection: str, id: str) -> Mapping[str, Any] | None:
        """Return one document, or None."""
        contents = self._replica.contents  # before the check: `close` puts another in its place
        self._refresh()
        if contents is not self._replica.contents:  # and so does `forget`
            with self.reading():
                return self._replica.contents.documents(collection).by_id.get(id)
        return contents.documents(collection).by_id.get(id)

    def find(self, find: Find) -> Page[Mapping[str, Any]]:
        """Return one page of the documents that a condition accepts."""
        with self.reading():
            return find_page(self._replica.contents.documents(find.collection), find)

    def count(self, collection: str, where: Condition | None = None) -> int:
        """Return how many documents a condition accepts."""
        with self.reading():
            documents = self._replica.contents.documents(collection)
            return len(documents.by_id) if where is None else len(accepted_by(documents, where))

    def scan(self, collection: str, fields: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Return an iterator over every document as of the call."""
        with self.reading():
            return self._replica.contents.documents(collection).by_id.read(fields)

    def having(self, collection: str, field: str) -> list[Mapping[str, Any]]:
        """Return the documents that have a plain field; see `Store.having`."""
        with self.reading():
            return list(self._replica.contents.documents(collection).by_id.having(field))

    def match(
        self,
        collection: str,
        words: Sequence[str],
        limit: int,
        *,
        near: bool = False,
        where: Condition | None = None,
    ) -> list[Mapping[str, Any]]:
        """Return the best documents whose derived text holds every word; see `Store.match`."""
        with self.reading():
            documents = self._replica.contents.documents(collection)
            most = at_most(limit, len(documents.by_id))
            found = accepted_of(documents, partial(documents.by_text().match, words), where, most)
            if near and not found:
                found = accepted_of(documents, partial(documents.by_word().near, words), where, most)
            return found

    def commit(self, writes: Sequence[Write], meta: Mapping[str, Any], requires: Sequence[Requirement] = ()) -> int:
        """Write all or nothing, durably; see `Store.commit`."""
        with self.lock(), self._plainly():
            outcome = Outcome(self._replica.contents.collections, writes)
            outcome.check_requirements(requires)
            outcome.check_unique()
            made = [["m", {"at": self._instant(), **meta}], *operations(outcome.turns, self._codec)] if writes else []
            with self._replica.memory:
                seq = self._written(made) if made else self._replica.journal.seq
        self._compact_quietly()
        return seq

    def _written(self, made: list[Operation]) -> int:
        """Write the operations of a commit and return its number; the caller holds the lock and the memory."""
        frame = self._replica.journal.append(made)
        self._has_written = True
        try:
            self._replica.take_in(frame)
        except Locked:  # by another thread, just now; what is saved is saved, and the next use is told
            self._replica.forget()
        return frame.seq

    def seq(self) -> int:
        """Return the sequence number of the newest commit."""
        self._refresh()
        return self._replica.journal.seq

    @property
    def taken_in(self) -> int:
        """The number of the newest commit that is in memory; nothing is read for it."""
        return self._replica.journal.seq

    def changes(self, since: int) -> list[Change]:
        """Return what was changed after commit `since`: from memory, or from the log where that is too long ago."""
        with self.reading():
            changes = self._replica.changes(since)
            if changes is None:
                changes = [change for commit in self.commits(since) for change in log.changes(commit)]
            return changes

    def commits(
        self, since: int = 0, *, about: str | None = None, under: str | None = None, newest_first: bool = False
    ) -> Iterator[Logged]:
        """Return an iterator over the commits as of the call, read from the files as they are asked for."""
        with self._plainly(), self.reading():
            logs, journal = self._files.logs(self._replica.generation), self._replica.journal.content()
        return self._told(log.commits(logs, journal, since, about, under, newest_first=newest_first))

    def _told(self, commits: Iterator[Logged]) -> Iterator[Logged]:
        with self._plainly():
            yield from commits

    def compact(self) -> bool:
        """Finish the generation and begin the next one with a snapshot; see `crmkit.store.compaction`."""
        with self.reading():
            generation, place = self._replica.generation, self._replica.journal.place
        with self._plainly():
            try:
                return self._compact(generation, place)
            except FileNotFoundError:
                if self._files.generation() == generation:
                    raise
                return False  # another process was faster, and has removed what is no longer needed

    def _compact(self, generation: int, place: Place) -> bool:
        journal = Journal(self._files.wal(generation))
        if not journal.claim():  # another thread or process is at it
            journal.close()
            return False
        head = {"workspace": self.workspace}
        work = compaction.Compaction(self._files, generation, head, place.next_seq - 1)
        try:
            work.write(journal.between(0, place.position), journal.between(0, place.position))
            with self.lock(), self._replica.memory:
                if self._replica.generation != generation:
                    return False
                work.switch(journal.between(place.position, self._replica.journal.place.position))
                self._replica.catch_up()
        finally:
            work.give_up()
            journal.close()
        return True

    def rewrite_history(self, change: Callable[[Step], Mapping[str, Any]]) -> int:
        """Replace what the logs keep of former values; see `Store.rewrite_history`.

        The journal and the snapshot of the generation before are removed: they hold it all once more.
        """
        with self._plainly(), rewriting.claimed(self._files.folder):
            self._compact_until(self.seq())
            with self.lock():
                generation = self._replica.generation
                self._files.forget_before(generation)
            return rewriting.rewrite(self._files.logs(generation), change)

    def _compact_until(self, seq: int) -> None:
        """See to it that all commits up to a number stand in logs, whether we or others compact."""
        deadline = time.monotonic() + _REWRITING
        while self._replica.journal.first.seq < seq and not self.compact():
            if time.monotonic() > deadline:
                raise StoreBusy(f"{self._files.folder}: others kept compacting for {_REWRITING:g} seconds; try again")
            time.sleep(_PAUSE)
            self._refresh()

    def count_on_disk(self, pattern: re.Pattern[bytes]) -> Counter[bytes]:
        """Return how often the first group of a pattern was found, by its text, in all files that are in use."""
        with self._plainly(), ExitStack() as opened:
            with self.lock():
                files = [opened.enter_context(path.open("rb")) for path in self._files.in_use(self._replica.generation)]
            counts: Counter[bytes] = Counter()
            for file in files:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    counts.update(found[1] for found in pattern.finditer(data))
            return counts

    def forget(self) -> None:
        """Drop every document from memory; see `Store.forget`."""
        with self.keep_threads_out(), self._replica.memory:  # nobody here is in the middle of a commit
            self._replica.forget()

    @contextmanager
    def keep_threads_out(self) -> Iterator[None]:
        """Keep the other threads of this process from holding the lock while the block runs.

        Raises:
            StoreBusy: One of them kept it for longer than the time limit.
        """
        self._replica.journal.check_open()
        with self._lock.keep_threads_out():
            yield

    @contextmanager
    def lock(self, timeout: float | None = None) -> Iterator[None]:
        """Hold the write lock; everything that others committed has been taken in when the block starts."""
        self._replica.journal.check_writable()
        with self._lock.hold(timeout) as was_taken_now:
            if (was_taken_now or not self._replica.is_whole) and self._replica.has_news():
                with self._plainly(), self._replica.memory:
                    self._replica.catch_up()
                    self._replica.journal.cut_tail()
            yield

    def verify(self) -> list[str]:
        """Read every frame on disk again and return the problems found."""
        self._replica.journal.check_open()
        with self._lock.hold():
            with suppress(CrmError):  # told of below
                self._refresh()
            *finished, _ = self._files.in_use(self._replica.generation)  # the journal has checks of its own
            problems = [problem for path in finished for problem in verify_finished(path)]
            replica = self._replica
            return [*problems, *replica.journal.verify(), *replica.broken_chain(), *replica.wrong_generation()]

    def close(self) -> None:
        """Close the files and forget every document; see `Store.close`."""
        with suppress(CrmError, OSError):  # what was acknowledged is on disk; the rest is tidiness
            self._finish()
        with self._replica.memory:
            self._replica.close()
            self._lock.close()
            self._synced.close()

    def table(self, name: str) -> JournalTable:
        """Return a collection as a TinyDB table; what it returns are copies."""
        table = self.db.table(name)
        assert isinstance(table, JournalTable)
        return table

    def tables(self) -> dict[str, Mapping[str, Doc]]:
        """Return the live documents by collection and id."""
        with self.reading():
            return {name: documents.by_id for name, documents in self._replica.contents.collections.items()}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep everything as of one commit while the block runs; see `Store.reading`."""
        self._refresh()
        with self._replica.memory:
            self._replica.journal.check_open()
            if self._replica.is_whole:
                outer = self._reader
                try:
                    self._reader = get_ident()
                    yield
                finally:
                    self._reader = outer
                return
        with self.reading():  # another thread had everything forgotten just now
            yield

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Turn what the system says about a file into an error of ours."""
        try:
            yield
        except OSError as error:
            raise durable.explained(error, self._files.folder) from error

    def _refresh(self) -> None:
        """Take in what other processes committed, unless this thread wants everything to stay as it is."""
        stays = self._reader == get_ident() and self._replica.is_whole
        if stays or not self._replica.has_news():
            return
        try:
            with self._plainly(), self._replica.memory:
                self._replica.catch_up()
        except Damaged:
            with self.lock():  # a writer at work may look like damage; not so under the lock, which reads again
                pass

    def _instant(self) -> str:
        """Return when a commit is made: now, or with the newest one, where the clock of that machine was ahead."""
        contents = self._replica.contents
        if not contents.newest_at:  # it is in a log, most likely
            with suppress(CrmError, OSError):  # one that is damaged keeps nobody from writing
                newest = next(self.commits(newest_first=True), None)
                contents.newest_at = str(newest.meta.get("at", "")) if newest else ""
        return max(instant_text(now()), contents.newest_at)

    def _bring_up_to_date(self) -> None:
        """Migrate a store of an older format."""
        if needs_migration(self._files):
            with self._lock.hold():
                migrate(self._files)
        self.workspace = format_of(self._files.wal(self._files.generation()))[1]

    def _compact_quietly(self) -> None:
        """Compact; what was committed is safe whether it works or not, and nobody asked for it."""
        if self.compaction_problem or self._lock.is_held():  # what is long is not done while others have to wait
            return
        try:
            if compaction.is_due(self._files, self._replica.generation, self._replica.journal.place.position):
                self.compact()
        except Locked:
            pass  # there will be another time
        except (CrmError, OSError) as error:
            self.compaction_problem = str(error)

    def _finish(self) -> None:
        """Leave the journal so that damage to any commit can be told from a write that was cut off.

        Behind the last commit comes a line that says nothing; or the journal is compacted, where that is worth while.
        """
        if not self._has_written or self._replica.journal.has_failed() or not self._replica.is_whole:
            return
        if compaction.is_due(self._files, self._replica.generation, 4 * self._replica.journal.place.position):
            self.compact()
            return
        with self.lock(_CLOSING), self._replica.memory:
            self._replica.take_in(self._replica.journal.append([["m", {}]]))


_stores: weakref.WeakSet[TinyStore] = weakref.WeakSet()


def _before_fork() -> None:
    for store in list(_stores):  # so that no other thread is changing what the child will see
        store._replica.memory.acquire()  # its own module


def _after_fork() -> None:
    for store in list(_stores):
        store._replica.memory.release()  # its own module


if sys.platform != "win32":
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _check_platform() -> None:
    if sys.platform == "win32":
        raise Unsupported("crmkit cannot keep a workspace on Windows yet; use Linux, or WSL")
