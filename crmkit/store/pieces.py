"""Reads files of frames that are damaged: whatever is whole in them, and what is left of the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from crmkit import durable
from crmkit.store.base import Doc
from crmkit.store.compaction import Place
from crmkit.store.frames import Frame, decode

_decoder = json.JSONDecoder()
_START = re.compile(rb"[0-9a-f]{8} \[")
_NEW = re.compile(r'\["[pb]","(?P<coll>[^"\\]+)"|\["[a-z]",(?P<none>)|(?P<doc>\{"id":")')
_NAMED = re.compile(
    rb'\["[pdus]","(?P<coll>[^"\\]+)","(?P<id>[^"\\]+)"|\["v","(?P<from>[^"\\]+)","[^"\\]+","(?P<moved>[^"\\]+)"'
    rb'|\["b","(?P<batch>[^"\\]+)"|"id":"(?P<doc>[^"\\]+)"'
)


def pieces(path: Path) -> Iterator[tuple[int, Frame | bytes]]:
    """Yield the number of each line and the frames in it, or the bytes where there is none.

    A damaged newline joins two lines, each of which may still be whole.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            frame = decode(line)
            if frame is not None:
                yield number, frame
                continue
            starts = [0, *(found.start() for found in _START.finditer(line, 1)), len(line)]
            for start, end in pairwise(starts):
                piece = line[start:end]
                yield number, decode(piece) or decode(piece[:-1] + b"\n") or decode(piece + b"\n") or piece


def frames(path: Path) -> Iterator[Frame]:
    """Yield the frames of a file, put right where that can be done."""
    for _, piece in pieces(path):
        frame = piece if isinstance(piece, Frame) else mended(piece)
        if frame is not None:
            yield frame


@lru_cache(maxsize=64)
def mended(piece: bytes) -> Frame | None:
    """Return the frame of a line in which one bit is wrong."""
    payload = piece[9:-1]
    right: bytes | None = payload
    told, actual = int.from_bytes(piece[:9]), int.from_bytes(durable.frame(payload)[:9])
    if (told ^ actual).bit_count() > 1:  # else it is a bit of the checksum, or of the blank behind it
        try:
            right = durable.with_bit_put_right(payload, int(piece[:8], 16))
        except ValueError:
            return None
    return decode(durable.frame(right)) if right else None


def new_records(piece: bytes) -> Iterator[tuple[str, Doc]]:
    """Yield the new records that can be read in a damaged line, with their collections."""
    text, collection, at = piece.decode(errors="replace"), "", 0
    while found := _NEW.search(text, at):
        at = found.end()
        if found["doc"] is None:
            collection = found["coll"] or ""
        elif collection:
            with suppress(ValueError, RecursionError):
                doc, at = _decoder.raw_decode(text, found.start())
                if type(doc.get("id")) is str and type(doc.get("rev")) is int:
                    yield collection, doc


def named_records(line: bytes) -> Iterator[Place]:
    """Yield the records that a damaged line seems to be about."""
    collection = ""
    for found in _NAMED.finditer(line):
        named = {name: text.decode(errors="replace") for name, text in found.groupdict().items() if text}
        collection = named.get("coll") or named.get("from") or named.get("batch") or collection
        id = named.get("id") or named.get("moved") or named.get("doc")
        if id and collection:
            yield collection, id
