"""Exact search on sealed fields: a short keyed hash beside the envelope, which many values share on purpose."""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crmkit.vault.guarded import Guarded
from crmkit.vault.keyring import Key
from crmkit.vault.keyring_file import KeyringFile
from crmkit.vault.layout import name_bytes, prefixed

BITS = 12  # among 100,000 values about 24 share a tag: too few to slow a search, too many to tell who is who
INDEX = "exact"


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
        """Return the tags to look for, one under every key that may have made one."""
        return [self._tag(key, entity, field, normalised) for key in self._keyring.readable("bidx")]

    def forget(self) -> None:
        """Drop the derived keys."""
        self._derived.clear()

    def _tag(self, key: Key, entity: str, field: str, normalised: str) -> str:
        digest = hmac.digest(self._key_of_field(key, entity, field), prefixed(normalised.encode()), "sha256")
        bits = int.from_bytes(digest, "big") >> (8 * len(digest) - BITS)
        return f"b1.{key.id:08x}.{bits:0{BITS // 4}x}"

    def _key_of_field(self, key: Key, entity: str, field: str) -> bytes:
        place = (key.id, entity, field)
        if place not in self._derived:
            info = b"crmkit/bidx/v1" + name_bytes(entity) + name_bytes(field) + name_bytes(INDEX)
            self._derived[place] = HKDF(SHA256(), length=32, salt=None, info=info).derive(bytes(key.secret))
        return self._derived[place]
