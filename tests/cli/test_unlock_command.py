"""`crmkit unlock`, `lock`, `identity`, `audit`, and what `init` asks: on a terminal only, and it shows nothing."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import pty
import re
import select
import stat
import subprocess
import sys
import termios
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyrage
import pytest

import crmkit
from crmkit.vault import identity, passphrase
from crmkit.vault.identity import find_identity

WORDS = "correct horse battery staple"
Answers = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases at once instead of in two seconds; the tests on a real terminal use the real ones."""
    if request.node.name.startswith("test_on_a_terminal"):
        return
    keys: dict[str, Any] = {}

    def protect(content: bytes, words: str) -> bytes:
        key = keys.setdefault(words, pyrage.x25519.Identity.generate())
        return pyrage.encrypt(content, [key.to_public()])

    def open_protected(content: bytes, words: str, place: str) -> bytes:
        try:
            return pyrage.decrypt(content, [keys.get(words) or pyrage.x25519.Identity.generate()])
        except pyrage.DecryptError:
            raise crmkit.Locked(f"this is not the passphrase of {place}") from None

    monkeypatch.setattr(identity, "protect", protect)
    monkeypatch.setattr(identity, "open_protected", open_protected)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """``answer("a", "b")``: what is typed at the next prompts; returns the prompts."""

    def answer(*typed: str) -> list[str]:
        left, prompts = list(typed), []

        def ask(prompt: str = "") -> str:
            prompts.append(prompt)
            return left.pop(0)

        monkeypatch.setattr(getpass, "getpass", ask)
        return prompts

    return answer


def test_unlock_opens_for_kernels_and_commands_until_lock(
    run: Any, answer: Answers, workspace: Path, own_identity: Path
) -> None:
    prompts = answer(WORDS, WORDS)
    done = run("identity", "protect")
    assert done.code == 0, done.err
    assert "is protected; open it with: crmkit unlock" in done.out
    assert len(prompts) == 2
    refused = run("find", "ada", "-w", workspace)
    assert refused.code == 1
    assert "open it with: crmkit unlock" in refused.err
    prompts = answer(WORDS)
    done = run("unlock", "-w", workspace)
    assert done.code == 0, done.err
    assert "unlocked until" in done.out
    assert prompts == [f"Passphrase of {own_identity / 'identity.txt'}: "]
    assert WORDS not in done.out + done.err
    assert run("find", "ada", "-w", workspace).code == 0
    with crmkit.open(workspace) as crm:
        assert len(crm.customers) == 1
        assert [entry.action for entry in crm.audit] == ["unlock"]
    assert run("lock").out == "locked\n"
    assert run("lock").out == "nothing was unlocked\n"
    assert run("find", "ada", "-w", workspace).code == 1


def test_a_wrong_passphrase_opens_nothing(run: Any, answer: Answers, workspace: Path) -> None:
    answer(WORDS, WORDS, "another one", "another one")
    run("identity", "protect")
    for command in (("unlock", "-w", workspace), ("identity", "unprotect")):
        refused = run(*command)
        assert refused.code == 1
        assert "this is not the passphrase" in refused.err
    assert run("find", "ada", "-w", workspace).code == 1


def test_the_time_can_be_chosen(run: Any, answer: Answers, workspace: Path, runtime: Path) -> None:
    answer(WORDS, WORDS, *[WORDS] * 9)
    run("identity", "protect")
    for text, hours in (("2h", 2), ("30m", 0.5), ("1h30m", 1.5), ("90min", 1.5)):
        assert run("unlock", "--for", text).code == 0
        (file,) = (runtime / "crmkit").iterdir()
        left = datetime.fromisoformat(json.loads(file.read_text())["until"]) - datetime.now(UTC)
        assert hours - 0.02 < left.total_seconds() / 3600 <= hours
    for text in ("25h", "0h"):
        prompts = answer()
        refused = run("unlock", "--for", text)
        assert (refused.code, prompts) == (2, [])
        assert "at most 24 hours" in refused.err
    assert run("unlock", "--for", "soon").code == 2


def test_it_is_said_whose_count_begins_anew(run: Any, answer: Answers, workspace: Path) -> None:
    answer(WORDS, WORDS, WORDS, WORDS)
    run("identity", "protect")
    assert f"how many values you were shown is counted anew in {workspace}" in run("unlock", "-w", workspace).out
    assert "this is no workspace: how many values you were shown is counted on" in run("unlock").out


def test_an_identity_without_a_passphrase_needs_no_unlock(run: Any, workspace: Path) -> None:
    done = run("unlock", "-w", workspace)
    assert done.code == 0
    assert "has no passphrase" in done.out
    assert "the count of values that you were shown goes on" in done.out
    with crmkit.open(workspace) as crm:
        assert list(crm.audit) == []


def test_protect_and_unprotect_keep_the_identity(run: Any, answer: Answers, workspace: Path) -> None:
    before = find_identity().content
    answer(WORDS, WORDS, WORDS, "another long one", "another long one", "another long one")
    for command in ("protect", "protect", "unprotect"):
        assert run("identity", command).code == 0
    assert find_identity().content == before
    assert "has no passphrase" in run("identity", "unprotect").out


def test_nothing_changes_where_the_new_passphrase_is_no_good(run: Any, answer: Answers, workspace: Path) -> None:
    before = find_identity().content
    for typed in (("short",), ("aaaaaaaaaaaa",), ("Password 123",), (WORDS, WORDS + "x")):
        prompts = answer(*typed * 3)
        refused = run("identity", "protect")
        assert refused.code == 1
        assert len(prompts) == 3 * len(typed)
        assert refused.err.startswith("crmkit: passphrase: ")
        assert refused.out.count("passphrase: ") == 2
        assert not any(words in refused.err + refused.out for words in typed)
    answer("")
    assert run("identity", "protect").out == "nothing was changed\n"
    assert find_identity().content == before


def test_without_a_terminal_nothing_is_asked(run: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fallback(prompt: str = "") -> str:
        warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2)
        raise AssertionError("what was typed would have been shown")

    monkeypatch.setattr(getpass, "getpass", fallback)
    refused = run("identity", "protect")
    assert refused.code == 1
    assert "asked for on a terminal" in refused.err


def test_init_without_a_terminal_makes_an_unprotected_identity(run: Any, tmp_path: Path, own_identity: Path) -> None:
    done = run("init", tmp_path / "new")
    assert done.code == 0, done.err
    assert not find_identity().is_protected
    (recovery,) = (own_identity / "recovery").iterdir()
    assert re.fullmatch(r"new-\w{8}\.txt", recovery.name)
    assert stat.S_IMODE(recovery.stat().st_mode) == 0o600
    assert stat.S_IMODE(recovery.parent.stat().st_mode) == 0o700
    assert f"a recovery key is in {recovery}; keep it elsewhere" in done.out
    assert "AGE-SECRET-KEY" not in done.out
    assert done.out.splitlines()[-1].endswith("identity.txt has no passphrase: crmkit identity protect")
    assert "no passphrase" not in run("init", tmp_path / "second").out, "said once"
    assert run("keys", "recovery", "--drill", recovery, "-w", tmp_path / "new").code == 0


def test_a_new_identity_is_printed_alone(run: Any) -> None:
    made, again = run("keys", "identity"), run("keys", "identity")
    assert re.fullmatch(r"age1\w+\n", made.out)
    assert "identity.txt has no passphrase: crmkit identity protect" in made.err
    assert (again.out, again.err) == (made.out, "")


@pytest.mark.parametrize("words", ["", WORDS])
def test_init_on_a_terminal_asks_once(
    run: Any, answer: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    prompts = answer(words, words)
    done = run("init", tmp_path / "new")
    assert done.code == 0, done.err
    assert len(prompts) == (2 if words else 1)
    assert "without a passphrase, whoever gets this account's files can open" in done.out
    assert find_identity().is_protected is bool(words)
    assert ("unlocked until " in done.out) is bool(words)
    assert ("has no passphrase: crmkit identity protect" in done.out) is not bool(words)
    prompts = answer()
    assert run("init", tmp_path / "another").code == 0
    assert not prompts


@pytest.mark.parametrize("command", ["init new", "identity protect"])
def test_a_passphrase_that_is_no_good_is_asked_for_again(
    run: Any, answer: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    if command == "identity protect":
        crmkit.create(tmp_path / "acme").close()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    prompts = answer("short", WORDS, WORDS + "x", WORDS, WORDS)
    done = run(*command.split())
    assert done.code == 0, done.err
    assert len(prompts) == 5
    assert "passphrase: must have 10 characters or more" in done.out
    assert "passphrase: the two are not the same" in done.out
    assert WORDS not in done.out
    assert find_identity().is_protected


# ------------------------------------------------------------------------------------------- a real terminal


def _typed(arguments: list[str], typed: list[str], environment: dict[str, str], cwd: Path) -> tuple[int, str]:
    """Run the command line on a terminal of its own, and type one line at each prompt."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "crmkit", *arguments],
        stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=cwd, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # getpass asks on the terminal of its session
    ) as process:  # fmt: skip
        os.close(slave)
        screen, left, end = "", list(typed), time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    screen += os.read(master, 4096).decode()
                except OSError:  # the other side is closed
                    break
            if left and screen.count(": ") and screen.rstrip(" ").endswith(":"):
                os.write(master, left.pop(0).encode() + b"\n")
                screen += "\n"
        code = process.wait(10)
    os.close(master)
    return code, screen


def test_on_a_terminal_nothing_that_is_typed_is_shown(tmp_path: Path, runtime: Path, own_identity: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "dumb"}
    code, screen = _typed(["init", str(tmp_path / "acme")], [WORDS, WORDS], environment, tmp_path)
    assert code == 0, screen
    assert "New passphrase" in screen
    assert WORDS not in screen
    file = own_identity / "identity.txt"
    assert passphrase.is_protected(file.read_bytes())
    assert b"AGE-SECRET-KEY" in pyrage.passphrase.decrypt(file.read_bytes(), WORDS)
    assert subprocess.run([sys.executable, "-m", "crmkit", "lock"], env=environment, cwd=tmp_path).returncode == 0
    code, screen = _typed(["unlock", "-w", str(tmp_path / "acme")], [WORDS], environment, tmp_path)
    assert code == 0, screen
    assert "unlocked until" in screen
    assert WORDS not in screen
    with crmkit.open(tmp_path / "acme") as crm:
        assert len(crm.customers) == 0


# ------------------------------------------------------------------------------------------- the audit log


@pytest.fixture
def audited(workspace: Path) -> Path:
    with crmkit.open(workspace) as crm:
        ada = crm.customers.search("ada")[0]
        for number in range(3):
            with crm.acting_as("ann" if number else "bob"):
                crm.reveal(ada, "iban", reason=f"refund {number}")
    return workspace


def test_audit_shows_the_newest_first(run: Any, audited: Path) -> None:
    shown = run("audit", "-w", audited)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert [line.split()[0] for line in lines] == ["line", "3", "2", "1"]
    assert "refund 2" in lines[1]
    entries = json.loads(run("audit", "-w", audited, "--json", "--actor", "ann", "--limit", "1").out)
    assert [(entry["seq"], entry["reason"], entry["fields"]) for entry in entries] == [(3, "refund 2", ["iban"])]
    assert entries[0]["at"].endswith("Z")
    assert len(json.loads(run("audit", "-w", audited, "--json", "--record", entries[0]["record"]).out)) == 3
    assert run("audit", "-w", audited, "--action", "export").out.startswith("no such entries; actions")
    assert json.loads(run("audit", "-w", audited, "--action", "export", "--json").out) == []


def test_audit_names_the_system_user_where_that_is_not_who_acted(run: Any, audited: Path) -> None:
    with crmkit.open(audited) as crm:
        user = crm.actor
        crm._note("export")
    by_ann, by_the_user = run("audit", "-w", audited, "--limit", "2").out.splitlines()[2:0:-1]
    assert f" ann (by {user}) " in by_ann
    assert by_the_user.split()[3:5] == [user, "export"]
    assert "(by" not in by_the_user


def test_audit_verify_names_the_first_broken_line(run: Any, audited: Path) -> None:
    sound = run("audit", "verify", "-w", audited)
    assert (sound.code, sound.out) == (
        0,
        "all is well: 3 lines, none missing up to the last one that you saw\n",
    )
    log = audited / "keys" / "audit.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"seq":2', b'"seq":7'))
    broken = run("audit", "verify", "-w", audited)
    assert broken.code == 1
    assert "line 2 was changed" in broken.out
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    cut = run("audit", "verify", "-w", audited)
    assert cut.code == 1
    assert "ends at line 2, but you saw line 3" in cut.out
