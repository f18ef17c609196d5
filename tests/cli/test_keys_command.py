"""keys and members on the command line."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyrage.x25519 import Identity

import crmkit


@pytest.fixture
def public() -> str:
    """The public key of somebody else."""
    return str(Identity.generate().to_public())


def test_members_are_added_listed_and_removed(run: Any, workspace: Path, public: str) -> None:
    assert run("members", "add", "bob", public, "-w", workspace).code == 0
    listed = run("members", "list", "-w", workspace)
    assert "(you)" in listed.out
    assert public in listed.out
    told = json.loads(run("members", "list", "--json", "-w", workspace).out)
    assert [(each["name"], each["you"]) for each in told][1] == ("bob", False)
    done = run("members", "remove", "bob", "--yes", "-w", workspace)
    assert done.code == 0
    assert "what was copied before, files and values, is not taken back" in done.out
    assert public not in run("members", "list", "-w", workspace).out


def test_keys_of_members_are_whole_on_a_narrow_terminal(
    run: Any, workspace: Path, public: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("members", "add", "bob", public, "-w", workspace)
    with crmkit.open(workspace) as crm:
        crm.reveal(crm.customers.find().records[0], "iban", reason="a refund " * 20)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert public in run("members", "list", "-w", workspace).out
    line = run("audit", "--action", "reveal", "-w", workspace).out.splitlines()[1]
    assert (len(line), line[-1]) == (60, "…")


def test_a_misspelt_action_is_answered_with_those_that_are_there(run: Any, workspace: Path, public: str) -> None:
    run("members", "add", "bob", public, "-w", workspace)
    told = run("audit", "--action", "membr_add", "-w", workspace).out
    assert told == "no such entries; actions that were noted: member_add\n"


def test_removing_asks_first(run: Any, workspace: Path, public: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run("members", "add", "bob", public, "-w", workspace)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert run("members", "remove", "bob", "-w", workspace).code == 1
    assert public in run("members", "list", "-w", workspace).out


@pytest.mark.parametrize(("name", "words"), [("dave", "the members are "), ("recovery", "crmkit keys recovery FILE")])
def test_removing_looks_before_it_asks(
    run: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    def ask(*_: object, **__: object) -> bool:
        raise AssertionError("there is nothing to ask")

    run("keys", "recovery", "key.txt", "-w", workspace)
    monkeypatch.setattr("typer.confirm", ask)
    done = run("members", "remove", name, "-w", workspace)
    assert (done.code, done.out) == (1, "")
    assert words in done.err
    assert "recovery," not in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("members", "add", "bob", "age1nonsense"), "must be a whole age public key, which begins with age1"),
        (("members", "remove", "bob", "--yes"), "nobody is called so"),
        (("keys", "rotate", "--scope", "data", "--drop-old", "--yes"), "rotate first: crmkit keys rotate --scope data"),
        (("keys", "recovery", "acme/key.txt"), "lies in the workspace"),
        (("keys", "recovery", "--drill", "nowhere.txt"), "there is no file"),
        (("keys", "recover", "nowhere.txt"), "there is no file"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Any, workspace: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments, "-w", workspace)
    assert done.code == 1
    assert words in done.err
    assert done.err.count("\n") == 1


def test_keys_are_rotated(run: Any, workspace: Path) -> None:
    before = json.loads(run("keys", "status", "--json", "-w", workspace).out)
    assert before["unfinished"] is False
    for scope in ("wrap", "data", "index"):
        done = run("keys", "rotate", "--scope", scope, "-w", workspace)
        assert (done.code, done.err) == (0, "")
        assert f"rotated: {scope}" in done.out
    after = json.loads(run("keys", "status", "--json", "-w", workspace).out)
    assert {each["status"] for each in after["keys"] if each["purpose"] == "wrap"} == {"primary", "destroyed"}
    dropped = json.loads(run("keys", "rotate", "--scope", "data", "--drop-old", "--yes", "--json", "-w", workspace).out)
    assert dropped["dropped"] == dropped["keys"] == 1
    assert "primary" in run("keys", "status", "-w", workspace).out
    with crmkit.open(workspace) as crm:
        assert [customer.name for customer in crm.customers.find()]


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--scope", "dta"), "'wrap', 'data', 'index'"), (("--drop-old", "--yes"), "goes with --scope data")],
)
def test_rotating_refuses_options_that_mean_nothing(
    run: Any, workspace: Path, options: tuple[str, ...], words: str
) -> None:
    done = run("keys", "rotate", *options, "-w", workspace)
    assert done.code == 2
    assert words in done.err


def test_no_bar_stands_over_the_question_whether_to_destroy(
    run: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("backup", "backups", "-w", workspace)
    run("keys", "rotate", "--scope", "data", "-w", workspace)
    shown = []

    @contextlib.contextmanager
    def bar() -> Iterator[None]:
        shown.append("bar")
        yield
        shown.remove("bar")

    def confirm(*_: object, **__: object) -> bool:
        shown.append(f"question under {len(shown)} bars")
        return False

    monkeypatch.setattr("crmkit.cli.keys.progress_bar", bar)
    monkeypatch.setattr("typer.confirm", confirm)
    asked = run("keys", "rotate", "--scope", "data", "--drop-old", "-w", workspace)
    assert asked.code == 1
    assert re.search(r"go dark \(UTC\), .*: \d{4}-\d\d-\d\d \d\d:\d\d\n", asked.out)
    assert shown == ["question under 0 bars"]


def test_a_recovery_key(run: Any, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("keys", "recovery", "key.txt", "-w", workspace)
    secret = (tmp_path / "key.txt").read_text(encoding="utf-8").splitlines()[-1]
    assert str(tmp_path / "key.txt") in made.out
    assert secret not in made.out + made.err
    assert "opens the keys of Acme" in run("keys", "recovery", "--drill", "key.txt", "-w", workspace).out
    assert run("keys", "recovery", "-w", workspace).code == 2
    monkeypatch.setenv("CRMKIT_CONFIG", str(tmp_path / "another machine"))
    assert run("members", "list", "-w", workspace).code == 1
    assert run("keys", "identity").out.startswith("age1")
    assert "you are a member" in run("keys", "recover", "key.txt", "-w", workspace).out
    assert "(you)" in run("members", "list", "-w", workspace).out
