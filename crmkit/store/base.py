"""What every store of crmkit promises, whatever is behind it.

A store keeps JSON-like documents in named collections. Every change is a commit: a list of writes, all or
nothing, durable when `Store.commit` returns. One contract test suite (``tests/store``) runs over every store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
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
    """

    collection: str
    doc: Doc
    expect: int


@dataclass(frozen=True)
class Delete:
    """Remove a document.

    Attributes:
        expect: The revision that must be stored now, or `ANY`.
    """

    collection: str
    id: str
    expect: int


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


class Codec(Protocol):
    """What a store expects of whoever seals fields: the form on disk may differ from the form in memory."""

    def prepare(self, puts: Sequence[tuple[str, Doc]]) -> None:
        """Get ready to seal these documents, under the lock of the store; make new keys durable."""

    def seal(self, collection: str, doc: Doc) -> Doc:
        """Return the form of a document that is written to disk."""

    def open(self, collection: str, doc: Doc) -> Doc:
        """Return the form of a document that is kept in memory."""


class PlainCodec:
    """Seals nothing: the same form in memory and on disk."""

    def prepare(self, puts: Sequence[tuple[str, Doc]]) -> None:
        """Do nothing."""

    def seal(self, collection: str, doc: Doc) -> Doc:  # noqa: ARG002  # the signature of a codec
        """Return the document as it is."""
        return doc

    def open(self, collection: str, doc: Doc) -> Doc:  # noqa: ARG002  # the signature of a codec
        """Return the document as it is."""
        return doc


def closed() -> CrmError:
    """Return the error of whoever uses a store that was closed."""
    return CrmError("the workspace is closed; open it again")


class Store(ABC):
    """Documents in collections, changed by durable commits; every read sees all commits acknowledged before it.

    Documents that a store returns are its own: read them, never change them.
    """

    @abstractmethod
    def register(
        self, collection: str, *, unique: Sequence[str] = (), text: Callable[[Doc], str] | None = None
    ) -> None:
        """Make a collection known and open its documents with the codec; a second call replaces the first.

        A collection that nobody registered is kept as it is on disk.

        Args:
            collection: The name of the collection.
            unique: Paths whose values no two documents may share; missing values never collide.
            text: Derives the text that `match` searches.
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
    def scan(self, collection: str) -> Iterator[Mapping[str, Any]]:
        """Yield every document as of the call, in no particular order."""

    @abstractmethod
    def match(self, collection: str, words: Sequence[str], limit: int) -> list[Mapping[str, Any]]:
        """Return documents whose derived text holds every word: typed search.

        First come texts that start with the first word, then those in which a word starts with it, then the
        rest; each group in text order. Case matters: fold the words as the text was folded.

        Raises:
            Invalid: The limit is not allowed.
        """

    @abstractmethod
    def commit(
        self, writes: Sequence[Put | Delete], meta: Mapping[str, Any], requires: Sequence[Requirement] = ()
    ) -> int:
        """Write all or nothing, durably.

        Args:
            writes: What to put and delete, in order.
            meta: Who, why and when, kept beside the writes.
            requires: Documents that the writes refer to.

        Returns:
            The sequence number of the commit.

        Raises:
            Conflict: A document is not at the expected revision; nothing was written.
            NotFound: A document to delete is not there; nothing was written.
            Invalid: A document is not JSON with a text as id, a unique value is taken, or a required document is
                missing; nothing was written.
            StoreBusy: Another process kept the lock for too long; nothing was written.
        """

    @abstractmethod
    def seq(self) -> int:
        """Return the sequence number of the newest commit."""

    @abstractmethod
    def changes(self, since: int) -> list[Change] | None:
        """Return what was changed after commit `since`, oldest first; None where that is too long ago to tell."""

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
