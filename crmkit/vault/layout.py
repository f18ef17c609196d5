"""The pieces that every byte layout of the vault is built from."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

from crmkit.durable import explained
from crmkit.errors import Invalid

COMPARTMENT = "core"  # one group of readers for now; a field's readers will get a compartment of their own

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
# A ULID leaves out I, L, O and U; these are its 32 digits as Python counts them.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DIGITS = str.maketrans(_ALPHABET, "0123456789ABCDEFGHIJKLMNOPQRSTUV")


@lru_cache(maxsize=16_384)
def id_bytes(id: str) -> bytes:
    """Return the 16 bytes of a ULID in its text form of 26 upper case characters."""
    if not _ULID.fullmatch(id):
        raise Invalid({"id": "must be a ULID: 26 upper case letters and digits"})
    return int(id.translate(_DIGITS), 32).to_bytes(16, "big")


def id_text(id: bytes) -> str:
    """Return the text form of the 16 bytes of a ULID."""
    number = int.from_bytes(id, "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def prefixed(data: bytes) -> bytes:
    """Return `data` behind its length, 16 bits big-endian, so that joined parts cannot be read another way."""
    return len(data).to_bytes(2, "big") + data


@lru_cache(maxsize=1_024)
def name_bytes(name: str) -> bytes:
    """Return the name of an entity or a field, NFC and UTF-8, behind its length."""
    return prefixed(unicodedata.normalize("NFC", name).encode())


Mark = tuple[int, int, int]


def mark_of(path: Path) -> Mark | None:
    """Return what changes when a file is written or another one is put in its place; None where there is none.

    Raises:
        CrmError: The system does not say.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise explained(error, path) from None
    return found.st_ino, found.st_mtime_ns, found.st_size
