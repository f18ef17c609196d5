"""What `crmkit unlock` keeps: for its owner only, for a while only, and nothing of it afterwards."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crmkit.errors import Invalid, Locked
from crmkit.vault import unlocking

PROTECTED = b"age-encryption.org/v1\n-> scrypt ..."
SECRET = "AGE-SECRET-KEY-1CANARY"


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime directory of the user of this test."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def _file(runtime: Path) -> Path:
    (found,) = (runtime / "crmkit").iterdir()
    return found


def test_it_is_kept_for_its_owner_only(runtime: Path) -> None:
    before = os.umask(0)
    try:
        until = unlocking.keep(PROTECTED, SECRET)
    finally:
        os.umask(before)
    assert timedelta(hours=7, minutes=59) < until - datetime.now(UTC) <= timedelta(hours=8)
    assert unlocking.kept(PROTECTED) == SECRET
    assert unlocking.kept(PROTECTED + b"another") is None
    assert stat.S_IMODE((runtime / "crmkit").stat().st_mode) == 0o700
    assert stat.S_IMODE(_file(runtime).stat().st_mode) == 0o600


@pytest.mark.parametrize("lasts", [timedelta(0), timedelta(hours=-1), timedelta(hours=25)])
def test_it_is_not_kept_for_ever(runtime: Path, lasts: timedelta) -> None:
    with pytest.raises(Invalid, match="at most 24 hours"):
        unlocking.keep(PROTECTED, SECRET, lasts)
    assert not list(runtime.iterdir())


def test_what_is_over_is_overwritten_and_removed(runtime: Path, tmp_path: Path) -> None:
    unlocking.keep(PROTECTED, SECRET)
    file, witness = _file(runtime), tmp_path / "witness"
    witness.hardlink_to(file)  # shows what becomes of the bytes
    content = json.loads(file.read_text())
    for until in (datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) + timedelta(days=2)):  # a clock set back
        unlocking.keep(PROTECTED, SECRET)
        _file(runtime).write_text(json.dumps({**content, "until": until.isoformat()}))
        assert unlocking.kept(PROTECTED) is None
        assert not list((runtime / "crmkit").iterdir())
    unlocking.keep(PROTECTED, SECRET)
    witness.unlink()
    witness.hardlink_to(_file(runtime))
    assert SECRET in witness.read_text()
    assert unlocking.forget() == 1
    assert not witness.read_bytes().strip(b"\0")
    assert unlocking.kept(PROTECTED) is None
    assert unlocking.forget() == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"until": 7, "identity": "x"}', '{"until": "soon"}'])
def test_a_file_that_is_none_counts_for_nothing(runtime: Path, content: str) -> None:
    unlocking.keep(PROTECTED, SECRET)
    _file(runtime).write_text(content)
    assert unlocking.kept(PROTECTED) is None


def test_what_others_could_have_written_is_refused(runtime: Path, tmp_path: Path) -> None:
    unlocking.keep(PROTECTED, SECRET)
    folder, file = runtime / "crmkit", _file(runtime)
    for path in (runtime, folder, file):
        mode = stat.S_IMODE(path.stat().st_mode)
        for open_to_others in (0o710, 0o701, 0o720, 0o777) if path is not file else (0o640, 0o604, 0o666):
            path.chmod(open_to_others)
            with pytest.raises(Locked, match="must belong to you, and be closed to all others"):
                unlocking.kept(PROTECTED)
        path.chmod(mode)
    assert unlocking.kept(PROTECTED) == SECRET
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Locked, match="symbolic links"):
        unlocking.kept(PROTECTED)
    file.unlink()
    folder.rename(tmp_path / "other")
    folder.symlink_to(tmp_path / "other")
    for ask in (lambda: unlocking.kept(PROTECTED), lambda: unlocking.keep(PROTECTED, SECRET), unlocking.forget):
        with pytest.raises(Locked, match="cannot hold an opened identity"):
            ask()


def test_a_folder_of_somebody_else_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlocking.keep(PROTECTED, SECRET)
    somebody_else = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody_else)
    with pytest.raises(Locked, match="must belong to you"):
        unlocking.kept(PROTECTED)


def test_without_a_runtime_directory_it_is_a_private_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert unlocking.kept(PROTECTED) is None
    assert unlocking.forget() == 0
    unlocking.keep(PROTECTED, SECRET)
    folder = tmp_path / f"crmkit-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert unlocking.kept(PROTECTED) == SECRET
    folder.chmod(0o755)
    with pytest.raises(Locked, match="closed to all others"):
        unlocking.kept(PROTECTED)


def test_control_without_the_check_what_others_wrote_is_taken(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(found: Any, name: str) -> None:
        pass

    unlocking.keep(PROTECTED, SECRET)
    _file(runtime).chmod(0o666)
    monkeypatch.setattr(unlocking, "_check", nothing)
    assert unlocking.kept(PROTECTED) == SECRET
