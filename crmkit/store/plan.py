"""How one page is found: which index to use, and where to go on.

Two ways lead to a page. Either an index names few candidates, which are then sorted; or the documents are
walked in the order asked for until the page is full. `_is_better_walked` decides.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from crmkit.errors import Invalid
from crmkit.query import And, AnyRow, Compare, Condition, Find, Has, In, Or, Order, Page
from crmkit.store.cursors import Gap, encode_cursor, gap_of
from crmkit.store.documents import Documents
from crmkit.store.evaluate import TEXT, Predicate, predicate, rank
from crmkit.store.indexes import after_prefix, key_reader
from crmkit.store.ordered import Key

Side = Callable[[bool, int], Iterator[Key]]
"""Yields the keys on one side of a gap, the nearest first: behind it or, if True, before it; so many are needed."""

_ABOVE_ALL_IDS = "\U0010ffff"


class Candidates(NamedTuple):
    """Documents that may fulfil a condition; all others do not."""

    size: int
    ids: Callable[[], Iterable[str]]


def find_page(documents: Documents, find: Find) -> Page[Mapping[str, Any]]:
    """Return the page that `find` asks for."""
    size = len(documents.by_id)
    limit = at_most(find.limit, size)
    gap, backward = gap_of(find), find.before is not None
    accepts = predicate(find.where)
    candidates = candidates_for(documents, find.where)
    if _is_uniform(find.order) and (candidates is None or _is_better_walked(candidates.size, size, limit)):
        side = _walking(documents, find.order, gap, accepts)
    else:
        ids = documents.by_id if candidates is None else candidates.ids()
        side = _sorting(filter(accepts, map(documents.by_id.__getitem__, ids)), find.order, gap)
    keys = list(islice(side(backward, limit + 1), limit + 1))
    goes_on, goes_back = len(keys) > limit, gap is not None and any(side(not backward, 1))
    return _page(documents, find, gap, keys[:limit], (goes_back, goes_on) if backward else (goes_on, goes_back))


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


def accepted_of(
    documents: Documents, best: Callable[[int], list[str]], where: Condition | None, limit: int
) -> list[Mapping[str, Any]]:
    """Return the best documents that fulfil a condition; `best` returns the ids of the best ones of all, so many."""
    accepts, asked = predicate(where), limit
    while True:
        ids = best(asked)
        found: list[Mapping[str, Any]] = [doc for doc in map(documents.by_id.__getitem__, ids) if accepts(doc)]
        if len(found) >= limit or len(ids) < asked:
            return found[:limit]
        asked *= 4


def candidates_for(documents: Documents, where: Condition | None) -> Candidates | None:
    """Return the smallest set of candidates that an index can name; None where no index helps."""
    match where:
        case Compare("id", "==", value):
            return _one_of({value} if value in documents.by_id else set())
        case In("id", values):
            return _one_of({value for value in values if value in documents.by_id})
        case Compare(path, "==", value):
            return _one_of(documents.by_value(path).ids(value))
        case Has(path, value):
            return _one_of(documents.by_item(path).ids(value))
        case In(path, values):
            return _one_of(set().union(*map(documents.by_value(path).ids, values)))
        case Compare(path, "<" | "<=" | ">" | ">=" | "startswith"):
            return _between(documents, path, *_bounds(where))
        case Compare(path, "contains", value):
            return _one_of({key[-1] for key in documents.sorted_by((path,)).keys.holding([value])})
        case AnyRow(path, inner):
            return candidates_for(documents, _of_any_row(path, inner))
        case And(parts):
            known = [found for part in parts if (found := candidates_for(documents, part)) is not None]
            return min(known, key=lambda found: found.size, default=None)
        case Or(parts):
            each = [candidates_for(documents, part) for part in parts]
            return _one_of({id for found in each if found for id in found.ids()}) if all(each) else None
    return None


def _of_any_row(path: str, inner: Condition) -> Condition | None:
    """Return what a document certainly holds when one of its rows fulfils a condition; None where no index knows."""
    match inner:
        case Compare(below, "==", value) | Has(below, value):
            return Has(f"{path}.{below}", value)
        case In(below, values):
            return Or(tuple(Has(f"{path}.{below}", value) for value in values))
        case AnyRow(below, deeper):
            return _of_any_row(f"{path}.{below}", deeper)
        case And(parts):
            return And(tuple(part for part in (_of_any_row(path, part) for part in parts) if part is not None))
        case Or(parts):
            each = tuple(part for part in (_of_any_row(path, part) for part in parts) if part is not None)
            return Or(each) if len(each) == len(parts) else None
    return None


def _page(
    documents: Documents, find: Find, gap: Gap | None, keys: list[Key], ends: tuple[bool, bool]
) -> Page[Mapping[str, Any]]:
    """Return a page of keys, the nearest to the gap first, with a cursor for each side that goes on."""
    has_next, has_previous = ends
    if find.before is not None:
        keys.reverse()
    first, last = (Gap(keys[0], False), Gap(keys[-1], True)) if keys else (gap, gap)
    return Page(
        [documents.by_id[key[-1]] for key in keys],
        encode_cursor(last, find.order) if last and has_next else None,
        encode_cursor(first, find.order) if first and has_previous else None,
    )


def _is_uniform(order: tuple[Order, ...]) -> bool:
    return len({key.descending for key in order}) <= 1


def _is_descending(order: tuple[Order, ...]) -> bool:
    return bool(order) and order[-1].descending


def _is_better_walked(candidates: int, size: int, limit: int) -> bool:
    """Return whether walking meets `limit` of the candidates sooner than all of them could be sorted."""
    return candidates * candidates > limit * size


def _walking(documents: Documents, order: tuple[Order, ...], gap: Gap | None, accepts: Predicate) -> Side:
    """Walk through the index of an order from a gap on."""
    keys, is_descending = documents.sorted_by(tuple(key.path for key in order)).keys, _is_descending(order)
    edge = None if gap is None else gap.key if gap.is_behind == is_descending else (*gap.key, "")

    def side(backward: bool, most: int) -> Iterator[Key]:  # noqa: ARG001  # who takes them stops in time
        if backward == is_descending:
            walked = keys.walk(edge or ())
        else:
            walked = keys.walk(high=edge, descending=True)
        return (key for key in walked if accepts(documents.by_id[key[-1]]))

    return side


def _sorting(docs: Iterable[Mapping[str, Any]], order: tuple[Order, ...], gap: Gap | None) -> Side:
    """Sort documents, as far as they are needed."""
    keys, place = list(map(key_reader([key.path for key in order]), docs)), _placer(order)
    edge = None if gap is None else (place(gap.key), gap.is_behind)

    def side(backward: bool, most: int) -> Iterator[Key]:
        beyond = keys if edge is None else [key for key in keys if ((place(key), False) < edge) == backward]
        return iter((heapq.nlargest if backward else heapq.nsmallest)(most, beyond, key=place))

    return side


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
