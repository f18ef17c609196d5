"""Backups: two age files, one with the data and one with the keys, and the way back.

Without keys the data stays dark, so an erased customer is gone from every backup once the keys are backed up again:
the file of keys is replaced at each backup, those of data pile up. ``docs/backup.md`` has the names, the content and
how to restore without crmkit.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from crmkit import durable
from crmkit.errors import Damaged, Invalid, NotFound, Refused, Unsupported
from crmkit.safekeeping.archives import CHUNK, is_name, read_one, unpack, zipped
from crmkit.safekeeping.folders import failed, new_folder
from crmkit.safekeeping.torn import told_of_torn, torn_files
from crmkit.store.base import PlainCodec
from crmkit.store.files import Files
from crmkit.store.lock import LOCK_TIMEOUT, WorkspaceLock
from crmkit.store.tiny import TinyStore
from crmkit.vault import Vault
from crmkit.vault.sealed_files import open_stream
from crmkit.vault.trust import Head
from crmkit.workspace import Workspace

FORMAT = 1
DATA, KEYS = ".data.zip.age", ".keys.zip.age"

Progress = Callable[[str, float], None]
"""Told a step (``"saving"``, ``"restoring"``) and how much of it is done, 0 to 1."""


@dataclass(frozen=True)
class Backup:
    """A backup that was made.

    Attributes:
        data: The file with the data.
        keys: The file with the keys, of this and of earlier backups in the same folder.
        seq: The newest commit that it holds.
        left_out: Files of the workspace that are not in it: links, and what is no plain file.
        warnings: What is not wrong with the workspace and should be looked at.
    """

    data: Path
    keys: Path
    seq: int
    left_out: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Restored:
    """What was made of a backup.

    Attributes:
        workspace: The new workspace.
        data: The file that its data came from.
    """

    workspace: Workspace
    data: Path


# --------------------------------------------------------------------------- making one


def back_up(
    workspace: Workspace, store: TinyStore, vault: Vault, folder: Path, progress: Progress | None = None
) -> Backup:
    """Save a workspace into two files of a folder, while others go on writing.

    Args:
        workspace: What to save.
        store: Its open store.
        vault: Its open vault.
        folder: Where the files go, as `checked` returns it; it is made.
        progress: Told how far it is.

    Raises:
        Damaged: Something that is to be saved is not what crmkit wrote; earlier backups stay as they are.
        CrmError: The system cannot write; nothing of the backup is left.
    """
    name = re.sub(r"[^\w.-]+", "-", workspace.folder.name).strip("-.") or "crm"
    now = datetime.now(UTC)
    for problem in vault.audit.verify():
        raise Damaged(f"nothing was saved: {problem}")  # the file of keys would replace one that is sound
    try:
        durable.make_folder(folder)
        _sweep(folder, name)
        keys, data = folder / f"{name}{KEYS}", _unused(folder, f"{name}.{now:%Y%m%dT%H%M%SZ}")
        earlier = _backups_opened_by(keys, vault.workspace_id)
        with ExitStack() as stack:
            with store.lock():
                seq = store.seq()
                torn = torn_files(workspace)
                stored = [*_files_of(workspace.data), *torn]
                records = [stack.enter_context(_Held(path, workspace.folder)) for path in stored]
                secrets = [stack.enter_context(_Held(path, workspace.folder)) for path in vault.files]
                head = vault.audit.head()
            others, left_out = _other_files(workspace)
            told = _told(progress, sum(part.size for part in records) + sum(map(_size, others)))
            about = {"format": FORMAT, "workspace": vault.workspace_id, "made": now.isoformat(timespec="seconds")}
            about["audit"] = asdict(head)
            members = _members(about | {"what": "data", "seq": seq}, workspace, records, others)
            with _Sealed(vault, data) as data_file, _Sealed(vault, keys) as keys_file:
                sha256 = data_file.write(told(members), "data")
                opens = [*earlier, {"file": data.name, "sha256": sha256, "seq": seq, "made": about["made"]}]
                keys_file.write(_members(about | {"what": "keys", "opens": opens}, workspace, secrets), "keys")
                keys_file.keep()  # first: keys of a backup that is not there yet do no harm, one without keys would
                data_file.keep()
    except OSError as error:
        raise failed(error, folder) from error
    return Backup(data, keys, seq, tuple(left_out), tuple(map(told_of_torn, torn)))


def checked(folder: Path, workspace: Workspace) -> Path:
    """Return a folder that can be one for backups, as a whole path.

    Raises:
        Invalid: It cannot be one.
    """
    folder = folder.expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise Invalid({"path": f"{folder} is a file; name a folder for backups"})
    if folder.is_relative_to(workspace.folder):
        raise Invalid({"path": f"{folder} lies in the workspace; name a folder outside, best on another disk"})
    return folder


def _sweep(folder: Path, stem: str) -> None:
    """Remove what killed backups left: their files of keys open what was erased since. Who is at work holds a lock."""
    for path in folder.glob(f".{stem}.*.tmp"):
        with suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(fd)
    for path in folder.glob(".crmkit-*"):  # as earlier versions unpacked the keys
        shutil.rmtree(path, ignore_errors=True)


def _unused(folder: Path, stem: str) -> Path:
    """Return a name that no earlier backup of the same second has."""
    path, count = folder / f"{stem}{DATA}", 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}{DATA}"
    return path


def _files_of(folder: Path) -> list[Path]:
    """Return the files that hold what is stored now; the caller has the lock, so that they stay the right ones."""
    files = Files(folder)
    generation = files.generation()
    snapshot = files.snapshot(generation)
    return [
        files.current,
        *files.logs(generation),
        *([snapshot] if snapshot.exists() else []),
        files.wal(generation),
    ]


def _other_files(workspace: Workspace) -> tuple[list[Path], list[str]]:
    """Return the files beside data and keys, and the names of what is left out."""
    plain, others = workspace.plain_files()
    names = {path: path.relative_to(workspace.folder).as_posix() for path in (*plain, *others)}
    others += [path for path in plain if not is_name(names[path])]
    return [path for path in plain if is_name(names[path])], [ascii(names[path])[1:-1] for path in sorted(others)]


def _members(
    about: Mapping[str, Any], workspace: Workspace, held: Iterable[_Held], others: Iterable[Path] = ()
) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Yield the name and the content of each file of an archive; the first one says what the archive is."""
    yield f"{about['what']}.json", [json.dumps(about, indent=1).encode()]
    if about["what"] == "data":  # the notes of writers in it are about their machine, not about this copy
        yield Files(workspace.data).lock.relative_to(workspace.folder).as_posix(), []
    yield from ((part.name, part.frames() if part.is_framed else part.chunks()) for part in held)
    yield from ((path.relative_to(workspace.folder).as_posix(), _chunks(path)) for path in others)


class _Held:
    """A file as it is now, open, so that it can be read later though others append to it, replace or remove it."""

    def __init__(self, path: Path, top: Path) -> None:
        self.name = path.relative_to(top).as_posix()
        self.is_framed = path.parent.name == "data" and path.suffix == ".jsonl"
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def chunks(self) -> Iterator[bytes]:
        """Yield what the file held when it was opened."""
        done = 0
        while done < self.size:
            chunk = os.pread(self._fd, min(CHUNK, self.size - done), done)
            if not chunk:
                raise Damaged(f"{self._path}: became shorter while it was saved; run crmkit doctor")
            done += len(chunk)
            yield chunk

    def frames(self) -> Iterator[bytes]:
        """Yield the same of a file of frames, if each of them is sound: what is saved can be restored."""
        number, rest = 0, b""
        for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                number += 1
                if durable.unframe(line + b"\n") is None:
                    raise Damaged(f"nothing was saved: {self._path}, line {number}: damaged; run crmkit doctor")
            yield chunk


class _Sealed:
    """An age file that is made under another name; it gets its own with `keep`, or nothing of it stays."""

    def __init__(self, vault: Vault, path: Path) -> None:
        self._vault = vault
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> _Sealed:
        self._fd = durable.open_file(self._temporary, os.O_RDWR | os.O_TRUNC)
        with suppress(OSError):  # where the folder lies on a file system without locks
            fcntl.flock(self._fd, fcntl.LOCK_EX)  # nobody takes it for that of a killed one
        return self

    def write(self, members: Iterable[tuple[str, Iterable[bytes]]], what: str) -> str:
        """Write an archive of these files, sealed for every member, and return the SHA-256 of the age file."""
        with open(self._fd, "wb", closefd=False) as file:
            sha256 = self._vault.seal_stream(zipped(members, f"{what}.sha256"), file)
            file.flush()
            os.fsync(self._fd)
        return sha256

    def keep(self) -> None:
        """Give the file its name, durably."""
        self._temporary.replace(self._path)
        durable.sync_folder(self._path.parent)

    def __exit__(self, *_: object) -> None:
        self._temporary.unlink(missing_ok=True)
        os.close(self._fd)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _size(path: Path) -> int:
    return path.stat().st_size


def _told(
    progress: Progress | None, total: int
) -> Callable[[Iterable[tuple[str, Iterable[bytes]]]], Iterator[tuple[str, Iterable[bytes]]]]:
    """Return what passes files on and tells how many of all their bytes went by."""
    done = 0

    def counted(chunks: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal done
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            if progress:
                progress("saving", min(1.0, done / max(total, 1)))

    return lambda members: ((name, counted(chunks)) for name, chunks in members)


def _backups_opened_by(keys: Path, workspace: str) -> list[dict[str, Any]]:
    """Return what an earlier file of keys says of the data backups that it opens."""
    if not keys.exists():
        return []
    archive = io.BytesIO()  # not a file: there are keys in it
    with keys.open("rb") as sealed:
        open_stream(sealed, archive, str(keys))
    about = _about(read_one(archive, "keys.json", "keys.sha256", str(keys)), keys)
    if about["workspace"] != workspace:
        raise Refused(f"{keys} holds the keys of another workspace; name another folder for the backups of this one")
    opens: list[dict[str, Any]] = about["opens"]
    return opens


# --------------------------------------------------------------------------- and back


def restore_backup(
    path: Path, folder: Path, actor: str, keys: Path | None = None, progress: Progress | None = None
) -> Restored:
    """Make a workspace folder from a backup, every file of it checked.

    Args:
        path: The file with the data, or the folder of the backups: then the newest one.
        folder: The workspace to make; it must not exist, or be empty.
        actor: Who restores, for the audit log.
        keys: The file with the keys; the one beside the data when left out.
        progress: Told how far it is.

    Raises:
        NotFound: There is no such backup.
        Invalid: Something is where the workspace is to be made, or the path is that of the keys.
        Damaged: A file of the backup is not as it was made, or data and keys do not belong together.
        Locked: This user's identity does not open the backup.
        CrmError: The system cannot write; nothing is left behind.
    """
    path, place = path.expanduser().resolve(), Workspace(folder.expanduser().resolve())
    if path.name.endswith(KEYS) and not keys:
        raise Invalid({"path": f"{path} is the file of keys; name the data file, *{DATA}, or the folder of both"})
    keys = keys.expanduser().resolve() if keys else _keys_beside(path)
    tell = partial(progress, "restoring") if progress else _say_nothing
    with new_folder(place.folder) as unfinished:
        new = Workspace(unfinished)
        about_keys = _unpacked(keys, "keys", unfinished)
        data = _newest(path, keys, about_keys["opens"]) if path.is_dir() else path
        tell(0.1)
        _check_pair(data, keys, about_keys["opens"])
        about = _unpacked(data, "data", unfinished)
        if about["workspace"] != about_keys["workspace"]:
            raise Damaged(f"{data} and {keys} are of two workspaces")
        tell(0.7)
        for part in (new.plugins, new.files, new.notebooks):
            durable.make_folder(part)
        _check_store(new, about, data)
        tell(0.9)
        with closing(Vault.unlock(new.keys, accept=True)) as vault:
            _check_audit_log(vault, (about, about_keys), keys)
            vault.begin_branch(actor, "restore", f"backup of {about['made']}, commit {about['seq']}")
            _erase_again(vault)
    return Restored(place, data)


def _say_nothing(part: float) -> None:
    """Nobody listens."""


def accept_restored(workspace: Workspace, actor: str) -> str:
    """Let this user take a workspace in which somebody put back an older state; its audit log keeps that.

    Args:
        workspace: Where it is.
        actor: Who accepts.

    Returns:
        What the audit log says of it; empty where there was nothing to accept.

    Raises:
        Damaged: The keyring or the log never was one of this workspace.
        StoreBusy: Somebody else kept the lock of the workspace for too long.
    """
    with (
        closing(WorkspaceLock(Files(workspace.data).lock, LOCK_TIMEOUT)) as lock,
        lock.hold(),
        closing(Vault.unlock(workspace.keys, accept=True)) as vault,
    ):
        if not vault.audit.verify() and not vault.erasures.verify():
            return ""
        accepted = vault.begin_branch(actor, "accept", "accepted as it is", is_copy=False)
        _erase_again(vault)
        return accepted


def _erase_again(vault: Vault) -> None:
    """Decide again what keys of an earlier day do not know of, as this user remembers it.

    That is who was erased since, and which addresses must not come back. Whoever opens the workspace next acts on it.
    """
    missing, suppressed = vault.erasures.known_elsewhere(), vault.erasures.suppressed_elsewhere()
    if missing or suppressed:
        vault.erasures.record(sorted(missing), sorted(suppressed), datetime.now(UTC))


def _check_store(workspace: Workspace, about: Mapping[str, Any], data: Path) -> None:
    """Read what was restored as crmkit will read it."""
    store = TinyStore(workspace.data, PlainCodec())
    try:
        problems = store.verify()
        if store.workspace != about["workspace"] or store.seq() != about["seq"]:
            problems.append("it is not the state that the backup says it holds")
    finally:
        store.close()
    if problems:
        raise Damaged(f"{data}: was damaged when it was made: {problems[0]}")


def _check_audit_log(vault: Vault, archives: Iterable[Mapping[str, Any]], keys: Path) -> None:
    """Compare the audit log among the keys with what the backups say of it; the keys may be newer than the data."""
    for about in archives:
        if "audit" in about and not vault.audit.holds(Head(**about["audit"])):
            raise Damaged(f"{keys}: its audit log is not the one that the backup of {about['made']} was made with")


def _unpacked(path: Path, what: str, folder: Path) -> dict[str, Any]:
    """Unpack a file of a backup, and return what it says about itself."""
    name = f"{what}.json"
    try:
        with path.open("rb") as sealed, tempfile.TemporaryFile(dir=folder) as archive:
            open_stream(sealed, archive, str(path))
            archive.seek(0)
            unpack(archive, folder, f"{what}.sha256", str(path))
        about = (folder / name).read_bytes()
        (folder / name).unlink()
    except FileNotFoundError as error:
        if error.filename == str(path):
            raise NotFound(f"there is no backup {path}") from None
        raise Damaged(f"{path}: does not hold the {what} of a backup; were two files swapped?") from None
    return _about(about, path)


def _about(content: bytes, path: Path) -> dict[str, Any]:
    """Return what a file of a backup says about itself."""
    about: dict[str, Any] = json.loads(content)
    if about["format"] != FORMAT:
        raise Unsupported(f"{path}: has format {about['format']}, this version reads {FORMAT}; install a newer one")
    return about


def _keys_beside(path: Path) -> Path:
    """Return the file of keys for a data backup, or the only one of a folder."""
    if not path.exists():
        raise NotFound(f"there is no backup {path}")
    if not path.is_dir():
        if not path.name.endswith(DATA):
            raise Invalid({"path": f"{path.name} is no backup; name the folder of backups, or a file *{DATA}"})
        return path.with_name(re.sub(r"(\.[^.]*)?" + re.escape(DATA) + "$", "", path.name) + KEYS)
    found = sorted(path.glob(f"*{KEYS}"))
    if len(found) == 1:
        return found[0]
    which = ", ".join(each.name for each in found)
    raise NotFound(
        f"{path} holds the backups of several workspaces ({which}); name the file with the data"
        if found
        else f"{path} holds no backup: there is no file *{KEYS}"
    )


def _newest(folder: Path, keys: Path, opens: list[dict[str, Any]]) -> Path:
    for each in reversed(opens):
        if (folder / each["file"]).exists():
            return folder / str(each["file"])
    raise NotFound(f"{folder} holds no data backup that {keys.name} opens")


def _check_pair(data: Path, keys: Path, opens: list[dict[str, Any]]) -> None:
    """Refuse data for which the keys were not made: they might lack the keys of newer customers."""
    try:
        with data.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise NotFound(f"there is no backup {data}") from None
    if sha256 in {each["sha256"] for each in opens}:
        return
    if data.name in {each["file"] for each in opens}:
        raise Damaged(f"{data}: is not as it was when the backup was made; take another copy of it")
    raise Damaged(
        f"{keys} does not open {data.name}: it was saved for {len(opens)} other backup(s); take the file of keys that"
        " was saved with this one, or later"
    )
