"""Folders in which a store would not be safe: network file systems, and copies that a sync service left."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crmkit.errors import Damaged, Unsupported
from crmkit.store import PlainCodec, TinyStore, places
from crmkit.store.places import UNSAFE, check_copies, check_mount, check_place, conflict_copies

MOUNTS = r"""22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
25 22 0:23 / /proc rw,nosuid - proc proc rw
30 22 0:40 / /srv/team rw,relatime shared:9 master:2 - nfs4 server:/team rw,vers=4.2
31 30 8:17 / /srv/team/local rw - xfs /dev/sdb1 rw
32 22 0:41 / /people/ann/a\040share\134x rw - cifs //server/a rw
33 22 0:42 / /mnt/c rw - 9p C: rw
34 22 0:43 / /people/ann/remote rw - fuse.sshfs ann@server: rw
35 22 0:44 / /twice rw - nfs server:/old rw
36 35 8:18 / /twice rw - ext4 /dev/sdc1 rw
37 22 0:45 / /people/ann/mnt rw - fuse.encfs encfs rw
not a line of the kernel
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/srv/team", "nfs4"),
        ("/srv/team/acme/data", "nfs4"),
        (r"/people/ann/a share\x/acme/data", "cifs"),
        ("/mnt/c/acme/data", "9p"),
        ("/people/ann/remote/acme/data", "fuse.sshfs"),
    ],
)
def test_a_file_system_without_locks_is_refused(folder: str, kind: str) -> None:
    with pytest.raises(Unsupported) as caught:
        check_mount(Path(folder), MOUNTS)
    text = str(caught.value)
    assert text.startswith(f"{folder} lies on a file system of type {kind}, ")
    assert UNSAFE[kind] in text
    assert "keep the workspace on a local disk" in text


@pytest.mark.parametrize(
    "folder",
    ["/people/ann/acme", "/srv/team/local/acme", "/srv/teams/acme", "/twice/acme", "/people/ann/mnt/acme", "/mnt/cd"],
)
def test_a_local_one_is_not(folder: str) -> None:
    check_mount(Path(folder), MOUNTS)


def test_where_nothing_is_known_nobody_is_refused(tmp_path: Path) -> None:
    check_mount(tmp_path, "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked what a folder lies on")
def test_the_kernel_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:1 / {tmp_path} rw - nfs server:/x rw\n")
    monkeypatch.setattr(places, "_MOUNTS", mounts)
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    with pytest.raises(Unsupported, match="share/data lies on a file system of type nfs"):
        check_place(tmp_path / "link" / "data")


@pytest.mark.parametrize(
    "name",
    [
        "CURRENT (1)",
        "CURRENT-LAPTOP",
        "CURRENT (Ann's conflicted copy 2026-11-22)",
        "LOCK 2",
        "wal.3 (conflicted copy).jsonl",
        "wal.3-HOST.jsonl",
        "wal.3.sync-conflict-20261122-101500-ABCDEFG.jsonl",
        "Copy of wal.3.jsonl",
        "Kopie von snap.3.jsonl",
        "snap.12 2.jsonl",
        "log.1.jsonl.bak",
        "wal.3.jsonl~",
    ],
)
def test_a_copy_of_one_of_our_files_is_damage(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(Damaged) as caught:
        check_copies(folder)
    assert str(caught.value).startswith(f"{folder / name}: looks like a copy")


def test_our_own_files_and_strangers_are_none(folder: Path) -> None:
    for name in ("snap.2.jsonl", "log.1.jsonl", "wal.17.jsonl", ".wal.2.jsonl.77.tmp", "notes.txt", "journal.txt"):
        (folder / name).write_bytes(b"")
    assert conflict_copies(folder) == []
    check_place(folder)


def test_a_store_is_neither_made_nor_opened_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "wal.1 (conflicted copy).jsonl").write_bytes(b"")
    with pytest.raises(Damaged, match="looks like a copy"):
        TinyStore(folder, PlainCodec())
    (folder / "wal.1 (conflicted copy).jsonl").unlink()
    TinyStore(folder, PlainCodec()).close()
    monkeypatch.setattr(places, "UNSAFE", {places._file_system(tmp_path.resolve(), places._MOUNTS.read_text()): "x"})
    with pytest.raises(Unsupported, match="keep the workspace on a local disk"):
        TinyStore(folder, PlainCodec())
    with pytest.raises(Unsupported, match="keep the workspace on a local disk"):
        TinyStore.create(tmp_path / "new", "workspace-1")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_not_there_has_no_copies(tmp_path: Path) -> None:
    assert conflict_copies(tmp_path / "nowhere") == []
