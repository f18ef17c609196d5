"""The shipped notebooks run from the top, hold no output and no logic, and save no value."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import crmkit

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LOGIC = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Try, ast.ListComp, ast.Lambda)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def book(request: pytest.FixtureRequest) -> Any:
    """One shipped notebook."""
    return nbformat.read(request.param, as_version=4)


def test_runs(book: Any, crm: crmkit.CRM, ada: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a workspace found upward from the notebook; what it leaves behind names nobody."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "rt"))
    crm.purchases.add(number="P1", customer=ada, purchased_on="2026-11-01", total="12.00")
    folder = {"metadata": {"path": str(tmp_path / "acme" / "notebooks")}}
    NotebookClient(book, timeout=120, store_widget_state=False, resources=folder).execute()
    assert "widgets" not in book.metadata
    assert "Lovelace" not in nbformat.writes(book)


def test_is_stored_clean(book: Any) -> None:
    """No outputs, no logic, nothing imported but crmkit."""
    for cell in (cell for cell in book.cells if cell.cell_type == "code"):
        assert not cell.outputs
        assert cell.execution_count is None
        tree = list(ast.walk(ast.parse(cell.source)))
        assert not [node for node in tree if isinstance(node, LOGIC)]
        imported = [name for node in tree if isinstance(node, ast.Import) for name in node.names]
        assert {name.name for name in imported} <= {"crmkit"}
        assert {node.module for node in tree if isinstance(node, ast.ImportFrom)} <= {"crmkit"}
