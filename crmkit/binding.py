"""Binds a condition to a record type: field names are checked, values brought into their stored form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from crmkit.codec import TAGS
from crmkit.detector import find_payment_data
from crmkit.errors import Invalid
from crmkit.paths import Fields, Place
from crmkit.payment import place_of
from crmkit.query import And, AnyRow, Compare, Condition, Exists, Has, In, Not, Or, Order
from crmkit.records import Record
from crmkit.schema import info, invalid
from crmkit.store.evaluate import NUMBER
from crmkit.values import Money, is_number

RAW = ("startswith", "contains")  # these compare text as it is typed
NOT_TEXT = ("integer", "number", "decimal", "boolean", "money")


@dataclass(frozen=True)
class Sealed:
    """An exact match on a sensitive field that still has to be checked by opening the candidates."""

    field: str
    values: frozenset[str]


class Binder:
    """Binds conditions and orders of one record type.

    Args:
        record_type: Whose fields are asked for.
        context: The validation context: currency and region.
        tags: Returns the blind index tags of a field's value.
    """

    def __init__(
        self, record_type: type[Record], context: Mapping[str, Any], tags: Callable[[str, str], list[str]]
    ) -> None:
        self._type = record_type
        self._info = info(record_type)
        self._fields = Fields(record_type)
        self._context = dict(context)
        self._tags = tags

    def condition(self, where: Condition | None) -> tuple[Condition | None, list[Sealed]]:
        """Return a condition for the store, and the matches on sensitive fields left to check.

        Raises:
            Invalid: A field is unknown, a value does not fit it, or it is sensitive and asked for otherwise
                than by an exact match.
        """
        if where is None:
            return None, []
        sealed: list[Sealed] = []
        bound = []
        for part in _top_level(where):
            indexed = self._on_blind_index(part, sealed)
            bound.append(self._bind(part, self._fields) if indexed is None else indexed)
        return (bound[0] if len(bound) == 1 else And(tuple(bound))), sealed

    def account(self, text: str) -> Condition | None:
        """Return what a text being typed asks for that is an IBAN: it is sealed, and in no index of words."""
        typed = text.strip()
        for found in find_payment_data(typed):
            spec = place_of(self._info, found)
            if found.kind == "iban" and (found.start, found.end) == (0, len(typed)) and spec and spec.searchable:
                return Compare(spec.name, "==", found.value(typed))
        return None

    def order(self, order: tuple[Order, ...]) -> tuple[Order, ...]:
        """Return sort keys for the store; amounts are sorted by their minor units.

        Raises:
            Invalid: A field is unknown, or its values have no order.
        """
        return tuple(Order(self._sortable(key.path), key.descending) for key in order)

    def column(self, path: str) -> tuple[str, bool]:
        """Return where a field is in a stored document, and whether it may hold more than one value.

        Raises:
            Invalid: There is no such field, or it is sensitive.
        """
        return _column(self._fields, path)

    def _on_blind_index(self, part: Condition, sealed: list[Sealed]) -> Condition | None:
        """Turn an exact match on a searchable field into one on its blind index."""
        if not isinstance(part, Compare | In):
            return None
        spec = self._info.fields.get(part.path)
        wanted = part.values if isinstance(part, In) else (part.value,)
        exact = isinstance(part, In) or (part.operator == "==" and part.value is not None)
        if spec is None or spec.klass != "sensitive" or not spec.searchable or not exact:
            return None
        place, _ = self._fields.at(part.path, may_be_sensitive=True)
        values = frozenset(str(self._value(place, value).value) for value in wanted)
        sealed.append(Sealed(spec.name, values))
        return In(f"{TAGS}.{spec.name}", tuple(tag for value in values for tag in self._tags(spec.name, value)))

    def _bind(self, part: Condition, fields: Fields) -> Condition:
        match part:
            case And(parts):
                return And(tuple(self._bind(each, fields) for each in parts))
            case Or(parts):
                return Or(tuple(self._bind(each, fields) for each in parts))
            case Not(inner):
                return Not(self._bind(inner, fields))
            case Compare() | In() | Has() | Exists() | AnyRow():
                asks_for_presence = isinstance(part, Exists) or _asks_for_none(part)
                place, rest = fields.at(part.path, may_be_sensitive=asks_for_presence)
                if rest and place.inner is not None:  # a comparison inside rows asks for any row
                    return AnyRow(place.path, self._bind(replace(part, path=rest), place.inner))
                return self._on(place, part)
        raise Invalid({"where": "give a condition made with F, for example F.city == 'London'"})

    def _on(self, place: Place, part: Condition) -> Condition:
        """Bind a condition on one field."""
        match part:
            case AnyRow(_, condition):
                if not place.has_rows or place.inner is None:
                    raise Invalid({place.name: "is no list of rows, which is what any() looks into"})
                return AnyRow(place.path, self._bind(condition, place.inner))
            case Exists():
                return Exists(place.path)
            case Has(_, value):
                return Has(place.path, self._item(place, value))
            case In(_, values):
                return self._one_of(_single(place), values)
            case Compare(_, operator, None) if operator in ("==", "!="):  # F.city == None reads as "has no city"
                return Not(Exists(place.path)) if operator == "==" else Exists(place.path)
            case Compare(_, operator, value):
                return self._compare(_single(place), operator, value)
        raise AssertionError(part)

    def _compare(self, place: Place, operator: Any, value: Any) -> Condition:
        if operator in RAW:
            if place.kind in NOT_TEXT:
                raise Invalid({place.name: f"is no text; {operator} is for text, compare with == != < <= > >= instead"})
            return Compare(place.path, operator, value)
        if place.kind == "money" and operator == "!=":
            return And((Exists(place.path), Not(self._one_of(place, (value,)))))
        if place.kind == "money":
            return _amount(place.path, operator, self._value(place, value))
        return Compare(_comparable(place), operator, self._stored(place, value))

    def _one_of(self, place: Place, values: tuple[Any, ...]) -> Condition:
        if place.kind == "money":
            return Or(tuple(_amount(place.path, "==", self._value(place, value)) for value in values))
        return In(_comparable(place), tuple(self._stored(place, value) for value in values))

    def _item(self, place: Place, value: Any) -> Any:
        """Return the stored form of a value that a list may hold."""
        if place.inner is not None:
            raise Invalid({place.name: _holds_fields(place)})
        if not place.is_list:
            raise Invalid({place.name: f"is not a list; ask F.{place.name} == value, or isin([values])"})
        (checked,) = self._value(place, (value,))
        if isinstance(checked, Decimal | Money):
            raise Invalid({place.name: "is a list of numbers or amounts, which has() cannot compare"})
        return next(iter(place.adapter.dump_python((checked,), mode="json")))

    def _sortable(self, path: str) -> str:
        place, rest = self._fields.at(path)
        if rest or place.inner is not None or place.is_list:
            many = "is a list" if place.is_list else "holds fields of its own" if not place.has_rows else "holds rows"
            raise Invalid({path: f"{many}; records are sorted by a field that has one value"})
        return f"{place.path}.minor" if place.kind == "money" else _comparable(place)

    def _value(self, place: Place, value: Any) -> Any:
        if value is None:
            raise Invalid({place.name: "can be compared with None by == and != only"})
        if place.kind in ("date", "instant") and is_number(value):
            raise Invalid({place.name: "is a number; write a date as 2026-11-22, a time as 2026-11-22T09:30:00Z"})
        try:
            checked = place.adapter.validate_python(value, context=self._context)
        except ValidationError as error:
            problem = next(iter(invalid(error, self._type).problems.values()))
        else:
            if not isinstance(checked, datetime) or checked.tzinfo is not None:
                return checked
            problem = "has no time zone; give an aware time, for example 2026-11-22T09:30:00Z"
        # raised out here, so that the error does not carry pydantic's, which holds the value
        raise Invalid({place.name: problem})

    def _stored(self, place: Place, value: Any) -> Any:
        value = value.id if place.path == "id" and isinstance(value, Record) else value
        checked = self._value(place, value)
        return checked if place.kind == "decimal" else place.adapter.dump_python(checked, mode="json")


def _single(place: Place) -> Place:
    """Return the field of a comparison; it has one value."""
    if place.inner is not None:
        raise Invalid({place.name: _holds_fields(place)})
    if place.is_list:
        raise Invalid({place.name: f"is a list; ask F.{place.name}.has(value)"})
    return place


def _holds_fields(place: Place) -> str:
    rows, example = "rows with " if place.has_rows else "", next(iter(place.inner or ()), "field")
    return f"holds {rows}fields of its own; ask for one of them, F.{place.name}.{example} == value"


def _comparable(place: Place) -> str:
    """Return where the value to compare is: a decimal is kept as text, which has to be read as a number."""
    return f"{place.path}.{NUMBER}" if place.kind == "decimal" else place.path


def _column(fields: Fields, path: str) -> tuple[str, bool]:
    place, rest = fields.at(path)
    if rest and place.inner is not None:
        below, _ = _column(place.inner, rest)
        return f"{place.path}.{below}", True
    return (f"{place.path}.minor" if place.kind == "money" else place.path), place.is_list or place.inner is not None


def _asks_for_none(part: Condition) -> bool:
    return isinstance(part, Compare) and part.value is None and part.operator in ("==", "!=")


def _amount(path: str, operator: Any, money: Money) -> Condition:
    """Return the condition on an amount: one of another currency is not comparable."""
    return And((Compare(f"{path}.minor", operator, money.minor), Compare(f"{path}.currency", "==", money.currency)))


def _top_level(where: Condition) -> Iterator[Condition]:
    if isinstance(where, And):
        for part in where.parts:
            yield from _top_level(part)
    else:
        yield where
