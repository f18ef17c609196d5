"""Rewriting the past: what the logs keep of former values is replaced, where it must be forgotten or has other keys.

A log is written anew beside the old one, line for line, with the same numbers, and takes its place all at once: a
crash leaves every log as it was or as it is to be. Compaction never touches a log that is finished, so both may run
at the same time; whoever is reading the old file goes on with it.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crmkit import durable
from crmkit.errors import Damaged, StoreBusy
from crmkit.store.base import Step
from crmkit.store.compaction import LineWriter
from crmkit.store.frames import Operation, decode, encode
from crmkit.store.log import backward, steps_of

if sys.platform != "win32":
    import fcntl

Rewrite = Callable[[Step], Mapping[str, Any]]
_ANEW = ".{}.anew"  # no usual temporary name: compaction, which may run meanwhile, removes those of others


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Be the only one who rewrites the past of a store; the claim ends with the process at the latest.

    Raises:
        StoreBusy: Somebody else is at it.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusy(f"{folder}: the history is being rewritten; try again when that is done") from None
        yield
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child of a fork may hold the descriptor as well
    finally:
        os.close(fd)


def rewrite(logs: Sequence[Path], change: Rewrite) -> int:
    """Call `change` for every step that has a before-image, the newest first, and keep what it returns.

    Args:
        logs: The logs of the finished generations, oldest first; the caller has claimed them.
        change: See `Store.rewrite_history`.

    Returns:
        How many steps differ now.
    """
    for log in logs:
        _anew(log).unlink(missing_ok=True)  # where the last one who did this was killed
    return sum(_rewrite(log, change) for log in reversed(logs))


def _rewrite(log: Path, change: Rewrite) -> int:
    """Rewrite one log; one whose steps stay as they are is not touched."""
    changed, differing = dict[int, bytes](), 0
    with log.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start, end in backward(data, 0, len(data)):
            frame = decode(data[start:end])
            if frame is None:
                raise Damaged(f"{log}, byte {start}: not what crmkit wrote; run crmkit doctor")
            operations = [_changed(operation, change) for operation in reversed(frame.operations)][::-1]
            differs = sum(new is not old for new, old in zip(operations, frame.operations, strict=True))
            if differs:
                changed[start] = encode(frame.seq, operations)
                differing += differs
        if changed:
            _replace(log, data, changed)
    return differing


def _changed(operation: Operation, change: Rewrite) -> Operation:
    """Return an operation with the before-image that is to be kept; the same one where that stays."""
    if operation[0] not in ("u", "v", "d"):
        return operation
    (step,) = steps_of(operation)
    before = change(step)
    if before is step.before:
        return operation
    kept = {name: step.before[name] for name in ("id", "rev")} if step.action == "delete" else {}
    return [*operation[:-1], {**before, **kept}]


def _replace(log: Path, data: mmap.mmap, changed: Mapping[int, bytes]) -> None:
    """Give a log some other lines, all or nothing."""
    anew = _anew(log)
    try:
        with LineWriter(anew) as new:
            for start, end in _lines(data):
                new.write(changed.get(start) or data[start:end])
        anew.replace(log)
    except BaseException:
        anew.unlink(missing_ok=True)
        raise
    durable.sync_folder(log.parent)


def _lines(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1
        yield start, end
        start = end


def _anew(log: Path) -> Path:
    return log.with_name(_ANEW.format(log.name))
