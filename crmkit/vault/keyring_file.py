"""The keyring as one process holds it: read once, read again when another process has put a newer one in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pyrage.x25519 import Identity

from crmkit.errors import Damaged, Locked
from crmkit.vault.guarded import Guarded
from crmkit.vault.keyring import Key, Keyring
from crmkit.vault.layout import Mark, mark_of
from crmkit.vault.trust import Trust


class KeyringFile(Guarded):
    """The keyring of an open vault.

    Args:
        path: The age file.
        identity: Opens it.
        accept: Take a keyring that was put back on purpose, though it is older than what this user saw.

    Attributes:
        current: The keyring that was read last.

    Raises:
        Locked: The file cannot be read, or the identity does not open it.
        Damaged: It is no keyring, or an older or foreign one was put in its place.
    """

    def __init__(self, path: Path, identity: Identity, *, accept: bool = False) -> None:
        self._path = path
        self._identity = identity
        self._is_wiped = False
        self._mark, self.current = self._read(accept=accept)
        self._trust = Trust(self.workspace_id)

    @property
    def workspace_id(self) -> str:
        """The workspace that the keys belong to."""
        return self.current.workspace_id

    @property
    def public_key(self) -> str:
        """The age recipient of the identity that opened it."""
        return str(self._identity.to_public())

    def primary(self, purpose: str) -> Key:
        """Return the key that writes for this purpose."""
        self.check_open()
        return self.current.primary(purpose)

    def readable(self, purpose: str) -> tuple[Key, ...]:
        """Return the keys of a purpose that readers accept, the primary one first."""
        self.check_open()
        return self.current.readable(purpose)

    def find(self, purpose: str, id: int) -> Key:
        """Return the key with this id; it may have been made by another process just now.

        Raises:
            Damaged: The keyring holds no such key for this purpose.
            Locked: There is a newer keyring, and this user is no member any more.
        """
        self.check_open()
        try:
            return self.current.find(purpose, id)
        except Damaged:
            if not self.refresh():
                raise
        return self.current.find(purpose, id)

    def check_open(self) -> None:
        """Check that the keys have not been overwritten: what was made of one before this call was made of its bytes.

        Raises:
            Locked: They have been, maybe by another thread just now.
        """
        if self._is_wiped:
            raise Locked("the vault is closed")

    def refresh(self) -> bool:
        """Read the keyring again if another process has replaced it; return whether one has.

        Raises:
            Locked: This user is no member any more.
            Damaged: What was put in its place is no keyring, or an older or foreign one.
        """
        self.check_open()
        if mark_of(self._path) == self._mark:
            return False
        self._mark, newer = self._read()
        self._take(newer)
        return True

    def _read(self, *, accept: bool = False) -> tuple[Mark | None, Keyring]:
        """Return the keyring in the file, and the mark of the file, if this user never saw a newer one.

        Another process may replace it, and pin the new one, while it is read here: then that is read.
        """
        while True:
            mark = mark_of(self._path)
            keyring = Keyring.read(self._path, self._identity)
            trust = Trust(keyring.workspace_id)
            try:
                (trust.accept_keyring if accept else trust.check_keyring)(keyring)
            except Damaged:
                if mark_of(self._path) == mark:
                    raise
            else:
                return mark, keyring

    def replace(self, newer: Keyring) -> None:
        """Put a keyring in the place of the current one; it is on disk when this returns.

        The caller holds the lock of the workspace, and has refreshed.
        """
        newer.write(self._path)
        self._trust.check_keyring(newer)
        self._take(newer)
        self._mark = mark_of(self._path)

    def wipe(self) -> None:
        """Overwrite the keys in memory, and let go of the identity; nothing is read again."""
        if not self._is_wiped:
            self._is_wiped = True
            self.current.wipe()
            del self._identity

    def _take(self, newer: Keyring) -> None:
        """Go on with a newer keyring; each key is in memory once, and one that was destroyed no more."""
        before, keys = self.current.keys, dict(newer.keys)
        for id, key in newer.keys.items():
            if id in before and key.is_destroyed:
                before[id].secret[:] = bytes(len(before[id].secret))
            elif id in before and key.secret is not before[id].secret:
                key.secret[:] = bytes(len(key.secret))
                keys[id] = replace(key, secret=before[id].secret)  # the same bytes, or the pins would not have it
        self.current = replace(newer, keys=keys)
