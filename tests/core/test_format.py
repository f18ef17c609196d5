"""Workspaces of every frozen format open, and tell what they told when they were made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import crmkit
from tests.data.make_format import IDENTITY, TOLD, WORKSPACE, told

FORMATS = sorted(Path(__file__).parents[1].joinpath("data").glob("format*"))


@pytest.fixture(params=FORMATS, ids=lambda path: path.name)
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a workspace that was kept; its identity is that of this user."""
    copy = tmp_path / "kept"
    shutil.copytree(request.param, copy)
    monkeypatch.setenv("CRMKIT_IDENTITY", str(copy / IDENTITY))
    return copy


def test_there_is_one_of_each_format() -> None:
    assert [path.name for path in FORMATS] == ["format1"]


@pytest.mark.shipped_plugins
def test_it_tells_what_it_told(kept: Path) -> None:
    with crmkit.open(kept / WORKSPACE) as crm:
        assert json.loads(json.dumps(told(crm))) == json.loads((kept / TOLD).read_text("utf-8"))


@pytest.mark.shipped_plugins
def test_it_goes_on(kept: Path, tmp_path: Path) -> None:
    with crmkit.open(kept / WORKSPACE) as crm, crm.acting_as("ann"):
        import_of_five = next(batch for batch in crm.batches(limit=100) if batch.reason == "import")
        crm.undo(import_of_five, skip_changed=True)
        ada = next(each for each in crm.customers.find() if each.name == "Ada Lovelace")
        assert crm.reveal(ada, "iban", reason="r").value == "DE75512108001245126199"
        crm.erase(ada, reason="request 8")
        crm.keys.rotate("data")
        crm.backup(tmp_path / "backups")
        assert crm.verify() == []
    with crmkit.restore(tmp_path / "backups", tmp_path / "restored") as back:
        assert back.customers.get(ada.id) is None
        assert len(back.erasures()) == 2
