"""docs/performance.md says what was measured, and the benchmarks still run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def report(root: Path) -> Any:
    sys.path.insert(0, str(root))
    try:
        from benchmarks import report

        return report
    finally:
        sys.path.remove(str(root))


@pytest.fixture
def measured(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "benchmarks" / "results.json").read_text("utf-8"))
    return found


@pytest.fixture
def page(root: Path) -> str:
    return (root / "benchmarks" / "performance.md").read_text("utf-8")


def test_the_document_is_made_of_what_was_measured(root: Path, measured: dict[str, Any], page: str) -> None:
    document = (root / "docs" / "performance.md").read_text("utf-8")
    assert document == report(root).render(page, measured), "run: python -m benchmarks.report"
    assert "not measured" not in document


def test_a_figure_that_changed_or_is_missing_would_be_seen(root: Path, measured: dict[str, Any], page: str) -> None:
    """The control."""
    before = report(root).render(page, measured)
    measured["store"]["figures"]["get_vs_tinydb_10k"] = 1
    assert report(root).render(page, measured) != before
    assert report(root).render("{store.get_vs_tinydb_10k:>=2000}", measured) == "**no**"
    del measured["store"]["figures"]["get_vs_tinydb_10k"]
    assert "not measured" in report(root).render(page, measured)


@pytest.mark.parametrize(
    ("value", "spec", "shown"),
    [
        (1234.5, "", "1,234"),
        (0.456, "", "0.46"),
        (7.456, "us", "7.46 µs"),
        (1500, "us", "1.50 ms"),
        (61, "s", "61 s"),
        (2000, "x", "2,000×"),
        (2, ">=2", "yes"),
        (2.1, "<=2", "**no**"),
    ],
)
def test_figures_show_themselves(root: Path, value: float, spec: str, shown: str) -> None:
    assert f"{report(root).Figure(value):{spec}}" == shown


@pytest.mark.parametrize("name", ["store", "history"])
def test_benchmarks_run_on_little(root: Path, name: str) -> None:
    results = root / "benchmarks" / "results.json"
    before = results.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name],
        cwd=root,
        env={**os.environ, "CRMKIT_BENCH_SCALE": "0.001"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"' in done.stdout, "figures are printed"
    assert results.read_bytes() == before, "and nothing that was measured on little is kept"
