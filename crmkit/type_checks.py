"""What can be a record type: checked when a plugin contributes one, before anything of it is stored."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from crmkit.errors import Invalid
from crmkit.fields import Kind, marks
from crmkit.forbidden import REASON, is_forbidden_name
from crmkit.schema import KEPT_BY_CRMKIT, FieldSpec, RecordInfo, info, inner_type

WORD = re.compile(r"[a-z][a-z0-9_]*")
SEALABLE = (str, int, bool, Decimal, date)
NEVER_FOUND = ("card", "password", "token")  # kinds of sensitive fields
FEWEST_VALUES = 32  # of a field that exact matches are kept for


def refuse_bad_type(record_type: Any, reserved: Collection[str] = ()) -> None:
    """Refuse a class that cannot be kept as a record type.

    Args:
        record_type: What a plugin contributes.
        reserved: Names that no collection may have.

    Raises:
        Invalid: With the reason, by field.
    """
    name = getattr(record_type, "__name__", repr(record_type))
    if (
        not isinstance(record_type, type)
        or not hasattr(record_type, "__info__")
        or record_type.__bases__ == (BaseModel,)
    ):
        raise Invalid({"type": 'must be a class like: class Deal(Record, type="deal", plural="deals")'}, name)
    if "__info__" not in vars(record_type):
        raise Invalid(
            {"type": f"is missing; a class that derives from another type is one of its own: {name}(…, type=…)"}
        )
    try:
        known = info(record_type)
    except (NameError, PydanticUserError) as error:
        raise Invalid({"fields": f"name something that is not known: {error.__class__.__name__}"}, name) from None
    problems = dict(_type_problems(record_type, known, reserved))
    if problems:
        raise Invalid(problems, known.type)


def _type_problems(
    record_type: type[BaseModel], known: RecordInfo, reserved: Collection[str]
) -> Iterator[tuple[str, str]]:
    for key, word in (("type", known.type), ("plural", known.plural)):
        if not WORD.fullmatch(word):
            yield key, "must be a word of small letters, digits and underscores"
    if known.plural in reserved:
        yield "plural", f"{known.plural!r} is a name of the CRM itself; choose another"
    for name in (known.subject, *known.subjects):
        subject = known.fields.get(name or "")
        if name and (subject is None or subject.target != "customer"):
            yield "subject", f"{name!r} must be a field of the type Reference[Customer], or a tuple of them"
    for field in (*KEPT_BY_CRMKIT, "visible_to"):
        if field in record_type.__annotations__ and known.type != "record":
            yield field, "is kept by crmkit; choose another name"
    for spec in known.fields.values():
        problem = _field_problem(spec, record_type.model_fields[spec.name])
        if problem:
            yield spec.name, problem


def _field_problem(spec: FieldSpec, field: FieldInfo) -> str:
    inner, many = inner_type(field.annotation)
    if any(is_forbidden_name(word) for part in (spec, *spec.parts) for word in (part.name, part.label)):
        return REASON
    if spec.klass == "sensitive" and (many or spec.parts or not _is_secret(field.annotation)):
        return "Sensitive must be the whole field: Sensitive[str], or Sensitive[str] | None"
    if spec.klass == "sensitive" and not (isinstance(inner, type) and issubclass(inner, SEALABLE)):
        return "Sensitive holds text, a number, true or false, or a date"
    if spec.searchable and (problem := _search_problem(spec, inner, [*field.metadata, *marks(field.annotation)])):
        return f"Searchable {problem}"
    if spec.unique and (spec.klass == "sensitive" or many or spec.kind in ("money", "decimal", "parts", "other")):
        return "Unique works for text, numbers, dates and references that are not sensitive"
    if inner is datetime and not any(isinstance(mark, Kind) for mark in (*field.metadata, *marks(field.annotation))):
        return "must be an Instant, which knows its time zone"
    if spec.kind == "other" and inner in (object, bytes):
        return "cannot be stored; use text, numbers, dates, money, references, or a Part"
    return ""


def _search_problem(spec: FieldSpec, inner: Any, found: list[Any]) -> str:
    """Return why no tags may be kept for exact matches: they would tell too much, or nothing that is not known."""
    if spec.klass != "sensitive":
        return f"is for sensitive fields; a {spec.klass} one is found without it"
    if spec.kind in NEVER_FOUND:
        return f"is not for a {spec.kind}: nobody looks a customer up by it, and its tags could be guess-tested"
    if inner is bool or issubclass(inner, Enum) or _count(found) < FEWEST_VALUES:
        return f"needs a field with {FEWEST_VALUES} different values or more; of fewer, the tags tell which is which"
    return ""


def _count(found: list[Any]) -> float:
    """Return how many whole numbers are between the bounds of a field; infinity where it has none."""
    bounds = {name: getattr(mark, name) for mark in found for name in ("ge", "gt", "le", "lt") if hasattr(mark, name)}
    low = bounds.get("ge", bounds.get("gt", -math.inf) + 1)
    high = bounds.get("le", bounds.get("lt", math.inf) - 1)
    return float(high - low + 1)


def _is_secret(annotation: Any) -> bool:
    """Return whether a type is Secret, or that and None."""
    parts = [part for part in get_args(annotation) if part is not NoneType]
    origin = get_origin(annotation)
    if origin is Annotated or origin in (Union, UnionType):
        return len(parts) >= 1 and _is_secret(parts[0]) and (origin is Annotated or len(parts) == 1)
    return getattr(origin, "__name__", "") == "Secret"
