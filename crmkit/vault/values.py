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

_ENCODERS: dict[type, tuple[bytes, Callable[[Any], bytes]]] = {
    type(None): (b"\x00", lambda _: b""),
    str: (b"\x01", str.encode),
    int: (b"\x02", lambda value: b"%d" % value),
    Decimal: (b"\x03", _encode_decimal),
    dict: (b"\x04", _encode_json),
    list: (b"\x04", _encode_json),
    float: (b"\x04", _encode_json),
    bytes: (b"\x05", bytes),
    bool: (b"\x06", lambda value: b"\x01" if value else b"\x00"),
    date: (b"\x07", lambda value: value.isoformat().encode()),
    datetime: (b"\x08", _encode_datetime),
}

_DECODERS: dict[bytes, Callable[[bytes], Any]] = {
    b"\x00": _decode_null,
    b"\x01": bytes.decode,
    b"\x02": int,
    b"\x03": lambda data: Decimal(data.decode()),
    b"\x04": lambda data: json.loads(data.decode()),  # bytes would be searched for their encoding first
    b"\x05": bytes,
    b"\x06": {b"\x00": False, b"\x01": True}.__getitem__,
    b"\x07": lambda data: date.fromisoformat(data.decode()),
    b"\x08": lambda data: datetime.fromisoformat(data.decode()),
}


def encode_value(value: object) -> tuple[bytes, bytes]:
    """Return the type byte and the bytes of a value.

    Raises:
        TypeError: A value of this type cannot be sealed.
        ValueError: The value has no exact form: a NaN, a naive instant, a lone surrogate.
    """
    for cls in type(value).__mro__:  # subclasses, an Email that is a str, are sealed as their base
        if cls in _ENCODERS:
            code, encode = _ENCODERS[cls]
            return code, encode(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be sealed")


def decode_value(code: bytes, data: bytes) -> Any:
    """Return the value that `encode_value` turned into this type byte and these bytes."""
    try:
        return _DECODERS[code](data)
    except (ValueError, ArithmeticError, LookupError, RecursionError):
        raise Damaged("its content is not a value that crmkit sealed") from None
