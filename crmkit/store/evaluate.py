"""Conditions of `crmkit.query` as Python predicates over documents.

One table of ranks decides everything about types: only values of the same rank are compared, any other value
counts as missing, and the rank is the first sort key. A decimal is kept as text; below that text lies its `NUMBER`,
so ``rate.number`` is compared and sorted as a number.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from tinydb.queries import QueryInstance

from crmkit.errors import Invalid
from crmkit.query import And, AnyRow, Compare, Condition, Exists, Has, In, Not, Or, split_path

Predicate = Callable[[Mapping[str, Any]], bool]
Reader = Callable[[Mapping[str, Any]], Any]

MISSING, FLAG, NUMERIC, TEXT = range(4)
NUMBER = "number"
_RANKS: dict[type, int] = {bool: FLAG, int: NUMERIC, float: NUMERIC, Decimal: NUMERIC, str: TEXT}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "startswith": str.startswith,
    "contains": operator.contains,
}
_FOR_TEXT_ONLY = ("startswith", "contains")


def rank(value: object) -> int:
    """Return `FLAG`, `NUMERIC` or `TEXT`; lists, objects and nothing at all are `MISSING`."""
    return _RANKS.get(type(value), MISSING)


def reader(path: str) -> Reader:
    """Return a function that reads a dotted path of a document; None where there is nothing."""
    names = split_path(path)
    if len(names) == 1:
        return lambda doc: doc.get(path)

    def read(found: Any) -> Any:
        for name in names:
            found = _below(found, name)
        return found

    return read


def values(found: Any, names: Sequence[str]) -> Iterator[Any]:
    """Yield everything that a path can mean to an index: of lists on the way, and of one at its end, each item."""
    if isinstance(found, list):
        for item in found:
            yield from values(item, names)
    elif names:
        yield from values(_below(found, names[0]), names[1:])
    else:
        yield found


def number(text: str) -> Decimal | None:
    """Return the number that a text spells; None where it spells none."""
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def same(first: object, second: object) -> bool:
    """Return whether two values are of one type and equal; True is not 1."""
    return first == second and rank(first) == rank(second) != MISSING


def predicate(condition: Condition | None) -> Predicate:
    """Compile a condition to a function that tells whether a document fulfils it.

    Raises:
        Invalid: A value is of a type that cannot be compared.
    """
    match condition:
        case None:
            return _always
        case Compare():
            return _compare(condition)
        case In(path, wanted):
            return _any_of(reader(path), tuple(_value(path, value) for value in wanted))
        case Has(path, value):
            return _has(reader(path), _value(path, value))
        case Exists(path):
            read = reader(path)
            return lambda doc: read(doc) not in (None, [])
        case AnyRow(path, inner):
            return _any_row(reader(path), predicate(inner))
        case And(parts):
            all_of = [predicate(part) for part in parts]
            return lambda doc: all(part(doc) for part in all_of)
        case Or(parts):
            some_of = [predicate(part) for part in parts]
            return lambda doc: any(part(doc) for part in some_of)
        case Not(part):
            negated = predicate(part)
            return lambda doc: not negated(doc)
    raise Invalid({"where": f"a condition made with F is needed, not {type(condition).__name__}"})


def to_tinydb(condition: Condition) -> QueryInstance:
    """Return the condition as a query that the tables of TinyDB take."""
    return QueryInstance(predicate(condition), ("crmkit", condition))


def _always(doc: Mapping[str, Any]) -> bool:  # noqa: ARG001  # the signature of a predicate
    return True


def _below(found: Any, name: str) -> Any:
    if isinstance(found, dict):
        return found.get(name)
    return number(found) if name == NUMBER and isinstance(found, str) else None


def _value(path: str, value: object) -> object:
    if rank(value) == MISSING:
        raise Invalid({path: "can be compared with text, a number, true or false; ask exists() for a missing value"})
    return value


def _compare(condition: Compare) -> Predicate:
    wanted = rank(value := _value(condition.path, condition.value))
    if condition.operator in _FOR_TEXT_ONLY and wanted != TEXT:
        raise Invalid({condition.path: f"{condition.operator} takes text"})
    read, compare, ranks = reader(condition.path), _COMPARISONS[condition.operator], _RANKS

    def check(doc: Mapping[str, Any]) -> bool:
        found = read(doc)
        return ranks.get(type(found)) == wanted and compare(found, value)

    return check


def _any_of(read: Reader, wanted: tuple[object, ...]) -> Predicate:
    ranked, ranks = {(rank(value), value) for value in wanted}, _RANKS

    def check(doc: Mapping[str, Any]) -> bool:
        found = read(doc)
        kind = ranks.get(type(found), MISSING)
        return kind != MISSING and (kind, found) in ranked

    return check


def _has(read: Reader, value: object) -> Predicate:
    def check(doc: Mapping[str, Any]) -> bool:
        found = read(doc)
        return isinstance(found, list) and any(same(item, value) for item in found)

    return check


def _any_row(read: Reader, accepts: Predicate) -> Predicate:
    def check(doc: Mapping[str, Any]) -> bool:
        found = read(doc)
        return isinstance(found, list) and any(isinstance(row, dict) and accepts(row) for row in found)

    return check
