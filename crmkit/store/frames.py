"""Frames: one commit a line, with a checksum.

A frame holds ``[seq, [operation…]]``. Operations are

=================================================  ===============================================================
``["m", meta]``                                    who, when, why; the first frame of a file says which file it is
``["p", collection, id, doc]``                     a new document
``["b", collection, [doc…]]``                      many new documents
``["u", collection, id, after, before]``           a changed document: the fields that differ, now and then
``["v", collection, to, id, after, before]``       the same of one that moves to another collection
``["d", collection, id, doc]``                     a document that is gone for good, as it was
``["s", collection, id, fields]``                  fields of a document, sealed anew; not in a log
``["a", collection, [id…]]``                       in a log: documents that were new
``["e", lines]``                                   the end of a file that is finished, and how many lines it has
=================================================  ===============================================================

A field that is in ``before`` only was taken away, one that is in ``after`` only was new. In a log ``after`` holds
the names only. What is sealed is sealed in every frame.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from crmkit import durable
from crmkit.errors import RUN_DOCTOR, Damaged, Invalid

FORMAT = 1
"""The number of the on-disk format."""

Operation = list[Any]
_as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_MANY_DIGITS = re.compile(r"\d{19}")


_SHAPES: dict[str, tuple[Any, ...]] = {
    "m": (dict,),
    "p": (str, str, dict),
    "b": (str, list),
    "u": (str, str, dict | list, dict),
    "v": (str, str, str, dict | list, dict),
    "d": (str, str, dict),
    "s": (str, str, dict),
    "a": (str, list),
    "e": (int,),
}


class Frame(NamedTuple):
    """One commit, and how many bytes of its file it takes."""

    seq: int
    operations: list[Operation]
    size: int


def encode(seq: int, operations: list[Operation]) -> bytes:
    """Return a commit as one line.

    Raises:
        Invalid: A value cannot be written as JSON, or not read again.
    """
    return encoded(seq, operations)[0]


def encoded(seq: int, operations: list[Operation]) -> tuple[bytes, list[Operation]]:
    """Return a commit as one line, and its operations as whoever reads that line will get them."""
    with suppress(TypeError):  # the quick way, where what was given comes back as it was
        data = orjson.dumps([seq, operations])
        as_read = orjson.loads(data)[1]
        if as_read == operations:
            return durable.frame(data), as_read
    return _checked(seq, operations)


def _checked(seq: int, operations: list[Operation]) -> tuple[bytes, list[Operation]]:
    """Do the same by the letter of JSON: a number that is none, or half a character, is an error."""
    try:
        text = _as_json([seq, operations])
        data = text.encode()
        if _MANY_DIGITS.search(text):
            json.loads(text, parse_int=_whole)
        as_read = orjson.loads(data)
    except (TypeError, ValueError, RecursionError) as error:
        reason = "text holds half of a surrogate pair" if isinstance(error, UnicodeError) else str(error)
        raise Invalid({"document": f"only JSON values can be stored ({reason})"}) from None
    return durable.frame(data), as_read[1]


def _whole(digits: str) -> int:
    """Refuse what would be read as a float."""
    number = int(digits)
    if not -(2**63) <= number < 2**64:
        raise ValueError("a whole number has at most 64 bits; store a larger one as text")
    return number


def copied(seq: int, operations: list[Operation]) -> bytes:
    """Return what was read from frames as one line; it is known to be JSON."""
    return durable.frame(orjson.dumps([seq, operations]))


def decode(line: bytes) -> Frame | None:
    """Return the frame of a line, or None where the line is not one that `encode` makes."""
    payload = durable.unframe(line)
    if payload is None:
        return None
    try:
        content = orjson.loads(payload)
    except ValueError:
        return None
    if type(content) is not list or len(content) != 2:
        return None
    seq, operations = content
    if type(seq) is not int or type(operations) is not list or not all(map(_is_operation, operations)):
        return None
    return Frame(seq, operations, len(line))


def first_frame(path: Path) -> Frame:
    """Return the first frame of a file, which says what the file is.

    Raises:
        Damaged: There is no sound first frame.
    """
    with path.open("rb") as file:
        frame = decode(file.readline())
    if frame is None:
        raise damaged(path, 1)
    return frame


def read_finished(path: Path) -> Iterator[Frame]:
    """Yield the frames of a snapshot or a log, without its first and its last one.

    Raises:
        Damaged: A line is not sound, or the last one is missing.
    """
    for number, frame, is_whole in _lines(path):
        if not is_whole:
            raise damaged(path, number)
        if frame is not None:
            yield frame


def verify_finished(path: Path) -> list[str]:
    """Read a snapshot or a log and return the problems found, one line each."""
    try:
        return [str(damaged(path, number)) for number, _, is_whole in _lines(path) if not is_whole]
    except OSError as error:
        return [f"{path}: cannot be read ({error.strerror})"]


def damaged(path: Path, line: int) -> Damaged:
    """Return the error for a line that is not what crmkit wrote."""
    return Damaged(f"{path}, line {line}: not what crmkit wrote{RUN_DOCTOR}")


def _lines(path: Path) -> Iterator[tuple[int, Frame | None, bool]]:
    """Yield the number of each line, its frame, and whether the file is whole up to there."""
    ended, number = False, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            frame = decode(line)
            if frame is not None and frame.operations[:1] and frame.operations[0][0] == "e":
                ended = True
                yield number, None, frame.operations[0][1] == number - 1
            elif number > 1:
                yield number, frame, frame is not None and not ended
            else:
                yield number, None, frame is not None
    if not ended:
        yield number + 1, None, False


def _is_operation(value: Any) -> bool:
    if type(value) is not list or not value or type(value[0]) is not str:
        return False
    word, *rest = value
    shape = _SHAPES.get(word)
    if shape is None or len(rest) != len(shape) or not all(map(isinstance, rest, shape)):
        return False
    match word:
        case "p" | "d":
            return _is_document(rest[2]) and rest[2]["id"] == rest[1]
        case "b":
            return all(map(_is_document, rest[1]))
        case "a":
            return all(type(id) is str for id in rest[1])
    return True


def _is_document(value: Any) -> bool:
    return type(value) is dict and type(value.get("id")) is str and type(value.get("rev")) is int
