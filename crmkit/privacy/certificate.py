"""What an erasure will do, and the certificate of what it did; neither holds a value of the person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class ErasurePlan:
    """What `CRM.erase` will do; nothing was done yet.

    Attributes:
        type: The record type.
        id: The id of the record.
        subjects: The ids whose data keys are destroyed: the record, and those that were merged into it.
        deleted: How many records of each type go.
        redacted: How many of each type stay for statistics, without what is personal or sensitive in them.
        unlinked: How many of each type no longer refer to the person; one that is about several people gets a new key,
            and its history goes dark.
        addresses: How many mail addresses and phone numbers will be suppressed.
        notes: What is not reached, and what to do about it.
    """

    type: str
    id: str
    subjects: tuple[str, ...]
    deleted: Mapping[str, int]
    redacted: Mapping[str, int]
    unlinked: Mapping[str, int]
    addresses: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"{self.type} {self.id} would be erased:", *_lines(self)))

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Certificate:
    """What was erased, when, by whom and why; it survives in the workspace, and holds no value of the person.

    Attributes:
        id: Its own id, and the cause of the commit.
        type: The record type.
        record: The id of the record that was erased.
        subjects: The ids whose data keys were destroyed.
        at: When (UTC).
        actor: Who erased.
        reason: Why; not part of its text.
        deleted: How many records of each type are gone.
        redacted: How many of each type stay, without what was personal or sensitive in them.
        unlinked: How many of each type no longer refer to the person.
        addresses: How many mail addresses and phone numbers are suppressed.
        notes: What was not reached, and what to do about it.
        finished: Whether all of it is done; what a crash cut short is finished when the workspace is opened.
    """

    id: str
    type: str
    record: str
    subjects: tuple[str, ...]
    at: datetime
    actor: str
    reason: str = field(repr=False)
    deleted: Mapping[str, int]
    redacted: Mapping[str, int]
    unlinked: Mapping[str, int]
    addresses: int
    notes: tuple[str, ...]
    finished: bool = True

    def __str__(self) -> str:
        head = f"{self.type} {self.record} was erased on {self.at:%Y-%m-%d %H:%M} UTC by {self.actor}:"
        state = () if self.finished else ("not finished yet; open the workspace again",)
        return "\n".join((head, *_lines(self), *state, f"certificate {self.id}"))

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def _lines(told: ErasurePlan | Certificate) -> list[str]:
    parts = (("deleted", told.deleted), ("kept without the person", told.redacted), ("unlinked", told.unlinked))
    counted = [f"{what}: " + ", ".join(f"{n:,} {type}" for type, n in of.items()) for what, of in parts if of]
    keys = f"data keys destroyed: {len(told.subjects)}"
    suppressed = f"addresses suppressed: {told.addresses}"
    return [f"  {line}" for line in (*counted, keys, suppressed, *told.notes)]
