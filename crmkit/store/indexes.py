"""Indexes over the documents of one collection, kept up to date one document at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Protocol

from crmkit.store.base import Doc
from crmkit.store.evaluate import FLAG, MISSING, rank, reader

Key = tuple[Any, ...]
_CHUNK = 512


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
    """From a value to the ids of the documents whose list at a path holds it."""

    def keys(self, document: Doc) -> set[Any]:
        """Return the keys under which a document is found."""
        items = self._read(document)
        return {hash_key(item) for item in items} - {None} if isinstance(items, list) else set()


class _Chunk(list[Key]):
    joined: str | None = None  # its texts in one string, for `SortedKeys.holding`, until the chunk changes


class SortedKeys:
    """Tuples in order, held in chunks, so that an insert moves some hundred entries and not all of them."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        ordered = sorted(keys)
        self.chunks = [_Chunk(ordered[start : start + _CHUNK]) for start in range(0, len(ordered), _CHUNK)]
        self._last = [chunk[-1] for chunk in self.chunks]

    def add(self, key: Key) -> None:
        """Put a key in its place, once."""
        if not self.chunks:
            self.chunks, self._last = [_Chunk()], [key]
        number = min(bisect_left(self._last, key), len(self.chunks) - 1)
        chunk = self.chunks[number]
        place = bisect_left(chunk, key)
        if chunk[place : place + 1] == [key]:
            return
        chunk.insert(place, key)
        self._changed(number)

    def exchange(self, old: Key | None, new: Key | None) -> None:
        """Put one key in the place of another; None stands for no key."""
        if old == new:
            return
        if old is not None:
            self.discard(old)
        if new is not None:
            self.add(new)

    def discard(self, key: Key) -> None:
        """Take a key out, if it is there."""
        number, place = self._find(key)
        if number < len(self.chunks) and self.chunks[number][place] == key:
            del self.chunks[number][place]
            self._changed(number)

    def walk(self, low: Key = (), high: Key | None = None, *, descending: bool = False) -> Iterator[Key]:
        """Yield the keys with ``low <= key < high``."""
        first, skip = self._find(low)
        last, stop = (len(self.chunks), 0) if high is None else self._find(high)
        numbers = range(first, min(last + 1, len(self.chunks)))
        for number in reversed(numbers) if descending else numbers:
            chunk = self.chunks[number]
            part = range(skip if number == first else 0, stop if number == last else len(chunk))
            for place in reversed(part) if descending else part:
                yield chunk[place]

    def rank(self, key: Key) -> int:
        """Return how many keys are below `key`."""
        number, place = self._find(key)
        return sum(map(len, self.chunks[:number])) + place

    def holding(self, words: Sequence[str]) -> Iterator[Key]:
        """Yield the keys whose last value, the one before the id, is text that holds every word.

        One search through the joined texts of a chunk rules out most chunks.
        """
        for chunk in self.chunks:
            if chunk.joined is None:
                chunk.joined = "\n".join(key[-2] for key in chunk if isinstance(key[-2], str))
            if all(word in chunk.joined for word in words):
                keys = [key for key in chunk if isinstance(key[-2], str)]
                for word in words:
                    keys = [key for key in keys if word in key[-2]]
                yield from keys

    def _find(self, key: Key) -> tuple[int, int]:
        number = bisect_left(self._last, key)
        return number, bisect_left(self.chunks[number], key) if number < len(self.chunks) else 0

    def _changed(self, number: int) -> None:
        chunk = self.chunks[number]
        chunk.joined = None
        parts = [chunk] if chunk else []
        if len(chunk) > 2 * _CHUNK:
            parts = [_Chunk(chunk[:_CHUNK]), _Chunk(chunk[_CHUNK:])]
        self.chunks[number : number + 1] = parts
        self._last[number : number + 1] = [part[-1] for part in parts]


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
        self._known = {document["id"]: self._key(document) for document in documents}  # deriving a text takes time
        self._keys = SortedKeys(self._known.values())

    def replace(self, old: Doc | None, new: Doc | None) -> None:
        """Take in a change."""
        before = self._known.pop(old["id"], None) if old is not None else None
        after = self._key(new) if new is not None else None
        if after is not None:
            self._known[after[-1]] = after
        self._keys.exchange(before, after)

    def match(self, words: Sequence[str], limit: int) -> list[str]:
        """Return the ids of the best texts that hold every word."""
        if not words:
            return [id for _, id in islice(self._keys.walk(), limit)]
        first, inner = words[0], " " + words[0]
        above = after_prefix(first)
        if len(words) == 1:
            starting = self._keys.walk((first,), None if above is None else (above,))
        else:  # a second word may be rare where the first is not: let whole chunks be ruled out
            starting = (key for key in self._keys.holding(words) if key[0].startswith(first))
        ranked = chain(
            starting,
            (key for key in self._keys.holding([inner, *words]) if not key[0].startswith(first)),
            (key for key in self._keys.holding(words) if not key[0].startswith(first) and inner not in key[0]),
        )
        return [id for _, id in islice(ranked, limit)]

    def _key(self, document: Doc) -> Key:
        return " ".join(self._text(document).split()), document["id"]
