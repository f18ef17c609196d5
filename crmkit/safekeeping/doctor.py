"""Looks after a workspace: what is stored, what is wrong and what to do; saves what a damaged one still holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crmkit.codec import REMOVED, RecordCodec
from crmkit.durable import replace_file
from crmkit.errors import CrmError, Damaged
from crmkit.records import Customer
from crmkit.registry import DEFAULT_PLUGINS, Registry
from crmkit.safekeeping.folders import new_folder
from crmkit.schema import info
from crmkit.store.base import Doc
from crmkit.store.frames import FORMAT
from crmkit.store.salvage import Salvaged, salvage, survey
from crmkit.store.tiny import TinyStore
from crmkit.vault import Vault
from crmkit.vault.subjects import sound_records
from crmkit.vault.vault import SUBJECTS_FILE
from crmkit.workspace import Workspace

LARGE = 250_000_000
"""Bytes of data above which opening takes long and every process much memory."""

TO_DO = (
    "stop using the workspace and keep a copy of it as it is; then either make a new one from the last backup"
    " (crmkit restore), or save what is left into a new one (crmkit doctor --salvage FOLDER)"
)


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
    workspace: Workspace, store: TinyStore, vault: Vault, known: Iterable[str], failed: Iterable[str] = ()
) -> Health:
    """Check everything that is stored in an open workspace.

    Args:
        workspace: Where it is.
        store: Its store.
        vault: Its vault.
        known: The collections that somebody registered.
        failed: What is wrong with plugins.
    """
    known = tuple(known)
    shown = {name for name in known if not name.endswith(REMOVED)}
    damage, audit, failed = store.verify(), vault.audit.verify(), tuple(failed)
    records = {name: len(docs) for name, docs in sorted(store.tables().items()) if len(docs) or name in shown}
    unknown = tuple(name for name in records if name not in known and not name.startswith("."))
    sizes = _sizes(workspace)
    warnings = [f"{name}: no plugin brings this type; its records are kept as they are" for name in unknown]
    if store.compaction_problem:
        warnings.append(f"the journal could not be compacted: {store.compaction_problem}")
    advice = [TO_DO] if damage else []
    if audit:
        advice.append(
            "find out who wrote to keys/audit.jsonl; if a backup was restored: crmkit doctor --accept-restored"
        )
    if failed:
        advice.append("mend or remove the plugins that failed; the records are safe: crmkit plugins says more")
    return Health(
        records=records,
        bytes=sizes,
        unknown=unknown,
        commits=store.seq(),
        generation=store.generation,
        problems=(*damage, *audit, *failed),
        warnings=(*warnings, *_large(sizes)),
        advice=tuple(advice),
    )


def examine_closed(workspace: Workspace, error: CrmError) -> Health:
    """Look into a workspace that cannot be opened, as far as that is possible without opening it."""
    found = Salvaged({}, 0, ())
    with suppress(CrmError, OSError):
        found = survey(workspace.data)
    sizes = _sizes(workspace)
    return Health(
        records=found.records,
        bytes=sizes,
        commits=found.seq,
        problems=(str(error), *(loss for loss in found.losses if loss != str(error))),
        warnings=tuple(_large(sizes)),
        advice=(TO_DO,) if isinstance(error, Damaged) else (),
    )


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
        vault = None
        try:
            vault = Vault.unlock(new.keys)
        except CrmError as error:
            losses.append(f"{workspace.keys}: {error}; put the keys of a backup there, or nothing sealed can be read")
        id, can_open = (vault.workspace_id, _opener(vault)) if vault else ("", None)
        saved = salvage(workspace.data, new.data, id, can_open)
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
