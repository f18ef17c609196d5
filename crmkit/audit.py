"""The audit log for people: what was done to sealed fields, by whom and why; and how often values may be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Any

from crmkit.codec import ERASED
from crmkit.errors import Damaged, Erased, Invalid, Refused
from crmkit.store.files import Files
from crmkit.store.lock import LOCK_TIMEOUT, WorkspaceLock
from crmkit.vault import Vault, user_name
from crmkit.workspace import Workspace

REVEALS = 20  # values that somebody may be shown ...
WINDOW = timedelta(minutes=10)  # ... within this time
BEHIND = timedelta(days=1)  # by which the clock of another computer may be wrong: lines before it are not looked at
NOT_OPENED = "(cannot be opened)"


@dataclass(frozen=True)
class AuditEntry:
    """A line of the audit log.

    Attributes:
        seq: Its number.
        at: When, UTC.
        actor: Who acted.
        action: What was done: ``reveal``, ``export``, ``restore``, ``unlock``…
        entity: The record type; ``workspace`` where it was about no record.
        record: The id of the record.
        fields: The fields.
        reason: Why; ``(erased)`` where the person it was about is.
        plugin: The plugin that asked; None where a person did.
        user: The system user; where it is not the actor, that is who was named to `CRM.acting_as`.
    """

    seq: int
    at: datetime
    actor: str
    action: str
    entity: str
    record: str
    fields: tuple[str, ...]
    reason: str | None = field(repr=False)  # people write names into reasons
    plugin: str | None = None
    user: str = ""


class Audit:
    """The audit log of an open workspace, ``crm.audit``: iterate over it, newest first.

    Args:
        vault: Returns the open vault.
        hides: Returns whether the actor does not see the record with an id; what was done to it is left out then.
    """

    def __init__(self, vault: Callable[[], Vault], hides: Callable[[str], bool]) -> None:
        self._vault = vault
        self._hides = hides

    def __repr__(self) -> str:
        return "<audit log>"

    def __iter__(self) -> Iterator[AuditEntry]:
        vault = self._vault()
        return (self._entry(vault, line) for line in vault.audit.newest() if not self._hides(line["record"]))

    def entries(
        self,
        *,
        record: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
    ) -> list[AuditEntry]:
        """Return entries, newest first.

        Args:
            record: Only those about this record; its id.
            actor: Only those of this actor.
            action: Only this action.
            since: Only those from this instant on; a time with a time zone.
            limit: The most entries.

        Raises:
            Invalid: The instant has no time zone, or the limit is below 1.
            Damaged: A line of the log was changed.
        """
        if since is not None and since.tzinfo is None:
            raise Invalid({"since": "must have a time zone"})
        if limit < 1:
            raise Invalid({"limit": "must be 1 or more"})
        wanted = {"record": record, "actor": actor, "action": action}
        asked = {name: value for name, value in wanted.items() if value is not None}
        vault = self._vault()
        found: list[AuditEntry] = []
        for line in vault.audit.newest():
            if since is not None and _at(line) < since:
                break
            if all(line[name] == value for name, value in asked.items()) and not self._hides(line["record"]):
                found.append(self._entry(vault, line))
            if len(found) == limit:  # before another line is read: further back one may be damaged
                break
        return found

    def verify(self) -> list[str]:
        """Check the whole log, up to the line that this user saw last; return what is wrong, empty when it is sound."""
        return self._vault().audit.verify()

    def _entry(self, vault: Vault, line: Mapping[str, Any]) -> AuditEntry:
        names = ("seq", "actor", "user", "action", "entity", "record", "plugin")
        told = {name: line[name] for name in names}
        return AuditEntry(at=_at(line), fields=tuple(line["fields"]), reason=_reason(vault, line), **told)


def check_reveals(vault: Vault, actor: str, folder: Path) -> None:
    """Refuse to show another value to somebody who was shown many just now; all processes count together.

    What the same system user was shown under other names counts too, and what was shown under this name elsewhere.

    Args:
        vault: The open vault of the workspace.
        actor: Who wants to see one.
        folder: The workspace, for the command that begins anew.

    Raises:
        Refused: The limit is reached; the message says when it works again.
    """
    begin, user, shown = datetime.now(UTC) - WINDOW, user_name(), []
    for line in vault.audit.newest():
        at = _at(line)
        if at < begin - BEHIND or (line["action"] == "unlock" and line["user"] == user):
            break
        if at >= begin and line["action"] == "reveal" and (line["actor"] == actor or line["user"] == user):
            shown.append(at)
    if len(shown) >= REVEALS:
        again = sorted(shown)[-REVEALS] + WINDOW + timedelta(seconds=1)  # said without fractions
        raise Refused(
            f"{REVEALS} sensitive values were shown to {actor} within {WINDOW // timedelta(minutes=1)} minutes; the "
            f"next one may be at {again:%Y-%m-%d %H:%M:%S} UTC, or at once after "
            f"crmkit unlock -w {quote(str(folder))} with your passphrase"
        )


def note_unlock(workspace: Workspace) -> None:
    """Write into the audit log that the user gave the passphrase; what may be shown is counted anew from there.

    Raises:
        Locked: The user's identity does not open it.
        StoreBusy: Somebody else kept the lock of the workspace for too long.
    """
    with (
        closing(WorkspaceLock(Files(workspace.data).lock, LOCK_TIMEOUT)) as lock,
        lock.hold(),
        closing(Vault.unlock(workspace.keys)) as vault,
    ):
        vault.note(user_name(), "unlock")


def _at(line: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(line["ts"])


def _reason(vault: Vault, line: Mapping[str, Any]) -> str | None:
    if line["reason"] is None:
        return None
    try:
        return str(vault.open("audit", "reason", line["record"], line["subject"], line["reason"]))
    except Erased:
        return ERASED
    except Damaged:
        return NOT_OPENED
