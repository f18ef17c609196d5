"""Keys in order, and the texts in them searched as one: what indexes that sort are made of."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

Key = tuple[Any, ...]
_CHUNK = 512
_SAMPLED = 8  # chunks that tell how rare a word is


class _Chunk(list[Key]):
    """Some neighbouring keys; for `SortedKeys.holding` their texts too, until the chunk changes."""

    joined: str | None = None
    starts: array[int]  # where each text begins in the joined one

    def texts(self) -> str:
        """Return the last value of each key, the one before the id, as one text; what is no text counts as empty."""
        if self.joined is None:
            texts = [key[-2] if isinstance(key[-2], str) else "" for key in self]
            self.starts = array("L", accumulate(map(len, texts), lambda place, size: place + size + 1, initial=0))
            self.joined = "\n".join(texts)
        return self.joined

    def holding(self, words: Sequence[str]) -> Iterator[Key]:
        """Yield the keys whose text holds every word. Only where the first is do the others have to be looked for."""
        joined, starts, place = self.texts(), self.starts, 0
        first, others = words[0], words[1:]
        if any(word not in joined for word in others):
            return
        while (found := joined.find(first, place)) >= 0:
            number = bisect_right(starts, found) - 1
            key, place = self[number], starts[number + 1]
            if found + len(first) >= place:  # it reaches over the end of this text
                continue
            for word in others:
                if word not in key[-2]:
                    break
            else:
                yield key


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
        """Yield the keys whose last value, the one before the id, is text that holds every word."""
        rarest_first = self.by_rarity(words)
        for chunk in self.chunks:
            yield from chunk.holding(rarest_first)

    def by_rarity(self, words: Sequence[str]) -> list[str]:
        """Return words with the one in front that few texts hold, as far as a look at some of them can tell."""
        sample = [chunk.texts() for chunk in self.chunks[:: len(self.chunks) // _SAMPLED + 1]]
        return sorted(words, key=lambda word: (sum(texts.count(word) for texts in sample), -len(word)))

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
