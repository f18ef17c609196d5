"""The open handle of a workspace: the only place where store, vault, registry and profile meet."""

from __future__ import annotations

import contextlib
import getpass
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import date, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakSet
from zoneinfo import ZoneInfo

from crmkit.binding import Binder
from crmkit.codec import REMOVED, RecordCodec
from crmkit.collection import Collection
from crmkit.commits import Commit, Committer
from crmkit.contributions import Analysis, Entry, Failure, Result, View
from crmkit.developments import Comparison, Developments
from crmkit.drafts import Drafter
from crmkit.errors import Conflict, CrmError, Damaged, Invalid, NotFound
from crmkit.fields import Secret
from crmkit.history import Batch, History, HistoryEntry
from crmkit.merge import Merger
from crmkit.past import Past
from crmkit.profile import Profile, read_profile
from crmkit.query import Condition, Page
from crmkit.records import Customer, Record
from crmkit.registry import DEFAULT_PLUGINS, PluginTable, Registry, asking_plugin
from crmkit.schema import adapter, info
from crmkit.search import search_text
from crmkit.store.base import Change
from crmkit.store.tiny import TinyStore
from crmkit.timeline import newest_first, told_by
from crmkit.undo import Undo
from crmkit.vault import Vault
from crmkit.watch import EVERY, Cursor, Watch, changes
from crmkit.workspace import Workspace, fingerprints

if TYPE_CHECKING:
    from crmkit.backup import Backup, Progress
    from crmkit.doctor import Health
    from crmkit.transfer import ImportPlan

R = TypeVar("R", bound=Record)
T = TypeVar("T")
_actor: ContextVar[str | None] = ContextVar("who acts", default=None)


class CRM:
    """An open workspace. Made by `crmkit.open` and `crmkit.create`; a context manager.

    Every record type has a collection as an attribute: ``crm.customers``, ``crm.purchases``…

    Args:
        workspace: Where it is.
        plugins: Plugin objects to register after those of the workspace.
        strict: Let errors inside plugins through, for developing one.
    """

    def __init__(self, workspace: Workspace, plugins: Iterable[object] = (), *, strict: bool = False) -> None:
        self.workspace = workspace
        self.profile: Profile = read_profile(workspace.profile)
        self.zone = ZoneInfo(self.profile.time_zone)
        self._user = user_name()
        self._vault = Vault.unlock(workspace.keys)
        self._codec = RecordCodec(self._vault)
        self._registry = Registry([Customer], frozenset(super().__dir__()), strict=strict)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._vault.close)
            self._load_plugins()  # before the store is read: their types say what is kept packed
            self._store = TinyStore(workspace.data, self._codec, lazy=self._lazy())
            on_failure.pop_all()
        self._committer = Committer(
            self, self._store, self._codec, self._registry, lambda: self.actor, self._sealed_reason
        )
        self._history = History(self._store, self._codec, self._type_of, self._opened_reason)
        self._undo = Undo(self._store, self._codec, self._committer)
        self._merger = Merger(self._store, self._codec, self._committer)
        self._watches: WeakSet[Watch] = WeakSet()
        self._collections: dict[str, Collection[Any]] = {}
        self._binders: dict[str, Binder] = {}
        try:
            self._take_types()
            for plugin in plugins:
                self.register(plugin)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<CRM {self.profile.name}: {', '.join(f'{len(c):,} {name}' for name, c in self._by_plural().items())}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching, close the files and drop the keys; the handle cannot be used afterwards."""
        for watch in self._watches:
            watch.stop()
        self._store.close()
        self._codec.forget()
        self._vault.close()

    # ------------------------------------------------------------------ plugins and types

    @property
    def plugins(self) -> PluginTable:
        """Every plugin that was found, with its state."""
        return self._registry.table

    @property
    def failures(self) -> list[Failure]:
        """What went wrong inside plugins since the workspace was opened."""
        return list(self._registry.failures)

    def record_failure(self, plugin: str, hook: str, error: BaseException) -> None:
        """Remember in `failures` that something of a plugin failed, for screens that show the rest all the same."""
        self._registry.record_failure(plugin, hook, error)

    def register(self, plugin: object, name: str | None = None) -> str:
        """Register a plugin, for example one written in a cell; it works at once. Returns its name.

        Raises:
            Invalid: It is no plugin, or clashes with another one.
        """
        registered = self._registry.register(plugin, name)
        self._take_types()
        state = self.plugins[registered]
        if state.state == "failed":
            raise Invalid({"plugin": state.reason}, registered)
        return registered

    def _load_plugins(self) -> None:
        for dotted in DEFAULT_PLUGINS:
            self._registry.load_default(dotted)
        for requirement in self.profile.plugins:
            self._registry.load_entry_point(requirement)
        self._load_files()

    def _lazy(self) -> frozenset[str]:
        """Return the collections that are kept packed."""
        lazy = [known.plural for each in self._registry.contributions("crm_record_types") if (known := info(each)).lazy]
        return frozenset([*lazy, *(plural + REMOVED for plural in lazy)])

    def _load_files(self) -> None:
        sources, trusted = self.workspace.sources(), self._vault.trusted_code()
        is_trusted = trusted == fingerprints(sources)
        changed = "changed since you trusted it" if trusted else "waits until you trust this workspace"
        for path, source in sources.items():
            if is_trusted:
                self._registry.load_file(path, source)
            else:
                self._registry.wait(path, f"{changed}: crmkit plugins trust")

    def _take_types(self) -> None:
        """Make the collections of all record types; a plugin whose type does not fit what is stored is taken out."""
        for record_type in self._registry.contributions("crm_record_types"):
            if record_type not in self.types:
                provider = self._registry.provider(record_type)
                try:
                    self._take_type(record_type)
                except Damaged as error:
                    if provider == "crmkit":
                        raise
                    self._registry.fail(provider, error)

    def _take_type(self, record_type: type[Record]) -> None:
        known = info(record_type)
        drafter = Drafter(record_type, self._codec, self._context)
        binder = Binder(
            record_type, self._context({}, {}), lambda field, value: self._vault.blind_tags(known.type, field, value)
        )
        self._codec.know(known)
        self._committer.know(known, drafter)
        unique = tuple(spec.name for spec in known.fields.values() if spec.unique)
        self._store.register(known.plural + REMOVED, lazy=known.lazy)
        self._store.register(known.plural, unique=unique, text=search_text, lazy=known.lazy)
        self._binders[known.type] = binder
        self._collections[known.type] = Collection(
            record_type, self._store, self._codec, self._committer, drafter, binder, self._merger, self.grid
        )

    def _type_of(self, collection: str) -> type[Record] | None:
        """Return the record type that a collection of the store holds; None where its plugin is absent."""
        found = self._by_plural().get(collection.removesuffix(REMOVED))
        return None if found is None else found.type  # an empty collection is false

    def _context(self, raw: Mapping[str, Any], doc: Mapping[str, Any]) -> dict[str, Any]:
        """Return the validation context: the currency, and the region of national phone numbers."""
        return {"currency": self.profile.currency, "region": self._region(raw, doc)}

    def _region(self, raw: Mapping[str, Any], doc: Mapping[str, Any]) -> str | None:
        country = raw.get("country", doc.get("country"))
        if isinstance(country, str) and country:
            with contextlib.suppress(ValueError):
                return str(adapter(Customer, "country").validate_python(country))
        return self.profile.country

    # ------------------------------------------------------------------ collections

    @property
    def types(self) -> tuple[type[Record], ...]:
        """The known record types."""
        return tuple(collection.type for collection in self._collections.values())

    def collection(self, which: type[R] | str) -> Collection[R]:
        """Return the collection of a record type, given as its class, name or plural.

        Raises:
            NotFound: No plugin contributes such a type.
        """
        name = which if isinstance(which, str) else info(which).type
        found = {**self._by_plural(), **self._collections}.get(name)
        if found is None:
            known = ", ".join(sorted(self._collections))
            raise NotFound(f"{name!r} is not a record type here; known are {known}")
        return found

    def _by_plural(self) -> dict[str, Collection[Any]]:
        return {collection.info.plural: collection for collection in self._collections.values()}

    def __getattr__(self, name: str) -> Collection[Any]:
        collections: dict[str, Collection[Any]] = self.__dict__.get("_collections", {})
        known = [collection.info for collection in collections.values()]
        for each in known:
            if each.plural == name:
                return collections[each.type]
        raise AttributeError(f"CRM has no {name!r}; collections are {', '.join(each.plural for each in known)}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._by_plural()]

    def __getitem__(self, name: str) -> Collection[Any]:
        return self.collection(name)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._by_plural())

    # ------------------------------------------------------------------ who, and all or nothing

    @property
    def actor(self) -> str:
        """Who is acting: the name given to `acting_as`, else the name of the system user."""
        return _actor.get() or self._user

    @contextlib.contextmanager
    def acting_as(self, actor: str) -> Iterator[None]:
        """Let what is done inside be recorded under this name."""
        if not actor.strip():
            raise Invalid({"actor": "must not be blank"})
        token = _actor.set(actor)
        try:
            yield
        finally:
            _actor.reset(token)

    def transaction(self, reason: str | None = None) -> contextlib.AbstractContextManager[None]:
        """Buffer what is saved inside and save it in one commit at the end, all or nothing.

        `get` and ``[id]`` see what is buffered, `find` and `search` do not. A transaction inside another joins it.
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

    # ------------------------------------------------------------------ sensitive fields

    def reveal(self, record: Record, field: str, *, reason: str) -> Secret[Any]:
        """Open a sensitive field; the audit log has it on disk before this returns.

        Args:
            record: Whose field.
            field: Its name.
            reason: Why, for the audit log.

        Returns:
            An opened `Secret`: ``.value`` is the plain value, every rendering stays masked.

        Raises:
            Invalid: The field is not a sensitive one, is empty, or no reason is given.
        """
        collection = self.collection(type(record))
        spec = collection.info.fields.get(field)
        if spec is None or spec.klass != "sensitive":
            raise Invalid({field: "is not a sensitive field; read it as an attribute"})
        if not isinstance(reason, str) or not reason.strip():
            raise Invalid({"reason": "say why; it is kept in the audit log"})
        with self._store.lock():
            doc = self._committer.document(collection.info.plural, record.id)
            if doc is None:
                raise NotFound(f"no {collection.info.type} has the id {record.id}")
            if field not in doc:
                raise Invalid({field: "is empty"})
            subject = self._codec.subject(collection.info.plural, doc)
            self._vault.audit.append(
                actor=self.actor,
                action="reveal",
                entity=collection.info.type,
                record=record.id,
                subject=subject,
                fields=(field,),
                reason=self._vault.seal("audit", "reason", record.id, subject, reason),
                plugin=asking_plugin(),
            )
            masked = self._codec.secret(collection.info.plural, doc, field)
            return Secret(str(masked), self._codec.opened(collection.info.plural, doc, field), masked.place)

    def _sealed_reason(self, reason: str, cause: str) -> str:
        """Seal why a commit was made: people write names into reasons."""
        subject = self._vault.workspace_id
        with self._store.lock():
            self._vault.ensure_subjects({subject})
        return self._vault.seal("commit", "reason", cause, subject, reason)

    def _opened_reason(self, sealed: str, cause: str) -> str:
        return str(self._vault.open("commit", "reason", cause, self._vault.workspace_id, sealed))

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
        return Result(found, day, measured, lambda result: _ui().show(result))

    def timeline(
        self, customer: Record, kinds: Iterable[str] | None = None, limit: int = 50, after: str | None = None
    ) -> Page[Entry]:
        """Return what happened with a customer, newest first.

        Args:
            customer: Whose timeline.
            kinds: Only these kinds of entries.
            limit: The most entries.
            after: `Page.next` of the page before.
        """
        told = self._registry.ask("crm_timeline", told_by, crm=self, customer=customer)
        return newest_first([entry for entries in told for entry in entries], kinds, limit, after)

    # ------------------------------------------------------------------ changes of others

    def seq(self) -> int:
        """Return the number of the newest commit, other processes' included."""
        return self._store.seq()

    def changes(self, since: int = 0) -> list[Change]:
        """Return which records were written after commit `since`, oldest first, other processes' included."""
        return changes(self._store, since)

    def watch(self, callback: Callable[[list[Change]], object], *, every: float = EVERY) -> Watch:
        """Tell `callback` what changes from now on, by this process or another one, until ``.stop()``.

        In a notebook it looks by itself, in the kernel's own loop; elsewhere call ``.look()``. Each change is told
        at most once. What the callback raises is kept in `failures`, and the next change is told all the same.

        Args:
            callback: Gets the changes since the last look, oldest first.
            every: Seconds between two looks.
        """
        return self._watching("watch", callback, every, None)

    def follow(self, name: str, handle: Callable[[list[Change]], object], *, every: float = EVERY) -> Watch:
        """Tell `handle` every change from now on, at least once, also those made while nobody looked.

        How far it came is kept in the workspace, under `name`, after `handle` returned: what a crash, or an error
        of its own, cuts short is told again. The first time it begins with the newest commit.

        Args:
            name: Names the consumer, in every process and after a restart.
            handle: Gets the changes, oldest first; it must bear to see one twice.
            every: Seconds between two looks, more while `handle` fails.
        """
        if not isinstance(name, str) or not name.strip():
            raise Invalid({"name": "must not be blank; it is what the place is kept under"})
        cursor = Cursor(self._store, name, lambda: self.actor)
        return self._watching("follow", handle, every, cursor)

    def _watching(
        self, what: str, callback: Callable[[list[Change]], object], every: float, cursor: Cursor | None
    ) -> Watch:
        whose = getattr(callback, "__module__", None) or "notebook"
        watch = Watch(self._store, callback, partial(self.record_failure, whose, what), every, cursor).start()
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
            Invalid: The limit or the cursor is wrong.
        """
        return self._history.entries(record.id if isinstance(record, Record) else record, limit, after)

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
        return Past(self._store, self._codec, self._bound, instant)

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
        return Comparison(self.at(instant), self._store, self._history, known).developments()

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
        return _ui().app(self)

    def card(self, record: Record) -> Any:
        """Return the card of one record."""
        return _ui().card(self, record)

    def grid(self, type: str, where: Condition | None = None, *, order: str | None = None) -> Any:
        """Return a live grid of a record type, of all records or of those that meet a condition."""
        return _ui().grid(self, type, where, order)

    def form(self, type: str, record: Record | None = None) -> Any:
        """Return a form for a new record, or for the one that is given."""
        return _ui().form(self, type, record)

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
        from crmkit.backup import back_up

        return back_up(self.workspace, self._store, self._vault, Path(path), progress)

    # ------------------------------------------------------------------ health

    def examine(self) -> Health:
        """Check everything that is stored: what there is, what is wrong, and what to do about it."""
        from crmkit.doctor import examine

        known = [collection + ending for collection in self._by_plural() for ending in ("", REMOVED)]
        failed = [f"plugin {row.name} is {row.state}: {row.reason}" for row in self.plugins if row.state == "failed"]
        return examine(self.workspace, self._store, self._vault, known, failed)

    def verify(self) -> list[str]:
        """Read every frame and the audit log again and return what is wrong; empty when all is well."""
        return [*self._store.verify(), *self._vault.audit.verify()]


def user_name() -> str:
    """Return the name of the system user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without an account, as in some containers
        return f"user {os.getuid()}"


def _ui() -> Any:
    """Return the screens, which are imported on first use: the core runs without them."""
    return importlib.import_module("crmkit.ui")
