"""Values as the bytes inside an envelope: one type byte, and the shortest exact form of the value."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from crmkit.errors import Damaged


def _encode_decimal(value: Decimal) -> bytes:
    if not value.is_finite():
        raise ValueError("a decimal must be finite")
    return str(value).encode()


def _encode_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _encode_datetime(value: datetime) -> bytes:
    if value.utcoffset() is None:
        raise ValueError("an instant must have a time zone")
    return value.astimezone(UTC).isoformat().encode()


def _decode_null(data: bytes) -> None:
    if data:
        raise ValueError("null has no bytes")


ALLOWED = "None, str, int, a finite Decimal, bytes, bool, date, an instant with a time zone, or what JSON can say"

_CODES: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    type(None): (0, lambda _: b""),
    str: (1, str.encode),
    int: (2, lambda value: b"%d" % value),
    Decimal: (3, _encode_decimal),
    dict: (4, _encode_json),
    list: (4, _encode_json),
    float: (4, _encode_json),
    bytes: (5, bytes),
    bool: (6, lambda value: b"\x01" if value else b"\x00"),
    date: (7, lambda value: value.isoformat().encode()),
    datetime: (8, _encode_datetime),
}

_DECODERS: tuple[Callable[[bytes], Any], ...] = (
    _decode_null,
    bytes.decode,
    int,
    lambda data: Decimal(data.decode()),
    json.loads,
    bytes,
    {b"\x00": False, b"\x01": True}.__getitem__,
    lambda data: date.fromisoformat(data.decode()),
    lambda data: datetime.fromisoformat(data.decode()),
)


def encode_value(value: object) -> tuple[int, bytes]:
    """Return the type byte and the bytes of a value.

    Raises:
        TypeError: A value of this type cannot be sealed.
        ValueError: The value has no exact form: a NaN, a naive instant, a lone surrogate.
    """
    for cls in type(value).__mro__:  # subclasses, an Email that is a str, are sealed as their base
        if cls in _CODES:
            code, encode = _CODES[cls]
            return code, encode(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be sealed")


def decode_value(code: int, data: bytes) -> Any:
    """Return the value that `encode_value` turned into this type byte and these bytes."""
    try:
        return _DECODERS[code](data)
    except (ValueError, ArithmeticError, LookupError, RecursionError):
        raise Damaged("its content is not a value that crmkit sealed") from None
