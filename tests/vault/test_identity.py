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

from crmkit.errors import Invalid, Locked
from crmkit.vault import identity as identity_module
from crmkit.vault import unlocking
from crmkit.vault.identity import (
    change_passphrase,
    config_folder,
    ensure_identity,
    find_identity,
    identity_place,
    load_identity,
    open_uris_with,
    unlock_identity,
)
from crmkit.vault.passphrase import check_passphrase


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


# ------------------------------------------------------------------------------------------- passphrases

WORDS = "correct horse battery staple"


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def test_a_protected_identity_is_opened_by_its_passphrase_only(config: Path, runtime: Path) -> None:
    made = ensure_identity(WORDS)  # and stays open for who made it
    file = config / "identity.txt"
    assert str(load_identity()) == str(made)
    assert file.read_bytes().startswith(b"age-encryption.org/v1\n-> scrypt ")
    assert str(made).encode() not in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    unlocking.forget()
    with pytest.raises(Locked, match="open it with: crmkit unlock"):
        load_identity()
    with pytest.raises(Locked, match="this is not the passphrase of"):
        unlock_identity(find_identity(), "another one here")
    unlock_identity(find_identity(), WORDS)
    assert str(load_identity()) == str(made)


@pytest.mark.parametrize("armored", [False, True])
def test_what_age_makes_can_be_unlocked(config: Path, runtime: Path, armored: bool) -> None:
    identity = Identity.generate()
    content = f"# created: today\n# public key: {identity.to_public()}\n{identity}\n".encode()
    config_folder()
    (config / "identity.txt").write_bytes(pyrage.passphrase.encrypt(content, WORDS, armored=armored))
    unlock_identity(find_identity(), WORDS)
    assert str(load_identity()) == str(identity)


def test_the_passphrase_changes_all_or_nothing(
    config: Path, runtime: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ensure_identity()
    file = config / "identity.txt"
    for call in ("pwrite", "fdatasync", "replace"):
        before = file.read_bytes()
        with monkeypatch.context() as broken:
            broken.setattr(os, call, _full)
            with pytest.raises(Locked, match="cannot be written: No space left on device"):
                change_passphrase(None, WORDS)
        assert file.read_bytes() == before
        assert [path.name for path in config.iterdir()] == ["identity.txt"]
    change_passphrase(None, WORDS)
    unlock_identity(find_identity(), WORDS)
    assert str(load_identity()) == str(made)
    change_passphrase(WORDS, None)
    assert not list((runtime / "crmkit").iterdir())  # what was unlocked is locked
    assert str(load_identity()) == str(made)
    with pytest.raises(Invalid, match="must have 10 characters or more"):
        change_passphrase(None, "short")
    assert str(load_identity()) == str(made)


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_link_to_the_identity_stays_one(config: Path, tmp_path: Path, runtime: Path, quick: None) -> None:
    ensure_identity()
    (config / "identity.txt").rename(tmp_path / "elsewhere.txt")
    (config / "identity.txt").symlink_to(tmp_path / "elsewhere.txt")
    assert change_passphrase(None, WORDS) == tmp_path / "elsewhere.txt"
    assert (config / "identity.txt").is_symlink()
    assert find_identity().is_protected


def test_a_key_in_the_environment_has_no_passphrase(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRMKIT_IDENTITY", str(Identity.generate()))
    with pytest.raises(Locked, match=r"in \$CRMKIT_IDENTITY, not in a file"):
        change_passphrase(None, WORDS)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One passphrase, at once instead of in two seconds."""
    key = Identity.generate()
    monkeypatch.setattr(identity_module, "protect", lambda content, _: pyrage.encrypt(content, [key.to_public()]))
    monkeypatch.setattr(identity_module, "open_protected", lambda content, *_: pyrage.decrypt(content, [key]))


@pytest.mark.parametrize(
    "words",
    ["", "short", "123456789", "aaaaaaaaaaaaaaa", "abababababab", "Password 123", "QWERTYUIOP", "1234567890", " " * 20],
)
def test_a_passphrase_that_is_guessed_first_is_refused(words: str) -> None:
    with pytest.raises(Invalid, match="must have 10 characters or more, not the same ones over and over") as refused:
        check_passphrase(words)
    assert not words.strip() or words not in str(refused.value)


@pytest.mark.parametrize("words", [WORDS, "Übergrößenträger", "7h3 qu1ck br0wn", "tr0ub4dor&3"])
def test_a_good_passphrase_is_taken(words: str) -> None:
    check_passphrase(words)


# ------------------------------------------------------------------------------------------- plugins


def test_a_uri_is_opened_by_who_was_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity, asked = Identity.generate(), []
    monkeypatch.setenv("CRMKIT_IDENTITY", "safe:drawer/CANARY")
    open_uris_with(None)
    with pytest.raises(Locked, match=r"\$CRMKIT_IDENTITY is a safe: address, and no plugin is there") as refused:
        load_identity()
    assert "CANARY" not in str(refused.value)
    try:
        open_uris_with(lambda uri: (asked.append(uri), f"# mine\n{identity}\n")[1])
        assert str(load_identity()) == str(identity)
        open_uris_with(lambda uri: "nothing CANARY")
        with pytest.raises(Locked, match=r"your identity \$CRMKIT_IDENTITY \(safe:\) holds no age secret key"):
            load_identity()
    finally:
        open_uris_with(None)
    assert asked == ["safe:drawer/CANARY"]
    assert identity_place() == "$CRMKIT_IDENTITY"


def test_a_file_whose_name_looks_like_a_uri_is_a_file(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Identity.generate()
    monkeypatch.chdir(tmp_path)
    Path("safe:me").write_text(f"{identity}\n")
    monkeypatch.setenv("CRMKIT_IDENTITY", "safe:me")
    assert str(load_identity()) == str(identity)
