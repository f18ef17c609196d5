"""Conditions of `crmkit.query` as Python predicates over documents.

One table of ranks decides everything about types: only values of the same rank are compared, any other value
counts as missing, and the rank is the first sort key.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from tinydb.queries import QueryInstance

from crmkit.errors import Invalid
from crmkit.query import And, Compare, Condition, Exists, Has, In, Not, Or

Predicate = Callable[[Mapping[str, Any]], bool]
Reader = Callable[[Mapping[str, Any]], Any]

MISSING, FLAG, NUMBER, TEXT = range(4)
_RANKS: dict[type, int] = {bool: FLAG, int: NUMBER, float: NUMBER, str: TEXT}
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
    """Return `FLAG`, `NUMBER` or `TEXT`; lists, objects and nothing at all are `MISSING`."""
    return _RANKS.get(type(value), MISSING)


def reader(path: str) -> Reader:
    """Return a function that reads a dotted path of a document; None where there is nothing."""
    if "." not in path:
        return lambda doc: doc.get(path)
    parts = path.split(".")

    def read(doc: Any) -> Any:
        for part in parts:
            if not isinstance(doc, dict):
                return None
            doc = doc.get(part)
        return doc

    return read


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
        case In(path, values):
            return _any_of(reader(path), tuple(_value(path, value) for value in values))
        case Has(path, value):
            return _has(reader(path), _value(path, value))
        case Exists(path):
            read = reader(path)
            return lambda doc: read(doc) is not None
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


def _any_of(read: Reader, values: tuple[object, ...]) -> Predicate:
    def check(doc: Mapping[str, Any]) -> bool:
        found = read(doc)
        return any(same(found, value) for value in values)

    return check


def _has(read: Reader, value: object) -> Predicate:
    def check(doc: Mapping[str, Any]) -> bool:
        found = read(doc)
        return isinstance(found, list) and any(same(item, value) for item in found)

    return check
