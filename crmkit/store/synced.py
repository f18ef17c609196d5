"""How much of the journal is known to be on disk: told among processes, so that nobody syncs what was synced.

A writer that appended and synced says so in the lock file, before it lets go of the lock. Whoever takes in its
commit then need not sync the journal again; only where the writer ended between the two calls, the position that is
told lies before the end of its commit, and the reader syncs. The note itself is never synced: what a crash leaves
of it is an older position, or one that a journal of this generation really reached, or no sound note at all.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from pathlib import Path

_NOTE = struct.Struct(">QQ")
_SUM = struct.Struct(">I")
_LENGTH = _NOTE.size + _SUM.size


class Synced:
    """The note in a lock file.

    Args:
        path: The lock file; it exists.
    """

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, _LENGTH)  # on a full disk, a write into a hole would end the process
            self._memory = mmap.mmap(fd, _LENGTH)  # shared by all processes, so that a note costs no call
        finally:
            os.close(fd)

    def position(self, generation: int) -> int:
        """Return up to which byte the journal of a generation is on disk, as far as anybody told."""
        note = self._memory[:]
        if _SUM.pack(zlib.crc32(note[: _NOTE.size])) != note[_NOTE.size :]:
            return 0
        told, position = _NOTE.unpack_from(note)
        return position if told == generation else 0

    def tell(self, generation: int, position: int) -> None:
        """Say that the journal of a generation is on disk up to a byte."""
        note = _NOTE.pack(generation, position)
        self._memory[:] = note + _SUM.pack(zlib.crc32(note))

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()
