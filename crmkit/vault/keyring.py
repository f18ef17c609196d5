"""The keyring of a workspace: keys by purpose in one age file, which every member can open with an own identity."""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyrage
from pyrage.x25519 import Identity, Recipient

from crmkit.durable import replace_file
from crmkit.errors import Damaged, Locked
from crmkit.vault.guarded import Guarded
from crmkit.vault.identity import user_name
from crmkit.vault.layout import COMPARTMENT, id_bytes

PURPOSES = ("wrap", "bidx", "audit", "suppress", "files")
STATUSES = ("primary", "active", "retired", "destroyed")
KEY_LENGTH = 32


@dataclass(frozen=True, slots=True, repr=False)
class Key(Guarded):
    """One key of the keyring.

    Attributes:
        id: Unique in the workspace, 32 bits; whatever a key made names it, so keys are never tried.
        purpose: ``wrap`` (data keys), ``bidx`` (blind index), ``audit`` (chain), ``suppress`` (do-not-contact),
            ``files`` (attachments of no customer).
        status: ``primary`` writes and reads, ``active`` reads, ``retired`` and ``destroyed`` are of the past.
        created: When it was made, UTC.
        secret: The 32 bytes; a bytearray, so that they can be overwritten.
    """

    id: int
    purpose: str
    status: str
    created: str
    secret: bytearray

    def __post_init__(self) -> None:
        known = self.purpose in PURPOSES and self.status in STATUSES
        if not known or not 0 < self.id < 2**32 or len(self.secret) != KEY_LENGTH:
            raise ValueError("not a key of a keyring")

    @property
    def fingerprint(self) -> str:
        """What tells this key from any other without saying anything about its bytes."""
        return hashlib.sha256(b"crmkit/key/v1" + self.purpose.encode() + bytes(self.secret)).hexdigest()


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody whose identity opens the keyring.

    Attributes:
        name: How the member is called.
        public_key: The age recipient.
    """

    name: str
    public_key: str


@dataclass(frozen=True, slots=True, repr=False)
class Keyring(Guarded):
    """All keys of a workspace.

    Attributes:
        workspace_id: The workspace that the keys belong to.
        epoch: Rises with every change of members or keys.
        members: Who can open it.
        keys: Every key, by id.
    """

    workspace_id: str
    epoch: int
    members: tuple[Member, ...]
    keys: Mapping[int, Key]

    @classmethod
    def create(cls, workspace_id: str, member: Identity) -> Keyring:
        """Return a keyring with one new primary key for each purpose, for one member."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        keys = {
            id: Key(id, purpose, "primary", now, bytearray(os.urandom(KEY_LENGTH)))
            for id, purpose in enumerate(PURPOSES, start=1)
        }
        return cls(workspace_id, 1, (Member(user_name(), str(member.to_public())),), keys)

    @classmethod
    def read(cls, path: Path, identity: Identity) -> Keyring:
        """Return the keyring in an age file.

        Raises:
            Locked: The file cannot be read, or the identity does not open it.
            Damaged: The file is not a keyring as crmkit writes it.
        """
        try:
            sealed = path.read_bytes()
        except OSError as error:
            raise Locked(f"the keyring {path} cannot be read: {error.strerror}") from None
        return cls._parse(_decrypt(path, sealed, identity), path)

    def write(self, path: Path) -> None:
        """Put the keyring into an age file for its members, all or nothing."""
        recipients = [Recipient.from_str(member.public_key) for member in self.members]
        replace_file(path, pyrage.encrypt(self._payload(), recipients))

    def primary(self, purpose: str) -> Key:
        """Return the key that writes for this purpose."""
        for key in self.keys.values():
            if key.purpose == purpose and key.status == "primary":
                return key
        raise Damaged(f"the keyring has no primary {purpose} key")

    def find(self, purpose: str, id: int) -> Key:
        """Return the key with this id.

        Raises:
            Damaged: The keyring holds no such key for this purpose.
        """
        key = self.keys.get(id)
        if key is None or key.purpose != purpose:
            raise Damaged(f"the keyring has no {purpose} key {id}")
        return key

    def readable(self, purpose: str) -> tuple[Key, ...]:
        """Return the keys of a purpose that readers accept, the primary one first."""
        keys = (key for key in self.keys.values() if key.purpose == purpose and key.status in {"primary", "active"})
        return tuple(sorted(keys, key=lambda key: (key.status != "primary", key.id)))

    def wipe(self) -> None:
        """Overwrite the keys in memory."""
        for key in self.keys.values():
            key.secret[:] = bytes(KEY_LENGTH)

    def _payload(self) -> bytes:
        keys = [
            {"id": k.id, "purpose": k.purpose, "status": k.status, "created": k.created, "bytes": _text(k.secret)}
            for k in self.keys.values()
        ]
        members = [asdict(member) for member in self.members]
        head = {"ws": self.workspace_id, "compartment": COMPARTMENT, "epoch": self.epoch}
        return json.dumps({**head, "members": members, "keys": keys}).encode()

    @classmethod
    def _parse(cls, payload: bytes, path: Path) -> Keyring:
        try:
            content = json.loads(payload)
            keys = [_key(entry) for entry in content["keys"]]
            members = tuple(Member(str(m["name"]), str(m["public_key"])) for m in content["members"])
            id_bytes(content["ws"])
            if content["compartment"] != COMPARTMENT or len({key.id for key in keys}) != len(keys):
                raise ValueError
            return cls(content["ws"], int(content["epoch"]), members, {key.id: key for key in keys})
        except (ValueError, TypeError, LookupError, RecursionError):
            raise Damaged(f"{path} opens, but it holds no keyring as crmkit writes it") from None


def _decrypt(path: Path, sealed: bytes, identity: Identity) -> bytes:
    try:
        return bytes(pyrage.decrypt(sealed, [identity]))
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise Locked(
                f"you are not a member of this workspace: {path} is not sealed for your identity "
                f"({identity.to_public()}); give the identity of a member in $CRMKIT_IDENTITY"
            ) from None
        raise Damaged(f"{path} is no whole age file") from None


def _key(entry: Mapping[str, Any]) -> Key:
    secret = bytearray(b64decode(entry["bytes"], validate=True))
    return Key(int(entry["id"]), entry["purpose"], entry["status"], str(entry["created"]), secret)


def _text(secret: bytearray) -> str:
    return b64encode(secret).decode()
