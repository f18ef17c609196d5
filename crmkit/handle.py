"""An open workspace: its parts, its plugins, and the collections of their record types.

The only place where store, vault, registry and profile meet; `CRM` is what people do with it.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet
from zoneinfo import ZoneInfo

from crmkit.binding import Binder
from crmkit.codec import ERASED, REMOVED, RecordCodec, key_is_gone
from crmkit.collection import Collection
from crmkit.commits import Committer
from crmkit.contributions import Failure
from crmkit.drafts import Drafter
from crmkit.errors import Damaged, Erased, Invalid, Locked, NotFound, StoreBusy
from crmkit.history import History, Undo
from crmkit.identities import ask_plugins, load_plugins
from crmkit.locking import Locking, idle_minutes
from crmkit.merge import Merger
from crmkit.privacy import Eraser, Suppression
from crmkit.profile import Profile, read_profile
from crmkit.query import Condition
from crmkit.records import Customer, Record
from crmkit.registry import PluginTable, Registry, asking_plugin
from crmkit.rights import Rights
from crmkit.schema import RecordInfo, adapter, info
from crmkit.search import search_text
from crmkit.store.tiny import TinyStore
from crmkit.vault import Vault, user_name
from crmkit.visibility import Visible
from crmkit.watch import Watch
from crmkit.workspace import Workspace, fingerprints

R = TypeVar("R", bound=Record)
_actor: ContextVar[str | None] = ContextVar("who acts", default=None)


class Handle:
    """An open workspace.

    Args:
        workspace: Where it is.
        plugins: Plugin objects to register after those of the workspace.
        strict: Let errors inside plugins through, for developing one.
    """

    def __init__(self, workspace: Workspace, plugins: Iterable[object] = (), *, strict: bool = False) -> None:
        self._is_closed = False
        self.workspace = workspace
        self.profile: Profile = read_profile(workspace.profile)
        self.zone = ZoneInfo(self.profile.time_zone)
        self._user = user_name()
        self._registry = Registry([Customer], frozenset(super().__dir__()), strict=strict)
        load_plugins(self._registry, self.profile.plugins)
        ask_plugins(self._registry)  # one of them may have the identity
        self._vault = Vault.unlock(workspace.keys)
        self._codec = RecordCodec(self._vault)
        self._locking = Locking(self._drop, self._open_again, idle_minutes())
        self._rights = Rights(self, self._registry, self.profile, self._note_refusal)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._vault.close)
            self._load_files()  # before the store is read: the types of plugins say what is kept packed
            self._store = TinyStore(workspace.data, self._codec, lazy=self._lazy())
            on_failure.pop_all()
        # what everything reads through
        self._visible = Visible(self._store, lambda: self.actor, self.profile.mates, self._locking.use)
        self._committer = Committer(
            self, self._visible, self._codec, self._registry, lambda: self.actor, self._sealed_reason, self._guard
        )
        self._history = History(self._visible, self._codec, self._type_of, self._opened_reason)
        self._undo = Undo(self._visible, self._codec, self._committer, self._history.reason)
        self._eraser = Eraser(self._store, self._codec, self._vault, lambda: self.types, lambda: self.actor)
        self._merger = Merger(self._visible, self._codec, self._committer)
        self._watches: WeakSet[Watch] = WeakSet()
        self._collections: dict[str, Collection[Any]] = {}
        self._binders: dict[str, Binder] = {}
        self._sweep()
        try:
            self._take_types()
            for plugin in plugins:
                self.register(plugin)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        if self._is_closed:
            return "<CRM closed>"
        if self.is_locked:
            return f"<CRM {self.profile.name}: locked>"
        counts = ", ".join(each.info.counted(len(each)) for each in self._collections.values())
        return f"<CRM {self.profile.name}: {counts}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching, close the files and drop the keys; the handle cannot be used afterwards."""
        self._is_closed = True
        for watch in self._watches:
            watch.stop()
        self._locking.close()
        self._store.close()
        self._codec.forget()
        self._vault.close()

    @property
    def id(self) -> str:
        """The id of the workspace, a ULID."""
        return self._store.workspace

    # ------------------------------------------------------------------ locking

    def lock(self) -> None:
        """Drop the keys and all that was opened with them, until `unlock`; everything else raises `Locked` meanwhile.

        Records, values and figures that you hold stay yours. The same happens by itself after 15 minutes without use
        (``$CRMKIT_IDLE_MINUTES``, 0 for never); then the next use opens again, as long as that takes no passphrase.
        """
        self._locking.lock()

    def unlock(self) -> None:
        """Open the keys again. Never prompts.

        Raises:
            Locked: Your identity is protected with a passphrase, and not unlocked; the message names the command.
        """
        self._locking.unlock()

    @property
    def is_locked(self) -> bool:
        """Whether the keys are gone from memory."""
        return self._locking.is_locked

    def _drop(self) -> None:
        """Drop keys and opened values; first of all whoever is in the middle of a commit may end it."""
        with self._store.keep_threads_out():  # nobody signs or seals with a key that is being overwritten
            self._store.forget()
            self._vault.lock(self._locking.use)
            self._codec.forget()
            self._store.forget()  # what another thread has read in between

    def _sweep(self) -> None:
        """Remove what killed writers left among the keys, unless somebody is writing now."""
        if self._vault.left_over:
            with contextlib.suppress(StoreBusy, OSError), self._store.lock(timeout=0):
                self._vault.sweep()

    def _open_again(self) -> None:
        if self._is_closed:
            raise Locked("the workspace is closed; open it anew")
        ask_plugins(self._registry)
        self._vault.reopen()

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
        self._eraser.finish()

    def _take_type(self, record_type: type[Record]) -> None:
        known = info(record_type)
        drafter = Drafter(record_type, self._codec, self._context, Suppression(self._vault).problems)
        binder = Binder(
            record_type, self._context({}, {}), lambda field, value: self._vault.blind_tags(known.type, field, value)
        )
        self._codec.know(known)
        self._committer.know(known, drafter)
        self._visible.know(known)
        unique = tuple(spec.name for spec in known.fields.values() if spec.unique)
        self._store.register(known.plural + REMOVED, lazy=known.lazy)
        self._store.register(known.plural, unique=unique, text=search_text, lazy=known.lazy)
        self._refuse_dark(known)
        self._binders[known.type] = binder
        self._collections[known.type] = Collection(
            record_type, self._visible, self._codec, self._committer, drafter, binder, self._merger, self._grid
        )

    def _refuse_dark(self, known: RecordInfo) -> None:
        """Refuse a type of which there are values that no key opens, unless an erasure saw to that."""
        for collection, id in self._codec.dark_ones:
            if collection.removesuffix(REMOVED) == known.plural and not self._vault.erasures.is_renewed(id):
                dark = self._codec.dark(collection, self._store.get(collection, id) or {"id": id})
                if dark:
                    raise key_is_gone(known.type, id, dark)

    def _type_of(self, collection: str) -> type[Record] | None:
        """Return the record type that a collection of the store holds; None where its plugin is absent."""
        found = self._by_plural().get(collection.removesuffix(REMOVED))
        return None if found is None else found.type  # an empty collection is false

    def _context(self, raw: Mapping[str, Any], doc: Mapping[str, Any]) -> dict[str, Any]:
        """Return the validation context: the currency, the region of national phone numbers, and who acts."""
        return {"currency": self.profile.currency, "region": self._region(raw, doc), "actor": self.actor}

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
        name = info(which).type if isinstance(which, type) and issubclass(which, Record) else str(which)
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

    def _grid(self, type: str, where: Condition | None = None, *, order: str | None = None) -> Any:
        return screens().grid(self, type, where, order)

    # ------------------------------------------------------------------ who

    @property
    def actor(self) -> str:
        """Who is acting: the name given to `acting_as`, else the name of the system user."""
        return _actor.get() or self._user

    @contextlib.contextmanager
    def acting_as(self, actor: str) -> Iterator[None]:
        """Let what is done inside be recorded under this name."""
        if not isinstance(actor, str) or not actor.strip():
            raise Invalid({"actor": "must be text, and not blank"})
        token = _actor.set(actor)
        try:
            yield
        finally:
            _actor.reset(token)

    def _guard(self, action: str, record: Record | None = None) -> None:
        """Let pass what the actor may do; see `Rights.guard`."""
        self._rights.guard(self.actor, action, record)

    def _note_refusal(self, action: str, record: Record | None) -> None:
        about = {} if record is None else {"entity": info(type(record)).type, "record": record.id}
        with self._store.lock():
            self._vault.note(self.actor, "refused", fields=(action,), plugin=asking_plugin(), **about)

    def _sealed_reason(self, reason: str, cause: str, about: str) -> str:
        """Seal why a commit was made, for people write names into reasons: under the key of whom it is about."""
        subject = about or self._vault.workspace_id
        with self._store.lock():
            self._vault.ensure_subjects({subject})
        return self._vault.seal("commit", "reason", cause, subject, reason)

    def _opened_reason(self, sealed: str, cause: str, about: str) -> str:
        try:
            return str(self._vault.open("commit", "reason", cause, about or self._vault.workspace_id, sealed))
        except Erased:
            return ERASED


def screens() -> Any:
    """Return the screens, which are imported on first use: the core runs without them."""
    return importlib.import_module("crmkit.ui")
