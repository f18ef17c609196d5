"""Where a store may live: refuses file systems whose locks do not hold, and folders that a sync service copies into.

Several processes write to one journal and rely on the lock of one file, and on each seeing what the others wrote.
Both hold within one machine on a local disk. On other systems than Linux the file system is not asked.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from crmkit.errors import Damaged, Unsupported

_SHARED = "a network share: other machines write to it and do not see our locks in time"
_HOST = "a folder of the host: its programs do not see our locks"
_REMOTE = "a remote service shown as a folder: it has no locks, and writes late"
UNSAFE = {
    **dict.fromkeys(("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "coda", "ncpfs", "fuse.smbnetfs"), _SHARED),
    **dict.fromkeys(("9p", "vboxsf", "prl_fs", "vmhgfs", "fuse.vmhgfs-fuse", "fuse.prl_fsd"), _HOST),
    **dict.fromkeys(("fuse.sshfs", "fuse.curlftpfs", "fuse.davfs", "davfs", "fuse.rclone", "fuse.gvfsd-fuse"), _REMOTE),
    **dict.fromkeys(("fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.blobfuse", "fuse.blobfuse2"), _REMOTE),
    **dict.fromkeys(("fuse.google-drive-ocamlfuse", "fuse.onedriver", "fuse.jmtpfs"), _REMOTE),
}
"""File systems on which a store is not opened, and why. Locks hold, and nobody is refused, on what is not named."""

_MOUNTS = Path("/proc/self/mountinfo")
_OWN = re.compile(r"LOCK|CURRENT|(snap|wal|log)\.[1-9][0-9]*\.jsonl")
_LOOKS_LIKE_OURS = re.compile(r"\b(LOCK|CURRENT|(snap|wal|log)\.[1-9][0-9]*)(?![0-9])", re.IGNORECASE)


def check_place(folder: Path) -> None:
    """Refuse a folder in which a store would not be safe.

    Args:
        folder: The folder of a store; it need not be there yet.

    Raises:
        Unsupported: The folder lies on a file system whose locks do not hold.
        Damaged: A sync service put a copy of one of our files into it.
    """
    if sys.platform == "linux":
        check_mount(folder.resolve(), _MOUNTS.read_text(errors="surrogateescape") if _MOUNTS.exists() else "")
    check_copies(folder)


def check_mount(folder: Path, mounts: str) -> None:
    """Raise `Unsupported` where a resolved folder lies on an unsafe file system.

    Args:
        folder: The folder, resolved.
        mounts: What ``/proc/self/mountinfo`` says.
    """
    kind = _file_system(folder, mounts)
    if kind in UNSAFE:
        raise Unsupported(
            f"{folder} lies on a file system of type {kind}, {UNSAFE[kind]}; keep the workspace on a local disk"
            " (and its backups on the share)"
        )


def check_copies(folder: Path) -> None:
    """Raise `Damaged` where a file of the folder is a copy of one of ours: two machines wrote, and neither has all."""
    found = conflict_copies(folder)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise Damaged(
            f"{found[0]}{more}: looks like a copy that a sync service or a person made of a file of crmkit; it may hold"
            " what the file lacks: stop the syncing, move the copy away, open again and see what is missing"
        )


def conflict_copies(folder: Path) -> list[Path]:
    """Return the files of a store's folder that are called almost, but not quite, like one of ours."""
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return [folder / name for name in names if _LOOKS_LIKE_OURS.search(name) and not _OWN.fullmatch(name)]


def _file_system(folder: Path, mounts: str) -> str:
    """Return the type of the file system that holds a folder: the longest mount point, the latest of equals."""
    kind, longest = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        if folder.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = after.split()[0], len(point.parts)
    return kind
