"""What people do with an open workspace: `crmkit.open` returns a `CRM`."""

from __future__ import annotations

import builtins
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from crmkit.binding import Binder
from crmkit.codec import REMOVED
from crmkit.collection import Collection
from crmkit.commits import Commit, outside
from crmkit.contributions import Analysis, Entry, Result, View
from crmkit.durable import explained
from crmkit.errors import Conflict, CrmError, Erased, Invalid, Locked, NotFound
from crmkit.handle import screens
from crmkit.history import Batch, Comparison, Developments, HistoryEntry, Past
from crmkit.protected import Protected
from crmkit.query import Condition, Page
from crmkit.records import Record, check_record, id_of, now
from crmkit.store.base import Change
from crmkit.timeline import newest_first, told_by
from crmkit.watch import EVERY, Cursor, Watch, changes

if TYPE_CHECKING:
    from crmkit.safekeeping.backup import Backup, Progress
    from crmkit.safekeeping.doctor import Health
    from crmkit.safekeeping.export import Exported, Exporter
    from crmkit.security import Security
    from crmkit.transfer import ImportPlan

T = TypeVar("T")


class CRM(Protected):
    """An open workspace. Made by `crmkit.open` and `crmkit.create`; a context manager.

    Every record type has a collection as an attribute: ``crm.customers``, ``crm.purchases``…

    Args:
        workspace: Where it is.
        plugins: Plugin objects to register after those of the workspace.
        strict: Let errors inside plugins through, for developing one.
    """

    # ------------------------------------------------------------------ all or nothing

    def transaction(self, reason: str | None = None) -> contextlib.AbstractContextManager[None]:
        """Buffer what is saved inside and save it in one commit at the end, all or nothing.

        `get` and ``[id]`` see what is buffered, `find` and `search` do not. A transaction inside another joins it. What
        a task that was made inside saves after the end is no part of it, and is saved by itself.
        """
        return self._committer.transaction(reason)

    def atomically(self, work: Callable[[], T], *, tries: int = 10) -> T:
        """Run `work` in a transaction, and again when somebody else was faster.

        Raises:
            Conflict: Somebody else was faster each time.
        """
        for last in (*[False] * (tries - 1), True):
            try:
                with self.transaction():
                    result = work()
                return result  # noqa: RET504  # after the transaction has been written, which may fail
            except Conflict:
                if last:
                    raise
        raise Invalid({"tries": "must be 1 or more"})

    # ------------------------------------------------------------------ questions to plugins

    @property
    def views(self) -> list[View]:
        """The pages and panels that plugins contribute."""
        return self._registry.contributions("crm_views")

    @property
    def analyses(self) -> list[Analysis]:
        """The analyses that plugins contribute."""
        return self._registry.contributions("crm_analyses")

    def analyse(self, name: str, *, as_of: date | None = None, **parameters: Any) -> Result:
        """Run an analysis.

        Args:
            name: Its name.
            as_of: The day to look from; today in the workspace's time zone.
            parameters: What the analysis takes.

        Raises:
            NotFound: No plugin contributes it.
        """
        found = next((analysis for analysis in self.analyses if analysis.name == name), None)
        if found is None:
            known = ", ".join(analysis.name for analysis in self.analyses) or "none"
            raise NotFound(f"{name!r} is not an analysis; there are: {known}")
        day = as_of or datetime.now(self.zone).date()
        if not isinstance(day, date) or isinstance(day, datetime):
            raise Invalid({"as_of": "must be a date"})
        try:
            measured = found.measure(self, as_of=day, **parameters)
        except CrmError:
            raise
        except Exception as error:
            self.record_failure(found.provider, "crm_analyses", error)
            raise
        return Result(found, day, measured, lambda result: screens().show(result))

    def timeline(
        self, customer: Record | str, kinds: Iterable[str] | None = None, limit: int = 50, after: str | None = None
    ) -> Page[Entry]:
        """Return what happened with a customer, newest first.

        Args:
            customer: Whose timeline; or the id of the customer.
            kinds: Only these kinds of entries.
            limit: The most entries.
            after: `Page.next` of the page before.

        Raises:
            NotFound: No customer has this id.
            Invalid: The limit, the kinds or the cursor is wrong, or no customer is given.
        """
        customer = customer if isinstance(customer, Record) else self.customers[id_of(customer)]
        self._refuse_hidden(customer)
        told = self._registry.ask("crm_timeline", told_by, crm=self, customer=customer)
        with self._visible.reading():
            seen = [entry for entries in told for entry in entries if not self._visible.hides_any(entry.record)]
        return newest_first(seen, kinds, limit, after)

    # ------------------------------------------------------------------ changes of others

    def seq(self) -> int:
        """Return the number of the newest commit, other processes' included."""
        return self._visible.seq()

    def changes(self, since: int = 0) -> list[Change]:
        """Return which records were written after commit `since`, oldest first, other processes' included."""
        return changes(self._visible, since)

    def watch(
        self,
        callback: Callable[[list[Change]], object],
        *,
        every: float = EVERY,
        locked: Callable[[bool], object] = lambda _: None,
    ) -> Watch:
        """Tell `callback` what changes from now on, by this process or another one, until ``.stop()``.

        In a notebook it looks by itself, in the kernel's own loop; elsewhere call ``.look()``. Each change is told
        at most once. What the callback raises is kept in `failures`, and the next change is told all the same. What
        it saves in the loop is no part of a transaction that is open here, and is done by whoever acts now.

        Args:
            callback: Gets the changes since the last look, oldest first.
            every: Seconds between two looks.
            locked: Told True when the workspace was locked, and False when it is open again.
        """
        return self._watching("watch", callback, every, None, locked)

    def follow(self, name: str, handle: Callable[[list[Change]], object], *, every: float = EVERY) -> Watch:
        """Tell `handle` every change from now on, at least once, also those made while nobody looked.

        How far it came is kept in the workspace, under `name`, after `handle` returned: what a crash, or an error
        of its own, cuts short is told again. The first time it begins with the newest commit. Looking is no use of the
        workspace: a process that does nothing else needs ``CRMKIT_IDLE_MINUTES=0``, or it locks itself.

        Args:
            name: Names the consumer, in every process and after a restart.
            handle: Gets the changes, oldest first; it must bear to see one twice.
            every: Seconds between two looks, more while `handle` fails.
        """
        if not isinstance(name, str) or not name.strip():
            raise Invalid({"name": "must not be blank; it is what the place is kept under"})
        cursor = Cursor(self._visible, name, lambda: self.actor)
        return self._watching("follow", handle, every, cursor)

    def _watching(
        self,
        what: str,
        callback: Callable[[list[Change]], object],
        every: float,
        cursor: Cursor | None,
        locked: Callable[[bool], object] = lambda _: None,
    ) -> Watch:
        if not callable(callback):
            raise Invalid({"callback": "must be a function; it gets the changes"})
        whose = getattr(callback, "__module__", None) or "notebook"
        watch = Watch(self._visible, callback, partial(self.record_failure, whose, what), every, cursor, locked)
        watch.start(outside())
        self._watches.add(watch)
        return watch

    # ------------------------------------------------------------------ history

    def history(self, record: Record | str, limit: int = 50, after: str | None = None) -> Page[HistoryEntry]:
        """Return what happened to a record, newest first; also to one that was removed.

        Args:
            record: The record, or its id.
            limit: The most entries.
            after: `Page.next` of the page before.

        Returns:
            Entries with commit, at (UTC), actor, reason, cause, action, fields, before and after; sensitive values
            are masked.

        Raises:
            NotFound: There never was such a record.
            Erased: There was, and it was erased.
            Invalid: The limit or the cursor is wrong.
        """
        self._vault.erasures.refresh()  # another process may have erased it just now
        if at := self._vault.erasures.at(id_of(record)):
            raise Erased(f"it was erased on {at[:10]}; crm.erasures() has the certificate")
        if isinstance(record, Record):
            return self._history.entries(record.id, self.collection(type(record)).info.plural, limit, after)
        return self._history.entries(id_of(record), None, limit, after)

    def batches(self, limit: int = 20) -> list[Batch]:
        """Return what was done together, newest first: edits, transactions, imports, merges and undos."""
        return self._history.batches(limit)

    def undo(self, what: Commit | Batch | HistoryEntry | str, *, skip_changed: bool = False) -> Commit:
        """Take back what was done under one cause, in one commit that can be undone too.

        Everything is as it was, but for `rev` and `updated_at`; what had been added lies among the removed records.

        Args:
            what: A commit (of an import or a merge, say), a batch, an entry of a record's history, or the id of one.
            skip_changed: Leave out what was changed since or is referred to now, instead of refusing.

        Raises:
            ChangedSince: With the records that were changed since, or that refer to what would be taken away.
            Conflict: Somebody saved one of the records just now.
            Refused: It is undone already, nothing is left of it, a transaction is open, or a plugin says no.
            NotFound: Nothing was done under this id.
        """
        return self._undo.undo(what, skip_changed=skip_changed)

    def at(self, instant: datetime) -> Past:
        """Return the records as they were at an instant: ``crm.at(instant).customers[id]``.

        It reads every commit since then, so it costs what happened since.

        Args:
            instant: A time with a time zone.

        Raises:
            Invalid: The instant has no time zone, or is in the future.
        """
        return Past(self._visible, self._codec, self._bound, instant, self._by_plural())

    def since(self, instant: datetime, type: type[Record] | str | None = None) -> Developments:
        """Return what came of the records since an instant: what entered, left, moved, slipped, grew or shrank.

        Args:
            instant: A time with a time zone.
            type: The record type, its name or plural; None for all.

        Raises:
            Invalid: The instant has no time zone, or is in the future.
            NotFound: No plugin contributes such a type.
        """
        wanted = self._by_plural().values() if type is None else [self.collection(type)]
        known = {collection.info.plural: collection.info for collection in wanted}
        return Comparison(self.at(instant), self._visible, self._history, known).developments()

    def _bound(self, which: type[Record] | str) -> tuple[type[Record], Binder]:
        collection: Collection[Any] = self.collection(which)
        return collection.type, self._binders[collection.info.type]

    # ------------------------------------------------------------------ import

    def import_file(self, source: Any, *, as_: str, map: Mapping[str, str] | None = None, **options: Any) -> ImportPlan:
        """Plan the import of a table; nothing is written before ``plan.apply()``. See `crmkit.transfer.plan`."""
        from crmkit.transfer import plan

        return plan(self, source, as_=as_, map=map, **options)

    # ------------------------------------------------------------------ screens

    def app(self) -> Any:
        """Return the app, to be the last expression of a cell."""
        return screens().app(self)

    def card(self, record: Record) -> Any:
        """Return the card of one record."""
        self._check_shown(record)
        return screens().card(self, record)

    def grid(self, type: str, where: Condition | None = None, *, order: str | None = None) -> Any:
        """Return a live grid of a record type, of all records or of those that meet a condition."""
        return screens().grid(self, type, where, order)

    def form(self, type: str, record: Record | None = None) -> Any:
        """Return a form for a new record, or for the one that is given."""
        if record is not None:
            self._check_shown(record)
        return screens().form(self, type, record)

    def _check_shown(self, record: Record) -> None:
        check_record(record)
        with contextlib.suppress(Locked):  # the screen says so itself
            self._refuse_hidden(record)

    # ------------------------------------------------------------------ safekeeping

    def backup(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> Backup:
        """Save the workspace into a folder of backups, as two files, while others go on writing.

        One file holds the data, the other the keys; both open with the identity of any member, so keep a copy of
        yours elsewhere. The file of keys is replaced at each backup and opens every data file beside it.
        `crmkit.restore` makes a workspace of them; ``docs/backup.md`` says how to without crmkit.

        Args:
            path: The folder, outside of the workspace; it is made.
            progress: Told a step and how much of it is done, 0 to 1.

        Raises:
            Invalid: The path cannot be a folder for backups.
            Damaged: What is to be saved is damaged; earlier backups stay as they are.
            CrmError: The system cannot write there.
        """
        from crmkit.safekeeping.backup import back_up, checked

        folder = checked(Path(path), self.workspace)  # first of all: what cannot begin is not noted
        with self._locking.busy():
            self._note("backup")  # before, so that the backup holds the line too, and what is restored is not behind it
            try:
                return back_up(self.workspace, self._store, self._vault, folder, progress)
            except BaseException:
                with contextlib.suppress(CrmError):
                    self._note("backup_failed")
                raise

    def _note(self, action: str) -> None:
        """Write into the audit log what is done with the workspace."""
        try:
            with self._store.lock():
                self._vault.note(self.actor, action)
        except OSError as error:
            raise explained(error, self.workspace.keys) from error

    def export_all(
        self, folder: str | os.PathLike[str], *, reveal: str | None = None, progress: Progress | None = None
    ) -> Exported:
        """Write everything that is stored into a new folder, in open formats: JSON lines, CSV and plain files.

        It is as of one commit, removed records and the history included, and is counted against the store. Personal
        fields are in the clear: only this user can read the folder, and the audit log has a line for each type.

        Args:
            folder: The folder to make; it must not exist, or be empty.
            reveal: Why sensitive fields are to be open too; masked when left out. Card numbers always are.
            progress: Told a step and how much of it is done, 0 to 1.

        Raises:
            Invalid: Something is where the folder is to be made, or the reason is blank.
            Damaged: What was written is not what is stored; nothing is left behind.
            Refused: The actor may not export, or may not reveal.
            CrmError: The system cannot write there.
        """
        self._guard_export(reveal)
        with self._locking.busy():
            return self._exporter().everything(Path(folder), reveal, progress)

    def export(
        self,
        type: str | builtins.type[Record],
        path: str | os.PathLike[str],
        *,
        reveal: str | None = None,
        progress: Progress | None = None,
    ) -> Exported:
        """Write the records of one type into a new file, CSV or JSON lines by its name; as `export_all` does.

        Raises:
            NotFound: There is no such type.
            Invalid: The name of the file ends otherwise, there is such a file, or the reason is blank.
            Refused: The actor may not export, or may not reveal.
        """
        self._guard_export(reveal)
        with self._locking.busy():
            return self._exporter().one_type(self.collection(type).info.plural, Path(path), reveal, progress)

    def _guard_export(self, reveal: str | None) -> None:
        self._guard("export")
        if reveal is not None:
            self._guard("reveal")

    def _exporter(self) -> Exporter:
        from crmkit.safekeeping.export import Exporter

        types = [collection.info for collection in self._by_plural().values()]
        return Exporter(self.workspace, self._visible, self._codec, self._vault, types, self._history, self.actor)

    # ------------------------------------------------------------------ health

    @property
    def security(self) -> Security:
        """What is protected here and what is not; moves card numbers out of notes."""
        from crmkit.security import Security, report

        collections = self._by_plural()
        counted = [(each.info, self._store.count(plural)) for plural, each in collections.items()]
        by_type = {each.info.type: each for each in collections.values()}
        return Security(by_type, lambda: report(self.workspace, self._vault, counted, self.plugins, now()))

    def examine(self) -> Health:
        """Check everything that is stored: what there is, what is wrong, and what to do about it."""
        from crmkit.safekeeping.doctor import examine

        known = [collection + ending for collection in self._by_plural() for ending in ("", REMOVED)]
        failed = [f"plugin {row.name} is {row.state}: {row.reason}" for row in self.plugins if row.state == "failed"]
        with self._locking.busy():
            return examine(self.workspace, self._store, self._vault, self._codec, known, failed)

    def verify(self) -> list[str]:
        """Read every frame and the audit log again and return what is wrong; empty when all is well."""
        with self._locking.busy():
            return [*self._store.verify(), *self._vault.audit.verify()]
