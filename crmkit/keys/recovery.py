"""The recovery key: an identity in a file that lies in a drawer, for the day when a member's own is lost."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pyrage.x25519 import Identity

from crmkit.durable import sync_folder, write_at
from crmkit.errors import CrmError, Invalid, Locked, NotFound
from crmkit.keys.deeds import Deeds
from crmkit.store.files import Files
from crmkit.store.lock import LOCK_TIMEOUT, WorkspaceLock
from crmkit.vault import Vault, user_name
from crmkit.vault.identity import PRIVATE_FILE, ensure_identity, parse_identity
from crmkit.vault.keyring import Keyring
from crmkit.vault.vault import KEYRING_FILE
from crmkit.workspace import Workspace

NAME = "recovery"


@dataclass(frozen=True)
class Drill:
    """What a recovery key was proved to open.

    Attributes:
        path: The file with the recovery key.
        epoch: Of the keyring that it opened.
        keys: How many keys it found there, all of them the same as those in use.
    """

    path: Path
    epoch: int
    keys: int


def make_recovery_key(deeds: Deeds, path: Path) -> Path:
    """Write a new recovery key into a file, and let it open the keys; the former one opens nothing from now on."""
    path, identity, vault = path.expanduser().absolute(), Identity.generate(), deeds.vault
    public = str(identity.to_public())

    def check() -> None:
        if path.resolve().is_relative_to(deeds.workspace.folder.resolve()):
            raise Invalid(
                {"path": f"{path} lies in the workspace, where it would be lost with it; name a place outside"}
            )
        vault.new_recovery_key(NAME, public)

    with deeds.deed("recovery_key", f"in {path.name}: {public}", check):
        _write_new(path, _text_of(identity, vault.workspace_id))  # first: a key that nobody has is of no use
        vault.replace_recovery_key(NAME, public)
    return path


def drill(deeds: Deeds, path: Path) -> Drill:
    """Prove that a recovery key opens the keyring, and finds the keys in it that are in use; the log notes it."""
    path, vault = path.expanduser().absolute(), deeds.vault
    identity = _read(path)
    with deeds.store.lock():
        vault.refresh()
        found = _keyring(deeds.workspace, path, identity)
        try:
            used = {key.id: key for key in vault.keys}
            is_same = found.keys.keys() == used.keys() and all(
                key.secret == used[id].secret for id, key in found.keys.items()
            )
            if not is_same:
                raise CrmError(f"{path} opens a keyring that is not the one in use; make a new recovery key")
            if not _is_recovery_key(vault, identity):
                raise Invalid({"path": f"{path} holds the identity of a member, and not the recovery key"})
        finally:
            found.wipe()
        vault.note(deeds.actor(), "recovery_drill", f"{path.name} opens the keyring, epoch {found.epoch}")
    return Drill(path, found.epoch, len(found.keys))


def recover(workspace: Workspace, path: Path) -> str:
    """Make this user's identity a member with a recovery key; for a user whose own identity is lost.

    An identity is made where there is none.

    Args:
        workspace: Where it is.
        path: The file with the recovery key.

    Returns:
        The name of the new member.

    Raises:
        NotFound: There is no such file, or no keyring.
        Locked: The file holds no key, or one that does not open this workspace.
        Invalid: This user is a member already.
    """
    path = path.expanduser().absolute()
    recovery, own = _read(path), ensure_identity()
    with closing(WorkspaceLock(Files(workspace.data).lock, LOCK_TIMEOUT)) as lock, lock.hold():
        _keyring(workspace, path, recovery).wipe()  # says what is wrong with the file, if something is
        with closing(Vault(workspace.keys, recovery)) as vault:
            public = str(own.to_public())
            if public in {member.public_key for member in vault.members()}:
                raise Invalid({"identity": "yours opens this workspace already; there is nothing to recover"})
            name = _free_name(user_name(), {member.name for member in vault.members()})
            vault.note(name, "recover", f"with {path.name}: {public}")
            if _is_recovery_key(vault, recovery):  # no drill proves more
                vault.note(name, "recovery_drill", f"{path.name} opens the keyring")
            vault.add_member(name, public)
    return name


def _is_recovery_key(vault: Vault, identity: Identity) -> bool:
    public = str(identity.to_public())
    return any(member.public_key == public and member.kind == "recovery" for member in vault.members())


def _keyring(workspace: Workspace, path: Path, identity: Identity) -> Keyring:
    try:
        return Keyring.read(workspace.keys / KEYRING_FILE, identity)
    except Locked:
        raise Locked(
            f"{path} does not open the keys of {workspace.folder}; perhaps a newer recovery key does"
        ) from None


def _free_name(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} {number}"
    return free


def _read(path: Path) -> Identity:
    try:
        return parse_identity(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise Locked(f"{path} cannot be read: {error.strerror}") from None


def _text_of(identity: Identity, workspace_id: str) -> bytes:
    made = f"{datetime.now(UTC):%Y-%m-%d}"
    lines = (
        f"# recovery key of the crmkit workspace {workspace_id}, made {made}; keep it where nobody gets it",
        f"# public key: {identity.to_public()}",
        str(identity),
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _write_new(path: Path, content: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    except FileExistsError:
        raise Invalid({"path": f"{path} exists already; name a new file"}) from None
    try:
        os.fchmod(fd, PRIVATE_FILE)
        write_at(fd, content, 0)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    sync_folder(path.parent)
