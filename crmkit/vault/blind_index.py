"""Exact search on sealed fields: a short keyed hash beside the envelope, which many values share on purpose.

What it leaks: equal values of a field have equal tags, so whoever reads the folder sees which records may have the
same value. Who holds the key can guess a value and see which records, also in old backups, may have it; a new key
(``crmkit keys rotate --scope index``) ends that for what is tagged by it. So tags are short, and a field has them only
where its type declares `Searchable`. With R records and tags of L bits a tag stands for C = R / 2^L records by chance;
2 <= C <= sqrt(R) keeps a tag from telling who is who, and a search from opening many.
"""

from __future__ import annotations

import hmac
import math

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crmkit.vault.guarded import Guarded
from crmkit.vault.keyring import Key
from crmkit.vault.keyring_file import KeyringFile
from crmkit.vault.layout import name_bytes, prefixed

INDEX = "exact"


def planned_bits(records: int) -> int:
    """Return how long tags should be among so many records: 2 <= R / 2^L <= sqrt(R), and L amid what that allows.

    Of fewer than 8 records no length does both; 1 bit is taken then, so that a tag tells nearly nothing.
    """
    if records < 8:
        return 1
    most, least = math.log2(records / 2), math.log2(records) / 2
    return min(math.floor(most), max(math.ceil(least), round((most + least) / 2)))


class BlindIndex(Guarded):
    """Tags of sealed values, for exact search.

    Args:
        keyring: Where the ``bidx`` keys are.
    """

    def __init__(self, keyring: KeyringFile) -> None:
        self._keyring = keyring
        self._derived: dict[tuple[int, str, str], bytes] = {}

    def tag(self, entity: str, field: str, normalised: str) -> str:
        """Return the tag to store: ``b1.``, the key id and the bits, both in hex."""
        return self._tag(self._keyring.primary("bidx"), entity, field, normalised)

    def tags(self, entity: str, field: str, normalised: str) -> list[str]:
        """Return the tags to look for, one under every key that may have made one, by another process just now too."""
        self._keyring.refresh()
        return [self._tag(key, entity, field, normalised) for key in self._keyring.readable("bidx")]

    def is_current(self, tag: str) -> bool:
        """Return whether a tag was made by the key that makes them now."""
        return tag.startswith(f"b1.{self._keyring.primary('bidx').id:08x}.")

    def forget(self) -> None:
        """Drop the derived keys."""
        self._derived.clear()

    def _tag(self, key: Key, entity: str, field: str, normalised: str) -> str:
        digest = hmac.digest(self._key_of_field(key, entity, field), prefixed(normalised.encode()), "sha256")
        bits = int.from_bytes(digest, "big") >> (8 * len(digest) - key.bits)
        return f"b1.{key.id:08x}.{bits:0{(key.bits + 3) // 4}x}"

    def _key_of_field(self, key: Key, entity: str, field: str) -> bytes:
        place = (key.id, entity, field)
        if place not in self._derived:
            info = b"crmkit/bidx/v1" + name_bytes(entity) + name_bytes(field) + name_bytes(INDEX)
            derived = HKDF(SHA256(), length=32, salt=None, info=info).derive(bytes(key.secret))
            self._keyring.check_open()
            self._derived[place] = derived
        return self._derived[place]
