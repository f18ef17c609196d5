"""The audit log: who did what to which sealed fields, in lines that cannot be changed unnoticed.

Each line of ``keys/audit.jsonl`` is a JSON object that ends with ``prev``, the SHA-256 of the line before it, and
``mac``, the id of an audit key and the HMAC-SHA256 of everything before. It holds no values and no names of
customers; the reason is sealed by the caller. The last line that a user saw is pinned in the user's own trust file:
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
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crmkit.durable import open_file, write_at
from crmkit.errors import Damaged
from crmkit.vault.guarded import Guarded
from crmkit.vault.keyring import Keyring
from crmkit.vault.layout import id_bytes
from crmkit.vault.trust import ADVICE, AuditHead, Trust

_MAC = b',"mac":"'


class AuditLog(Guarded):
    """The audit log of a workspace.

    Args:
        path: The file.
        keyring: Where the audit keys are.
        trust: Where this user's head is pinned.
    """

    def __init__(self, path: Path, keyring: Keyring, trust: Trust) -> None:
        self._path = path
        self._keyring = keyring
        self._trust = trust
        origin = hashlib.sha256(b"crmkit/audit/v1" + id_bytes(keyring.workspace_id)).hexdigest()
        self._start = self._head = AuditHead(0, origin)
        self._end = 0  # behind the last line that was checked

    def append(
        self,
        *,
        actor: str,
        action: str,
        entity: str,
        record: str,
        subject: str,
        fields: Collection[str] = (),
        reason: str | None = None,
        plugin: str | None = None,
    ) -> dict[str, Any]:
        """Add one entry; it is on disk when this returns. The caller holds the lock of the workspace.

        Args:
            actor: Who acted.
            action: What was done, for example ``reveal``.
            entity: The record type.
            record: The id of the record.
            subject: The id of the subject.
            fields: The names of the fields.
            reason: Why, as an envelope; never in clear.
            plugin: The plugin that asked, if one did.

        Returns:
            The entry as it was written.

        Raises:
            Damaged: The log is not sound, so nothing is added that would hide it.
        """
        before, end, pin = self._follow(self._head, self._end)  # from a line that is pinned, or the pin is not met
        seq = before.seq + 1
        entry = {
            "seq": seq,
            "ts": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "actor": actor,
            "action": action,
            "entity": entity,
            "record": record,
            "subject": subject,
            "fields": list(fields),
            "reason": reason,
            "plugin": plugin,
            "prev": before.hash,
        }
        line = self._with_mac(json.dumps(entry, separators=(",", ":")).encode()[:-1])
        self._write(line, end)
        head = _head_of(seq, line)
        self._trust.pin_audit_head(head, pin)
        self._head, self._end = head, end + len(line)
        return _parsed(line)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield every entry, oldest first.

        Raises:
            Damaged: The log is not sound; the entries before the first bad line were yielded.
        """
        head = self._start
        for line in self._lines(0):
            head = self._next(head, line)
            yield _parsed(line)

    def verify(self) -> list[str]:
        """Check the whole log, and pin its head where all is well.

        Returns:
            What is wrong, naming the first bad line; empty for a sound log.
        """
        try:
            head, _, pin = self._follow(self._start, 0)
        except Damaged as problem:
            return [str(problem)]
        self._trust.pin_audit_head(head, pin)
        return []

    def accept(self) -> AuditHead:
        """Pin the head of a log that was put back on purpose as that of another branch.

        Returns:
            The head.

        Raises:
            Damaged: The log is not sound in itself.
        """
        head = self._start
        for line in self._lines(0):
            head = self._next(head, line)
        self._trust.accept_audit_head(head)
        return head

    def _follow(self, head: AuditHead, offset: int) -> tuple[AuditHead, int, AuditHead | None]:
        """Check every line behind `offset`; return where the log ends, and the last pin that it goes on from."""
        pins = self._trust.audit_heads()
        met = head if head in pins else None
        for line in self._lines(offset):
            head = self._next(head, line)
            offset += len(line)
            met = head if head in pins else met
        if pins and met is None:
            raise self._unseen(head, pins)
        return head, offset, met

    def _unseen(self, head: AuditHead, pins: list[AuditHead]) -> Damaged:
        """Return the error for a log without a line that this user saw."""
        seen = min((pin.seq for pin in pins if pin.seq <= head.seq), default=None)
        if seen is not None:
            return Damaged(f"{self._path}: line {seen} is not the one that you saw before{ADVICE}")
        first = min(pin.seq for pin in pins)
        return Damaged(
            f"{self._path} ends at line {head.seq}, but you saw line {first} before: it was cut, "
            f"or an older copy was put back{ADVICE}"
        )

    def _next(self, head: AuditHead, line: bytes) -> AuditHead:
        """Return the head behind a line, if the line is sound and follows `head`."""
        seq = head.seq + 1
        if not self._is_sealed(line):
            raise Damaged(f"{self._path}: line {seq} was changed")
        entry = _parsed(line)
        if entry["seq"] != seq or entry["prev"] != head.hash:
            raise Damaged(f"{self._path}: line {seq} does not follow the line before it")
        return _head_of(seq, line)

    def _with_mac(self, body: bytes) -> bytes:
        key = self._keyring.primary("audit")
        return b'%b%b%08x.%b"}\n' % (body, _MAC, key.id, hmac.digest(key.secret, body, "sha256").hex().encode())

    def _is_sealed(self, line: bytes) -> bool:
        body, _, tail = line.rpartition(_MAC)
        try:
            key = self._keyring.find("audit", int(tail[:8], 16))
        except (ValueError, Damaged):
            return False
        mac = hmac.digest(key.secret, body, "sha256").hex().encode()
        return hmac.compare_digest(tail, b'%08x.%b"}\n' % (key.id, mac))

    def _lines(self, offset: int) -> list[bytes]:
        """Return the whole lines behind `offset`; what a crash left of the last one is no line."""
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                lines = file.read().splitlines(keepends=True)
        except OSError as error:
            raise Damaged(f"the audit log {self._path} cannot be read: {error.strerror}") from None
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


def _head_of(seq: int, line: bytes) -> AuditHead:
    return AuditHead(seq, hashlib.sha256(line).hexdigest())


def _parsed(line: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(line)
    return entry
