"""A stand between crmkit and its files: writes down what is done to them, and can end or disturb it at any call.

While `Disk.watching` runs, the calls of `os` that concern one folder pass through here on their way to the real
files. Three proofs are made from that: what a loss of power may leave (`power.py` makes it from the effects), what
a process leaves that ends at a call, and what crmkit says when a call fails.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAPPED = 4096  # bytes that are looked at of a file that is mapped into memory


class Killed(BaseException):
    """The process ends here; from now on every call of it ends so, and nothing that it unwinds has an effect."""


@dataclass(frozen=True)
class Write:
    """Bytes were given to the system for a file."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    """A file got another length."""

    file: int
    size: int


@dataclass(frozen=True)
class Sync:
    """What was written to a file is on disk."""

    file: int


@dataclass(frozen=True)
class Dropped:
    """A sync of a file failed: what was written since the one before never reaches the disk, and no sync says so."""

    file: int


@dataclass(frozen=True)
class Name:
    """A name means this file from now on, or nothing."""

    path: str
    file: int | None


@dataclass(frozen=True)
class SyncFolder:
    """The names in a folder are on disk."""

    path: str


@dataclass(frozen=True)
class Note:
    """What the program was told, or has read: from now on only these states may be found."""

    allowed: tuple[Any, ...]


Effect = Write | Truncate | Sync | Dropped | Name | SyncFolder | Note


@dataclass(frozen=True)
class Fault:
    """Something that happens at one call.

    Attributes:
        number: At which call; the first is 0.
        kind: "before" or "within" the call the process ends, "short" writes only half, "error" fails.
        code: The errno of an error.
    """

    number: int
    kind: str
    code: int = 0


class Disk:
    """The files of one folder, watched.

    Args:
        root: The folder.
        without: Calls that do nothing, as if the program did not make them: "sync", "sync_folder".
        late_sync: Sync a file only at the next note, as if the program acknowledged first.

    Attributes:
        effects: What was done, in order.
        calls: The kinds of calls that were made, in order.
    """

    def __init__(self, root: Path, *, without: Sequence[str] = (), late_sync: bool = False) -> None:
        self.root = str(root)
        self.effects: list[Effect] = []
        self.calls: list[str] = []
        self.names: dict[str, int] = {}
        self.contents: dict[int, bytearray] = {}
        self.fault: Fault | None = None
        self._without, self._is_late, self._waiting = set(without), late_sync, list[Sync]()
        self._until = ""
        self._meanwhile: tuple[str, Callable[[], object]] | None = None
        self._is_dead = False
        self._fds: dict[int, int | str] = {}
        self._warned: set[int] = set()  # descriptors that are told of a failed sync when they sync
        self._opened: list[int] = []
        self._spyholes: dict[int, int] = {}
        self._real: dict[str, Callable[..., Any]] = {}
        for path in sorted(Path(root).rglob("*")):
            if path.is_file():
                self.names[str(path)] = len(self.contents)
                self.contents[len(self.contents)] = bytearray(path.read_bytes())
        self.first_names, self.first_contents = dict(self.names), {id: bytes(b) for id, b in self.contents.items()}

    @contextmanager
    def watching(self, fault: Fault | None = None) -> Iterator[Disk]:
        """Let the calls pass through here while the block runs; `Killed` ends it quietly."""
        self.fault = fault
        places = {name: (os, name) for name in _CALLS if hasattr(os, name)}
        places |= {"flock": (fcntl, "flock"), "io.open": (io, "open"), "builtins.open": (builtins, "open")}
        self._real = {kind: getattr(module, name) for kind, (module, name) in places.items()}
        wrappers = {kind: getattr(self, f"_{kind.replace('.', '_')}", None) for kind in places}
        for kind, (module, name) in places.items():
            setattr(module, name, wrappers[kind] or self._plain(kind))
        try:
            with self.process():
                yield self
        finally:
            self._look_into_memory()
            for fd in self._spyholes.values():
                self._real["close"](fd)
            for kind, (module, name) in places.items():
                setattr(module, name, self._real[kind])

    @contextmanager
    def process(self, until: str = "") -> Iterator[None]:
        """What the block opens belongs to a process that ends with it, or at the first call of a kind.

        Args:
            until: "sync" for instance, or "half a pwrite".
        """
        before, self._opened = self._opened, []
        self._until = until
        try:
            yield
        except Killed:
            pass
        finally:
            self._is_dead, self._until = False, ""
            for fd in self._opened:
                self._forget(fd)
                with suppress(OSError):  # closed already, by a file object of Python
                    if fd not in self._spyholes.values() and _path_of(fd).startswith(self.root):
                        _let_go(fd)
            self._opened = before

    def meanwhile(self, before: str, work: Callable[[], object]) -> None:
        """Have somebody else do some work just before the next call of a kind."""
        self._meanwhile = before, work

    def note(self, allowed: Sequence[Any]) -> None:
        """Write down which states may be found from now on."""
        self._look_into_memory()
        if not self._is_dead:
            self.effects.append(Note(tuple(allowed)))
        self.effects += self._waiting
        self._waiting = []

    def unlike_the_folder(self) -> list[str]:
        """Return the files that are not as the effects say: something was done to them unseen."""
        told = {path: bytes(self.contents[file]) for path, file in self.names.items()}
        real = {str(path): path.read_bytes() for path in Path(self.root).rglob("*") if path.is_file()}
        return sorted(path for path in told.keys() | real.keys() if told.get(path) != real.get(path))

    # ------------------------------------------------------------------------------------------------- every call

    def _pass(self, kind: str, act: Callable[[], Any], half: Callable[[], Any] | None = None, path: Any = None) -> Any:
        """Make one call, unless this is where something happens."""
        if self._is_dead or self._until in (kind, f"half a {kind}"):
            if self._until == f"half a {kind}" and half is not None and not self._is_dead:
                half()
            self._is_dead = True
            raise Killed
        if self._meanwhile is not None and kind == self._meanwhile[0]:
            work, self._meanwhile = self._meanwhile[1], None
            work()
        self._look_into_memory()
        number = len(self.calls)
        self.calls.append(kind)
        fault = self.fault
        if fault is None or fault.number != number:
            return act()
        if fault.kind == "error":
            raise OSError(fault.code, os.strerror(fault.code), path)
        if fault.kind == "short":
            return (half or act)()
        if fault.kind == "within":
            (half or act)()
        self._is_dead = True
        raise Killed

    def _plain(self, kind: str) -> Callable[..., Any]:
        """Return a call that changes no file."""

        def call(place: Any = ".", *arguments: Any, **named: Any) -> Any:
            real = self._real[kind]
            if not self._concerns(place):
                return real(place, *arguments, **named)
            path = None if isinstance(place, int) else place
            return self._pass(kind, lambda: real(place, *arguments, **named), path=path)

        return call

    def _concerns(self, place: Any) -> bool:
        if isinstance(place, int):
            return place in self._fds or self._adopt(place)
        if not isinstance(place, str | bytes | os.PathLike):
            return False
        path = os.fsdecode(place)
        return path == self.root or path.startswith(self.root + "/")

    def _adopt(self, fd: int) -> bool:
        """Learn what a descriptor is that a file object of Python opened."""
        try:
            path = _path_of(fd)
        except OSError:
            return False
        if path in self.names:
            self._fds[fd] = self.names[path]
        return path in self.names

    def _forget(self, fd: int) -> None:
        self._fds.pop(fd, None)
        self._warned.discard(fd)

    def _file(self, fd: int) -> int:
        file = self._fds[fd]
        assert isinstance(file, int)
        return file

    def _do(self, effect: Effect) -> None:
        """Write an effect down, and keep what the files hold now."""
        if isinstance(effect, Write):
            data, end = self.contents[effect.file], effect.offset + len(effect.data)
            data.extend(bytes(max(0, end - len(data))))
            data[effect.offset : end] = effect.data
        elif isinstance(effect, Truncate):
            data = self.contents[effect.file]
            data.extend(bytes(max(0, effect.size - len(data))))
            del data[effect.size :]
        elif isinstance(effect, Name) and effect.file is not None:
            self.names[effect.path] = effect.file
        elif isinstance(effect, Name):
            self.names.pop(effect.path, None)
        self.effects.append(effect)

    def _look_again(self, file: int, path: str | int) -> None:
        """Find out what was written unseen, by a file object of Python for instance."""
        with self._real["io.open"](path, "rb", closefd=not isinstance(path, int)) as real:
            real.seek(0)
            self._compare(file, real.read())

    def _compare(self, file: int, data: bytes) -> None:
        if data != self.contents[file]:
            if len(data) != len(self.contents[file]):
                self._do(Truncate(file, len(data)))
            self._do(Write(file, 0, data))

    def _look_into_memory(self) -> None:
        """Find out what was written without a call, to a file that is mapped into memory."""
        for path, file in self.names.items():
            if path.endswith("/LOCK"):
                with suppress(OSError):
                    self._compare(file, self._real["pread"](self._look_through(path, file), MAPPED, 0))

    def _look_through(self, path: str, file: int) -> int:
        """Return a descriptor of our own for a file that is mapped into memory; many calls are made meanwhile."""
        if file not in self._spyholes:
            self._spyholes[file] = self._real["open"](path, os.O_RDONLY | os.O_CLOEXEC)
        return self._spyholes[file]

    # -------------------------------------------------------------------------------------- calls that change files

    def _open(self, path: Any, flags: int, mode: int = 0o777, **named: Any) -> int:
        if not self._concerns(path):
            return int(self._real["open"](path, flags, mode, **named))
        name = os.fspath(path)

        def act() -> int:
            fd = int(self._real["open"](path, flags, mode, **named))
            self._opened.append(fd)
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                return fd  # a file without a name, gone when it is closed
            if stat.S_ISDIR(self._real["fstat"](fd).st_mode):
                self._fds[fd] = name
                return fd
            self._appears(name)
            self._fds[fd] = self.names[name]
            if flags & os.O_TRUNC and self.contents[self.names[name]]:
                self._do(Truncate(self.names[name], 0))
            return fd

        return int(self._pass("open", act, path=path))

    def _appears(self, name: str) -> None:
        if name not in self.names:
            file = len(self.contents)
            self.contents[file] = bytearray()
            self._do(Name(name, file))

    def _io_open(self, file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if isinstance(file, int) or "opener" in named or not self._concerns(file):  # an opener makes calls of its own
            return self._real["io.open"](file, mode, *arguments, **named)

        def act() -> Any:
            opened = self._real["io.open"](file, mode, *arguments, **named)
            if mode.strip("bt") != "r":
                self._appears(os.fspath(file))
            return opened

        return self._pass("open", act, path=file)

    _builtins_open = _io_open

    def _close(self, fd: int) -> None:
        self._forget(fd)
        if fd in self._opened:
            self._opened.remove(fd)
        self._real["close"](fd)  # a call that cannot fail on a local disk, and that the end of a process makes as well

    def _pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if not self._concerns(fd):
            return int(self._real["pwrite"](fd, data, offset))

        def write(part: bytes) -> int:
            self._do(Write(self._file(fd), offset, bytes(part)))
            return int(self._real["pwrite"](fd, part, offset))

        return int(self._pass("pwrite", lambda: write(data), lambda: write(data[: len(data) // 2])))

    def _write(self, fd: int, data: bytes) -> int:
        if not self._concerns(fd):
            return int(self._real["write"](fd, data))

        def write(part: bytes) -> int:
            self._do(Write(self._file(fd), os.lseek(fd, 0, os.SEEK_CUR), bytes(part)))
            return int(self._real["write"](fd, part))

        return int(self._pass("write", lambda: write(data), lambda: write(data[: len(data) // 2])))

    def _ftruncate(self, fd: int, size: int) -> None:
        if not self._concerns(fd):
            self._real["ftruncate"](fd, size)
            return

        def act() -> None:
            self._real["ftruncate"](fd, size)
            if size != len(self.contents[self._file(fd)]):
                self._do(Truncate(self._file(fd), size))

        self._pass("ftruncate", act)

    def _fsync(self, fd: int) -> None:
        if not self._concerns(fd):
            self._real["fsync"](fd)
            return
        place = self._fds[fd]
        kind = "sync_folder" if isinstance(place, str) else "sync"
        if kind in self._without:
            return

        def act() -> None:
            self._real["fsync"](fd)
            if isinstance(place, str):
                self.effects.append(SyncFolder(place))
                return
            self._look_again(place, fd)
            (self._waiting if self._is_late else self.effects).append(Sync(place))

        if fd in self._warned:
            self._warned.remove(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            self._pass(kind, act)
        except OSError:
            if isinstance(place, int):
                self.effects.append(Dropped(place))
                self._warned |= {other for other, file in self._fds.items() if file == place and other != fd}
            raise

    _fdatasync = _fsync

    def _replace(self, source: Any, target: Any, **named: Any) -> None:
        if not self._concerns(target):
            self._real["replace"](source, target, **named)
            return
        old, new = os.fspath(source), os.fspath(target)

        def act() -> None:
            if old in self.names:
                self._look_again(self.names[old], old)
            self._real["replace"](source, target, **named)
            moved = {path: file for path, file in self.names.items() if path == old or path.startswith(old + "/")}
            for path, file in moved.items():
                self._do(Name(new + path[len(old) :], file))
                self._do(Name(path, None))

        self._pass("replace", act, path=target)

    _rename = _replace

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        name = os.fspath(path)
        if dir_fd is not None:
            name = f"{_path_of(dir_fd)}/{name}"
        if not self._concerns(name):
            self._real["unlink"](path, dir_fd=dir_fd)
            return

        def act() -> None:
            self._real["unlink"](path, dir_fd=dir_fd)
            self._do(Name(name, None))

        self._pass("unlink", act, path=path)

    _remove = _unlink

    def _flock(self, fd: int, operation: int) -> None:
        if not self._concerns(fd):
            self._real["flock"](fd, operation)
            return
        kind = "unlock" if operation & fcntl.LOCK_UN else "lock"
        self._pass(kind, lambda: self._real["flock"](fd, operation))


def _path_of(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink())


_CALLS = (
    *("open", "close", "pwrite", "write", "ftruncate", "fsync", "fdatasync", "replace", "rename", "unlink", "remove"),
    *("stat", "lstat", "fstat", "pread", "read", "mkdir", "rmdir", "listdir", "scandir", "chmod", "fchmod"),
)


def _let_go(fd: int) -> None:
    """Close a file, and its lock with it, but not its number: what the process left behind may close that later."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, fd, inheritable=False)
    os.close(nowhere)
