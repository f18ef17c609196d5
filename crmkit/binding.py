"""Binds a condition to a record type: field names are checked, values brought into their stored form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from crmkit.codec import TAGS
from crmkit.errors import Invalid
from crmkit.query import And, Compare, Condition, Exists, Has, In, Not, Or, Order
from crmkit.records import Record
from crmkit.schema import KEPT_BY_CRMKIT, FieldSpec, adapter, info, invalid
from crmkit.values import Money

RAW = ("startswith", "contains")  # these compare text as it is typed
NOT_TEXT = ("integer", "number", "boolean", "money")
LIST = "is a list"
LISTS = (tuple, list, set, frozenset, dict)
KEPT_KINDS = {"id": "text", "rev": "integer"}
KEPT = {
    name: FieldSpec(name, name, "", "plain", KEPT_KINDS.get(name, "instant"), required=False) for name in KEPT_BY_CRMKIT
}
MONEY = {"minor": "integer", "currency": "text"}  # what an amount is made of
MONEY_PARTS: dict[str, TypeAdapter[Any]] = {"minor": TypeAdapter(int), "currency": TypeAdapter(str)}


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
            bound.append(self._bind(part) if indexed is None else indexed)
        return (bound[0] if len(bound) == 1 else And(tuple(bound))), sealed

    def order(self, order: tuple[Order, ...]) -> tuple[Order, ...]:
        """Return sort keys for the store; amounts are sorted by their minor units.

        Raises:
            Invalid: A field is unknown, or its values have no order.
        """
        return tuple(Order(self._sortable(key.path), key.descending) for key in order)

    def column(self, path: str) -> tuple[str, bool]:
        """Return where a field is in a stored document, and whether it holds more than one value.

        Raises:
            Invalid: There is no such field, or it is sensitive.
        """
        spec = self._spec(path)
        return (f"{path}.minor" if spec.kind == "money" else path), bool(self._many(spec))

    def _on_blind_index(self, part: Condition, sealed: list[Sealed]) -> Condition | None:
        """Turn an exact match on a searchable field into one on its blind index."""
        if not isinstance(part, Compare | In):
            return None
        spec = self._info.fields.get(part.path)
        wanted = part.values if isinstance(part, In) else (part.value,)
        exact = isinstance(part, In) or (part.operator == "==" and part.value is not None)
        if spec is None or spec.klass != "sensitive" or not spec.searchable or not exact:
            return None
        values = frozenset(str(self._value(spec, value).value) for value in wanted)
        sealed.append(Sealed(spec.name, values))
        return In(f"{TAGS}.{spec.name}", tuple(tag for value in values for tag in self._tags(spec.name, value)))

    def _bind(self, part: Condition) -> Condition:
        match part:
            case And(parts):
                return And(tuple(self._bind(each) for each in parts))
            case Or(parts):
                return Or(tuple(self._bind(each) for each in parts))
            case Not(inner):
                return Not(self._bind(inner))
            case Exists(path):
                return self._exists(path)
            case Has(path, value):
                return Has(path, self._item(path, value))
            case In(path, values):
                return self._one_of(self._single(path), values)
            case Compare(path, operator, None) if operator in ("==", "!="):  # F.city == None reads as "has no city"
                return Not(self._exists(path)) if operator == "==" else self._exists(path)
            case Compare(path, operator, value):
                return self._compare(self._single(path), operator, value)
        raise Invalid({"where": "give a condition made with F, for example F.city == 'London'"})

    def _exists(self, path: str) -> Condition:
        self._single(path, may_be_sensitive=True)  # an empty list is stored, so every record would seem to have one
        return Exists(path)

    def _compare(self, spec: FieldSpec, operator: Any, value: Any) -> Condition:
        path = spec.name
        if operator in RAW:
            if spec.kind in NOT_TEXT:
                raise Invalid({path: f"is no text; {operator} is for text, compare with == != < <= > >= instead"})
            return Compare(path, operator, value)
        if operator == "!=" and spec.kind in ("money", "decimal"):
            return And((Exists(path), Not(self._one_of(spec, (value,)))))
        if spec.kind == "money":
            return _amount(path, operator, self._value(spec, value))
        if spec.kind == "decimal":
            if operator != "==":
                raise Invalid({path: "is a decimal, which is kept as text; it can be compared with == and != only"})
            return self._one_of(spec, (value,))
        return Compare(path, operator, self._stored(spec, value))

    def _one_of(self, spec: FieldSpec, values: tuple[Any, ...]) -> Condition:
        if spec.kind == "money":
            return Or(tuple(_amount(spec.name, "==", self._value(spec, value)) for value in values))
        if spec.kind == "decimal":
            return In(spec.name, tuple(text for value in values for text in _texts(self._value(spec, value))))
        return In(spec.name, tuple(self._stored(spec, value) for value in values))

    def _item(self, path: str, value: Any) -> Any:
        """Return the stored form of a value that a list may hold."""
        spec = self._spec(path)
        many = self._many(spec)
        if not many:
            raise Invalid({path: f"is not a list; ask F.{path} == value, or isin([values])"})
        if many != LIST:
            raise Invalid({path: f"{many}, which a condition cannot look into"})
        return next(iter(self._stored(spec, (value,))))

    def _single(self, path: str, *, may_be_sensitive: bool = False) -> FieldSpec:
        """Return the field of a comparison; it has one value."""
        spec = self._spec(path, may_be_sensitive=may_be_sensitive)
        many = self._many(spec)
        if many:
            allowed = f"; ask F.{path}.has(value)" if many == LIST else ", which a condition cannot look into"
            raise Invalid({path: many + allowed})
        return spec

    def _sortable(self, path: str) -> str:
        spec = self._spec(path)
        many = self._many(spec)
        if many:
            raise Invalid({path: f"{many}; records are sorted by fields of one value"})
        if spec.kind == "decimal":
            raise Invalid({path: "is a decimal, which is kept as text; records cannot be sorted by it"})
        return f"{path}.minor" if spec.kind == "money" else path

    def _many(self, spec: FieldSpec) -> str:
        """Return why a field has no single value; an empty text for one that has."""
        if spec.parts:
            return "holds rows with fields of their own"
        field = self._type.model_fields.get(spec.name)
        return LIST if field is not None and _is_list(field.annotation) else ""

    def _spec(self, path: str, *, may_be_sensitive: bool = False) -> FieldSpec:
        """Return what is known of the field at a path; amounts have two fields below them, nothing else has any."""
        name, _, below = path.partition(".")
        spec = KEPT.get(name) or self._info.fields.get(name)
        if spec is None:
            raise Invalid({path: f"is not a field of {self._info.type}{self._info.nearest(name)}"})
        if spec.klass == "sensitive" and (below or not may_be_sensitive):
            allowed = "only == and isin at the top level are possible" if spec.searchable else "it cannot be searched"
            raise Invalid({path: f"is sensitive; {allowed}"})
        if not below:
            return spec
        if spec.kind == "money" and below in MONEY:
            return replace(spec, name=path, kind=MONEY[below])
        if spec.kind == "money":
            raise Invalid({path: f"is not there; an amount has F.{name}.minor and F.{name}.currency"})
        many = self._many(spec) or "has no fields below it"
        raise Invalid({path: f"is not there: {name} {many}, which a condition cannot look into"})

    def _value(self, spec: FieldSpec, value: Any) -> Any:
        if value is None:
            raise Invalid({spec.name: "can be compared with None by == and != only"})
        if spec.kind in ("date", "instant") and _is_number(value):
            raise Invalid({spec.name: "is a number; write a date as 2026-11-22, a time as 2026-11-22T09:30:00Z"})
        try:
            checked = self._adapter(spec).validate_python(value, context=self._context)
        except ValidationError as error:
            problem = next(iter(invalid(error, self._type).problems.values()))
        else:
            if not isinstance(checked, datetime) or checked.tzinfo is not None:
                return checked
            problem = "has no time zone; give an aware time, for example 2026-11-22T09:30:00Z"
        raise Invalid(
            {spec.name: problem}
        )  # out here, so that it does not carry pydantic's error, which holds the value

    def _stored(self, spec: FieldSpec, value: Any) -> Any:
        value = value.id if spec.name == "id" and isinstance(value, Record) else value
        return self._adapter(spec).dump_python(self._value(spec, value), mode="json")

    def _adapter(self, spec: FieldSpec) -> TypeAdapter[Any]:
        _, _, below = spec.name.partition(".")
        return MONEY_PARTS[below] if below else adapter(self._type, spec.name)


def _amount(path: str, operator: Any, money: Money) -> Condition:
    """Return the condition on an amount: one of another currency is not comparable."""
    return And((Compare(f"{path}.minor", operator, money.minor), Compare(f"{path}.currency", "==", money.currency)))


def _texts(number: Decimal, zeros: int = 28) -> Iterator[str]:
    """Yield the texts that an equal number may be kept as: 1.5, 1.50, 1.500 and so on."""
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # pydantic takes finite numbers only
    while len(digits) > 1 and digits[-1] == 0:
        digits, exponent = digits[:-1], exponent + 1
    for more in range(zeros + 1):
        yield str(Decimal((sign, digits + (0,) * more, exponent - more)))


def _is_list(annotation: Any) -> bool:
    """Return whether a type is a list of some kind, or that and None."""
    origin = get_origin(annotation) or annotation
    return origin in LISTS or any(map(_is_list, get_args(annotation)))


def _is_number(value: Any) -> bool:
    """Return whether pydantic would take a value for seconds since 1970."""
    return isinstance(value, int | float) or (isinstance(value, str) and value.strip().lstrip("+-").isdecimal())


def _top_level(where: Condition) -> Iterator[Condition]:
    if isinstance(where, And):
        for part in where.parts:
            yield from _top_level(part)
    else:
        yield where
