"""Watching: a callback hears of changes, of this process and of others; with a saved place, at least once."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from crmkit.errors import Conflict, Locked
from crmkit.locking import by_itself
from crmkit.records import new_id
from crmkit.store.base import NEW, Change, Put

if TYPE_CHECKING:
    import asyncio

    from crmkit.store.base import Store

EVERY = 0.25  # seconds between two looks
PATIENCE = 60.0  # seconds between two looks at most, while a callback fails
CURSORS = ".cursors"  # the collection of saved places; a leading dot keeps it out of the feed


def changes(store: Store, since: int) -> list[Change]:
    """Return which records were written after a commit, oldest first, without what crmkit keeps for itself."""
    return [change for change in store.changes(since) if not change.collection.startswith(".")]


class Watch:
    """Looks for changes in the loop that runs, in a notebook its kernel's; no thread, so no races.

    Where no loop runs, call `look` when it suits you.

    Args:
        store: Whose changes.
        callback: Gets the changes since the last look, oldest first; never an empty list.
        failed: Told what a callback raised; the next look comes all the same.
        every: Seconds between two looks.
        cursor: Where the place is saved after each callback that returned; None to begin now and to save nothing.
        told_of_lock: Told, in the loop, True when the workspace was locked and False when it is open again.
    """

    def __init__(
        self,
        store: Store,
        callback: Callable[[list[Change]], object],
        failed: Callable[[BaseException], None],
        every: float = EVERY,
        cursor: Cursor | None = None,
        told_of_lock: Callable[[bool], object] = lambda _: None,
    ) -> None:
        self._locked = False
        self._told_of_lock = told_of_lock
        self._store = store
        self._callback = callback
        self._failed = failed
        self._every = every
        self._cursor = cursor
        self._seen = store.seq() if cursor is None else cursor.seq
        self._failures = 0  # one after the other
        self._task: asyncio.Task[None] | None = None

    def start(self, context: Context) -> Watch:
        """Begin to look, where a loop runs; the callback is called in this context."""
        import asyncio  # takes time to import, and nobody else needs it; where a loop runs it is there

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self
        self._task = loop.create_task(self._run(), context=context)
        return self

    def stop(self) -> None:
        """End; calling it again does nothing."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def look(self) -> bool:
        """Tell the callback what changed since the last look; return whether anything did.

        Raises:
            Locked: The workspace is; looking opens nothing.
        """
        with by_itself():
            return self._look()

    def _look(self) -> bool:
        seq = self._store.seq()
        if seq == self._seen:
            return False
        new = changes(self._store, self._seen)
        newest = max([seq, *(change.seq for change in new[-1:])])
        try:
            if new:
                self._callback(new)
        except Locked:
            raise  # between two lines; it is told again
        except Exception as error:  # noqa: BLE001  # a callback may fail in any way; it is recorded
            self._failures += 1
            self._failed(error)
            if self._cursor is None:
                self._seen = newest
            return True
        self._failures = 0
        self._seen = self._cursor.save(newest) if new and self._cursor is not None else newest
        return bool(new)

    def _is_locked(self, now: bool) -> None:
        """Tell once that the workspace was locked, and once that it is open again."""
        if now is not self._locked:
            self._locked = now
            try:
                self._told_of_lock(now)
            except Exception as error:  # noqa: BLE001  # as in `_look`
                self._failed(error)

    async def _run(self) -> None:
        import asyncio

        while True:
            try:
                self.look()
                self._is_locked(False)
            except Locked:
                self._is_locked(True)
            except Exception as error:  # noqa: BLE001  # the store is busy, perhaps; the next look may do
                self._failures += 1
                self._failed(error)
            await asyncio.sleep(min(self._every * 2 ** min(self._failures, 20), max(self._every, PATIENCE)))


class Cursor:
    """The place up to which a consumer has handled the changes, kept in the workspace.

    Args:
        store: Where it is kept.
        name: The name of the consumer.
        actor: Who saves it.

    Attributes:
        seq: The number of the last commit that was handled; for a new name the newest there is.
    """

    def __init__(self, store: Store, name: str, actor: Callable[[], str]) -> None:
        self._store = store
        self._name = name
        self._actor = actor
        doc = store.get(CURSORS, name)
        self.seq: int = store.seq() if doc is None else doc["seq"]
        if doc is None:
            self.save(self.seq)

    def save(self, seq: int) -> int:
        """Save how far the consumer has come; return how far any consumer of this name has."""
        doc = self._store.get(CURSORS, self._name)
        if doc is None or doc["seq"] < seq:
            new: dict[str, Any] = {"id": self._name, "rev": 1, "seq": seq}
            meta = {"actor": self._actor(), "cause": new_id(), "kind": "cursor"}
            try:
                self._store.commit([Put(CURSORS, new, NEW if doc is None else doc["rev"])], meta)
            except Conflict:  # another process of this name was as far at the same time
                return self.save(seq)
        self.seq = seq if doc is None else max(seq, doc["seq"])
        return self.seq
