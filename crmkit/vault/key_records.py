"""The bytes of ``keys/subjects.bin``: wrapped data keys (C2), each with its subject and a checksum.

::

    record    subject id (16) · C2 (70) · CRC-32 of both (4)                                            90 bytes
    C2        0xC2 · algorithm 01 · wrap key id (4) · generation (4) · nonce (12) · wrapped key (32) · tag (16)
    heading   zeros (17) · number of records (4) · zeros (65) · CRC-32 of all (4)                       90 bytes

All numbers are big-endian.

Keys that are made together stand behind a heading, which is on disk before them: of many records any may be
missing after a loss of power, and the heading says that they are an append that did not finish, not damage. A record
in which one bit is wrong is damage wherever it stands: no loss of power does that.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crmkit.durable import with_bit_put_right
from crmkit.errors import Damaged
from crmkit.vault.layout import COMPARTMENT, name_bytes, prefixed

RECORD = struct.Struct(">86sI")
RECORD_LENGTH = RECORD.size
FORMAT_AND_ALGORITHM = b"\xc2\x01"

_HEADING = struct.Struct(">17xI65x")
_PURPOSE = b"crmkit/dek/v1"
_COMPARTMENT = name_bytes(COMPARTMENT)


def wrap(key: AESGCM, key_id: int, workspace: bytes, subject: bytes, generation: int, data_key: bytes) -> bytes:
    """Return a data key wrapped for one subject: the 70 bytes of C2."""
    head = FORMAT_AND_ALGORITHM + key_id.to_bytes(4, "big") + generation.to_bytes(4, "big")
    nonce = os.urandom(12)
    return head + nonce + key.encrypt(nonce, data_key, _associated_data(workspace, subject, head))


def unwrap(key: AESGCM, workspace: bytes, subject: bytes, wrapped: bytes) -> bytes:
    """Return the data key inside C2.

    Raises:
        Damaged: It was wrapped for another subject or workspace, or it was changed.
    """
    try:
        return key.decrypt(wrapped[10:22], wrapped[22:], _associated_data(workspace, subject, wrapped[:10]))
    except InvalidTag:
        raise Damaged("its data key was changed, or wrapped for another subject") from None


def _associated_data(workspace: bytes, subject: bytes, head: bytes) -> bytes:
    return _PURPOSE + prefixed(workspace) + prefixed(subject) + _COMPARTMENT + head


class Sound(NamedTuple):
    """What is sound in a damaged file of keys.

    Attributes:
        records: The records, as a file of its own.
        damaged: How many bytes are not sound.
        mended: In how many records one bit was wrong, and was put right.
    """

    records: bytes
    damaged: int
    mended: int


def sound_records(data: bytes) -> Sound:
    """Return what is sound in a damaged file of keys, wherever in it."""
    found: list[bytes] = []
    damaged = mended = at = end = 0
    while at < len(data):
        record = data[at : at + RECORD_LENGTH]
        body = _mended(record) if (at - end) % RECORD_LENGTH == 0 else _sound(record)
        if body is None:
            damaged += 1
            at += 1
            continue
        if body[16:18] == FORMAT_AND_ALGORITHM:  # not a heading
            found.append(packed(body))
            mended += found[-1] != record
        at = end = at + RECORD_LENGTH
    return Sound(b"".join(found), damaged, mended)


def has_wrong_bit(records: bytes) -> bool:
    """Return whether a record that is not sound would be, but for one bit."""
    rows = (records[at : at + RECORD_LENGTH] for at in range(0, len(records), RECORD_LENGTH))
    return any(_sound(row) is None and _mended(row) is not None for row in rows)


def _sound(record: bytes) -> bytes | None:
    """Return what a record holds."""
    return checked(*RECORD.unpack(record)) if len(record) == RECORD_LENGTH else None


def _mended(record: bytes) -> bytes | None:
    """Return what a record holds, also where one bit of it is wrong."""
    if len(record) < RECORD_LENGTH:
        return None
    right = with_bit_put_right(*RECORD.unpack(record))
    is_ours = right is not None and (right[16:18] == FORMAT_AND_ALGORITHM or length_of_append(right) > 1)
    return right if is_ours else None


def wrap_id(wrapped: bytes) -> int:
    """Return the id of the wrap key that C2 names."""
    return int.from_bytes(wrapped[2:6], "big")


def heading(count: int) -> bytes:
    """Return what stands before so many records that are made together."""
    return packed(_HEADING.pack(count))


def packed(body: bytes) -> bytes:
    """Return a record: a subject id and C2 with their checksum."""
    return RECORD.pack(body, zlib.crc32(body))


def checked(body: bytes, crc: int) -> bytes | None:
    """Return what a record holds, if its checksum is right."""
    return body if zlib.crc32(body) == crc else None


def length_of_append(first: bytes | None) -> int:
    """Return how many records were written together, by the first of them."""
    if first is None or first[16:17] != b"\0":
        return 1
    return 1 + int(_HEADING.unpack(first)[0])
