"""A log whose lines cannot be changed unnoticed: the audit log and the ledger of erasures are such.

Each line is a JSON object that ends with ``prev``, the SHA-256 of the line before it, and ``mac``, the id of an audit
key and the HMAC-SHA256 of everything before. The last line that a user saw is pinned in the user's own trust file:
edits, deletions, reorderings and a cut before it are found. Who holds the key and every copy of the pin can rewrite.

A restored backup goes on from an earlier line, as another branch of the same log; a user who accepted it has a pin
for each branch, and a log must hold one of them. So a branch that is cut back to where it began is found out only once
the log that it came from has grown since.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crmkit.durable import open_file, write_at
from crmkit.errors import Damaged
from crmkit.vault.guarded import Guarded
from crmkit.vault.keyring import Key
from crmkit.vault.keyring_file import KeyringFile
from crmkit.vault.layout import id_bytes
from crmkit.vault.trust import ADVICE, Head, Trust

_MAC = b',"mac":"'


class Chain(Guarded):
    """A log of chained lines.

    Args:
        name: Names the log in the trust file: ``audit`` or ``erasures``.
        path: The file.
        keyring: Where the audit keys are.
        trust: Where this user's head is pinned.
    """

    def __init__(self, name: str, path: Path, keyring: KeyringFile, trust: Trust) -> None:
        self._name = name
        self._path = path
        self._keyring = keyring
        self._trust = trust
        origin = hashlib.sha256(b"crmkit/%b/v1" % name.encode() + id_bytes(keyring.workspace_id)).hexdigest()
        self._start = self._head = Head(0, origin)
        self._end = 0  # behind the last line that was checked

    def add(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Add one entry; it is on disk when this returns. The caller holds the lock of the workspace.

        Returns:
            The entry as it was written.

        Raises:
            Damaged: The log is not sound, so nothing is added that would hide it.
        """
        # from a line that is pinned, or the pin is not met
        before, end, pin = self._follow(self._head, self._end, *self._read(self._end))
        seq = before.seq + 1
        whole = {"seq": seq, **entry, "prev": before.hash}
        line = self._with_mac(json.dumps(whole, separators=(",", ":")).encode()[:-1])
        self._write(line, end)
        head = head_of(seq, line)
        self._trust.pin_head(self._name, head, pin)
        self._head, self._end = head, end + len(line)
        return parsed(line)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield every entry, oldest first.

        Raises:
            Damaged: The log is not sound; the entries before the first bad line were yielded.
        """
        head = self._start
        for line in self._lines(0):
            head = self._next(head, line)
            yield parsed(line)

    def verify(self) -> list[str]:
        """Check the whole log, and pin its head where all is well.

        Returns:
            What is wrong, naming the first bad line; empty for a sound log.
        """
        try:
            self._pin(*self._follow(self._start, 0, *self._read(0)))
        except Damaged as problem:
            return [str(problem)]
        return []

    def head(self) -> Head:
        """Return the head of the log, which is sound up to there.

        Raises:
            Damaged: It is not.
        """
        return self._follow(self._head, self._end, *self._read(self._end))[0]

    def holds(self, wanted: Head) -> bool:
        """Return whether the log was once at this head.

        Raises:
            Damaged: The log is not sound in itself.
        """
        head = self._start
        for line in self._lines(0):
            if head.seq >= wanted.seq:
                break
            head = self._next(head, line)
        return head == wanted

    def accept(self) -> Head:
        """Pin the head of a log that was put back on purpose as that of another branch.

        Returns:
            The head.

        Raises:
            Damaged: The log is not sound in itself.
        """
        head = self._start
        for line in self._lines(0):
            head = self._next(head, line)
        self._trust.accept_head(self._name, head)
        return head

    def _pin(self, head: Head, end: int, pin: Head | None) -> None:
        self._trust.pin_head(self._name, head, pin)
        self._head, self._end = head, end

    def _read(self, offset: int) -> tuple[list[Head], list[bytes]]:
        """Return the pins, and then the lines behind `offset`: whoever adds a line writes it first and pins it then."""
        return self._trust.heads(self._name), self._lines(offset)

    def _follow(self, head: Head, offset: int, pins: list[Head], lines: list[bytes]) -> tuple[Head, int, Head | None]:
        """Check the lines behind `offset`; return where the log ends, and the last pin that it goes on from."""
        met = head if head in pins else None
        for line in lines:
            head = self._next(head, line)
            offset += len(line)
            met = head if head in pins else met
        if pins and met is None:
            raise self._unseen(head, pins)
        return head, offset, met

    def _unseen(self, head: Head, pins: list[Head]) -> Damaged:
        """Return the error for a log without a line that this user saw."""
        seen = min((pin.seq for pin in pins if pin.seq <= head.seq), default=None)
        if seen is not None:
            return Damaged(f"{self._path}: line {seen} is not the one that you saw before{ADVICE}")
        first = min(pin.seq for pin in pins)
        return Damaged(
            f"{self._path} ends at line {head.seq}, but you saw line {first} before: it was cut, "
            f"or an older copy was put back{ADVICE}"
        )

    def _next(self, head: Head, line: bytes) -> Head:
        """Return the head behind a line, if the line is sound and follows `head`."""
        seq = head.seq + 1
        if not self._is_sealed(line):
            raise Damaged(f"{self._path}: line {seq} was changed")
        entry = parsed(line)
        if entry["seq"] != seq or entry["prev"] != head.hash:
            raise Damaged(f"{self._path}: line {seq} does not follow the line before it")
        return head_of(seq, line)

    def _with_mac(self, body: bytes) -> bytes:
        key = self._keyring.primary("audit")
        return b'%b%b%08x.%b"}\n' % (body, _MAC, key.id, self._mac(key, body))

    def _mac(self, key: Key, body: bytes) -> bytes:
        mac = hmac.digest(key.secret, body, "sha256").hex().encode()
        self._keyring.check_open()  # else it may have been made with zeros
        return mac

    def _is_sealed(self, line: bytes) -> bool:
        body, _, tail = line.rpartition(_MAC)
        try:
            key = self._keyring.find("audit", int(tail[:8], 16))
        except (ValueError, Damaged):
            return False
        return hmac.compare_digest(tail, b'%08x.%b"}\n' % (key.id, self._mac(key, body)))

    def _lines(self, offset: int) -> list[bytes]:
        """Return the whole lines behind `offset`; what a crash left of the last one is no line."""
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                lines = file.read().splitlines(keepends=True)
        except OSError as error:
            raise Damaged(f"{self._path} cannot be read: {error.strerror}") from None
        # zeros are blocks that never reached the disk
        if lines and (not lines[-1].endswith(b"\n") or b"\0" in lines[-1]):
            lines.pop()
        return lines

    def _write(self, line: bytes, end: int) -> None:
        fd = open_file(self._path)
        try:
            os.ftruncate(fd, end)
            write_at(fd, line, end)
        finally:
            os.close(fd)


def head_of(seq: int, line: bytes) -> Head:
    """Return the head of a log that ends with this line."""
    return Head(seq, hashlib.sha256(line).hexdigest())


def parsed(line: bytes) -> dict[str, Any]:
    """Return the entry in a line."""
    entry: dict[str, Any] = json.loads(line)
    return entry
