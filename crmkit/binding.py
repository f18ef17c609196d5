"""Binds a condition to a record type: field names are checked, values brought into their stored form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from crmkit.codec import TAGS
from crmkit.errors import Invalid
from crmkit.query import And, Compare, Condition, Exists, Has, In, Not, Or, Order
from crmkit.records import Record
from crmkit.schema import KEPT_BY_CRMKIT, FieldSpec, adapter, info, invalid

MANY = {"texts", "choices", "references", "parts"}
RAW = ("startswith", "contains")  # these compare text as it is typed


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
        """Return sort keys for the store; amounts are sorted by their minor units."""
        return tuple(Order(self.path(key.path), key.descending) for key in order)

    def _on_blind_index(self, part: Condition, sealed: list[Sealed]) -> Condition | None:
        """Turn an exact match on a searchable field into one on its blind index."""
        if not isinstance(part, Compare | In):
            return None
        spec = self._info.fields.get(part.path)
        exact = isinstance(part, In) or part.operator == "=="
        if spec is None or spec.klass != "sensitive" or not spec.searchable or not exact:
            return None
        wanted = part.values if isinstance(part, In) else (part.value,)
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
                return Exists(self._spec(path, may_be_sensitive=True).name if "." not in path else path)
            case Has(path, value):
                return Has(path, self._stored(self._spec(path), value))
            case In(path, values):
                return In(self.path(path), tuple(self._stored(self._spec(path), value) for value in values))
            case Compare(path, operator, value) if operator in RAW:
                return Compare(self.path(path), operator, value)
            case Compare(path, operator, value):
                return self._compare(path, operator, value)
        raise Invalid({"where": "give a condition made with F, for example F.city == 'London'"})

    def _compare(self, path: str, operator: Any, value: Any) -> Condition:
        spec = self._spec(path)
        if spec.kind == "money" and "." not in path:
            money = self._value(spec, value)
            same = Compare(f"{path}.currency", "==", money.currency)
            return And((Compare(f"{path}.minor", operator, money.minor), same))
        if spec.kind in MANY:
            raise Invalid({path: f"is a list; ask F.{path}.has(value), or exists()"})
        if spec.kind == "decimal" and operator not in ("==", "!="):
            raise Invalid({path: "is a decimal, which is kept as text; it can be compared with == and != only"})
        if spec.kind in MANY:
            raise Invalid({path: f"is a list; ask F.{path}.has(value), or exists()"})
        if spec.kind == "decimal" and operator not in ("==", "!="):
            raise Invalid({path: "is a decimal, which is kept as text; it can be compared with == and != only"})
        if value is None:  # F.city == None reads as "has no city"
            return Not(Exists(path)) if operator == "==" else Exists(path)
        return Compare(path, operator, self._stored(spec, value))

    def _spec(self, path: str, *, may_be_sensitive: bool = False) -> FieldSpec:
        name, _, below = path.partition(".")
        if name in KEPT_BY_CRMKIT and not below:
            kind = {"rev": "integer", "id": "text"}.get(name, "instant")
            return FieldSpec(name, name, "", "plain", kind, required=False)
        spec = self._info.fields.get(name)
        if spec is None:
            raise Invalid({path: f"is not a field of {self._info.type}{self._info.nearest(name)}"})
        if spec.klass == "sensitive" and not may_be_sensitive:
            allowed = "only == and isin at the top level are possible" if spec.searchable else "it cannot be searched"
            raise Invalid({path: f"is sensitive; {allowed}"})
        return spec

    def path(self, path: str) -> str:
        """Return where a field's sortable value is in a stored document."""
        return f"{path}.minor" if self._spec(path).kind == "money" and "." not in path else path

    def _value(self, spec: FieldSpec, value: Any) -> Any:
        try:
            return adapter(self._type, spec.name).validate_python(value, context=self._context)
        except ValidationError as error:
            raise Invalid({spec.name: next(iter(invalid(error, self._type).problems.values()))}) from None

    def _stored(self, spec: FieldSpec, value: Any) -> Any:
        if spec.kind in MANY:
            return getattr(value, "id", value)
        if spec.name in KEPT_BY_CRMKIT and spec.kind == "text":
            return value
        return adapter(self._type, spec.name).dump_python(self._value(spec, value), mode="json")


def _top_level(where: Condition) -> Iterator[Condition]:
    if isinstance(where, And):
        for part in where.parts:
            yield from _top_level(part)
    else:
        yield where
