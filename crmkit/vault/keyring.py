"""The keyring of a workspace: keys by purpose in one age file, which every member can open with an own identity."""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
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
MEMBER_KINDS = ("member", "recovery")
SEALS = ("personal", "sensitive")
KEY_LENGTH = 32
TAG_BITS = 10  # of a new workspace: fits 2,000 to 1,000,000 records


@dataclass(frozen=True, slots=True, repr=False)
class Key(Guarded):
    """One key of the keyring.

    Attributes:
        id: Unique in the workspace, 32 bits; whatever a key made names it, so keys are never tried.
        purpose: ``wrap`` (data keys), ``bidx`` (blind index), ``audit`` (chain), ``suppress`` (do-not-contact),
            ``files`` (attachments of no customer).
        status: ``primary`` writes and reads, ``active`` reads, ``retired`` and ``destroyed`` are of the past.
        created: When it was made, UTC.
        secret: The 32 bytes, none of a destroyed key; a bytearray, so that they can be overwritten.
        bits: How long the tags of a ``bidx`` key are; kept here, because tags of one length have one key.
    """

    id: int
    purpose: str
    status: str
    created: str
    secret: bytearray
    bits: int = TAG_BITS

    def __post_init__(self) -> None:
        known = self.purpose in PURPOSES and self.status in STATUSES
        length = 0 if self.is_destroyed else KEY_LENGTH
        if not known or not 0 < self.id < 2**32 or len(self.secret) != length or not 0 < self.bits <= 64:
            raise ValueError("not a key of a keyring")

    @classmethod
    def new(cls, id: int, purpose: str, bits: int = TAG_BITS) -> Key:
        """Return a new primary key."""
        return cls(id, purpose, "primary", _now(), bytearray(os.urandom(KEY_LENGTH)), bits)

    @property
    def is_destroyed(self) -> bool:
        """Whether its bytes are gone."""
        return self.status == "destroyed"

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
        kind: ``member``, or ``recovery`` for the key that lies in a drawer.
        added: When, UTC; empty where that was not kept.
    """

    name: str
    public_key: str
    kind: str = "member"
    added: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Keyring(Guarded):
    """All keys of a workspace.

    Attributes:
        workspace_id: The workspace that the keys belong to.
        epoch: Rises with every change of members or keys.
        members: Who can open it.
        keys: Every key, by id.
        seal: The lowest class of fields that is sealed: ``personal`` or ``sensitive``.
        was_plain: Whether personal values may lie unsealed in older files.
    """

    workspace_id: str
    epoch: int
    members: tuple[Member, ...]
    keys: Mapping[int, Key]
    seal: str = "personal"
    was_plain: bool = False

    @classmethod
    def create(cls, workspace_id: str, member: Identity, seal: str = "personal") -> Keyring:
        """Return a keyring with one new primary key for each purpose, for one member."""
        keys = {id: Key.new(id, purpose) for id, purpose in enumerate(PURPOSES, start=1)}
        first = Member(user_name(), str(member.to_public()), added=_now())
        return cls(workspace_id, 1, (first,), keys, seal, seal != "personal")

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
        if key is None or key.purpose != purpose or key.is_destroyed:
            raise Damaged(f"the keyring has no {purpose} key {id}")
        return key

    def readable(self, purpose: str) -> tuple[Key, ...]:
        """Return the keys of a purpose that readers accept, the primary one first."""
        keys = (key for key in self.keys.values() if key.purpose == purpose and key.status in {"primary", "active"})
        return tuple(sorted(keys, key=lambda key: (key.status != "primary", key.id)))

    # ------------------------------------------------------------------ the next epoch

    def with_member(self, member: Member) -> Keyring:
        """Return the next keyring, which one more member can open."""
        return self._next(members=(*self.members, member))

    def without_member(self, name: str) -> Keyring:
        """Return the next keyring, which this member cannot open; nobody else's name is the same."""
        return self._next(members=tuple(member for member in self.members if member.name != name))

    def with_new(self, *purposes: str, bits: int | None = None) -> Keyring:
        """Return the next keyring, with new primary keys for these purposes; the ones before stay readable.

        Args:
            purposes: What for.
            bits: How long the tags of a new ``bidx`` key are; as long as before where it is left out.
        """
        keys = dict(self.keys)
        for purpose in purposes:
            old = self.primary(purpose)
            id = next(id for id in iter(_random_id, None) if id and id not in keys)
            keys[old.id] = replace(old, status="active")
            keys[id] = Key.new(id, purpose, bits or old.bits)
        return self._next(keys=keys)

    def without_active(self, purpose: str) -> Keyring:
        """Return the next keyring, in which only the primary key of a purpose has bytes."""
        old = [key for key in self.keys.values() if key.purpose == purpose and key.status == "active"]
        gone = {key.id: replace(key, status="destroyed", secret=bytearray()) for key in old}
        return self._next(keys={**self.keys, **gone})

    def with_seal(self, level: str) -> Keyring:
        """Return the next keyring, under which this class of fields is the lowest that is sealed."""
        return self._next(seal=level, was_plain=self.was_plain or "sensitive" in {level, self.seal})

    def without_plain(self) -> Keyring:
        """Return the next keyring, of a workspace in which everything personal is sealed."""
        return self._next(was_plain=False)

    def _next(self, **changes: Any) -> Keyring:
        return replace(self, epoch=self.epoch + 1, **changes)

    def wipe(self) -> None:
        """Overwrite the keys in memory."""
        for key in self.keys.values():
            key.secret[:] = bytes(len(key.secret))

    def _payload(self) -> bytes:
        keys = [
            {"id": k.id, "purpose": k.purpose, "status": k.status, "created": k.created, "bytes": _text(k.secret)}
            | ({"bits": k.bits} if k.purpose == "bidx" else {})
            for k in self.keys.values()
        ]
        members = [asdict(member) for member in self.members]
        head = {"ws": self.workspace_id, "compartment": COMPARTMENT, "epoch": self.epoch}
        seal = {"seal": self.seal, "was_plain": self.was_plain}
        return json.dumps({**head, **seal, "members": members, "keys": keys}).encode()

    @classmethod
    def _parse(cls, payload: bytes, path: Path) -> Keyring:
        try:
            content = json.loads(payload)
            keys = [_key(entry) for entry in content["keys"]]
            members = tuple(_member(entry) for entry in content["members"])
            id_bytes(content["ws"])
            seal, was_plain = content.get("seal", "personal"), content.get("was_plain", False)
            if content["compartment"] != COMPARTMENT or len({key.id for key in keys}) != len(keys):
                raise ValueError
            if seal not in SEALS or not isinstance(was_plain, bool):
                raise ValueError
            by_id = {key.id: key for key in keys}
            return cls(content["ws"], int(content["epoch"]), members, by_id, seal, was_plain)
        except (ValueError, TypeError, LookupError, RecursionError):
            raise Damaged(f"{path} opens, but it holds no keyring as crmkit writes it") from None


def _decrypt(path: Path, sealed: bytes, identity: Identity) -> bytes:
    try:
        return bytes(pyrage.decrypt(sealed, [identity]))
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise Locked(
                f"you are not a member of this workspace: {path} is not sealed for your identity "
                f"({identity.to_public()}); let a member run crmkit members add with that key, or give the identity of "
                "a member in $CRMKIT_IDENTITY"
            ) from None
        raise Damaged(f"{path} is no whole age file") from None


def _member(entry: Mapping[str, Any]) -> Member:
    name, public_key = str(entry["name"]), str(entry["public_key"])
    kind = entry.get("kind", "member")
    if kind not in MEMBER_KINDS:
        raise ValueError
    return Member(name, public_key, kind, str(entry.get("added", "")))


def _key(entry: Mapping[str, Any]) -> Key:
    secret = bytearray(b64decode(entry["bytes"], validate=True))
    bits = int(entry.get("bits", TAG_BITS))
    return Key(int(entry["id"]), entry["purpose"], entry["status"], str(entry["created"]), secret, bits)


def _random_id() -> int:
    """Return an id that two copies of a workspace, say an original and a restored one, do not both give away."""
    return int.from_bytes(os.urandom(4), "big")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _text(secret: bytearray) -> str:
    return b64encode(secret).decode()
