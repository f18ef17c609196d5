"""The keys of a workspace, ``crm.keys``: what there are, new ones in their place, and the recovery key."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from crmkit.errors import Invalid, Refused
from crmkit.keys.deeds import Deeds
from crmkit.keys.recovery import Drill, drill, make_recovery_key
from crmkit.keys.rotation import Progress, Rotated, Rotation
from crmkit.profile import read_profile
from crmkit.vault import envelope

SCOPES = ("wrap", "data", "index")
_GENERATION = re.compile(rb"c1\.([A-Za-z0-9_-]{8})")  # eight characters hold the six bytes of a header
_TAG = re.compile(rb'"b1\.([0-9a-f]{8})\.')


@dataclass(frozen=True)
class KeyUse:
    """One key, or one generation of the data keys, and what there is of it on disk.

    Attributes:
        id: Of the key, in hex; of a generation its number.
        purpose: ``wrap``, ``bidx``, ``audit``, ``suppress``, ``files``; or ``data``.
        status: ``primary`` writes and reads, ``active`` reads, ``destroyed`` is no more.
        created: When, UTC; empty for a generation.
        uses: How many data keys it wraps, envelopes it seals or tags it made; None where nothing counts that.
    """

    id: str
    purpose: str
    status: str
    created: str
    uses: int | None


@dataclass(frozen=True)
class DropPlan:
    """What dropping old data keys means.

    Attributes:
        keys: How many keys would be destroyed.
        kept: How many old keys stay, because reasons in the history and in the audit log are sealed under them.
        backups: When backups were made that hold older data: what the dropped keys sealed in them goes dark. It names
            those that the audit log knows of.
    """

    keys: int
    kept: int
    backups: tuple[str, ...]


class Keys:
    """The keys of a workspace.

    Args:
        deeds: What they are changed with.
    """

    def __init__(self, deeds: Deeds) -> None:
        self._deeds = deeds
        self._store, self._codec, self._vault = deeds.store, deeds.codec, deeds.vault

    def __repr__(self) -> str:
        return "\n".join(f"{key.purpose}  {key.id:08x}  {key.status}  {key.created[:10]}" for key in self._vault.keys)

    @property
    def public_key(self) -> str:
        """Your public key, to be given to a member of another workspace who makes you one."""
        return self._vault.public_key

    @property
    def unfinished(self) -> bool:
        """Whether a rotation was cut short; rotating again, or removing the member again, completes it."""
        with self._store.lock():
            self._vault.refresh()
        return self._vault.unfinished

    def status(self) -> tuple[KeyUse, ...]:
        """Return every key and every generation of data keys, with what is on disk of each. Reads every file."""
        with self._store.lock():
            self._vault.refresh()
        newest = max(map(self._vault.newest_generation, self._vault.subjects()), default=0)
        sealed = Counter[int]()
        for text, count in self._store.count_on_disk(_GENERATION).items():
            header = urlsafe_b64decode(text)
            if header[:2] == envelope.FORMAT_AND_ALGORITHM:
                sealed[int.from_bytes(header[2:], "big")] += count
        generations = sorted(sealed.keys() | ({newest} if newest else set()), reverse=True)
        return (
            *self._ring(),
            *(
                KeyUse(str(each), "data", "primary" if each >= newest else "active", "", sealed[each])
                for each in generations
            ),
        )

    def rotate(self, scope: str = "wrap", *, progress: Progress | None = None) -> Rotated:
        """Put new keys in the place of those in use, while others go on working.

        What is cut short goes on when it is started again.

        Args:
            scope: ``"wrap"`` wraps the data keys anew, in seconds; ``"data"`` seals every value anew, also those of the
                history; ``"index"`` makes new tags for exact search.
            progress: Told a step and how much of it is done, 0 to 1.

        Raises:
            Invalid: There is no such scope.
            Refused: The actor may not do this.
        """
        if scope not in SCOPES:
            raise Invalid({"scope": f"must be one of {', '.join(SCOPES)}"})
        if scope == "wrap":
            with self._deeds.deed("rotate", "wrap"):
                self._vault.rotate_wrap()
            return Rotated("wrap")
        rotation = Rotation(self._deeds, progress)
        with self._deeds.busy():
            return rotation.data() if scope == "data" else rotation.index()

    def seal(self, *, progress: Progress | None = None) -> Rotated:
        """Bring what is stored to the seal level that ``crmkit.toml`` names, while others go on working.

        Where the level rises, former values in the history are sealed too. What is cut short goes on when it is started
        again. Backups stay as they were made.

        Args:
            progress: Told a step and how much of it is done, 0 to 1.

        Raises:
            Invalid: The profile is not valid.
            Refused: The actor may not do this.
        """
        with self._deeds.busy():
            return Rotation(self._deeds, progress).level(read_profile(self._deeds.workspace.profile).seal)

    def plan_drop(self) -> DropPlan:
        """Return what `drop_old` would do; nothing is done yet."""
        with self._store.lock():
            self._vault.refresh()
            old, keep = self._old(), self._needed()
        entries = list(self._vault.audit.entries())
        rotated = max((each["ts"] for each in entries if each["action"] == "rotate"), default="")
        backups = tuple(at for at in _backups(entries) if at < rotated)
        return DropPlan(len(old - keep), len(old & keep), backups)

    def drop_old(self) -> int:
        """Destroy the data keys that a rotation left behind; older backups that need them go dark. Ask `plan_drop`.

        Returns:
            How many keys were destroyed.

        Raises:
            Refused: Something is sealed under old keys still: rotate the data first, with all plugins there.
        """
        rotation = Rotation(self._deeds)
        with self._deeds.busy():
            _refuse(rotation.not_done())
        # once more under the lock: what was read before the rotation may have been written since
        with self._deeds.deed("drop_old_keys", f"{len(self._old())} old", lambda: _refuse(rotation.put_back())):
            needed, newest = self._needed(), self._vault.newest_generation
            subjects = [id for id in self._vault.subjects() if id != self._vault.workspace_id]
            return self._vault.drop_generations(max(map(newest, subjects), default=0), subjects, needed)

    def recovery(self, path: str | PathLike[str]) -> Path:
        """Make a new recovery key in a new file that only you can read; the former one opens nothing from now on.

        Args:
            path: The file, outside of the workspace.

        Raises:
            Invalid: There is such a file, or it lies in the workspace.
            Refused: The actor may not do this.
        """
        return make_recovery_key(self._deeds, Path(path))

    def drill(self, path: str | PathLike[str]) -> Drill:
        """Prove that a recovery key opens the keys in use; the audit log notes it.

        Raises:
            NotFound: There is no such file.
            Locked: It holds no key, or one that does not open this workspace.
            Invalid: It holds the identity of a member.
        """
        return drill(self._deeds, Path(path))

    def _ring(self) -> list[KeyUse]:
        wraps, tags = self._vault.wrapped_by(), self._store.count_on_disk(_TAG)
        rows = []
        for key in self._vault.keys:
            uses = {"wrap": wraps.get(key.id, 0), "bidx": tags[b"%08x" % key.id]}.get(key.purpose)
            rows.append(KeyUse(f"{key.id:08x}", key.purpose, key.status, key.created, uses))
        return rows

    def _old(self) -> set[tuple[str, int]]:
        """Return the subjects and generations that have a newer one; the workspace's own always stay."""
        own = self._vault.workspace_id
        return {
            (id, generation)
            for id, generation in self._vault.generations()
            if id != own and self._is_old(id, generation)
        }

    def _is_old(self, id: str, generation: int) -> bool:
        return generation < self._vault.newest_generation(id)

    def _needed(self) -> set[tuple[str, int]]:
        """Return the subjects and generations under which reasons are sealed: those cannot be sealed anew."""
        own = self._vault.workspace_id
        metas = [(each.meta.get("about") or own, each.meta.get("reason")) for each in self._store.commits()]
        lines = [(each["subject"], each["reason"]) for each in self._vault.audit.entries()]
        return {(id, envelope.generation_of(envelope.from_text(text))) for id, text in (*metas, *lines) if text}


def _backups(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return when backups were made; each is noted as it begins, and again where it failed."""
    made: list[str] = []
    for each in entries:
        if each["action"] == "backup":
            made.append(each["ts"])
        elif each["action"] == "backup_failed" and made:
            made.pop()
    return made


def _refuse(needed_by: str) -> None:
    if needed_by:
        raise Refused(f"old keys are still needed: {needed_by}; rotate first: crmkit keys rotate --scope data")
