"""The ledger of erasures, ``keys/erasures.jsonl``: whose data was erased, and which addresses must not come back.

It holds ids and keyed hashes, in chained lines as the audit log has them, and goes into every backup of the keys: what
is restored can be erased again by it. A subject that stands in it never gets a data key again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crmkit.vault.chain import Chain, parsed
from crmkit.vault.keyring_file import KeyringFile
from crmkit.vault.layout import Mark, id_bytes, mark_of
from crmkit.vault.trust import Trust


class Erasures(Chain):
    """The ledger of erasures of a workspace.

    Args:
        path: The file; it need not be there.
        keyring: Where the audit keys are.
        trust: Where this user's head, and whoever was erased, is remembered.
        accept: Take a ledger that was put back on purpose, though it lacks lines that this user saw.

    Raises:
        Damaged: A line was changed, or the ledger lacks lines that this user saw.
    """

    def __init__(self, path: Path, keyring: KeyringFile, trust: Trust, *, accept: bool = False) -> None:
        super().__init__("erasures", path, keyring, trust)
        self._at: dict[str, str] = {}
        self._suppressed: set[str] = set()
        self._renewed: set[str] = set()
        self._mark: Mark | None = (0, 0, 0)  # of no file: nobody has looked yet
        if accept:
            self._take(self.entries())
            self._mark = mark_of(path)
        else:
            self.refresh()

    @property
    def subjects(self) -> frozenset[str]:
        """The ids of all that were erased."""
        return frozenset(self._at)

    @property
    def renewed(self) -> frozenset[str]:
        """The ids of records about several people that got a new key because one of those was erased."""
        return frozenset(self._renewed)

    def is_renewed(self, record: str) -> bool:
        """Return whether a record about several people got a new key because one of those was erased."""
        return record in self._renewed

    def at(self, subject: str) -> str | None:
        """Return when a subject was erased, as ISO text in UTC; None where it was not."""
        return self._at.get(subject)

    def known_elsewhere(self) -> dict[str, str]:
        """Return who was erased as this user remembers, and when, but does not stand here: old keys were put back."""
        return {id: at for id, at in self._trust.erased().items() if id not in self._at}

    def suppressed_elsewhere(self) -> frozenset[str]:
        """Return the tags of addresses that must not be written to as this user remembers, but do not stand here."""
        return self._trust.suppressed() - self._suppressed

    def has_suppressed(self) -> bool:
        """Return whether there is any address that must not be written to."""
        return bool(self._suppressed)

    def is_suppressed(self, tags: Collection[str]) -> bool:
        """Return whether one of these tags is of an address that must not be written to."""
        return not self._suppressed.isdisjoint(tags)

    def record(
        self, subjects: Collection[str], tags: Collection[str], at: datetime, renewed: Collection[str] = ()
    ) -> None:
        """Note that these subjects are erased; it is on disk when this returns. Their keys are destroyed afterwards.

        The caller holds the lock of the workspace.

        Args:
            subjects: Their ids.
            tags: What `Vault.suppression_tags` made of their addresses.
            at: When, with a time zone.
            renewed: The ids of records about several people that get a new key.

        Raises:
            Invalid: An id is no ULID.
            Damaged: The ledger is not sound.
        """
        for id in (*subjects, *renewed):
            id_bytes(id)
        when = at.astimezone(UTC).isoformat(timespec="seconds")
        about = {"subjects": list(subjects), "tags": list(tags), "renewed": list(renewed)}
        self._note({"event": "erase", "at": when, **about})

    def allow(self, tag: str) -> None:
        """Let the address behind a tag be kept and written to again; it is on disk when this returns.

        The caller holds the lock of the workspace.
        """
        when = datetime.now(UTC).isoformat(timespec="seconds")
        self._note({"event": "allow", "at": when, "subjects": [], "tags": [tag]})

    def refresh(self) -> bool:
        """Take in what another process has added; return whether one has.

        Raises:
            Damaged: A line was changed, or the ledger lacks lines that this user saw.
        """
        mark = mark_of(self._path)
        if mark == self._mark:
            return False
        is_cut = mark is None or mark[2] < self._end
        head, offset = (self._start, 0) if is_cut else (self._head, self._end)
        pins, lines = self._read(offset)
        found = self._follow(head, offset, pins, lines)
        if lines:
            self._take(map(parsed, lines), is_whole=True)
        if lines or not pins:  # also where it began: a copy that goes on from there will be a branch
            self._pin(*found)
        self._mark = mark
        return bool(lines)

    def _lines(self, offset: int) -> list[bytes]:
        return super()._lines(offset) if mark_of(self._path) is not None else []

    def _note(self, entry: dict[str, Any]) -> None:
        self.refresh()
        self._take(iter([self.add(entry)]), is_whole=True)
        self._mark = mark_of(self._path)

    def _take(self, entries: Iterator[dict[str, Any]], *, is_whole: bool = False) -> None:
        """Take in entries; where nothing can be missing behind them, the user forgets the addresses they allow."""
        fresh: dict[str, str] = {}
        allowed: set[str] = set()
        for entry in entries:
            if entry["event"] == "allow":
                self._suppressed.difference_update(entry["tags"])
                allowed.update(entry["tags"] if is_whole else ())
            else:
                self._suppressed.update(entry["tags"])
                self._renewed.update(entry["renewed"])
                fresh.update(dict.fromkeys(entry["subjects"], entry["at"]))
        self._at.update(fresh)
        self._trust.remember_erased(fresh, self._suppressed, allowed - self._suppressed)
