"""Locking an open workspace: at once when somebody asks for it, and by itself when nobody has used it for a while."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from crmkit.errors import CrmError, Invalid, Locked

IDLE_VARIABLE = "CRMKIT_IDLE_MINUTES"
IDLE_MINUTES = 15.0

LOCKED = "the workspace is locked; crm.unlock() opens it again"
CLOSED = "the workspace is closed; open it again"
IDLE = "the workspace was locked because nobody used it; it opens again with what you do next"

_by_itself: ContextVar[bool] = ContextVar("done by a watch, not by a person", default=False)


class Locking:
    """Whether an open workspace is locked, and when it locks itself.

    Args:
        drop: Drops the keys and what was opened with them.
        open_again: Opens the keys again; `Locked` where that takes a passphrase.
        idle_minutes: After so much time without use it locks itself; 0 for never.
    """

    def __init__(self, drop: Callable[[], None], open_again: Callable[[], None], idle_minutes: float) -> None:
        self._drop = drop
        self._open_again = open_again
        self._seconds = idle_minutes * 60
        self._mutex = threading.RLock()
        self._why = ""  # it is locked; empty while it is open
        self._used = time.monotonic()
        self._busy = 0
        self._timer: threading.Timer | None = None
        self._arm(self._seconds)

    @property
    def is_locked(self) -> bool:
        """Whether the keys are gone from memory."""
        return bool(self._why)

    def use(self) -> None:
        """Note that somebody reads or writes; open again what locked itself.

        Raises:
            Locked: It was locked on purpose, or opening it takes a passphrase; or a watch asks, which opens nothing.
        """
        if not _by_itself.get():
            self._used = time.monotonic()
        if not self._why:
            return
        if self._why in (LOCKED, CLOSED) or _by_itself.get():
            raise Locked(self._why)
        self.unlock()

    def lock(self, why: str = LOCKED) -> None:
        """Drop the keys now; what is locked on purpose, only `unlock` opens again."""
        with self._mutex:
            self._disarm()
            was, self._why = self._why, self._why if self._why in (LOCKED, CLOSED) else why
            try:
                if not was:
                    self._drop()
            except BaseException:
                self._why = ""
                raise

    def unlock(self) -> None:
        """Open the keys again.

        Raises:
            Locked: That takes a passphrase; the message names the command that asks for it.
        """
        with self._mutex:
            if self._why:
                self._open_again()
            self._why = ""
            self._used = time.monotonic()
            self._arm(self._seconds)

    def close(self) -> None:
        """Look at the clock no more; what is locked stays so."""
        self._disarm()
        if self._why:
            self._why = CLOSED

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Do not lock by itself meanwhile: something takes long."""
        self.use()
        with self._mutex:
            self._busy += 1
        try:
            yield
        finally:
            with self._mutex:
                self._busy -= 1
                self._used = time.monotonic()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        if self._seconds:
            self._timer = threading.Timer(seconds, _look, [weakref.ref(self)])
            self._timer.daemon = True
            self._timer.start()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at_the_clock(self) -> None:
        """Lock, or look again when the time may be over."""
        with self._mutex:
            left = self._used + self._seconds - time.monotonic()
            if self._timer is None or self._why:
                return
            if left <= 0 and not self._busy:
                try:
                    self.lock(IDLE)
                    return
                except CrmError:  # another thread is in the middle of a commit
                    pass
            self._arm(max(left, 1.0))


def _look(locking: weakref.ref[Locking]) -> None:
    found = locking()
    if found is not None:  # else nobody has the workspace any more
        found._look_at_the_clock()


@contextlib.contextmanager
def by_itself() -> Iterator[None]:
    """Let what is done inside count as no use by a person, and open nothing."""
    token = _by_itself.set(True)
    try:
        yield
    finally:
        _by_itself.reset(token)


def idle_minutes() -> float:
    """Return after how many minutes without use a workspace locks itself: ``$CRMKIT_IDLE_MINUTES``, or 15; 0 for never.

    Raises:
        Invalid: The variable holds no number of minutes.
    """
    text = os.environ.get(IDLE_VARIABLE, "").strip()
    try:
        minutes = float(text) if text else IDLE_MINUTES
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes <= 24 * 60:
        raise Invalid({f"${IDLE_VARIABLE}": "must be minutes from 0 (never) to 1440"})
    return minutes
