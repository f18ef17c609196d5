"""An identity that `crmkit unlock` opened, kept for some hours for every process of the user.

It lies in the user's runtime directory, which most systems keep in memory and remove at the last logout; where there
is none, in a private folder below the system's temporary one. Meanwhile every process of the user can read it. A file
that is over is overwritten and removed by whoever comes across it first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from crmkit.errors import Invalid, Locked

LASTS = timedelta(hours=8)
LONGEST = timedelta(hours=24)

_PREFIX = "unlocked-"
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_MOST = 16_384  # bytes that are read of a file


def keep(protected: bytes, opened: str, lasts: timedelta = LASTS) -> datetime:
    """Keep an identity open.

    Args:
        protected: The identity as it is on disk; what `kept` finds it by.
        opened: The same in the clear.
        lasts: How long.

    Returns:
        Its end, UTC.

    Raises:
        Invalid: It would last for too long, or not at all.
        Locked: There is no folder that only this user can write to.
    """
    if not timedelta() < lasts <= LONGEST:
        raise Invalid({"for": f"must be more than nothing and at most {LONGEST // timedelta(hours=1)} hours"})
    until = datetime.now(UTC) + lasts
    content = json.dumps({"until": until.isoformat(), "identity": opened}).encode()
    temporary = f".{_PREFIX}{secrets.token_hex(6)}"
    with _folder(make=True) as folder:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE_FLAGS, 0o600, dir_fd=folder)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        os.rename(temporary, _name(protected), src_dir_fd=folder, dst_dir_fd=folder)
    return until


def kept(protected: bytes) -> str | None:
    """Return an identity that is kept open, or None.

    Raises:
        Locked: The folder is one that somebody else could have written to.
    """
    try:
        with _folder(make=False) as folder:
            return _read(folder, _name(protected))
    except FileNotFoundError:
        return None


def forget() -> int:
    """Overwrite and remove every identity that is kept open; return how many those were."""
    try:
        with _folder(make=False) as folder:
            found = os.listdir(folder)  # noqa: PTH208  # of a descriptor: a path could lead elsewhere by now
            names = [name for name in found if name.lstrip(".").startswith(_PREFIX)]
            for name in names:
                _erase(folder, name)
            return len(names)
    except FileNotFoundError:
        return 0


def _name(protected: bytes) -> str:
    """Return the file of one identity; a changed passphrase is another file."""
    return _PREFIX + hashlib.sha256(protected).hexdigest()[:32]


def _read(folder: int, name: str) -> str | None:
    fd = os.open(name, os.O_RDONLY | _FILE_FLAGS, dir_fd=folder)
    with os.fdopen(fd, "rb") as file:
        _check(os.fstat(fd), name)
        try:
            content = json.loads(file.read(_MOST))
            left = datetime.fromisoformat(content["until"]) - datetime.now(UTC)
            opened = str(content["identity"])
        except (ValueError, TypeError, LookupError):
            left, opened = timedelta(), ""
    if timedelta() < left <= LONGEST:  # more is left only where somebody set the clock back
        return opened
    _erase(folder, name)
    return None


def _erase(folder: int, name: str) -> None:
    """Overwrite a file and remove it; another process may have done so at the same time."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(name, os.O_WRONLY | _FILE_FLAGS, dir_fd=folder)
        try:
            os.pwrite(fd, bytes(os.fstat(fd).st_size), 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _folder(*, make: bool) -> Iterator[int]:
    """Open the folder, which nobody else can write to or look into.

    Raises:
        Locked: It belongs to somebody else, is open to others, is a link or cannot be made.
        FileNotFoundError: It is not there, and is not to be made.
    """
    path = _place()
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
        fd = os.open(path, _FOLDER_FLAGS)
        try:
            _check(os.fstat(fd), str(path))
            yield fd
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Locked(f"{path} cannot hold an opened identity: {error.strerror}") from None


def _place() -> Path:
    """Return the folder's path, in the runtime directory where there is one."""
    uid = os.getuid()
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}")
    try:
        _check(runtime.stat(), str(runtime))
    except (FileNotFoundError, NotADirectoryError):
        return Path(tempfile.gettempdir()) / f"crmkit-{uid}"
    except OSError as error:
        raise Locked(f"{runtime} cannot hold an opened identity: {error.strerror}") from None
    return runtime / "crmkit"


def _check(found: os.stat_result, name: str) -> None:
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Locked(f"{name} cannot hold an opened identity: it must belong to you, and be closed to all others")
