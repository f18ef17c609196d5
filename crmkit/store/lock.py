"""The write lock of a workspace: one thread of one process at a time."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crmkit.errors import StoreBusy
from crmkit.store.base import closed

if sys.platform != "win32":
    import fcntl

_PAUSE = 0.0005  # seconds between two tries; short, so that no writer starves beside a busy one


class WorkspaceLock:
    """An advisory lock on a file that is never replaced or removed; may be nested in one thread."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._thread = threading.RLock()
        self._depth = 0

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Hold the lock; what is yielded says whether it was taken just now (and not by an outer block).

        Raises:
            StoreBusy: Somebody else kept it for longer than the time limit.
            CrmError: The lock was closed.
        """
        deadline = time.monotonic() + self._timeout
        if not self._thread.acquire(timeout=self._timeout):
            raise self._busy("another thread")
        try:
            self._depth += 1
            try:
                if self._depth == 1:
                    self._take(deadline)
                yield self._depth == 1
            finally:
                self._depth -= 1
                if self._depth == 0 and self._fd >= 0:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:  # of its own: an interrupt on the way out must not leave the thread lock behind
            self._thread.release()

    def close(self) -> None:
        """Close the file, which also lets go of the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self, deadline: float) -> None:
        while self._fd >= 0:
            try:
                return fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._busy("another process") from None
                time.sleep(_PAUSE)
        raise closed()

    def _busy(self, who: str) -> StoreBusy:
        return StoreBusy(f"{self._path}: {who} kept the workspace locked for {self._timeout:g} seconds; try again")
