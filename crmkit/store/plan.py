"""How one page is found: which index to use, where to go on, and the cursor that says so.

Two ways lead to a page. Either an index names few candidates, which are then sorted; or the documents are
walked in the order asked for until the page is full. `_is_better_walked` decides.
"""

from __future__ import annotations

import base64
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from crmkit.errors import Invalid
from crmkit.query import And, Compare, Condition, Find, Has, In, Or, Order, Page
from crmkit.store.documents import Documents
from crmkit.store.evaluate import TEXT, predicate, rank
from crmkit.store.indexes import Key, after_prefix, key_reader

_ABOVE_ALL_IDS = "\U0010ffff"


class Candidates(NamedTuple):
    """Documents that may fulfil a condition; all others do not."""

    size: int
    ids: Callable[[], Iterable[str]]


def find_page(documents: Documents, find: Find) -> Page[Mapping[str, Any]]:
    """Return the page that `find` asks for."""
    size = len(documents.by_id)
    limit = at_most(find.limit, size)
    after = None if find.after is None else decode_cursor(find.after, find.order)
    accepts = predicate(find.where)
    candidates = candidates_for(documents, find.where)
    if _is_uniform(find.order) and (candidates is None or _is_better_walked(candidates.size, size, limit)):
        walked = _walk(documents, find.order, after)
        page = list(islice((key for key in walked if accepts(documents.by_id[key[-1]])), limit + 1))
    else:
        ids = documents.by_id if candidates is None else candidates.ids()
        docs = filter(accepts, map(documents.by_id.__getitem__, ids))
        page = _sorted(docs, find.order, limit, after)
    following = encode_cursor(page[limit - 1], find.order) if len(page) > limit else None
    return Page([documents.by_id[key[-1]] for key in page[:limit]], following)


def at_most(limit: int, size: int) -> int:
    """Return how many of `size` documents a limit lets through.

    Raises:
        Invalid: The limit is not allowed.
    """
    if type(limit) is not int or limit < 1:
        raise Invalid({"limit": "must be a whole number from 1"})
    return min(limit, size)


def accepted_by(documents: Documents, where: Condition | None) -> list[Mapping[str, Any]]:
    """Return every document that fulfils a condition, in no particular order."""
    accepts = predicate(where)
    candidates = candidates_for(documents, where)
    ids = documents.by_id if candidates is None else candidates.ids()
    return [doc for doc in map(documents.by_id.__getitem__, ids) if accepts(doc)]


def candidates_for(documents: Documents, where: Condition | None) -> Candidates | None:
    """Return the smallest set of candidates that an index can name; None where no index helps."""
    match where:
        case Compare(path, "==", value):
            return _one_of(documents.by_value(path).ids(value))
        case In(path, values):
            return _one_of(set().union(*map(documents.by_value(path).ids, values)))
        case Has(path, value):
            return _one_of(documents.by_item(path).ids(value))
        case Compare(path, "<" | "<=" | ">" | ">=" | "startswith"):
            return _between(documents, path, *_bounds(where))
        case Compare(path, "contains", value):
            return _one_of({key[-1] for key in documents.sorted_by((path,)).keys.holding([value])})
        case And(parts):
            known = [found for part in parts if (found := candidates_for(documents, part)) is not None]
            return min(known, key=lambda found: found.size, default=None)
        case Or(parts):
            each = [candidates_for(documents, part) for part in parts]
            return _one_of({id for found in each if found for id in found.ids()}) if all(each) else None
    return None


def encode_cursor(key: Key, order: tuple[Order, ...]) -> str:
    """Return the place of a document in an order as opaque text."""
    return base64.urlsafe_b64encode(json.dumps([_signature(order), key]).encode()).decode()


def decode_cursor(cursor: str, order: tuple[Order, ...]) -> Key:
    """Return the place that a cursor stands for.

    Raises:
        Invalid: It is not a cursor, or one of another order.
    """
    try:
        signature, parts = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        ranks, values, id = parts[:-1:2], parts[1:-1:2], parts[-1]
        is_typed = all(value == 0 if kind == 0 else rank(value) == kind for kind, value in zip(ranks, values))
        is_sound = is_typed and len(ranks) == len(values) == len(order) and isinstance(id, str)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        is_sound = False
    if not is_sound or signature != _signature(order):
        raise Invalid({"after": "is not a cursor of this order; give Page.next of the page before"})
    return tuple(parts)


def _signature(order: tuple[Order, ...]) -> list[str]:
    return ["-" * key.descending + key.path for key in order]


def _is_uniform(order: tuple[Order, ...]) -> bool:
    return len({key.descending for key in order}) <= 1


def _is_descending(order: tuple[Order, ...]) -> bool:
    return bool(order) and order[-1].descending


def _is_better_walked(candidates: int, size: int, limit: int) -> bool:
    """Return whether walking meets `limit` of the candidates sooner than all of them could be sorted."""
    return candidates * candidates > limit * size


def _walk(documents: Documents, order: tuple[Order, ...], after: Key | None) -> Iterator[Key]:
    keys = documents.sorted_by(tuple(key.path for key in order)).keys
    if _is_descending(order):
        return keys.walk(high=after, descending=True)
    return keys.walk(() if after is None else (*after, ""))


def _sorted(docs: Iterable[Mapping[str, Any]], order: tuple[Order, ...], limit: int, after: Key | None) -> list[Key]:
    """Return the keys of the first documents after a place, and one more, by sorting all of them."""
    key_of = key_reader([key.path for key in order])
    place = _placer(order)
    start = None if after is None else place(after)
    keys = (key for key in map(key_of, docs) if start is None or start < place(key))
    return heapq.nsmallest(limit + 1, keys, key=place)


class _Reversed:
    """A part of a sort key that sorts the other way round."""

    __slots__ = ("part",)
    __hash__ = None  # type: ignore[assignment]  # only ever compared

    def __init__(self, part: object) -> None:
        self.part: Any = part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and self.part == other.part

    def __lt__(self, other: _Reversed) -> bool:
        return bool(other.part < self.part)


def _placer(order: tuple[Order, ...]) -> Callable[[Key], Any]:
    """Return a function from a key to something that sorts in this order, the id as the last path does."""
    if not _is_descending(order) and _is_uniform(order):
        return lambda key: key
    directions = [*(key.descending for key in order), _is_descending(order)]

    def place(key: Key) -> tuple[Any, ...]:
        parts = [*zip(key[:-1:2], key[1:-1:2]), key[-1]]
        return tuple(_Reversed(part) if down else part for part, down in zip(parts, directions))

    return place


def _one_of(ids: set[str]) -> Candidates:
    return Candidates(len(ids), lambda: ids)


def _between(documents: Documents, path: str, low: Key, high: Key) -> Candidates:
    keys = documents.sorted_by((path,)).keys
    return Candidates(keys.rank(high) - keys.rank(low), lambda: (key[-1] for key in keys.walk(low, high)))


def _bounds(condition: Compare) -> tuple[Key, Key]:
    """Return keys around everything that a comparison can accept; its predicate is asked again anyway."""
    kind, value = rank(condition.value), condition.value
    if condition.operator == "startswith":
        above = after_prefix(value)
        return (TEXT, value), ((TEXT + 1,) if above is None else (TEXT, above))
    if condition.operator in ("<", "<="):
        return (kind,), (kind, value, _ABOVE_ALL_IDS)
    return (kind, value), (kind + 1,)
