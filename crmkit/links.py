"""What refers to what: the references in a document, and the documents that refer to a record."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from crmkit.codec import REMOVED
from crmkit.query import ALL, Find, In, Or
from crmkit.schema import FieldSpec, RecordInfo

if TYPE_CHECKING:
    from crmkit.store.base import Store

FEW = 50  # so many ids are looked up in an index; for more, looking at every document once is faster


def references(spec: FieldSpec, value: Any) -> Iterator[tuple[str, str, str]]:
    """Yield (field, target type, id) for every reference in the stored value of a field."""
    if spec.kind == "reference" and spec.target and value:
        yield spec.name, spec.target, value
    elif spec.kind == "references" and spec.target:
        for each in value or ():
            yield spec.name, spec.target, each
    elif spec.parts:
        for number, row in enumerate(_rows(value), 1):
            for part in spec.parts:
                for name, target, id in references(part, row.get(part.name)):
                    yield f"{spec.name}.{number}.{name}", target, id


def redirected(spec: FieldSpec, value: Any, to: Mapping[str, str]) -> Any:
    """Return the stored value of a field with every reference to one of some ids replaced by another id.

    Args:
        spec: The field.
        value: Its stored value.
        to: The new id by the old one. A list that would hold one twice holds it once.
    """
    if spec.kind == "reference":
        return to.get(value, value)
    if spec.kind == "references" and value:
        return list(dict.fromkeys(to.get(each, each) for each in value))
    if spec.parts and value:
        rows = [{**row, **_redirected_parts(spec, row, to)} for row in _rows(value)]
        return rows[0] if isinstance(value, Mapping) else rows
    return value


def referring(
    store: Store, known: Iterable[RecordInfo], type: str, ids: Collection[str]
) -> Iterator[tuple[RecordInfo, str, Mapping[str, Any]]]:
    """Yield (record type, collection, document) for everything that refers to some records, removed or not.

    Args:
        store: Where to look.
        known: The record types to look through; those of absent plugins cannot be.
        type: The type of the records.
        ids: Their ids.
    """
    wanted = frozenset(ids)
    for each in known:
        fields = [spec for spec in each.fields.values() if type in _targets(spec)]
        for collection in (each.plural, each.plural + REMOVED) if fields else ():
            for doc in _candidates(store, collection, fields, wanted):
                held = (id for spec in fields for _, _, id in references(spec, doc.get(spec.name)))
                if not wanted.isdisjoint(held):
                    yield each, collection, doc


def _candidates(
    store: Store, collection: str, fields: list[FieldSpec], ids: frozenset[str]
) -> Iterable[Mapping[str, Any]]:
    """Return the documents that may refer to one of the ids: by an index where that is quicker."""
    if len(ids) > FEW or any(spec.kind != "reference" for spec in fields):
        return store.scan(collection)
    conditions = tuple(In(spec.name, tuple(ids)) for spec in fields)
    return store.find(Find(collection, conditions[0] if len(conditions) == 1 else Or(conditions), (), ALL))


def _targets(spec: FieldSpec) -> set[str]:
    """Return the record types that a field refers to, in nested rows too."""
    return {target for part in spec.parts for target in _targets(part)} | ({spec.target} if spec.target else set())


def _redirected_parts(spec: FieldSpec, row: Mapping[str, Any], to: Mapping[str, str]) -> dict[str, Any]:
    return {part.name: redirected(part, row[part.name], to) for part in spec.parts if part.name in row}


def _rows(value: Any) -> list[Any]:
    """Return nested rows as a list; a field may hold one, several, or none."""
    return [value] if isinstance(value, Mapping) else list(value or ())
