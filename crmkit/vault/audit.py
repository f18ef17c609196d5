"""The audit log, ``keys/audit.jsonl``: who did what to which sealed fields, in chained lines.

It holds no values and no names of customers; the reason is sealed by the caller.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crmkit.errors import Damaged
from crmkit.vault.chain import Chain, parsed
from crmkit.vault.identity import user_name
from crmkit.vault.keyring_file import KeyringFile
from crmkit.vault.trust import Trust

_BLOCK = 65_536  # bytes that are read at once, from the end


class AuditLog(Chain):
    """The audit log of a workspace.

    Args:
        path: The file.
        keyring: Where the audit keys are.
        trust: Where this user's head is pinned.
    """

    def __init__(self, path: Path, keyring: KeyringFile, trust: Trust) -> None:
        super().__init__("audit", path, keyring, trust)

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
        """Add one entry, with the system user; it is on disk when this returns. The caller holds the workspace's lock.

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
        return self.add(
            {
                "ts": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "actor": actor,
                "user": user_name(),
                "action": action,
                "entity": entity,
                "record": record,
                "subject": subject,
                "fields": list(fields),
                "reason": reason,
                "plugin": plugin,
            }
        )

    def newest(self) -> Iterator[dict[str, Any]]:
        """Yield the entries newest first, reading no further back than is asked for.

        Each line is what some holder of the key wrote; whether one is missing says `verify`.

        Raises:
            Damaged: A line was changed; the newer ones were yielded.
        """
        whole = False  # what a crash left of the last line is none
        for line in _backwards(self._path):
            if not whole and (not line.endswith(b"\n") or b"\0" in line):
                continue
            whole = True
            if not self._is_sealed(line):
                raise Damaged(f"{self._path}: a line was changed; crmkit audit verify names the first one")
            yield parsed(line)


def _backwards(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, the last one first."""
    try:
        with path.open("rb") as file:
            start, rest = file.seek(0, os.SEEK_END), b""
            while start > 0:
                length = min(start, _BLOCK)
                start = file.seek(start - length)
                first, *lines = (file.read(length) + rest).splitlines(keepends=True)
                yield from reversed(lines)
                rest = first
            if rest:
                yield rest
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from None
