"""The files of a store, by name, and which generation of them is the current one.

::

    LOCK             what writers lock, and how much of the journal they synced; never replaced or removed
    CURRENT          the number of the current generation; replaced all at once
    wal.<n>.jsonl    the journal of generation n: the commits since it began
    snap.<n>.jsonl   all documents as generation n began; the first generation began with none
    log.<n>.jsonl    the commits of generation n, once it is finished: what was done, and what was there before
    torn.<n>.<byte>  what an append that did not finish left in the journal of generation n, from that byte on
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

from crmkit import durable
from crmkit.errors import RUN_DOCTOR, Damaged

FIRST = 1  # the generation that a new store begins with
_NUMBER = re.compile(rb"[1-9][0-9]{0,17}\n?")
_NAME = re.compile(r"(?:wal|snap|log)\.([1-9][0-9]{0,17})\.jsonl")
_SEQ = re.compile(rb"[0-9a-f]{8} \[([0-9]{1,18}),")
_TEMPORARY = re.compile(r"\..+\.tmp")


class Files:
    """The names of the files in the data folder of a workspace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / "LOCK"
        self.current = folder / "CURRENT"

    def wal(self, generation: int) -> Path:
        """Return the journal of a generation."""
        return self.folder / f"wal.{generation}.jsonl"

    def snapshot(self, generation: int) -> Path:
        """Return the snapshot that a generation began with."""
        return self.folder / f"snap.{generation}.jsonl"

    def log(self, generation: int) -> Path:
        """Return the log of a finished generation."""
        return self.folder / f"log.{generation}.jsonl"

    def generation(self) -> int:
        """Return the current generation.

        Raises:
            Damaged: The file does not say.
        """
        text = self.current.read_bytes()
        if not _NUMBER.fullmatch(text):
            raise Damaged(f"{self.current}, line 1: holds no number of a journal{RUN_DOCTOR}")
        return int(text)

    def mark(self) -> tuple[int, int]:
        """Return what changes whenever another generation becomes the current one; costs one call."""
        status = os.stat(self.current)  # noqa: PTH116  # asked before every read; a Path would take as long again
        return status.st_ino, status.st_mtime_ns

    def switch(self, generation: int) -> None:
        """Make a generation, whose files are on disk, the current one."""
        durable.replace_file(self.current, b"%d\n" % generation)

    def logs(self, generation: int) -> list[Path]:
        """Return the logs of the generations before this one, oldest first.

        Raises:
            Damaged: One is missing.
        """
        paths = [self.log(number) for number in range(FIRST, generation)]
        missing = next((path for path in paths if not path.exists()), None)
        if missing is not None:
            raise Damaged(f"{missing}: is missing, and with it the history of its time")
        return paths

    def in_use(self, generation: int) -> list[Path]:
        """Return the files that hold what is stored, and its past, while this generation is the current one."""
        snapshot = [self.snapshot(generation)] if generation > FIRST else []
        return [*(self.log(number) for number in range(FIRST, generation)), *snapshot, self.wal(generation)]

    def clean(self, generation: int) -> None:
        """Remove what nobody needs when this generation is the current one; only under the lock.

        The generation before it stays for those who still read it.
        """
        for path in list(self._unneeded(generation)):
            with contextlib.suppress(OSError):  # it costs space and does no harm
                path.unlink()

    def forget_before(self, generation: int) -> None:
        """Remove what the generations before this one left beside their logs; only under the lock.

        Whoever is about to read it finds that a newer generation is there.
        """
        for path in [path for path in self.folder.iterdir() if _is_before(generation, path.name)]:
            path.unlink(missing_ok=True)
        durable.sync_folder(self.folder)

    def _unneeded(self, generation: int) -> Iterator[Path]:
        for path in self.folder.iterdir():
            if _is_before(generation - 1, path.name) or _TEMPORARY.fullmatch(path.name):
                yield path


def _is_before(generation: int, name: str) -> bool:
    """Return whether a file is the journal or the snapshot of an earlier generation."""
    named = _NAME.fullmatch(name)
    return named is not None and not name.startswith("log") and int(named[1]) < generation


def last_seq(journal: Path) -> int:
    """Return the number of the last commit of a journal, as its last line says it; 0 where there is none."""
    try:
        with journal.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            end = data.rfind(b"\n") + 1
            while end > 0:
                start = data.rfind(b"\n", 0, end - 1) + 1
                if found := _SEQ.match(data, start):
                    return int(found[1])
                end = start
    except (FileNotFoundError, ValueError):  # an empty file cannot be mapped
        pass
    return 0
