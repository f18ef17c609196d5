"""Where the fields of a record type are: dotted paths through nested parts and rows, checked one name at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

from crmkit.errors import Invalid
from crmkit.query import split_path
from crmkit.records import Record
from crmkit.schema import KEPT_BY_CRMKIT, FieldSpec, adapter, info, inner_type

LISTS = (tuple, list, set, frozenset, dict)
KEPT_KINDS = {"id": "text", "rev": "integer"}
KEPT = {
    name: FieldSpec(name, name, "", "plain", KEPT_KINDS.get(name, "instant"), required=False) for name in KEPT_BY_CRMKIT
}
MONEY = {"minor": "integer", "currency": "text"}  # what an amount is made of
MONEY_PARTS: dict[str, TypeAdapter[Any]] = {"minor": TypeAdapter(int), "currency": TypeAdapter(str)}


@dataclass(frozen=True)
class Place:
    """A field that a path leads to.

    Attributes:
        name: The path of the field as people write it, for errors.
        path: Where the field is in the document, or in a row of the list that it belongs to.
        kind: What its value is, as `FieldSpec.kind`.
        adapter: Checks a value.
        is_list: Whether it is a list of values.
        inner: The fields below it: of its rows where the kind is "parts", else of the part that it is.
    """

    name: str
    path: str
    kind: str
    adapter: TypeAdapter[Any]
    is_list: bool = False
    inner: Fields | None = None

    @property
    def has_rows(self) -> bool:
        """Whether it is a list of rows with fields of their own."""
        return self.kind == "parts"


class Fields:
    """The fields that a path can begin with: those of a record type, of a nested part, or of the rows of a list.

    Args:
        model: The class of the record, part or row.
        name: The path that leads to the part or list; empty for records.
        path: Where the part is in the document; empty for records and rows.
    """

    def __init__(self, model: type[BaseModel], name: str = "", path: str = "") -> None:
        self._model = model
        self._name = name
        self._path = path
        kept = KEPT if issubclass(model, Record) else {}
        self._specs: Mapping[str, FieldSpec] = {**info(model).fields, **kept}
        self._places: dict[str, Place] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def at(self, path: str, *, may_be_sensitive: bool = False) -> tuple[Place, str]:
        """Return the field that a path leads to, or the first list of rows on its way, and what of the path is left.

        Raises:
            Invalid: There is no such field, or it is sensitive.
        """
        first, *rest = split_path(path)
        place = self._place(first, may_be_sensitive=may_be_sensitive and not rest)
        if not rest or place.has_rows:
            return place, ".".join(rest)
        if place.kind == "money":
            return _part_of_money(place, ".".join(rest)), ""
        if place.inner is None:
            has = "is a list" if place.is_list else "has no fields below it"
            raise Invalid({_under(self._name, path): f"is not there: {place.name} {has}"})
        return place.inner.at(".".join(rest))

    def _place(self, field: str, *, may_be_sensitive: bool) -> Place:
        spec, name = self._specs.get(field), _under(self._name, field)
        if spec is None:
            known = info(self._model)
            raise Invalid({name: f"is not a field of {self._name or known.type}{known.nearest(field)}"})
        if spec.klass == "sensitive" and not may_be_sensitive:
            allowed = "only == and isin at the top level are possible" if spec.searchable else "it cannot be searched"
            raise Invalid({name: f"is sensitive; {allowed}"})
        if field not in self._places:
            self._places[field] = self._made(spec, name)
        return self._places[field]

    def _made(self, spec: FieldSpec, name: str) -> Place:
        annotation, path = self._model.model_fields[spec.name].annotation, _under(self._path, spec.name)
        inner = Fields(inner_type(annotation)[0], name, "" if spec.kind == "parts" else path) if spec.parts else None
        is_list = inner is None and _is_list(annotation)
        return Place(name, path, spec.kind, adapter(self._model, spec.name), is_list, inner)


def _part_of_money(place: Place, part: str) -> Place:
    if part not in MONEY:
        wrong = f"{place.name}.{part}"
        raise Invalid({wrong: f"is not there; an amount has F.{place.name}.minor and F.{place.name}.currency"})
    return Place(f"{place.name}.{part}", f"{place.path}.{part}", MONEY[part], MONEY_PARTS[part])


def _under(above: str, name: str) -> str:
    return f"{above}.{name}" if above else name


def _is_list(annotation: Any) -> bool:
    """Return whether a type is a list of some kind, or that and None."""
    origin = get_origin(annotation) or annotation
    return origin in LISTS or any(map(_is_list, get_args(annotation)))
