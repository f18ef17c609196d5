"""What every test shares: an identity of its own, and an open workspace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import crmkit


@pytest.fixture(autouse=True)
def own_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the keys and workspaces of the person who runs the tests out of them."""
    config = tmp_path / "config"
    monkeypatch.setenv("CRMKIT_CONFIG", str(config))
    for name in ("CRMKIT_IDENTITY", "CRMKIT_WORKSPACE", "CRMKIT_DISABLE_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    return config


@pytest.fixture
def crm(tmp_path: Path) -> Iterator[crmkit.CRM]:
    """An open, empty workspace in euros, in Great Britain."""
    with crmkit.create(tmp_path / "acme", currency="EUR", country="GB") as opened:
        yield opened
