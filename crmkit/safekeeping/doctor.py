"""Looks after a workspace: what is stored, what is wrong and what to do; saves what a damaged one still holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crmkit.codec import REMOVED, RecordCodec
from crmkit.durable import replace_file
from crmkit.errors import RUN_DOCTOR, CrmError, Damaged, Invalid
from crmkit.profile import Profile, read_profile, write_profile
from crmkit.records import Customer
from crmkit.registry import DEFAULT_PLUGINS, Registry
from crmkit.safekeeping.folders import new_folder
from crmkit.safekeeping.torn import COMPARE, told_of_torn, torn_files
from crmkit.schema import info
from crmkit.store.base import Doc
from crmkit.store.frames import FORMAT
from crmkit.store.salvage import APART, Salvaged, salvage, survey
from crmkit.store.tiny import TinyStore
from crmkit.vault import Vault, user_name
from crmkit.vault.key_records import sound_records
from crmkit.vault.vault import SUBJECTS_FILE
from crmkit.workspace import PROFILE, Workspace, safe_name

LARGE = 250_000_000
"""Bytes of data above which opening takes long and every process much memory."""

TO_DO = (
    "stop using the workspace and keep a copy of it as it is; then either make a new one from the last backup"
    " (crmkit restore), or save what is left into a new one (crmkit doctor --salvage FOLDER)"
)
KEYS_TO_DO = (
    "the data can be read, its keys cannot: put the folder keys of a backup in place of this one; crmkit restore into"
    " another folder makes it"
)
NO_DATA_TO_DO = "there is nothing left to save: make a new workspace from the last backup (crmkit restore)"
UNOPENED_TO_DO = "restore the last backup into another folder (crmkit restore), and look there for what does not open"
SETTINGS_TO_DO = f"mend {PROFILE}, or put back a copy of it; crmkit init in another folder makes one to begin with"
_UNFINISHED = "bytes at the end are no whole commit"  # how the store tells of an append that did not finish


@dataclass(frozen=True)
class Health:
    """What is stored, and what is wrong with it.

    Attributes:
        records: How many there are by collection, removed ones and those of types that no plugin brings included.
        unknown: The collections whose types no plugin brings.
        commits: How long the history is.
        generation: How often the journal was compacted, and one.
        bytes: What each part of the workspace takes on disk.
        problems: What is wrong, one line each.
        warnings: What is not wrong and may become so.
        advice: What to do about the problems.
        lost: The ids of records that cannot be saved, by collection.
    """

    records: Mapping[str, int]
    bytes: Mapping[str, int]
    unknown: tuple[str, ...] = ()
    commits: int = 0
    generation: int = 0
    format: int = FORMAT
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    lost: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Saved:
    """What was saved of a damaged workspace.

    Attributes:
        folder: The new workspace.
        records: How many records it has, by collection.
        losses: What is lost, one line each.
        mended: What was damaged and could be put right, one line each.
        lost: The ids of records that are lost, by collection.
    """

    folder: Path
    records: Mapping[str, int]
    losses: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    lost: Mapping[str, Sequence[str]] = field(default_factory=dict)


def examine(
    workspace: Workspace,
    store: TinyStore,
    vault: Vault,
    codec: RecordCodec,
    known: Iterable[str],
    failed: Iterable[str] = (),
) -> Health:
    """Check everything that is stored in an open workspace.

    Args:
        workspace: Where it is.
        store: Its store.
        vault: Its vault.
        codec: Knows which fields are sealed.
        known: The collections that somebody registered.
        failed: What is wrong with plugins.
    """
    known = tuple(known)
    shown = {name for name in known if not name.endswith(REMOVED)}
    damage, audit, failed = store.verify(), vault.audit.verify(), tuple(failed)
    stored = {name: len(docs) for name, docs in sorted(store.tables().items()) if not name.startswith(".")}
    records = {name: count for name, count in stored.items() if count or name in shown}
    unknown = tuple(name for name in records if name not in known)
    sizes = _sizes(workspace)
    warnings = [_told_of_unknown(name) for name in unknown]
    if store.compaction_problem:
        warnings.append(f"the journal could not be compacted: {store.compaction_problem}")
    warnings += map(told_of_torn, torn_files(workspace))
    if len(damage) == 1 and _UNFINISHED in damage[0]:
        warnings.append(f"{damage.pop()}; {COMPARE}")
    advice = [TO_DO] if damage else []
    if audit:
        advice.append(
            "find out who wrote to keys/audit.jsonl; if a backup was restored: crmkit doctor --accept-restored"
        )
    unopened = tuple(_unopened(store, codec))
    if unopened:
        advice.append(UNOPENED_TO_DO)
    if failed:
        advice.append("mend or remove the plugins that failed; the records are safe: crmkit plugins says more")
    return Health(
        records=records,
        bytes=sizes,
        unknown=unknown,
        commits=store.seq(),
        generation=store.generation,
        problems=(*(problem.removesuffix(RUN_DOCTOR) for problem in damage), *audit, *unopened, *failed),
        warnings=(*warnings, *_large(sizes)),
        advice=tuple(advice),
    )


def _unopened(store: TinyStore, codec: RecordCodec) -> Iterator[str]:
    """Yield a line for each record with sensitive fields that do not open."""
    for name in sorted(codec.collections):
        for doc in store.scan(name):
            if fields := codec.unopened(name, doc):
                yield f"{name} {doc['id']}: {', '.join(fields)} cannot be opened: changed on disk, or the key is gone"


def _told_of_unknown(name: str) -> str:
    if name.endswith(APART):
        return f"{name}: what a salvage kept apart; crmkit export --all FOLDER writes it out"
    return f"{name}: no plugin brings this type; its records are kept as they are"


def examine_closed(workspace: Workspace, error: CrmError) -> Health:
    """Look into a workspace that cannot be opened, as far as that is possible without opening it."""
    found, problem = Salvaged({}, 0, ()), str(error).removesuffix(RUN_DOCTOR)
    with suppress(CrmError, OSError):
        found = survey(workspace.data)
    sizes = _sizes(workspace)
    return Health(
        records=found.records,
        bytes=sizes,
        commits=found.seq,
        problems=(problem, *(line for line in (*found.losses, *found.mended) if line != problem)),
        warnings=tuple(_large(sizes)),
        advice=tuple(_advice(workspace, error, found)),
        lost=found.lost,
    )


def _advice(workspace: Workspace, error: CrmError, found: Salvaged) -> Iterator[str]:
    """Yield what to do about a workspace that cannot be opened."""
    if not found.records:
        yield NO_DATA_TO_DO
        return
    keys = _problem_of_keys(workspace)
    if found.losses or found.mended or SUBJECTS_FILE in keys:
        yield TO_DO
    elif keys:
        yield KEYS_TO_DO
    elif isinstance(error, Damaged):
        yield TO_DO
    if not isinstance(error, Damaged):
        yield SETTINGS_TO_DO


def _problem_of_keys(workspace: Workspace) -> str:
    """Return why the keys cannot be opened; empty where they can."""
    try:
        Vault.unlock(workspace.keys).close()
    except CrmError as error:
        return str(error)
    return ""


def salvage_workspace(workspace: Workspace, folder: Path) -> Saved:
    """Make a new workspace of what can still be read of a damaged one, which is left as it is.

    Every good record and the history are kept, and keys, files, notebooks, plugins and settings are copied. Records
    whose keys are lost are kept apart, sealed.

    Args:
        workspace: The damaged one.
        folder: The one to make; it must not exist, or be empty.

    Raises:
        Invalid: Something is where the workspace is to be made.
        NotFound: There is no data at all.
        CrmError: The system cannot write; nothing is left behind.
    """
    folder = folder.expanduser().resolve()
    with new_folder(folder) as unfinished:
        new = Workspace(unfinished)
        shutil.copytree(
            workspace.folder, unfinished, symlinks=True, dirs_exist_ok=True, ignore=_all_but_data(workspace)
        )
        losses, mended = _mend_keys(workspace, new)
        losses += _mend_profile(workspace, new)
        vault = None
        try:
            vault = Vault.unlock(new.keys)
        except CrmError as error:
            losses.append(f"{error}; put the keys of a backup into {folder / 'keys'}, or nothing sealed can be read")
        id, can_open = (vault.workspace_id, _opener(vault)) if vault else ("", None)
        saved = salvage(workspace.data, new.data, id, can_open)
        if vault:
            losses += _begin_branch(vault, workspace)
        losses = [loss.replace(str(unfinished), str(folder)) for loss in losses]
    return Saved(folder, saved.records, [*losses, *saved.losses], [*mended, *saved.mended], saved.lost)


def _mend_keys(workspace: Workspace, new: Workspace) -> tuple[list[str], list[str]]:
    """Leave out what is damaged in the data keys; return what is lost, and what was put right."""
    path, told = new.keys / SUBJECTS_FILE, workspace.keys / SUBJECTS_FILE
    if not path.exists():
        return [f"{told}: is missing, and with it the keys of all customers"], []
    sound, damaged, mended = sound_records(path.read_bytes())
    if damaged or mended:
        replace_file(path, sound)
    losses = [f"{told}: {damaged:,} bytes are damaged, and the keys in them lost"] if damaged else []
    return losses, [f"{told}: one bit was wrong in {mended:,} keys; their checksums say which one"] if mended else []


def _mend_profile(workspace: Workspace, new: Workspace) -> list[str]:
    """Write settings where there are none; return what is wrong with those that there are."""
    if not new.profile.exists():
        write_profile(new.profile, Profile(name=safe_name(workspace.folder)))
        return [f"{workspace.profile}: is missing; a new one was written: look what it says"]
    try:
        read_profile(new.profile)
    except Invalid as error:
        return [f"{error}; mend it, or the new workspace does not open"]
    return []


def _begin_branch(vault: Vault, workspace: Workspace) -> list[str]:
    """Let the audit log go on beside that of the damaged workspace; return why that is not possible."""
    try:
        vault.begin_branch(user_name(), "salvage", f"saved from {workspace.folder.name}")
    except Damaged as error:
        return [f"{error}; it was taken along as it is"]
    finally:
        vault.close()
    return []


def _opener(vault: Vault) -> Callable[[str, Doc], bool]:
    """Return what tells whether a record of a known type can be opened."""
    registry = Registry([Customer], frozenset())
    for dotted in DEFAULT_PLUGINS:
        registry.load_default(dotted)
    codec, known = RecordCodec(vault), set[str]()
    for record_type in registry.contributions("crm_record_types"):
        codec.know(info(record_type))
        known |= {info(record_type).plural, info(record_type).plural + REMOVED}

    def can_open(collection: str, doc: Doc) -> bool:
        try:
            if collection in known:
                codec.open(collection, doc, doc)
        except Damaged:
            return False
        return True

    return can_open


def _all_but_data(workspace: Workspace) -> Callable[[Any, list[str]], list[str]]:
    return lambda folder, names: [workspace.data.name] if Path(folder) == workspace.folder else []  # noqa: ARG005


def _sizes(workspace: Workspace) -> dict[str, int]:
    return {part.name: _bytes_in(part) for part in (workspace.data, workspace.keys, workspace.files)}


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _large(sizes: Mapping[str, int]) -> list[str]:
    if sizes["data"] <= LARGE:
        return []
    return [f"data has {sizes['data'] / 1e6:,.0f} MB; above {LARGE / 1e6:,.0f} MB opening is slow and memory large"]
