"""The write lock of a workspace: one thread of one process at a time."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crmkit.errors import CrmError, StoreBusy
from crmkit.store.base import closed

if sys.platform != "win32":
    import fcntl

LOCK_TIMEOUT = 10.0  # seconds, unless somebody says otherwise
_PAUSE = 0.0005  # seconds between two tries; short, so that no writer starves beside a busy one


class WorkspaceLock:
    """An advisory lock on a file that is never replaced or removed; may be nested in one thread."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._open()
        self._thread = threading.RLock()
        self._depth = 0
        _locks.add(self)

    @contextmanager
    def hold(self, timeout: float | None = None) -> Iterator[bool]:
        """Hold the lock; what is yielded says whether it was taken just now (and not by an outer block).

        Args:
            timeout: Seconds to wait, where it is not the usual time.

        Raises:
            StoreBusy: Somebody else kept it for longer than the time limit.
            CrmError: The lock was closed, or the system cannot lock.
        """
        patience = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + patience
        thread = self._thread  # after a fork the child has another one
        if not thread.acquire(timeout=patience):
            raise self._busy("another thread", patience)
        try:
            self._depth += 1
            try:
                if self._depth == 1:
                    self._take(deadline, patience)
                yield self._depth == 1
            finally:
                if thread is self._thread:  # else this is the child of a fork, and the lock its parent's
                    self._depth -= 1
                    if self._depth == 0 and self._fd >= 0:
                        fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:  # of its own: an interrupt on the way out must not leave the thread lock behind
            thread.release()

    @contextmanager
    def keep_threads_out(self) -> Iterator[None]:
        """Keep the other threads of this process from holding the lock; other processes may.

        Raises:
            StoreBusy: Another thread kept it for longer than the time limit.
        """
        thread = self._thread
        if not thread.acquire(timeout=self._timeout):
            raise self._busy("another thread", self._timeout)
        try:
            yield
        finally:
            thread.release()

    def is_held(self) -> bool:
        """Return whether some thread of this process holds the lock."""
        return self._depth > 0

    def close(self) -> None:
        """Close the file, which also lets go of the lock."""
        self._fd = -1
        self._release()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        self._release = weakref.finalize(self, os.close, self._fd)  # also where nobody closes the store

    def _take(self, deadline: float, patience: float) -> None:
        while self._fd >= 0:
            try:
                return fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._busy("another process", patience) from None
                time.sleep(_PAUSE)
            except OSError as error:
                raise CrmError(f"{self._path}: cannot be locked ({error.strerror})") from error
        raise closed()

    def _busy(self, who: str, patience: float) -> StoreBusy:
        return StoreBusy(f"{self._path}: {who} kept the workspace locked for {patience:g} seconds; try again")

    def _begin_anew(self) -> None:
        """Let go, in the child of a fork, of what belongs to the parent: the two would hold the lock together."""
        self._thread, self._depth = threading.RLock(), 0
        if self._fd >= 0:
            with suppress(OSError):  # the folder was removed: closed for the child, and no reason to leave others out
                self.close()
                self._open()


_locks: weakref.WeakSet[WorkspaceLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_locks):
        lock._begin_anew()  # its own module


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
