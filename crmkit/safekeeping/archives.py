"""Zip archives of files and their SHA-256 sums, written and read in one pass; stock tools unpack and check them."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from crmkit.durable import FILE_MODE, make_folder
from crmkit.errors import Damaged

CHUNK = 1 << 18
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive, whenever it is made
_NO_ARCHIVE = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, NotImplementedError, EOFError)
_LEVEL = 1  # sealed text is a third smaller at any level


def zipped(members: Iterable[tuple[str, Iterable[bytes]]], sums: str) -> Iterator[bytes]:
    """Yield the bytes of an archive.

    Args:
        members: The name of each file, with slashes, and its content.
        sums: What the file with the SHA-256 sums of all others is called, which comes last.
    """
    outgoing, lines = _Outgoing(), list[str]()
    with zipfile.ZipFile(outgoing, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name, chunks in members:
            digest = hashlib.sha256()
            with archive.open(_entry(name), "w", force_zip64=True) as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
                    yield outgoing.take()
            lines.append(f"{digest.hexdigest()}  {name}\n")
        archive.writestr(_entry(sums), "".join(lines))
    yield outgoing.take()


def unpack(file: BinaryIO, folder: Path, sums: str, name: str) -> None:
    """Unpack an archive that `zipped` made into a folder, and check every file.

    Args:
        file: The archive.
        folder: Where to.
        sums: What the file with the sums is called; it is not unpacked.
        name: What messages call the archive.

    Raises:
        Damaged: A file is missing, was changed or added, or its name leads out of the folder.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            expected = _sums(archive.read(sums).decode())
            if sorted(archive.namelist()) != sorted([*expected, sums]):
                raise Damaged(f"{name}: files are missing, or were added to it")
            for each, digest in expected.items():
                if not _is_inside(each):
                    raise Damaged(f"{name}: {each!r} is no name of a file of a workspace")
                for parent in reversed(PurePosixPath(each).parents):
                    make_folder(folder / parent)
                with archive.open(each) as content:
                    if _hash_written(content, folder / each) != digest:
                        raise Damaged(f"{name}: {each} is not as it was when the backup was made")
    except _NO_ARCHIVE as error:
        raise Damaged(f"{name}: is no archive as crmkit makes it ({error})") from None


def read_one(file: BinaryIO, name: str, sums: str, archive_name: str) -> bytes:
    """Return one file of an archive that `zipped` made; nothing is written anywhere.

    Args:
        file: The archive.
        name: Which file.
        sums: What the file with the sums is called.
        archive_name: What messages call the archive.

    Raises:
        Damaged: The file is missing or was changed.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            content, expected = archive.read(name), _sums(archive.read(sums).decode())
    except _NO_ARCHIVE as error:
        raise Damaged(f"{archive_name}: is no archive as crmkit makes it ({error})") from None
    if hashlib.sha256(content).hexdigest() != expected.get(name):
        raise Damaged(f"{archive_name}: {name} is not as it was when the backup was made")
    return content


def is_name(name: str) -> bool:
    """Return whether a file of this name can be in an archive: stock tools must understand it."""
    return name.isprintable() and "\\" not in name


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = FILE_MODE << 16
    return entry


def _sums(text: str) -> dict[str, str]:
    """Return the SHA-256 of each file, from what ``sha256sum`` prints."""
    return {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return is_name(name) and not path.is_absolute() and ".." not in path.parts and str(path) == name


def _hash_written(content: IO[bytes], path: Path) -> str:
    """Write a new file and return its SHA-256."""
    digest = hashlib.sha256()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, FILE_MODE)
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


class _Outgoing:
    """Takes what the archive writes, until it is taken away."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """There is nothing to flush."""

    def close(self) -> None:
        """There is nothing to close."""

    def take(self) -> bytes:
        """Return what was written since the last time."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data
