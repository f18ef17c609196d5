"""Every error that crmkit raises on purpose, in one tree.

::

    CrmError
    ├── Conflict         the record was saved since it was read
    ├── NotFound         no such record, or no such workspace (also a KeyError)
    ├── Invalid          what was given is not allowed; all problems at once, by field (also a ValueError)
    ├── Refused          a rule or a plugin says no
    │   └── ChangedSince     what should be undone was changed since
    ├── Unsupported      this version, system or store cannot do it
    ├── Locked           the keys of the workspace cannot be opened by this user
    ├── Erased           what belongs to somebody whose data was erased; its key is gone
    ├── Damaged          bytes on disk are not what crmkit wrote
    ├── StoreBusy        another process kept the lock for too long
    ├── ImportProblem    a file cannot be read as a table, or a row of it cannot be taken
    └── NotTrusted       code of a workspace folder that this user has not trusted

Messages name fields, files and rows; they never carry a value of a personal or sensitive field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMED = 10  # so many records are named in a message
RUN_DOCTOR = "; run crmkit doctor"  # how the text of a `Damaged` ends that a person can do nothing about otherwise


class CrmError(Exception):
    """What every error of crmkit derives from; its text is one clear line for a person."""


class Conflict(CrmError):
    """The record was saved, here or by somebody else, after it was read.

    Attributes:
        type: The record type, for example ``"customer"``.
        id: The id of the record.
        fields: The fields that both sides changed; empty where the other side changed only other fields.
        theirs: Those fields as they are stored now.
        yours: Those fields as the caller wanted them.
    """

    def __init__(
        self,
        type: str,
        id: str,
        fields: tuple[str, ...] = (),
        theirs: Mapping[str, Any] | None = None,
        yours: Mapping[str, Any] | None = None,
    ) -> None:
        self.type = type
        self.id = id
        self.fields = fields
        self.theirs = dict(theirs or {})
        self.yours = dict(yours or {})
        which = f" ({', '.join(fields)})" if fields else ""
        self._arguments = type, id, fields, self.theirs, self.yours
        super().__init__(f"{type} {id} was changed since it was read{which}; read it again")

    def __reduce__(self) -> tuple[Any, ...]:
        return Conflict, self._arguments


class NotFound(CrmError, KeyError):
    """There is no such record, or no workspace where one was looked for."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "not found"


class Invalid(CrmError, ValueError):
    """What was given is not allowed.

    Attributes:
        problems: What is wrong, by field; the text says what is allowed and holds no value.
    """

    def __init__(self, problems: Mapping[str, str], subject: str = "") -> None:
        self.problems = dict(problems)
        self.subject = subject
        what = "; ".join(f"{field}: {problem}" for field, problem in self.problems.items())
        super().__init__(f"{subject}: {what}" if subject else what)

    def __reduce__(self) -> tuple[Any, ...]:
        return Invalid, (self.problems, self.subject)


class Refused(CrmError):
    """A rule or a plugin does not allow this."""


class ChangedSince(Refused):
    """What should be undone was changed since, or something refers to it now.

    Attributes:
        records: What is in the way, as (type, id).
        told: The message without a hint at what to do; that is another one on the command line.
    """

    def __init__(self, records: Sequence[tuple[str, str]], what: str) -> None:
        self.records = tuple(records)
        self.what = what
        named = ", ".join(f"{type} {id}" for type, id in self.records[:NAMED])
        more = f" and {len(self.records) - NAMED:,} more" if len(self.records) > NAMED else ""
        self.told = f"nothing was undone: {what}: {named}{more}"
        super().__init__(f"{self.told}; skip_changed=True leaves out what this is about")

    def __reduce__(self) -> tuple[Any, ...]:
        return ChangedSince, (self.records, self.what)


class Unsupported(CrmError):
    """This version, operating system or store cannot do what was asked."""


class Locked(CrmError):
    """The keys of the workspace cannot be opened by this user."""


class Erased(CrmError):
    """It belongs to somebody whose data was erased: the key is gone, and no new one is made."""


class Damaged(CrmError):
    """Bytes on disk are not what crmkit wrote."""


class StoreBusy(CrmError):
    """Another process kept the lock of the workspace for longer than the time limit."""


class ImportProblem(CrmError):
    """A file cannot be read as a table, or a row of it cannot be taken."""


class NotTrusted(CrmError):
    """Code of a workspace folder that this user has not trusted."""
