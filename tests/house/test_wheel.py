"""The built wheel holds all that an installed crmkit needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import crmkit

DATA = (".css", ".ipynb", ".js", ".json", ".toml", ".typed")


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(target.glob("*.whl"))


def test_wheel_holds_every_file_that_is_not_code(wheel: Path, root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {path for path in (root / "crmkit").rglob("*") if path.suffix in DATA or path.name == "py.typed"}
    inside = {str(path.relative_to(root)) for path in wanted}
    notebooks = {f"crmkit/notebooks/{path.name}" for path in (root / "notebooks").glob("*.ipynb")}
    assert {"crmkit/py.typed", "crmkit/demo/people.toml"} <= inside
    assert any(name.endswith(".js") for name in inside)
    assert any(name.endswith(".css") for name in inside)
    assert notebooks
    assert not (inside | notebooks) - names


def test_wheel_holds_only_the_package(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"crmkit", f"crmkit-{crmkit.__version__}.dist-info"}


def test_an_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import crmkit; from crmkit.ui.lab import shipped_notebooks; print(crmkit.__version__, shipped_notebooks())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [crmkit.__version__, str(tmp_path / "site" / "crmkit" / "notebooks")]
