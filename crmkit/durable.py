"""Durable files: checksummed frames, appends that are on disk when they return, atomic replacement.

Used by the journal of the store, the key files and the audit log. A workspace folder may be shared by
several system users of one group, so every file is 0660 and every folder 2770 whatever the umask says.
"""

from __future__ import annotations

import os
import secrets
import zlib
from contextlib import suppress
from pathlib import Path

from crmkit.errors import CrmError, Damaged, Refused

FILE_MODE = 0o660
FOLDER_MODE = 0o2770
_POLYNOMIAL = 0xEDB88320  # of CRC-32
_LONGEST = 1 << 24  # bytes in which a wrong bit is looked for, which takes a second for each million


def frame(payload: bytes) -> bytes:
    """Return `payload` as one line: CRC-32 in 8 hex digits, a blank, the payload, a newline."""
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def unframe(line: bytes) -> bytes | None:
    """Return the payload of one whole line (with its newline), or None where the line is not sound."""
    if len(line) < 10 or line[8:9] != b" " or line[-1:] != b"\n":
        return None
    payload = line[9:-1]
    return payload if b"%08x" % zlib.crc32(payload) == line[:8] else None


def with_bit_put_right(data: bytes, crc: int) -> bytes | None:
    """Return `data` as it was if one bit of it, or of its CRC-32, was flipped since; None where it was more.

    Every single bit changes the checksum in its own way, which says which one it was.
    """
    wrong = zlib.crc32(data) ^ crc
    if wrong.bit_count() <= 1:
        return data
    if len(data) > _LONGEST:
        return None
    change = _POLYNOMIAL  # of the last bit
    for bit in range(8 * len(data) - 1, -1, -1):
        if change == wrong:
            whole = bytearray(data)
            whole[bit // 8] ^= 1 << bit % 8
            return bytes(whole)
        change = change >> 1 ^ (_POLYNOMIAL if change & 1 else 0)
    return None


def explained(error: OSError, place: Path) -> CrmError:
    """Return the error of ours for what the system says about a file, or about something in `place`."""
    path = error.filename or place
    if isinstance(error, FileNotFoundError):
        return Damaged(f"{path}: is missing")
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return Damaged(f"{path}: cannot be opened ({error.strerror})")
    if isinstance(error, PermissionError):
        return Refused(f"{path}: this user may not read and write it ({error.strerror})")
    return CrmError(f"{path}: cannot be read and written ({error.strerror})")


def make_folder(path: Path, mode: int = FOLDER_MODE) -> None:
    """Create the folder with exactly this mode, and its parents with their usual one; leave it where it exists."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(mode)


def open_file(path: Path, flags: int = os.O_RDWR, mode: int = FILE_MODE) -> int:
    """Open a file, creating it with exactly `mode` where it is missing, and return its descriptor."""
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, mode)
        os.fchmod(fd, mode)
        return fd


class NotSynced(OSError):
    """The system could not say that what was written is on disk; it may be, or may never be."""


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset` and return when it is on disk; take back what is not.

    After a failed sync the system may go on showing bytes that never reach the disk, and report a later sync of
    them as done. So they are taken back too, before anybody reads them.

    Raises:
        NotSynced: `data` was written, and may or may not be on disk.
        OSError: Nothing of `data` is in the file then, as far as the system lets us say so.
    """
    try:
        written = os.pwrite(fd, data, offset)
        if written != len(data):
            raise OSError(28, "short write")
    except OSError:
        os.ftruncate(fd, offset)
        raise
    try:
        os.fdatasync(fd)
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(fd, offset)
            os.fdatasync(fd)  # or it could come back, after others have gone on without it
        raise NotSynced(error.errno, error.strerror) from error


def write_all(fd: int, data: bytes, offset: int) -> int:
    """Write all of `data` at `offset` of a file that is not in use yet, and return how much that is."""
    written = 0
    while written < len(data):
        written += os.pwrite(fd, data[written:], offset + written)
    return written


def temporary_name(name: str) -> str:
    """Return a name for a file that will be called `name` when it is complete; nobody else uses it."""
    return f".{name}.{secrets.token_hex(6)}.tmp"


def replace_file(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Give `path` a new content, all or nothing, on disk when this returns."""
    temporary = path.with_name(temporary_name(path.name))
    fd = open_file(temporary, os.O_RDWR | os.O_TRUNC, mode)
    try:
        write_at(fd, data, 0)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    sync_folder(path.parent)


def left_over(folder: Path) -> list[Path]:
    """Return the files that `replace_file` has not given their name: of writers at work, or of killed ones."""
    return sorted(folder.glob(".*.tmp"))


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
