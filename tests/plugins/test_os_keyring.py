"""Identities in the system's keyring, and what goes wrong there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import crmkit
from crmkit import Locked, Unsupported
from crmkit.identities import ask_shipped_plugins
from crmkit.plugins.governance import os_keyring
from crmkit.vault.identity import load_identity, open_uris_with


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    open_uris_with(None)


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """A keyring in memory, with the two functions of the package that are used."""
    content: dict[tuple[str, str], str] = {}
    module: Any = ModuleType("keyring")
    module.errors = errors = ModuleType("keyring.errors")
    errors.KeyringError = type("KeyringError", (Exception,), {})  # type: ignore[attr-defined]
    errors.NoKeyringError = type("NoKeyringError", (errors.KeyringError, RuntimeError), {})  # type: ignore[attr-defined]
    module.get_password = lambda service, name: content.get((service, name))
    module.set_password = lambda service, name, text: content.__setitem__((service, name), text)
    monkeypatch.setitem(sys.modules, "keyring", module)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    return content


def test_a_workspace_opens_with_an_identity_in_the_keyring(
    crm: crmkit.CRM, keyring: dict[tuple[str, str], str], own_identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = crm.customers.add(name="Ada").id
    os_keyring.remember("keyring:crmkit/ada", str(load_identity()))
    (own_identity / "identity.txt").unlink()
    monkeypatch.setenv("CRMKIT_IDENTITY", "keyring:crmkit/ada")
    with crmkit.open(crm.workspace.folder) as again:
        assert again.customers[id].name == "Ada"
        again.lock()
        open_uris_with(None)  # as if another workspace had been opened meanwhile
        again.unlock()
        assert again.customers[id].name == "Ada"
    ask_shipped_plugins()
    made = crm.backup(own_identity.parent / "backups")
    crmkit.restore(made.data, own_identity.parent / "back").close()


def test_what_is_missing_is_told_and_not_the_address(
    keyring: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_shipped_plugins()
    for uri, message in (
        ("keyring:crmkit/ada", "the system's keyring holds no identity keyring:crmkit/ada"),
        ("keyring:crmkit", "is named keyring:SERVICE/NAME"),
        ("vaultwarden:CANARY", "no plugin opens vaultwarden: identities"),
    ):
        monkeypatch.setenv("CRMKIT_IDENTITY", uri)
        with pytest.raises(Locked, match=message) as refused:
            load_identity()
        assert "CANARY" not in str(refused.value)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setenv("CRMKIT_IDENTITY", "keyring:crmkit/ada")
    ask_shipped_plugins()
    with pytest.raises(Unsupported, match=r'pip install "crmkit\[keyring\]"'):
        load_identity()


def test_errors_of_the_keyring_do_not_carry_what_they_say(
    keyring: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["keyring"]
    for error, expected in (("KeyringError", Locked), ("NoKeyringError", Unsupported)):

        def fail(*arguments: str, error: str = error) -> None:
            raise getattr(module.errors, error)(f"CANARY {arguments}")

        monkeypatch.setattr(module, "set_password", fail)
        with pytest.raises(expected) as refused:
            os_keyring.remember("keyring:crmkit/ada", "AGE-SECRET-KEY-1CANARY")
        assert "CANARY" not in str(refused.value)
        assert refused.value.__cause__ is None
        assert refused.value.__context__ is None


def test_unlock_can_put_the_identity_into_the_keyring(
    crm: crmkit.CRM, keyring: dict[tuple[str, str], str], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from crmkit.cli import main

    monkeypatch.setattr(
        sys, "argv", ["crmkit", "unlock", "--remember", "keyring:crmkit/ada", "-w", str(crm.workspace.folder)]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert keyring == {("crmkit", "ada"): str(load_identity())}
    out = capsys.readouterr().out
    assert "export CRMKIT_IDENTITY=keyring:crmkit/ada" in out
    assert "AGE-SECRET-KEY" not in out
