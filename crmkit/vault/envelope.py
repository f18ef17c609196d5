"""C1, the envelope around one sealed field.

::

    offset  length  what
    0       1       0xC1, the format
    1       1       algorithm: 01 is AES-256-GCM, the only one that is written
    2       4       generation of the subject's data key, big-endian
    6       12      nonce, random
    18      n       ciphertext of: type (1), length (4), value, zeros up to the next bucket
    18+n    16      tag

The text form is ``c1.`` and the bytes in base64url without padding. What belongs to the envelope but lies
outside of it (workspace, compartment, entity, field, record, subject) and its first six bytes are associated data,
so an envelope opens only in the place that it was sealed for.
"""

from __future__ import annotations

import os
from binascii import a2b_base64, b2a_base64
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crmkit.errors import Damaged
from crmkit.vault.layout import COMPARTMENT, id_bytes, name_bytes, prefixed
from crmkit.vault.values import decode_value, encode_value

PREFIX = "c1."
FORMAT_AND_ALGORITHM = b"\xc1\x01"
HEADER_LENGTH = 6
NONCE_LENGTH = 12
TAG_LENGTH = 16

_FILLING = (b"", b"===", b"==", b"=")  # what makes the text a multiple of four
_STANDARD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# base64 decoders let spare bits of the last character pass; an envelope must have one text only
_LAST = (_STANDARD, b"", _STANDARD[::16], _STANDARD[::4])
_BODY = HEADER_LENGTH + NONCE_LENGTH
_TO_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")
_TO_STANDARD_ALPHABET = bytes.maketrans(b"-_+/=", b"+/!!!")  # what base64url does not know becomes what nobody knows


def header(generation: int) -> bytes:
    """Return the first six bytes of an envelope under this generation of the data key."""
    return FORMAT_AND_ALGORITHM + generation.to_bytes(4, "big")


@lru_cache(maxsize=1_024)
def field_data(workspace: bytes, entity: str, field: str) -> bytes:
    """Return the part of `associated_data` that all records share."""
    place = prefixed(workspace) + name_bytes(COMPARTMENT) + name_bytes(entity) + name_bytes(field)
    return b"crmkit/field/v1" + place


@lru_cache(maxsize=64)  # the fields of a record come one after the other
def record_data(record: str, subject: str) -> bytes:
    """Return the part of `associated_data` that all fields of a record share."""
    own = prefixed(id_bytes(record))
    return own + (own if subject == record else prefixed(id_bytes(subject)))


def associated_data(workspace: bytes, entity: str, field: str, record: str, subject: str) -> bytes:
    """Return what binds an envelope to its place, all but the header that the envelope itself brings.

    Args:
        workspace: The 16 bytes of the workspace id.
        entity: The record type.
        field: The name of the field.
        record: The id of the record, as text.
        subject: The id of the subject whose data key seals the field, as text.
    """
    return field_data(workspace, entity, field) + record_data(record, subject)


def seal(key: AESGCM, generation: int, place: bytes, value: object) -> str:
    """Return the value sealed under a data key for one place.

    Args:
        key: The data key of the subject.
        generation: Which generation of the subject's data key `key` is.
        place: The associated data.
        value: What to seal: None, str, int, Decimal, bytes, bool, date, an aware datetime, or what JSON can say.

    Raises:
        TypeError: A value of this type cannot be sealed.
        ValueError: The value has no exact form.
    """
    head = header(generation)
    nonce = os.urandom(NONCE_LENGTH)
    blob = head + nonce + key.encrypt(nonce, _pad(value), place + head)
    return to_text(blob)


def open(key: AESGCM, blob: bytes, place: bytes) -> Any:
    """Return the value inside the bytes of an envelope.

    Raises:
        Damaged: It was sealed for another place or under another key, or it was changed.
    """
    try:
        plain = key.decrypt(blob[HEADER_LENGTH:_BODY], blob[_BODY:], place + blob[:HEADER_LENGTH])
    except InvalidTag:
        raise Damaged("it was changed, or sealed for another place") from None
    return _unpad(plain)


def to_text(blob: bytes) -> str:
    """Return the text form of the bytes of an envelope."""
    return PREFIX + b2a_base64(blob, newline=False).rstrip(b"=").translate(_TO_URL_ALPHABET).decode()


def from_text(sealed: object) -> bytes:
    """Return the bytes of an envelope in its text form.

    Raises:
        Damaged: The text is no envelope that this version knows.
    """
    if not isinstance(sealed, str) or not sealed.startswith(PREFIX):
        raise Damaged("it is no envelope")
    try:
        text = sealed[3:].encode("ascii").translate(_TO_STANDARD_ALPHABET)
        over = len(text) % 4
        blob = a2b_base64(text + _FILLING[over], strict_mode=True)
    except ValueError:  # not ASCII, or no base64
        raise Damaged("it is no envelope") from None
    if not text or text[-1] not in _LAST[over]:
        raise Damaged("it is no envelope")
    if not blob.startswith(FORMAT_AND_ALGORITHM):
        raise Damaged("its format or algorithm is not known to this version")
    if len(blob) < _BODY + TAG_LENGTH:
        raise Damaged("it was cut short")
    return blob


def generation_of(blob: bytes) -> int:
    """Return which generation of the data key an envelope names."""
    return int.from_bytes(blob[2:HEADER_LENGTH], "big")


@lru_cache(maxsize=4_096)
def padded_length(length: int) -> int:
    """Return the bucket for `length` bytes: 16, 32, 64, 128, 256, then multiples of 256."""
    if length > 256:
        return -(-length // 256) * 256
    return max(16, 1 << (length - 1).bit_length())


def _pad(value: object) -> bytes:
    code, data = encode_value(value)
    plain = code + len(data).to_bytes(4, "big") + data
    return plain.ljust(padded_length(len(plain)), b"\0")


def _unpad(plain: bytes) -> Any:
    end = 5 + int.from_bytes(plain[1:5], "big")
    if len(plain) != padded_length(end) or len(plain.rstrip(b"\0")) > end:
        raise Damaged("its padding is wrong")
    return decode_value(plain[:1], plain[5:end])
