"""Indexes over the documents of one collection, kept up to date one document at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from crmkit.query import split_path
from crmkit.store.base import Doc
from crmkit.store.evaluate import FLAG, MISSING, rank, reader, values
from crmkit.store.ordered import Key, SortedKeys


class Index(Protocol):
    """Something derived from the documents of a collection."""

    def replace(self, old: Doc | None, new: Doc | None) -> None:
        """Take in that `old` became `new`; None stands for no document."""


def hash_key(value: object) -> Any:
    """Return what stands for a value in a hash index; None for values that no condition can equal."""
    kind = rank(value)
    if kind == FLAG:
        return (value,)  # because True == 1 in Python
    return None if kind == MISSING else value


class HashIndex:
    """From a value to the ids of the documents that have it at a path."""

    def __init__(self, path: str, documents: Iterable[Doc]) -> None:
        self._names = split_path(path)
        self._read = reader(path)
        self._ids: dict[Any, set[str]] = {}
        for document in documents:
            self.replace(None, document)

    def ids(self, value: object) -> set[str]:
        """Return the ids of the documents with this value; the set is the index's own."""
        return self.holders(hash_key(value))

    def holders(self, key: Any) -> set[str]:
        """Return the ids of the documents under this key; the set is the index's own."""
        return self._ids.get(key) or set()

    def replace(self, old: Doc | None, new: Doc | None) -> None:
        """Take in a change."""
        before = self.keys(old) if old is not None else set()
        after = self.keys(new) if new is not None else set()
        if before == after:
            return
        if old is not None:
            for key in before - after:
                self._discard(key, old["id"])
        if new is not None:
            for key in after:
                self._ids.setdefault(key, set()).add(new["id"])

    def keys(self, document: Doc) -> set[Any]:
        """Return the keys under which a document is found."""
        key = hash_key(self._read(document))
        return set() if key is None else {key}

    def _discard(self, key: Any, id: str) -> None:
        ids = self._ids.get(key, set())
        ids.discard(id)
        if not ids:
            self._ids.pop(key, None)


class ItemIndex(HashIndex):
    """From a value to the ids of the documents in which a list at a path, or a row of a list on the way, has it."""

    def keys(self, document: Doc) -> set[Any]:
        """Return the keys under which a document is found."""
        found = values(document, self._names)
        return {key for value in found if (key := hash_key(value)) is not None}


class SortedIndex:
    """The documents in the order of some paths, the id last.

    A key holds a rank and a value for each path, and the id: ``(TEXT, "Ada", "01J…")``.
    """

    def __init__(self, paths: Sequence[str], documents: Iterable[Doc]) -> None:
        self.key = key_reader(paths)
        self.keys = SortedKeys(map(self.key, documents))

    def replace(self, old: Doc | None, new: Doc | None) -> None:
        """Take in a change."""
        before = self.key(old) if old is not None else None
        after = self.key(new) if new is not None else None
        self.keys.exchange(before, after)


def key_reader(paths: Sequence[str]) -> Callable[[Mapping[str, Any]], Key]:
    """Return a function that makes the sort key of a document."""
    readers = [reader(path) for path in paths]

    def key(document: Mapping[str, Any]) -> Key:
        parts: list[Any] = []
        for read in readers:
            value = read(document)
            kind = rank(value)
            parts += (kind, value) if kind else (MISSING, 0)
        return (*parts, document["id"])

    return key


def after_prefix(prefix: str) -> str | None:
    """Return the lowest text that is above every text with this prefix; None where there is no such text."""
    stem = prefix.rstrip("\U0010ffff")
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None


class TextIndex:
    """The text of every document in text order, for typed search; lives in memory only."""

    def __init__(self, text: Callable[[Doc], str], documents: Iterable[Doc]) -> None:
        self._text = text
        self._keys = SortedKeys(map(self._key, documents))

    def replace(self, old: Doc | None, new: Doc | None) -> None:
        """Take in a change."""
        before = self._key(old) if old is not None else None
        after = self._key(new) if new is not None else None
        self._keys.exchange(before, after)

    def match(self, words: Sequence[str], limit: int) -> list[str]:
        """Return the ids of the best texts that hold every word."""
        if not words:
            return [id for _, id in islice(self._keys.walk(), limit)]
        first, others = words[0], words[1:]
        above = after_prefix(first)
        starting = self._keys.walk((first,), None if above is None else (above,))
        best = [key[1] for key in islice((key for key in starting if all(w in key[0] for w in others)), limit)]
        if len(best) < limit:
            best += self._inside(words, limit - len(best))
        return best

    def _inside(self, words: Sequence[str], limit: int) -> list[str]:
        """Return the texts that begin otherwise: those in which a word begins with the first, then the rest."""
        first, inner = words[0], " " + words[0]
        beginning: list[str] = []
        rest: list[str] = []
        rarest_first = self._keys.by_rarity(words)
        for chunk in self._keys.chunks:
            for text, id in chunk.holding(rarest_first):
                if text.startswith(first):
                    continue
                if inner in text:
                    beginning.append(id)
                elif len(rest) < limit:
                    rest.append(id)
            if len(beginning) >= limit:
                break
            if len(rest) == limit:  # there are enough of those: from now on only a better one counts
                rarest_first = [inner if word == first else word for word in rarest_first]
        return [*beginning, *rest][:limit]

    def _key(self, document: Doc) -> Key:
        return " ".join(self._text(document).split()), document["id"]
