"""Whole files sealed as age files, in one pass: what backups are kept in."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO

import pyrage
from pyrage.x25519 import Recipient

from crmkit.errors import Damaged, Locked
from crmkit.vault.identity import load_identity
from crmkit.vault.keyring import Member

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def seal_stream(chunks: Iterable[bytes], file: BinaryIO, members: Sequence[Member]) -> str:
    """Write bytes into a new age file that every member can open.

    Returns:
        The SHA-256 of the age file, in hex.
    """
    source, sink = _Source(chunks), _Sink(file)
    try:
        pyrage.encrypt_io(source, sink, [Recipient.from_str(member.public_key) for member in members])
    except pyrage.EncryptError:
        raise source.error or sink.error or Damaged("the age file could not be written") from None
    return sink.digest.hexdigest()


def open_stream(sealed: BinaryIO, file: BinaryIO, name: str) -> None:
    """Write what an age file holds into another file, with the identity of this user.

    Args:
        sealed: The age file.
        file: Where its content goes.
        name: What messages call the age file.

    Raises:
        Locked: The user has no identity, or it does not open the file.
        Damaged: It is no whole age file.
    """
    sink, identity = _Sink(file), load_identity()
    try:
        pyrage.decrypt_io(sealed, sink, [identity])
    except pyrage.DecryptError as error:
        if sink.error:
            raise sink.error from None
        if "No matching keys" in str(error):
            raise Locked(
                f"{name} is not sealed for your identity ({identity.to_public()}); give the identity of somebody who"
                " was a member when it was made, in $CRMKIT_IDENTITY"
            ) from None
        raise Damaged(f"{name} is no whole age file") from None
    except OSError:  # what pyrage says of a chunk that does not open
        raise sink.error or Damaged(f"{name} was changed or cut") from None


class _Source(io.RawIOBase):
    """Chunks as a file to read from; remembers the error that stopped it, of which pyrage keeps only the text."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._chunks = iter(chunks)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        try:
            while not self._left:
                self._left = next(self._chunks)
        except StopIteration:
            return 0
        except BaseException as error:
            self.error = error
            raise
        into = memoryview(buffer).cast("B")
        count = min(len(into), len(self._left))
        into[:count], self._left = self._left[:count], self._left[count:]
        return count


class _Sink:
    """A file to write to that is hashed on the way, and remembers its error."""

    def __init__(self, file: BinaryIO) -> None:
        self.error: BaseException | None = None
        self.digest = hashlib.sha256()
        self._file = file

    def write(self, data: bytes) -> int:
        try:
            self.digest.update(data)
            return self._file.write(data)
        except BaseException as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()
