"""Where the identity comes from, and the one clear line when there is none that can be used."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest
from pyrage.x25519 import Identity

from crmkit.errors import Locked
from crmkit.vault.identity import config_folder, ensure_identity, load_identity


def test_an_identity_is_made_once_and_private(config: Path) -> None:
    before = os.umask(0)
    try:
        made = ensure_identity()
    finally:
        os.umask(before)
    assert str(ensure_identity()) == str(made) == str(load_identity())
    assert stat.S_IMODE(config.stat().st_mode) == 0o700
    assert stat.S_IMODE((config / "identity.txt").stat().st_mode) == 0o600
    assert [path.name for path in config.iterdir()] == ["identity.txt"]


def test_a_folder_that_was_there_keeps_its_mode(config: Path) -> None:
    config.mkdir(mode=0o750)
    assert config_folder() == config
    assert stat.S_IMODE(config.stat().st_mode) == 0o750


def test_a_config_folder_that_cannot_be_made_is_locked(config: Path) -> None:
    config.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(Locked, match=r"config cannot be written: File exists; name a folder of your own in \$CRMKIT_C"):
        ensure_identity()


def test_processes_that_start_together_agree_on_one_identity(config: Path) -> None:
    code = "from crmkit.vault.identity import ensure_identity; print(ensure_identity().to_public())"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(4)
    ]
    answers = {process.communicate(timeout=60)[0] for process in running}
    assert len(answers) == 1
    assert answers.pop().startswith("age1")


def test_the_environment_comes_first(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_identity()
    other = Identity.generate()
    monkeypatch.setenv("CRMKIT_IDENTITY", str(other))
    assert str(load_identity()) == str(other)
    file = tmp_path / "other.txt"
    file.write_text(f"# created by age-keygen\n\n{other}\n", encoding="utf-8")
    monkeypatch.setenv("CRMKIT_IDENTITY", str(file))
    assert str(load_identity()) == str(other)


def test_a_missing_identity_is_locked(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Locked, match=r"identity\.txt is missing; copy yours there, or name it in \$CRMKIT_IDENTITY"):
        load_identity()
    monkeypatch.setenv("CRMKIT_IDENTITY", str(tmp_path / "nowhere"))
    with pytest.raises(Locked, match="nowhere is missing"):
        ensure_identity()  # what the user named is not made up
    monkeypatch.setenv("CRMKIT_IDENTITY", "AGE-SECRET-KEY-CANARY")
    with pytest.raises(Locked, match="neither an age secret key nor a file") as refused:
        load_identity()
    assert "CANARY" not in str(refused.value)
    assert not (config / "identity.txt").exists()


def test_a_protected_identity_is_locked(config: Path) -> None:
    config_folder()
    protected = pyrage.encrypt(b"AGE-SECRET-KEY-1", [Identity.generate().to_public()])
    for content in (protected, b"-----BEGIN AGE ENCRYPTED FILE-----\n"):
        (config / "identity.txt").write_bytes(content)
        with pytest.raises(Locked, match="protected with a passphrase"):
            load_identity()


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\xff\xfe\x00", b"AGE-SECRET-KEY-1QQ\n", b"# only a comment\n"])
def test_a_file_without_an_identity_is_locked(config: Path, content: bytes) -> None:
    config_folder()
    (config / "identity.txt").write_bytes(content)
    with pytest.raises(Locked, match="holds no age secret key") as caught:
        load_identity()
    assert "1QQ" not in str(caught.value)


def test_an_unreadable_identity_is_locked(config: Path) -> None:
    (config_folder() / "identity.txt").mkdir()
    with pytest.raises(Locked, match="cannot be read: Is a directory"):
        load_identity()
