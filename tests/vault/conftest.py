"""An own config folder for every test, and a vault to work with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ulid import ULID

from crmkit.vault import Vault


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config folder of the user of this test; nobody's real one is touched."""
    folder = tmp_path / "config"
    monkeypatch.setenv("CRMKIT_CONFIG", str(folder))
    monkeypatch.delenv("CRMKIT_IDENTITY", raising=False)
    return folder


@pytest.fixture(scope="session")
def scale() -> Callable[[int], int]:
    """Multiplies a count of repetitions by CRMKIT_TEST_SCALE; never below 1."""
    factor = float(os.environ.get("CRMKIT_TEST_SCALE", "1"))
    return lambda count: max(1, round(count * factor))


@pytest.fixture
def new_id() -> Callable[[], str]:
    return lambda: str(ULID())


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Where the keys of the vault are."""
    return tmp_path / "acme" / "keys"


@pytest.fixture
def vault(keys: Path, new_id: Callable[[], str]) -> Vault:
    return Vault.create(keys, new_id())


@pytest.fixture
def ada(vault: Vault, new_id: Callable[[], str]) -> str:
    """A subject with a data key."""
    id = new_id()
    vault.ensure_subjects([id])
    return id
