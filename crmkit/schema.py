"""What is known of a record type: its fields, their kinds and classes, and their validators one by one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from crmkit.errors import Invalid
from crmkit.fields import FieldClass, Kind, Reference, Searchable, Unique, field_class, marks
from crmkit.values import Money

KEPT_BY_CRMKIT = ("id", "rev", "created_at", "updated_at")
SHARING = "Sharing"  # the section of the fields, in every type, that say who sees a record


@dataclass(frozen=True)
class FieldSpec:
    """What is known of one field: enough for a form, a grid, an import, a query and the vault.

    Attributes:
        name: The name in Python.
        label: What people read.
        help: One sentence, or empty.
        klass: plain, personal or sensitive.
        kind: What the value is: text, long_text, code, email, phone, country, iban, card, tax_id, money, decimal,
            integer, boolean, date, instant, choice, choices, texts, reference, parts (nested rows) or other.
        required: There is no default.
        choices: The allowed words of a choice.
        target: The record type that a reference names.
        unique: No two records may share a value.
        searchable: A sensitive field that exact matches are kept for.
        section: The heading of the form that the field stands under.
        parts: The fields of a nested row.
    """

    name: str
    label: str
    help: str
    klass: FieldClass
    kind: str
    required: bool
    choices: tuple[str, ...] = ()
    target: str | None = None
    unique: bool = False
    searchable: bool = False
    section: str = ""
    parts: tuple[FieldSpec, ...] = ()


@dataclass(frozen=True)
class RecordInfo:
    """What is known of a record type.

    Attributes:
        type: Its name, ``"deal"``.
        plural: The name of its collection, ``"deals"``.
        subject: The reference to the customer whose key seals the record; None where it has a key of its own.
        subjects: The references to customers of a record that is about several; it has a key of its own.
        title: Its name for people, ``"Deal"``.
        fields: Its fields by name, without those that crmkit keeps itself.
        lazy: Its records are many and most of them rarely looked at: they are kept packed, and unpacked when read.
    """

    type: str
    plural: str
    subject: str | None
    title: str
    fields: Mapping[str, FieldSpec]
    lazy: bool = False
    subjects: tuple[str, ...] = ()

    @property
    def sealed(self) -> list[str]:
        """The names of its fields that are personal or sensitive."""
        return [spec.name for spec in self.fields.values() if spec.klass != "plain"]

    def counted(self, count: int) -> str:
        """Return a number of records for a person: ``"1 customer"``, ``"2,000 customers"``."""
        return f"{count:,} {(self.type if count == 1 else self.plural).replace('_', ' ')}"

    def nearest(self, name: str) -> str:
        """Return a hint at the field that a wrong name probably means, or an empty text."""
        close = difflib.get_close_matches(name, [*self.fields, *KEPT_BY_CRMKIT], n=1)
        return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Declared:
    """The keywords of a record type's class statement."""

    type: str
    plural: str
    subject: str | tuple[str, ...] | None
    lazy: bool = False


@cache
def info(record_type: type[BaseModel]) -> RecordInfo:
    """Return what is known of a record type; computed once, when its references can be resolved."""
    declared: Declared = getattr(record_type, "__info__", Declared(record_type.__name__.lower(), "", None))
    specs = [_spec(name, record_type.model_fields[name]) for name in _declared(record_type)]
    fields = {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.section == SHARING)}
    title = declared.type.replace("_", " ").capitalize()
    named = (declared.subject,) if isinstance(declared.subject, str) else declared.subject or ()
    if len(named) == 1 and named[0] in fields and fields[named[0]].kind == "reference":
        return RecordInfo(declared.type, declared.plural, named[0], title, fields, declared.lazy)
    return RecordInfo(declared.type, declared.plural, None, title, fields, declared.lazy, named)


def _declared(record_type: type[BaseModel]) -> list[str]:
    """Return the names of the fields in the order of their last declarations; pydantic has that of the first ones."""
    names = [name for each in reversed(record_type.__mro__) for name in vars(each).get("__annotations__", ())]
    last = list(dict.fromkeys(reversed(names)))[::-1]
    return [name for name in last if name in record_type.model_fields and name not in KEPT_BY_CRMKIT]


@cache
def is_frozen(model: type[BaseModel]) -> bool:
    """Return whether nothing of a model can change once it was made, not even inside its values."""
    known = info(model)
    for name, spec in known.fields.items():
        inner, _ = inner_type(model.model_fields[name].annotation)
        if not (is_frozen(inner) if _is_model(inner) else spec.kind != "other"):
            return False
    return bool(model.model_config.get("frozen"))


@cache
def adapter(record_type: type[BaseModel], field: str) -> TypeAdapter[Any]:
    """Return the validator of one field alone, for changed fields and for values in queries."""
    spec = record_type.model_fields[field]
    annotation: Any = Annotated[(spec.annotation, *spec.metadata)] if spec.metadata else spec.annotation
    if isinstance(spec.annotation, type) and (issubclass(spec.annotation, BaseModel) or is_dataclass(spec.annotation)):
        return TypeAdapter(annotation)  # pydantic takes no configuration for a type that can have its own
    return TypeAdapter(annotation, config=ConfigDict(hide_input_in_errors=True))


def _spec(name: str, field: FieldInfo) -> FieldSpec:
    found = [*field.metadata, *marks(field.annotation)]
    inner, many = inner_type(field.annotation)
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return FieldSpec(
        name=name,
        label=field.title or name.replace("_", " ").capitalize(),
        help=field.description or "",
        klass=field_class(found),
        kind=_kind(inner, many, found),
        required=field.default is PydanticUndefined and field.default_factory is None,
        choices=tuple(str(word) for word in get_args(inner)) if get_origin(inner) is Literal else (),
        target=_target(inner),
        unique=any(isinstance(mark, Unique) for mark in found),
        searchable=any(isinstance(mark, Searchable) for mark in found),
        section=str(extra.get("section", "")),
        parts=tuple(info(inner).fields.values()) if _is_model(inner) else (),
    )


def inner_type(annotation: Any) -> tuple[Any, bool]:
    """Return the type inside ``| None``, Annotated, Secret and tuple, and whether there was a tuple."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated or (origin is not None and origin.__name__ == "Secret"):
        return inner_type(args[0])
    if origin in (Union, UnionType):
        rest = [arg for arg in args if arg is not NoneType]
        return inner_type(rest[0]) if len(rest) == 1 else (annotation, False)
    if origin is tuple:
        return inner_type(args[0])[0], True
    return annotation, False


def _is_model(inner: Any) -> bool:
    return isinstance(inner, type) and issubclass(inner, BaseModel)


def _target(inner: Any) -> str | None:
    if get_origin(inner) is not Reference:
        return None
    named = get_args(inner)[0]
    if isinstance(named, TypeVar):
        return None
    declared: Declared | None = getattr(named, "__info__", None)
    if declared is not None:  # not info(named): a type may refer to itself
        return declared.type
    return str(getattr(named, "__forward_arg__", named)).lower()


PYTHON_KINDS: dict[Any, str] = {
    str: "text",
    int: "integer",
    bool: "boolean",
    Decimal: "decimal",
    float: "number",
    date: "date",
    datetime: "instant",
    Money: "money",
}


def _kind(inner: Any, many: bool, found: list[Any]) -> str:
    if _is_model(inner):
        return "parts" if many else "other"
    if get_origin(inner) is Literal:
        return "choices" if many else "choice"
    if get_origin(inner) is Reference:
        return "references" if many else "reference"
    if many:
        return "texts" if inner is str else "other"
    named = [mark.name for mark in found if isinstance(mark, Kind)]
    return named[0] if named else PYTHON_KINDS.get(inner, "other")


# --------------------------------------------------------------------------- errors


def invalid(error: ValidationError, record_type: type[BaseModel]) -> Invalid:
    """Return pydantic's errors as one `Invalid`, by field and without any input."""
    known = info(record_type)
    problems: dict[str, str] = {}
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        path = ".".join(str(part) for part in problem["loc"]) or known.type
        text = _words(problem["type"], problem["msg"])
        if problem["type"] == "extra_forbidden":
            text += f" of {known.type}{known.nearest(path)}"
        problems.setdefault(path, text)
    return Invalid(problems, known.type)


def _words(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a field"
        case "value_error":
            return message.removeprefix("Value error, ")
        case "date_from_datetime_parsing" | "date_parsing" | "date_type" | "date_from_datetime_inexact":
            return "must be a date such as 2026-11-22"
        case "datetime_parsing" | "datetime_from_date_parsing" | "datetime_type":
            return "must be a time such as 2026-11-22T09:30:00Z"
        case "decimal_parsing" | "decimal_type" | "int_parsing" | "int_type" | "float_parsing":
            return "must be a number"
        case "tuple_type":
            return "must be a list"
        case _:
            return message.replace("Input should be", "must be")
