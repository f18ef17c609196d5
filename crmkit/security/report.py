"""What is plain, sealed and sensitive in one workspace, who can open it, and what is overdue."""

from __future__ import annotations

import math
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from crmkit.errors import Locked
from crmkit.profile import read_profile
from crmkit.registry import PluginState
from crmkit.schema import RecordInfo
from crmkit.vault import Vault, user_name
from crmkit.vault.blind_index import planned_bits
from crmkit.vault.identity import find_identity
from crmkit.workspace import Workspace

DRILL_AFTER = timedelta(days=180)
WRAP_AFTER = timedelta(days=365)
BACKUP_AFTER = timedelta(days=7)
LOOKED_AT = DRILL_AFTER  # so far back the audit log is read: the longest of what it is asked about
FEW = 2_048  # records below which tags are nearly as telling at any length, and a search that opens all is quick
MADE_OLD = {  # what makes the last backup one that should not be the last, by action in the audit log
    "erase": "somebody was erased",
    "erase_again": "somebody was erased",
    "rotate": "keys were renewed",
    "drop_old_keys": "old keys were destroyed",
    "member_remove": "a member was removed",
    "recovery_key": "a recovery key was made",
}
OTHERS = stat.S_IRWXO  # what the mode of a file allows to everybody

READABLE = (
    "ids, names of record types and fields, revisions, the times and numbers of commits, who made them",
    "which records changed together, and which refer to which",
    "how long sealed values are, to the next 16 to 256 bytes; which of them are empty",
    "ids of keys, and how many members there are",
    "the values of plain fields (listed above)",
)


@dataclass(frozen=True)
class FieldState:
    """How one field is kept.

    Attributes:
        type: The record type.
        field: Its name.
        klass: plain, personal or sensitive.
        sealed: Whether what is written now is sealed.
        index: Whether tags for exact search are kept beside it.
    """

    type: str
    field: str
    klass: str
    sealed: bool
    index: bool


@dataclass(frozen=True)
class Index:
    """The tags for exact search of one field.

    Attributes:
        type: The record type.
        field: The field.
        records: How many records there are.
        bits: How long the tags are that are made now.
        candidates: How many records share a tag by chance; below 2, a tag tells who is who.
    """

    type: str
    field: str
    records: int
    bits: int
    candidates: float


@dataclass(frozen=True)
class PluginAccess:
    """A plugin that runs in this process, and may read whatever its user can read.

    Attributes:
        name: Its name.
        source: Where it comes from.
        reveals: How many sensitive values it was shown within 180 days, by the audit log.
    """

    name: str
    source: str
    reveals: int


@dataclass(frozen=True)
class Report:
    """The protection of one workspace; print it.

    Attributes:
        workspace: Its folder.
        seal: The lowest class of fields that is sealed.
        may_be_plain: Whether older files may hold personal values unsealed.
        fields: Every field of every loaded type.
        readable: What anybody can read who has the folder and no key.
        folder: How many files of each part, and their bytes.
        members: Who can open it: name and kind.
        plugins: The plugins that run.
        indexes: The tags for exact search; equal values have equal tags.
        overdue: What should be done, one line each.
        strangers: Names in roles and teams that are no member's, and that nobody acted under lately.
    """

    workspace: str
    seal: str
    may_be_plain: bool
    fields: tuple[FieldState, ...]
    readable: tuple[str, ...]
    folder: Mapping[str, tuple[int, int]]
    members: tuple[tuple[str, str], ...]
    plugins: tuple[PluginAccess, ...]
    indexes: tuple[Index, ...]
    overdue: tuple[str, ...]
    strangers: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        yield f"security of {self.workspace}; sealed from class {self.seal} on"
        yield from (f"overdue: {line}" for line in self.overdue)
        if not self.overdue:
            yield "nothing is overdue"
        yield from (f"mind: crmkit.toml: {line}" for line in self.strangers)
        if self.may_be_plain:
            yield "mind: older files may hold personal values unsealed; crmkit keys seal seals them"
        for klass, sealed in (("sensitive", True), ("personal", True), ("personal", False), ("plain", False)):
            for type in dict.fromkeys(each.type for each in self.fields):
                mine = [each for each in self.fields if (each.type, each.klass, each.sealed) == (type, klass, sealed)]
                names = ", ".join(f"{each.field} (searchable)" if each.index else each.field for each in mine)
                if names:
                    yield f"{klass}, {'sealed' if sealed else 'not sealed'}: {type}: {names}"
        yield f"readable without a key: {'; '.join(self.readable)}"
        parts = (f"{part} {files:,} files, {size:,} bytes" for part, (files, size) in self.folder.items())
        yield f"in the folder: {'; '.join(parts)}"
        yield f"can open it: {', '.join(f'{name} ({kind})' for name, kind in self.members)}"
        quiet = ", ".join(f"{plugin.name} ({plugin.source})" for plugin in self.plugins if not plugin.reveals)
        if quiet:
            yield f"plugins that may read what you can read: {quiet}"
        for plugin in self.plugins:
            if plugin.reveals:
                shown = f"was shown {plugin.reveals:,} sensitive values within 180 days"
                yield f"may read what you can read: plugin {plugin.name} ({plugin.source}); {shown}"
        yield from (f"exact search: {index.type}.{index.field}: {_tags(index)}" for index in self.indexes)
        if self.indexes:
            yield "equal values have equal tags, and a member can test guesses against the tags of old backups"


def _tags(index: Index) -> str:
    if index.records < FEW:
        return "too few records for tags to hide anything"
    return f"tags of {index.bits} bits among {index.records:,} records, about {index.candidates:.1f} to a tag"


def report(
    workspace: Workspace,
    vault: Vault,
    known: Iterable[tuple[RecordInfo, int]],
    plugins: Iterable[PluginState],
    now: datetime,
) -> Report:
    """Return what is protected in an open workspace.

    Args:
        workspace: Where it is.
        vault: Its vault.
        known: Every record type, and how many records it has.
        plugins: Every plugin.
        now: The present, UTC.
    """
    known = list(known)
    indexes = tuple(_indexes(vault, known))
    noted = recent(vault, now)
    shown: Counter[str] = Counter(
        line["plugin"] for line in noted.lines if line["plugin"] and line["action"] == "reveal"
    )
    return Report(
        workspace=str(workspace.folder),
        seal=vault.seal_level,
        may_be_plain=vault.may_be_plain,
        fields=tuple(_fields(vault, known)),
        readable=(*READABLE, *(f"how many there are: {info.counted(count)}" for info, count in known)),
        folder={part.name: _content(part) for part in _parts(workspace)},
        members=tuple((member.name, member.kind) for member in vault.members()),
        plugins=tuple(
            PluginAccess(plugin.name, plugin.source, shown[plugin.name])
            for plugin in plugins
            if plugin.state == "active"
        ),
        indexes=indexes,
        overdue=tuple(overdue(workspace, vault, indexes, noted, now)),
        strangers=tuple(_strangers(workspace, vault, noted)),
    )


def _strangers(workspace: Workspace, vault: Vault, noted: Recent) -> Iterator[str]:
    """Yield the names in roles and teams that are misspelt, perhaps."""
    known = {member.name for member in vault.members()} | {user_name()}
    known |= {line[name] for line in noted.lines for name in ("actor", "user")}
    profile = read_profile(workspace.profile)
    named = {f"roles.{name}": role.members for name, role in profile.roles.items()}
    named |= {f"teams.{name}": members for name, members in profile.teams.items()}
    for place, members in named.items():
        for name in members:
            if name not in known:
                yield f"{place} names {name}, who is no member here, and did nothing that the audit log knows"


@dataclass(frozen=True)
class Recent:
    """What the audit log tells of some time.

    Attributes:
        lines: Newest first.
        is_all: Whether there is nothing before them.
    """

    lines: tuple[Mapping[str, Any], ...]
    is_all: bool


def recent(vault: Vault, now: datetime) -> Recent:
    """Return what the audit log tells of the last 180 days; it may be long, and is read no further back."""
    lines: list[Mapping[str, Any]] = []
    for line in vault.audit.newest():
        if now - _at(line) > LOOKED_AT:
            return Recent(tuple(lines), is_all=False)
        lines.append(line)
    return Recent(tuple(lines), is_all=True)


def overdue(
    workspace: Workspace, vault: Vault, indexes: Iterable[Index], noted: Recent, now: datetime
) -> Iterator[str]:
    """Yield what should be done, each with the command that does it."""
    yield from _rehearsals(noted, now)
    (wrap,) = (key for key in vault.keys if key.purpose == "wrap" and key.status == "primary")
    age = now - datetime.fromisoformat(wrap.created)
    if age > WRAP_AFTER:
        yield f"the key that wraps all data keys is {age.days:,} days old: crmkit keys rotate"
    if vault.unfinished:
        yield "a rotation of the keys was cut short: crmkit keys rotate completes it"
    if (wanted := read_profile(workspace.profile).seal) != vault.seal_level:
        yield f"crmkit.toml asks for the seal level {wanted}, what is stored has {vault.seal_level}: crmkit keys seal"
    if sum(key.purpose == "bidx" and key.status in ("primary", "active") for key in vault.keys) > 1:
        yield "tags for exact search are left under an older key: crmkit keys rotate --scope index completes it"
    for index in indexes:
        if index.records >= FEW and not 2 <= index.candidates <= math.sqrt(index.records):
            yield (
                f"{index.type}.{index.field}: tags of {index.bits} bits do not fit {index.records:,} records, "
                f"{planned_bits(index.records)} would: crmkit keys rotate --scope index"
            )
    yield from _open_doors(workspace)


def _at(line: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(line["ts"])


def _rehearsals(noted: Recent, now: datetime) -> Iterator[str]:
    """Yield whether the last backup and the last recovery drill, which the audit log knows, were too long ago.

    Of what was done since: no drill proves a newer recovery key, and no backup opens with keys that came later.
    """
    last: dict[str, datetime] = {}
    since: dict[str, None] = {}
    failed = 0  # a backup is noted as it begins
    for line in noted.lines:
        if line["action"] == "backup_failed":
            failed += 1
        elif line["action"] == "backup" and failed:
            failed -= 1
        elif line["action"] != "recovery_drill" or "recovery_key" not in last:
            if line["action"] in MADE_OLD and "backup" not in last:
                since.setdefault(MADE_OLD[line["action"]])
            last.setdefault(line["action"], _at(line))
    for action, what, limit, command in (
        ("recovery_drill", "the recovery key was never tried", DRILL_AFTER, "crmkit keys recovery --drill"),
        ("backup", "there is no backup", BACKUP_AFTER, "crmkit backup FOLDER"),
    ):
        if action not in last:
            yield f"{what}{'' if noted.is_all else f' in the last {LOOKED_AT.days} days'}: {command}"
        elif now - last[action] > limit:
            yield f"the last {action.replace('_', ' ')} was {(now - last[action]).days:,} days ago: {command}"
    if "backup" in last and since:
        yield f"since the last backup {' and '.join(since)}: crmkit backup FOLDER"


def _open_doors(workspace: Workspace) -> Iterator[str]:
    """Yield what others on this computer could read."""
    try:
        identity = find_identity()
    except Locked:
        identity = None  # whoever has the workspace open did without it
    if identity is not None and not identity.is_protected:
        yield f"your identity {identity.place} has no passphrase: crmkit identity protect"
    paths = [workspace.folder, workspace.data, workspace.keys, *sorted(workspace.keys.glob("*"))]
    for path in [*paths, *([identity.path] if identity is not None and identity.path else [])]:
        if path.exists() and _mode(path) & OTHERS:
            yield f"everybody on this computer can get at {path}: chmod o-rwx {path}"


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _fields(vault: Vault, known: Iterable[tuple[RecordInfo, int]]) -> Iterator[FieldState]:
    for info, _ in known:
        for spec in info.fields.values():
            sealed = spec.klass == "sensitive" or (spec.klass == "personal" and vault.seal_level == "personal")
            yield FieldState(info.type, spec.name, spec.klass, sealed, spec.searchable)


def _indexes(vault: Vault, known: Iterable[tuple[RecordInfo, int]]) -> Iterator[Index]:
    (bits,) = (key.bits for key in vault.keys if key.purpose == "bidx" and key.status == "primary")
    for info, count in known:
        for spec in info.fields.values():
            if spec.searchable:
                yield Index(info.type, spec.name, count, bits, count / 2**bits)


def _parts(workspace: Workspace) -> tuple[Path, ...]:
    return workspace.data, workspace.keys, workspace.plugins, workspace.files, workspace.notebooks


def _content(folder: Path) -> tuple[int, int]:
    """Return how many files a folder has, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)
