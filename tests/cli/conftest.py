"""Runs the command line in this process, and a workspace for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import crmkit
from crmkit.cli import main


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return what runs ``crmkit ARGUMENTS`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["crmkit", *map(str, arguments)])
        capsys.readouterr()
        code: int | str | None = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return Done(int(code or 0), out, err)

    return call


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with one customer."""
    with crmkit.create(tmp_path / "acme", currency="GBP", country="GB") as crm:
        crm.customers.add(name="Ada Lovelace", number="1", city="London", iban="GB33BUKB20201555555555")
    return tmp_path / "acme"
