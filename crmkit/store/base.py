"""What every store of crmkit promises, whatever is behind it.

A store keeps JSON-like documents in named collections. Every change is a commit: a list of writes, all or
nothing, durable when `Store.commit` returns. One contract test suite (``tests/store``) runs over every store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from crmkit.errors import CrmError
from crmkit.query import Condition, Find, Page

Doc = dict[str, Any]
"""A document: JSON values only, with ``"id"`` (the ULID as text) and ``"rev"`` (an int from 1)."""

NEW = 0
"""`Put.expect`: the document must not exist yet."""

ANY = -1
"""`Put.expect`, `Delete.expect`: the document must exist, at any revision."""


@dataclass(frozen=True)
class Put:
    """Write a document; the store sets its ``"rev"`` to one more than that of the document it replaces.

    A new document keeps the ``"rev"`` that it brings (one that was removed and comes back goes on counting), or gets 1.

    Attributes:
        expect: The revision that must be stored now, or `NEW`, or `ANY`.
        forget: Whether the log keeps nothing of what changes but the names of fields.
    """

    collection: str
    doc: Doc
    expect: int
    forget: bool = False


@dataclass(frozen=True)
class Delete:
    """Remove a document.

    Attributes:
        expect: The revision that must be stored now, or `ANY`.
        forget: Whether the log keeps nothing of what it was but its id and its revision.
    """

    collection: str
    id: str
    expect: int
    forget: bool = False


@dataclass(frozen=True)
class Move:
    """Write a document that leaves one collection for another; its revision goes on counting.

    Attributes:
        collection: Where it is now.
        to: Where it goes; no document with its id may be there.
        expect: The revision that must be stored now, or `ANY`.
    """

    collection: str
    to: str
    doc: Doc
    expect: int


@dataclass(frozen=True)
class Reseal:
    """Seal the fields of a document anew, under the keys of today; the document stays as it is.

    Its revision stays too, and neither the history nor the feed tells of it.
    """

    collection: str
    id: str


Write = Put | Delete | Move | Reseal


@dataclass(frozen=True)
class Requirement:
    """A document that must exist when the commit is written, or be put by the same commit.

    Attributes:
        field: The field that refers to it; only names the problem in the error.
    """

    collection: str
    id: str
    field: str


@dataclass(frozen=True)
class Change:
    """One document that a commit put or deleted."""

    seq: int
    collection: str
    id: str
    action: Literal["put", "delete"]


@dataclass(frozen=True)
class Step:
    """What a commit did to one document.

    Attributes:
        action: Whether the document was new, changed in its place, moved, or deleted for good.
        collection: Where it was before; for one that was added, where it is.
        id: Its id.
        to: Where it was afterwards; empty for one that was deleted.
        changed: The fields that changed, came or went away; empty for one that was added.
        before: Those of them that it had before, as they are on disk (sealed fields sealed); all fields of one that
            was deleted; empty for one that was added.
    """

    action: Literal["add", "change", "move", "delete"]
    collection: str
    id: str
    to: str
    changed: tuple[str, ...] = ()
    before: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Logged:
    """One commit, as the log tells it: its number, who made it and why, and what it did."""

    seq: int
    meta: Mapping[str, Any]
    steps: tuple[Step, ...]


class Codec(Protocol):
    """What a store expects of whoever seals fields: the form on disk may differ from the form in memory."""

    def prepare(self, puts: Sequence[tuple[str, Doc]]) -> None:
        """Get ready to seal these documents, under the lock of the store; make new keys durable."""

    def seal(self, collection: str, doc: Doc, names: Collection[str] | None = None) -> Doc:
        """Return fields of a document as they are written to disk: those of these names, or all."""

    def open(self, collection: str, fields: Doc, doc: Doc) -> Doc:
        """Return fields of a document as they are kept in memory.

        Args:
            collection: Where the document is.
            fields: Some or all of its fields, as they are on disk.
            doc: The document, for its plain fields, which say whose keys open the others.
        """

    def bound(self, collection: str, old: Doc, new: Doc) -> Collection[str]:
        """Return the fields that have to be sealed anew although they are equal in both documents.

        What is sealed belongs to its subject: where a document changes hands, all of its sealed fields do.
        """

    def renewed(self, collection: str, old: Doc, new: Doc) -> Doc:
        """Return what is to replace a document, with no field in it that was sealed before the newest keys were.

        It may have been read before: a sealed field that differs from the one in `old` may be of an older day.

        Raises:
            Conflict: The key of such a field is gone.
        """

    def reseal(self, collection: str, doc: Doc) -> Doc:
        """Return the sealed fields of a document, given in its form in memory, sealed anew for the disk."""


class PlainCodec:
    """Seals nothing: the same form in memory and on disk."""

    def prepare(self, puts: Sequence[tuple[str, Doc]]) -> None:
        """Do nothing."""

    def seal(self, collection: str, doc: Doc, names: Collection[str] | None = None) -> Doc:  # noqa: ARG002  # the signature of a codec
        """Return the fields as they are."""
        return doc if names is None else {name: doc[name] for name in names if name in doc}

    def open(self, collection: str, fields: Doc, doc: Doc) -> Doc:  # noqa: ARG002  # the signature of a codec
        """Return the fields as they are."""
        return fields

    def bound(self, collection: str, old: Doc, new: Doc) -> Collection[str]:  # noqa: ARG002  # the signature of a codec
        """Return no field."""
        return ()

    def renewed(self, collection: str, old: Doc, new: Doc) -> Doc:  # noqa: ARG002  # the signature of a codec
        """Return the document as it is."""
        return new

    def reseal(self, collection: str, doc: Doc) -> Doc:  # noqa: ARG002  # the signature of a codec
        """Return no field."""
        return {}


def closed() -> CrmError:
    """Return the error of whoever uses a store that was closed."""
    return CrmError("the workspace is closed; open it again")


class Store(ABC):
    """Documents in collections, changed by durable commits; every read sees all commits acknowledged before it.

    Documents that a store returns are its own: read them, never change them.
    """

    @abstractmethod
    def register(
        self,
        collection: str,
        *,
        unique: Sequence[str] = (),
        text: Callable[[Doc], str] | None = None,
        lazy: bool = False,
    ) -> None:
        """Make a collection known and open its documents with the codec; a second call replaces the first.

        A collection that nobody registered is kept as it is on disk.

        Args:
            collection: The name of the collection.
            unique: Paths whose values no two documents may share; missing values never collide.
            text: Derives the text that `match` searches.
            lazy: Keep the documents as bytes and decode each one when it is read: a third of the memory, slower to
                read. For collections of which most documents are rarely looked at.
        """

    @abstractmethod
    def get(self, collection: str, id: str) -> Mapping[str, Any] | None:
        """Return one document, or None."""

    @abstractmethod
    def find(self, find: Find) -> Page[Mapping[str, Any]]:
        """Return one page of the documents that a condition accepts.

        Raises:
            Invalid: The cursor, the limit or a value of the condition is not allowed.
        """

    @abstractmethod
    def count(self, collection: str, where: Condition | None = None) -> int:
        """Return how many documents a condition accepts."""

    @abstractmethod
    def scan(self, collection: str, fields: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Yield every document as of the call, in no particular order.

        Args:
            collection: The name of the collection.
            fields: The only fields that are needed; others may be missing then.
        """

    @abstractmethod
    def having(self, collection: str, field: str) -> list[Mapping[str, Any]]:
        """Return the documents that have a plain field, without building an index; meant for fields that few have."""

    @abstractmethod
    def match(
        self,
        collection: str,
        words: Sequence[str],
        limit: int,
        *,
        near: bool = False,
        where: Condition | None = None,
    ) -> list[Mapping[str, Any]]:
        """Return documents whose derived text holds every word: typed search.

        First come texts that start with the first word, then those in which a word starts with it, then the
        rest; each group in text order. Case matters: fold the words as the text was folded.

        Args:
            collection: The name of the collection.
            words: What is looked for.
            limit: The most documents.
            near: Where no text holds every word, return those that have words spelt nearly so, the nearest first. Only
                words of three letters or more are taken for misspelt; one with a digit or a sign is meant as it is.
            where: Look only at documents that this condition accepts, as if there were no others.

        Raises:
            Invalid: The limit is not allowed.
        """

    @abstractmethod
    def commit(self, writes: Sequence[Write], meta: Mapping[str, Any], requires: Sequence[Requirement] = ()) -> int:
        """Write all or nothing, durably.

        Args:
            writes: What to put, move, delete and seal anew, in order.
            meta: Who and why, kept beside the writes. The store adds when: ``at`` (UTC), taken under the lock and never
                before that of an earlier commit, so that the log is in the order of time, whatever the clocks say. A
                meta that has its own keeps it.
            requires: Documents that the writes refer to.

        Returns:
            The sequence number of the commit.

        Raises:
            Conflict: A document is not at the expected revision; nothing was written.
            NotFound: A document to delete, to move or to seal anew is not there; nothing was written.
            Invalid: A document is not JSON with a text as id, a unique value is taken, or a required document is
                missing; nothing was written.
            StoreBusy: Another process kept the lock for too long; nothing was written.
        """

    @abstractmethod
    def seq(self) -> int:
        """Return the sequence number of the newest commit."""

    @abstractmethod
    def changes(self, since: int) -> list[Change]:
        """Return what was changed after commit `since`, oldest first."""

    @abstractmethod
    def commits(
        self, since: int = 0, *, about: str | None = None, under: str | None = None, newest_first: bool = False
    ) -> Iterator[Logged]:
        """Yield the commits after number `since`, with what was before: the history.

        Args:
            since: The number of a commit; 0 for all that there ever were.
            about: The id of a document: only commits that touched it, with their steps about it only.
            under: The id of a cause: only commits whose meta names it, as ``cause`` or as what an undo ``undoes``.
            newest_first: Begin with the newest commit instead of the oldest.
        """

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """Keep everything that this thread reads as of one commit, while the block runs.

        It takes no lock of the workspace: others may go on writing.
        """

    @abstractmethod
    def compact(self) -> bool:
        """Write what is stored anew, so that opening does not read the whole past; others may go on working.

        Returns:
            Whether it was done; another process may have been faster.
        """

    @abstractmethod
    def rewrite_history(self, change: Callable[[Step], Mapping[str, Any]]) -> int:
        """Replace what the history keeps of former values; whatever was replaced is no longer on the disk.

        Others may go on working; of what they commit meanwhile, nothing is replaced. Ended at any point, it has
        replaced a part, and can simply be run again.

        Args:
            change: Is called for every step that changed, moved or deleted a document, the newest first, and returns
                what to keep as its ``before``: the same object where nothing is to change. Of a document that was
                deleted, the id and the revision are kept anyway.

        Returns:
            How many steps differ now.

        Raises:
            StoreBusy: Somebody else is doing the same, or keeps the store busy; what was replaced stays replaced.
            Damaged: A part of the history is not what crmkit wrote; that part was left as it is.
        """

    @abstractmethod
    def forget(self) -> None:
        """Drop every document from memory; the next use reads all of them again, through the codec.

        Where the codec cannot open them, its error comes out of that use, and the store stays without documents.
        """

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Hold the write lock of the workspace against all processes and threads; may be nested in one thread.

        Raises:
            StoreBusy: Somebody else kept it for too long.
        """

    @abstractmethod
    def verify(self) -> list[str]:
        """Read everything on disk again and return the problems found, one line each."""

    @abstractmethod
    def close(self) -> None:
        """Release files and forget every document; closing twice does no harm.

        Any other use of the store afterwards raises `CrmError`: "the workspace is closed". What was read before
        stays with whoever holds it.
        """
