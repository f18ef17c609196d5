"""What a loss of power may leave of a folder, made from the effects that `disk.Disk` wrote down.

What was synced is there. Of everything else any part may be missing: a write may have come whole, torn or not at
all, in any order; a name that was given or taken may have been kept or not, each by itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.store.disk import Disk, Dropped, Effect, Name, Note, Sync, SyncFolder, Truncate, Write

SECTOR = 512  # bytes that a disk writes as one
FATES = ("kept", "lost", "torn")

Folder = dict[str, bytes]
Fate = Callable[[], str]


@dataclass
class Certain:
    """What is surely on disk after some effects, and what may be.

    Attributes:
        names: Files by path, as it is certain.
        contents: The bytes of each file, as it is certain.
        writes: What was done to each file since it was last synced.
        entries: Names that were given or taken, and are not synced.
        allowed: The states that may be found.
        stale: Bytes that may lie where a file grew without its data; no whole lines, which a file system that
            exposes other files' blocks could show and the ones that crmkit promises for do not.
    """

    names: dict[str, int]
    contents: dict[int, bytes]
    writes: dict[int, list[Write | Truncate]] = field(default_factory=dict)
    entries: list[Name] = field(default_factory=list)
    allowed: tuple[Any, ...] = ()
    stale: list[bytes] = field(default_factory=list)

    def take(self, effect: Effect) -> None:
        """Take one more effect in."""
        match effect:
            case Write(file) | Truncate(file):
                self.writes.setdefault(file, []).append(effect)
            case Sync(file):
                data = bytearray(self.contents.get(file, b""))
                for write in self.writes.pop(file, []):
                    _arrive(data, write)
                    if isinstance(write, Write):
                        self.stale.append(b"~" + write.data[1:-1].replace(b"\n", b"~") + b"~")
                self.contents[file] = bytes(data)
            case Dropped(file):
                self.writes.pop(file, None)
            case Name():
                self.entries.append(effect)
            case SyncFolder(path):
                here = [entry for entry in self.entries if entry.path.rpartition("/")[0] == path]
                self.entries = [entry for entry in self.entries if entry not in here]
                for entry in here:
                    _rename(self.names, entry)
            case Note(allowed):
                self.allowed = allowed

    def after_a_crash(self, fate: Fate, chance: random.Random) -> Folder:
        """Return the files, by path, of one way in which it may have ended."""
        names = dict(self.names)
        for entry in self.entries:
            if fate() != "lost":
                _rename(names, entry)
        return {path: self._content(file, fate, chance) for path, file in names.items()}

    def _content(self, file: int, fate: Fate, chance: random.Random) -> bytes:
        data = bytearray(self.contents.get(file, b""))
        for write in self.writes.get(file, []):
            match fate():
                case "kept":
                    _arrive(data, write)
                case "torn" if isinstance(write, Write):
                    _arrive_torn(data, write, chance, self.stale)
        return bytes(data)


def _rename(names: dict[str, int], entry: Name) -> None:
    if entry.file is None:
        names.pop(entry.path, None)
    else:
        names[entry.path] = entry.file


def _arrive(data: bytearray, write: Write | Truncate) -> None:
    end = write.size if isinstance(write, Truncate) else write.offset + len(write.data)
    if end > len(data):
        data.extend(bytes(end - len(data)))
    if isinstance(write, Truncate):
        del data[end:]
    else:
        data[write.offset : end] = write.data


def _arrive_torn(data: bytearray, write: Write, chance: random.Random, stale: list[bytes]) -> None:
    """Let a part of a write arrive; where the file grows without its data, zeros or older bytes appear."""
    size, length = len(write.data), len(data)
    sectors = [cut - write.offset for cut in range(0, write.offset + size, SECTOR) if cut > write.offset]
    cuts = [chance.randint(0, size), chance.randint(0, size), *sectors]
    first, last = sorted(chance.sample(cuts, 2))
    lost = chance.choice(((first, size), (0, last), (first, last), (0, size)))
    before = bytes(data[write.offset : write.offset + size])
    below = chance.choice([bytes(size), chance.choice(stale) if stale else b""])[:size].ljust(size, b"\0")
    filler = before + below[len(before) :]
    torn = write.data[: lost[0]] + filler[lost[0] : lost[1]] + write.data[lost[1] :]
    _arrive(data, Write(write.file, write.offset, torn))
    if lost[1] == size and chance.random() < 0.5:  # the file did not grow either
        del data[max(length, write.offset + lost[0]) :]


def crash_states(disk: Disk, chance: random.Random, each: int) -> Iterator[tuple[Folder, tuple[Any, ...]]]:
    """Yield folders that a loss of power may leave, at every moment, each with the states that may be found in it.

    Args:
        disk: What was watched.
        chance: Decides what is lost and torn.
        each: How many ways to end are tried at each moment at which anything is uncertain.
    """
    certain = Certain(dict(disk.first_names), dict(disk.first_contents))
    for effect in disk.effects:
        certain.take(effect)
        yield certain.after_a_crash(lambda: "lost", chance), certain.allowed
        if certain.writes or certain.entries:
            yield certain.after_a_crash(lambda: "kept", chance), certain.allowed
            for _ in range(each):
                weights = chance.choice(((1, 1, 1), (8, 1, 1), (1, 8, 1), (1, 1, 8)))
                yield certain.after_a_crash(lambda: chance.choices(FATES, weights)[0], chance), certain.allowed  # noqa: B023
