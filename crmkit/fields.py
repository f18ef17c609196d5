"""What a field can be marked as: its class (plain, personal, sensitive), `Secret` values and their masks, `Reference`.

A class is a mark on the field's type: ``Personal[str]``, ``Sensitive[Iban]``. A plain type has none. Marks are
found by walking the whole annotation, because pydantic drops those inside a union.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationInfo, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, core_schema

from crmkit.errors import Refused

T = TypeVar("T")
FieldClass = Literal["plain", "personal", "sensitive"]
MASK = "•"
ID_FORM = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")  # a ULID, upper case


@dataclass(frozen=True)
class Mark:
    """The class of a field, put into its annotation."""

    klass: FieldClass


@dataclass(frozen=True)
class Kind:
    """What a value is, beyond its Python type: which input, mask and check it gets (``"email"``, ``"iban"``…)."""

    name: str


@dataclass(frozen=True)
class Unique:
    """No two records of the type may hold the same value."""


@dataclass(frozen=True)
class Searchable:
    """A sensitive field that can be found by its exact value (a blind index is kept for it)."""


def marks(annotation: Any) -> Iterator[Any]:
    """Yield everything annotated anywhere inside a type: unions, tuples, nested models, but not referred records."""
    if get_origin(annotation) is Reference:
        return
    for mark in getattr(annotation, "__metadata__", ()):
        yield mark
        yield from getattr(mark, "metadata", ())
    for part in get_args(annotation):
        yield from marks(part)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for nested in annotation.model_fields.values():
            yield from nested.metadata
            yield from marks(nested.annotation)


def field_class(found: list[Any]) -> FieldClass:
    """Return the strictest class among the marks of a field."""
    classes = {mark.klass for mark in found if isinstance(mark, Mark)}
    for klass in ("sensitive", "personal"):
        if klass in classes:
            return klass
    return "plain"


class Reference(str, Generic[T]):
    """The id of another record; accepts that record or its id."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take a record for its id, and check that text looks like an id."""
        return core_schema.no_info_plain_validator_function(
            cls._check, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _check(cls, value: Any) -> Reference[Any]:
        if isinstance(value, cls):
            return value
        text = getattr(value, "id", value)
        if not isinstance(text, str) or not ID_FORM.fullmatch(text):
            raise ValueError("must be a record or the id of one")
        return cls(text)


class Secret(Generic[T]):
    """A sensitive value that shows only its mask, however it is rendered, copied or logged.

    A stored secret carries no value at all, only the mask and the place it belongs to; `crm.reveal` returns
    one that is opened. One that was just typed in carries its value until it is sealed.
    """

    __slots__ = ("_mask", "_place", "_sealed", "_show", "_value")

    def __init__(
        self, mask: str, value: T | None = None, place: tuple[str, str, str] | None = None, sealed: str = ""
    ) -> None:
        self._mask = mask
        self._value = value
        self._place = place
        self._sealed = sealed  # only compared: two values may have one mask
        self._show: Callable[[Secret[T]], dict[str, Any]] | None = None

    @property
    def value(self) -> T:
        """The plain value of an opened secret.

        Raises:
            Refused: The secret is not opened.
        """
        if self._value is None:
            raise Refused("this value is not opened, or no longer; use crm.reveal(record, field, reason=…)")
        return self._value

    @property
    def place(self) -> tuple[str, str, str] | None:
        """The record type, record id and field that a stored secret belongs to."""
        return self._place

    def opened(self, value: T, show: Callable[[Secret[T]], dict[str, Any]] | None = None) -> Secret[T]:
        """Return it with its plain value, as `crm.reveal` does.

        Args:
            value: The plain value.
            show: Returns what a notebook displays of it while it is open.
        """
        secret = Secret(self._mask, value, self._place)
        secret._show = show
        return secret

    def cover(self) -> None:
        """Drop the plain value; only the mask is left."""
        self._value = None

    def __repr__(self) -> str:
        return self._mask

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(self._mask, spec)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        text = {"text/plain": self._mask}
        return text if self._show is None or self._value is None else {**self._show(self), **text}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine = self._place, self._mask, self._sealed, self._value
        return mine == (other._place, other._mask, other._sealed, other._value)

    def __hash__(self) -> int:
        return hash((self._place, self._mask))

    def __copy__(self) -> Secret[T]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret[T]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self._mask,)  # a pickle may be kept anywhere: it holds the mask only

    def __getstate__(self) -> str:
        return self._mask  # for serializers that ask for the state themselves

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let a Secret pass, and validate and wrap anything else."""
        inner = get_args(source)[0] if get_args(source) else str
        kind = next((mark.name for mark in marks(inner) if isinstance(mark, Kind)), "")

        def check(value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Secret[Any]:
            if isinstance(value, Secret):
                if value.place is not None or (info.context and info.context.get("trusted")):
                    return value
                value = value._value  # carried along from a record that somebody else made: checked like any other
            if isinstance(value, str) and MASK in value:
                raise ValueError("is a mask, not a value; give the whole value or leave the field as it is")
            plain = validate(value)
            return Secret(mask(kind, plain), plain)

        return core_schema.with_info_wrap_validator_function(
            check,
            handler.generate_schema(inner),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )


PERSONAL = Mark("personal")
SENSITIVE = Mark("sensitive")
Personal = Annotated[T, PERSONAL]
Sensitive = Annotated[Secret[T], SENSITIVE]


def mask(kind: str, value: Any) -> str:
    """Return what may be shown of a sensitive value: little enough that it does not identify it alone."""
    text = str(value)
    if kind == "iban" and len(text) >= 12:
        return f"{text[:2]}{MASK * 2} {MASK * 4} {text[-4:]}"
    if kind == "card" and len(text) >= 12:
        return f"{MASK * 4} {MASK * 4} {MASK * 4} {text[-4:]}"
    if kind == "tax_id" and len(text) >= 6:
        return f"{MASK * 6}{text[-2:]}"
    return MASK * 6
