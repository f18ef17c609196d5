"""Records: frozen pydantic models, what their fields are, and the `Customer`.

A record type is declared by subclassing::

    class Deal(Record, type="deal", plural="deals", subject="customer"):
        title: Personal[str]
        customer: Reference[Customer]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    model_validator,
)

from crmkit.errors import Invalid, Refused
from crmkit.fields import ID_FORM, Personal, Reference, Searchable, Sensitive, Unique
from crmkit.schema import SHARING, Declared
from crmkit.values import (
    CardNumber,
    Code,
    Country,
    Email,
    Iban,
    Instant,
    LongText,
    Phone,
    TaxId,
    from_context,
    unless_trusted,
)


def new_id() -> str:
    """Return a new record id: a ULID, so that ids sort by the time they were made."""
    from ulid import ULID  # imports package metadata, which `import crmkit` can do without

    return str(ULID())


def _record_id(value: str, _: ValidationInfo) -> str:
    if not ID_FORM.fullmatch(value):
        raise ValueError("must be a ULID of 26 characters")
    return value


def now() -> datetime:
    """Return the present instant, in UTC."""
    return datetime.now(UTC)


class Part(BaseModel):
    """The base of what is frozen and shows no value of its fields: rows nested in a record, and records."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    def __setattr__(self, name: str, value: Any) -> None:  # pydantic's own error would show the value
        raise Refused(f"a {type(self).__name__} is frozen; save changes with update(record, {name}=…)")

    def __delattr__(self, name: str) -> None:
        raise Refused(f"a {type(self).__name__} is frozen; save changes with update(record, {name}=None)")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield from ()

    def __str__(self) -> str:
        return repr(self)


def _in(section: str, *, label: str | None = None, help: str | None = None, default: Any = None) -> Any:
    """Declare a field's place in forms and its words."""
    return Field(default, title=label, description=help, json_schema_extra={"section": section})


def _nobody_left_out(value: object) -> object:
    return None if value == "all" else value


class Record(Part):
    """The base of every record type."""

    __info__: ClassVar[Declared]

    id: Annotated[str, AfterValidator(unless_trusted(_record_id))] = Field(default_factory=new_id)
    rev: int = 0
    created_at: Instant = Field(default_factory=now)
    updated_at: Instant = Field(default_factory=now)
    visible_to: Annotated[Literal["team", "private"] | None, BeforeValidator(_nobody_left_out)] = _in(
        SHARING, label="Visible to", help="Everybody when left empty; else the team of its owner, or its owner only."
    )
    owner: str | None = _in(SHARING, help="The colleague whose it is.")

    def __init_subclass__(
        cls,
        *,
        type: str = "",
        plural: str = "",
        subject: str | tuple[str, ...] | None = None,
        lazy: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if type:
            cls.__info__ = Declared(type, plural or f"{type}s", subject, lazy)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Accept the keywords of the class statement, which `__init_subclass__` reads."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield None, self.id


def id_of(given: object) -> str:
    """Return the id of a record that is given, or the id that is.

    Raises:
        Invalid: It is neither.
    """
    id = given.id if isinstance(given, Record) else given
    if not isinstance(id, str):
        raise Invalid({"record": "must be a record or its id"})
    return id


def check_record(given: object) -> None:
    """Refuse what is no record.

    Raises:
        Invalid: It is an id, or something else; which type an id is of is not known.
    """
    if not isinstance(given, Record):
        raise Invalid({"record": "must be a record; crm.customers[id] is the one with that id"})


def has_bad_text(value: Any) -> bool:
    """Return whether a raw value holds U+0000 or a lone surrogate anywhere."""
    if isinstance(value, str):
        return "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value))
    if isinstance(value, Mapping):
        return any(has_bad_text(part) for pair in value.items() for part in pair)
    if isinstance(value, BaseModel):
        return has_bad_text(dict(value))
    if isinstance(value, list | tuple | set | frozenset):
        return any(has_bad_text(part) for part in value)
    return False


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


class ContactPoint(Part):
    """One further way to reach a customer."""

    kind: Literal["email", "phone", "address"]
    value: Personal[str]
    label: str = ""

    @model_validator(mode="after")
    def _normalised(self, info: ValidationInfo) -> Self:
        if self.kind != "address" and not from_context(info, "trusted"):
            checked = TypeAdapter(Email if self.kind == "email" else Phone).validate_python(
                self.value, context=info.context
            )
            object.__setattr__(self, "value", checked)  # frozen for its users, not while it is being made
        return self


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
