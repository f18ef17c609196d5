"""Records: frozen pydantic models, what their fields are, and the `Customer`.

A record type is declared by subclassing::

    class Deal(Record, type="deal", plural="deals", subject="customer"):
        title: Personal[str]
        customer: Reference[Customer]
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from ulid import ULID

from crmkit.errors import Invalid
from crmkit.fields import FieldClass, Kind, Personal, Reference, Searchable, Sensitive, Unique, field_class, marks
from crmkit.values import CardNumber, Code, Country, Email, Iban, Instant, LongText, Money, Phone, TaxId, from_context

KEPT_BY_CRMKIT = ("id", "rev", "created_at", "updated_at")


def new_id() -> str:
    """Return a new record id: a ULID, so that ids sort by the time they were made."""
    return str(ULID())


def now() -> datetime:
    """Return the present instant, in UTC."""
    return datetime.now(UTC)


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
        subject: The reference to the customer whose key seals the record; None where it is its own subject.
        title: Its name for people, ``"Deal"``.
        fields: Its fields by name, without those that crmkit keeps itself.
    """

    type: str
    plural: str
    subject: str | None
    title: str
    fields: Mapping[str, FieldSpec]

    def nearest(self, name: str) -> str:
        """Return a hint at the field that a wrong name probably means, or an empty text."""
        close = difflib.get_close_matches(name, [*self.fields, *KEPT_BY_CRMKIT], n=1)
        return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class _Declared:
    type: str
    plural: str
    subject: str | None


class Record(BaseModel):
    """The base of every record type; frozen, and its text never shows a field's value."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)
    __info__: ClassVar[_Declared]

    id: str = Field(default_factory=new_id)
    rev: int = 0
    created_at: Instant = Field(default_factory=now)
    updated_at: Instant = Field(default_factory=now)

    def __init_subclass__(cls, *, type: str = "", plural: str = "", subject: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if type:
            cls.__info__ = _Declared(type, plural or f"{type}s", subject)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Accept the keywords of the class statement, which `__init_subclass__` reads."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield None, self.id

    def __str__(self) -> str:
        return repr(self)

    @model_validator(mode="before")
    @classmethod
    def _nothing(cls, data: Any, info: ValidationInfo) -> Any:
        """Take empty text for nothing."""
        if from_context(info, "trusted") or not isinstance(data, Mapping):
            return data
        return {name: value for name, value in data.items() if value is not None and value != ""}


def has_bad_text(value: Any) -> bool:
    """Return whether a raw value holds U+0000 or a lone surrogate anywhere."""
    if isinstance(value, str):
        return "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value))
    if isinstance(value, Mapping):
        return any(has_bad_text(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set):
        return any(has_bad_text(part) for part in value)
    return False


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


class ContactPoint(BaseModel):
    """One further way to reach a customer."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    kind: Literal["email", "phone", "address"]
    value: Personal[str]
    label: str = ""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "kind", self.kind

    @model_validator(mode="after")
    def _normalised(self, info: ValidationInfo) -> Self:
        if self.kind != "address" and not from_context(info, "trusted"):
            checked = TypeAdapter(Email if self.kind == "email" else Phone).validate_python(
                self.value, context=info.context
            )
            object.__setattr__(self, "value", checked)  # frozen for its users, not while it is being made
        return self


def _in(section: str, *, label: str | None = None, help: str | None = None, default: Any = None) -> Any:
    """Declare a field's place in forms and its words."""
    return Field(default, title=label, description=help, json_schema_extra={"section": section})


class Customer(Record, type="customer", plural="customers"):
    """A party we have, or want, a relationship with: a person or an organisation."""

    name: Annotated[Personal[str], AfterValidator(_not_blank)] = Field(json_schema_extra={"section": "Identity"})
    kind: Literal["person", "organisation"] = _in("Identity", default="person")
    number: Annotated[Code | None, Unique()] = _in("Identity", help="Your own number for this customer.")
    roles: tuple[Literal["client", "vendor", "partner"], ...] = _in("Identity", default=())
    stage: Literal["prospect", "active", "at_risk", "lapsed", "won_back"] = _in("Identity", default="prospect")
    owner: str | None = _in("Identity", help="The colleague who looks after this customer.")
    organisation: Reference[Customer] | None = _in("Identity", help="The organisation that this person belongs to.")
    job_title: Personal[str] | None = _in("Identity")
    birthday: Personal[date] | None = _in("Identity")

    email: Personal[Email] | None = _in("Contact", label="E-mail")
    phone: Personal[Phone] | None = _in("Contact")
    website: Personal[str] | None = _in("Contact")
    contacts: tuple[ContactPoint, ...] = _in("Contact", default=(), help="Further mails, phones and addresses.")
    language: str | None = _in("Contact")

    street: Personal[str] | None = _in("Address")
    postcode: Personal[str] | None = _in("Address")
    city: Personal[str] | None = _in("Address")
    region: str | None = _in("Address")
    country: Country | None = _in("Address")

    iban: Annotated[Sensitive[Iban] | None, Searchable()] = _in("Payment", label="IBAN")
    card: Sensitive[CardNumber] | None = _in("Payment", label="Card number")
    tax_id: Annotated[Sensitive[TaxId] | None, Searchable()] = _in("Payment", label="Tax id")

    tags: tuple[str, ...] = _in("Notes", default=())
    interests: tuple[str, ...] = _in("Notes", default=())
    source: str | None = _in("Notes", help="Where this customer came from.")
    notes: Personal[LongText] | None = _in("Notes")

    @model_validator(mode="before")
    @classmethod
    def _no_country(cls, data: Any) -> Any:
        """Take a country that is said to be unspecified for none."""
        if isinstance(data, Mapping) and str(data.get("country")).casefold() in ("unspecified", "unknown"):
            return {name: value for name, value in data.items() if name != "country"}
        return data


# --------------------------------------------------------------------------- what is known of a type


@cache
def info(record_type: type[BaseModel]) -> RecordInfo:
    """Return what is known of a record type; computed once, when its references can be resolved."""
    declared: _Declared = getattr(record_type, "__info__", _Declared(record_type.__name__.lower(), "", None))
    fields = {
        name: _spec(name, field) for name, field in record_type.model_fields.items() if name not in KEPT_BY_CRMKIT
    }
    title = declared.type.replace("_", " ").capitalize()
    return RecordInfo(declared.type, declared.plural, declared.subject, title, fields)


@cache
def adapter(record_type: type[Record], field: str) -> TypeAdapter[Any]:
    """Return the validator of one field alone, for changed fields and for values in queries."""
    spec = record_type.model_fields[field]
    annotation: Any = Annotated[(spec.annotation, *spec.metadata)] if spec.metadata else spec.annotation
    return TypeAdapter(annotation)


def _spec(name: str, field: FieldInfo) -> FieldSpec:
    found = [*field.metadata, *marks(field.annotation)]
    inner, many = _inner(field.annotation)
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


def _inner(annotation: Any) -> tuple[Any, bool]:
    """Return the type inside ``| None``, Annotated, Secret and tuple, and whether there was a tuple."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated or (origin is not None and origin.__name__ == "Secret"):
        return _inner(args[0])
    if origin in (Union, UnionType):
        rest = [arg for arg in args if arg is not NoneType]
        return _inner(rest[0]) if len(rest) == 1 else (annotation, False)
    if origin is tuple:
        return _inner(args[0])[0], True
    return annotation, False


def _is_model(inner: Any) -> bool:
    return isinstance(inner, type) and issubclass(inner, BaseModel)


def _target(inner: Any) -> str | None:
    if get_origin(inner) is not Reference:
        return None
    named = get_args(inner)[0]
    if isinstance(named, TypeVar):
        return None
    if isinstance(named, type) and issubclass(named, Record):
        return named.__info__.type
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
        return "parts"
    if get_origin(inner) is Literal:
        return "choices" if many else "choice"
    if get_origin(inner) is Reference:
        return "references" if many else "reference"
    if many:
        return "texts" if inner is str else "other"
    named = [mark.name for mark in found if isinstance(mark, Kind)]
    return named[0] if named else PYTHON_KINDS.get(inner, "other")


# --------------------------------------------------------------------------- errors


def invalid(error: ValidationError, record_type: type[Record]) -> Invalid:
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
        case _:
            return message.replace("Input should be", "must be")
