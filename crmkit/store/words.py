"""Words that are spelt nearly as those being typed: "jon smtih" means "john smith"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from crmkit.store.base import Doc

_SHORTEST = 3  # letters; shorter ones are near too many others
_LONG = 6  # letters; from here on two slips are forgiven


class WordIndex:
    """The ids of the documents whose derived text has a word, by word; of words of letters only, such as names.

    Args:
        text: Derives the text of a document.
        by_id: The documents.
    """

    def __init__(self, text: Callable[[Doc], str], by_id: Mapping[str, Doc]) -> None:
        self._text = text
        self._by_id = by_id
        self._ids: dict[str, set[str]] = {}
        for document in by_id.values():
            self.replace(None, document)

    def replace(self, old: Doc | None, new: Doc | None) -> None:
        """Take in a change."""
        before, after = self._words(old), self._words(new)
        for word in before - after:
            ids = self._ids[word]
            ids.discard(old["id"])  # type: ignore[index]  # without a document there are no words
            if not ids:
                del self._ids[word]
        for word in after - before:
            self._ids.setdefault(word, set()).add(new["id"])  # type: ignore[index]  # as above

    def near(self, words: Sequence[str], limit: int) -> list[str]:
        """Return the ids of texts that have each word, or one that is spelt nearly so; the nearest first.

        Args:
            words: What is being typed. What is no word of letters must be in the text as it is.
            limit: The most ids.
        """
        names = [word for word in words if _is_name(word)]
        others = [word for word in words if not _is_name(word)]
        if not names:
            return []
        first, *rest = sorted(map(self._distances, names), key=len)
        total = {
            id: distance + sum(each[id] for each in rest)
            for id, distance in first.items()
            if all(id in each for each in rest)
        }
        nearest = sorted((distance, id) for id, distance in total.items())
        return list(islice((id for _, id in nearest if self._holds(id, others)), limit))

    def _distances(self, typed: str) -> dict[str, float]:
        """Return the ids of the texts with a word that is near one being typed, and how far it is from that one.

        A slip of the first letter is rarer than others and counts more; in the shortest words it is another word.
        """
        from rapidfuzz import process  # takes time to import, and most questions are spelt well
        from rapidfuzz.distance import OSA

        edits = 1 if len(typed) < _LONG else 2
        found: list[tuple[float, str]] = [(0.0, word) for word in self._ids if word.startswith(typed)]
        for word, distance, _ in process.extract(
            typed, self._ids.keys(), scorer=OSA.distance, score_cutoff=edits, limit=None
        ):
            if word[0] == typed[0] or len(typed) > _SHORTEST:
                found.append((distance + (word[0] != typed[0]) / 2, word))
        distances: dict[str, float] = {}
        for far, word in sorted(found, reverse=True):  # a text may have several: the nearest counts
            distances.update(dict.fromkeys(self._ids[word], far))
        return distances

    def _holds(self, id: str, words: Sequence[str]) -> bool:
        return not words or all(word in self._text(self._by_id[id]) for word in words)

    def _words(self, document: Doc | None) -> set[str]:
        return set() if document is None else {word for word in self._text(document).split() if _is_name(word)}


def _is_name(word: str) -> bool:
    return len(word) >= _SHORTEST and word.isalpha()
