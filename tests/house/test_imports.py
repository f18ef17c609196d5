"""`import crmkit` is light, every module can be imported alone, and offers what it says (ruff sorts `__all__`)."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import crmkit

HEAVY = {"IPython", "anywidget", "babel", "ipywidgets", "jupyterlab", "numpy", "openpyxl", "pandas", "phonenumbers"} | {
    "plotly",
    "rich",
    "typer",
}


def in_fresh_interpreter(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def loaded_by(statement: str) -> set[str]:
    done = in_fresh_interpreter(f"{statement}\nimport sys\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_import_of_crmkit_loads_nothing_heavy() -> None:
    assert not loaded_by("import crmkit") & HEAVY


def test_heavy_packages_are_seen_where_they_are_loaded() -> None:
    """The control: the same look at a module that does load them."""
    assert {"ipywidgets", "anywidget"} <= loaded_by("import crmkit.ui.app")


def all_modules() -> list[str]:
    found = pkgutil.walk_packages(crmkit.__path__, "crmkit.", onerror=lambda name: None)
    return sorted(module.name for module in found if not module.name.endswith("__main__"))


# Importing `a.b` always imports `a` first, so a fork of the interpreter that has just imported `a`, and nothing beside
# it, stands for a fresh one. Each module is imported in a fork of its own; those that fail are printed.
EACH_ALONE = """
import os, sys
def check_below(parent):
    for name in sys.argv[1:]:
        if name.rpartition(".")[0] == parent:
            if (child := os.fork()) == 0:
                try:
                    __import__(name)
                except BaseException:
                    print(name, flush=True)
                    os._exit(1)
                check_below(name)
                os._exit(0)
            os.waitpid(child, 0)
check_below("")
"""


def failing_alone(modules: list[str]) -> list[str]:
    command = [sys.executable, "-W", "error", "-c", EACH_ALONE, *modules]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_every_module_can_be_imported_alone_without_a_warning() -> None:
    modules = all_modules()
    assert len(modules) > 30
    assert not failing_alone(["crmkit", *modules])


def test_a_module_that_fails_or_warns_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    (tmp_path / "fails.py").write_text("import no_such_module")
    (tmp_path / "warns.py").write_text("import warnings\nwarnings.warn('old', DeprecationWarning)")
    (tmp_path / "works").mkdir()
    (tmp_path / "works" / "__init__.py").write_text("")
    (tmp_path / "works" / "below.py").write_text("1 / 0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert failing_alone(["fails", "warns", "works", "works.below"]) == ["fails", "warns", "works.below"]


@pytest.mark.parametrize("name", ["crmkit", *all_modules()])
def test_what_a_module_offers_exists(name: str) -> None:
    module = importlib.import_module(name)
    offered = getattr(module, "__all__", None)
    if offered is None:
        assert name != "crmkit"
        return
    assert len(set(offered)) == len(offered)
    assert not [each for each in offered if not hasattr(module, each)]


def test_the_facade_offers_every_public_name_that_it_binds() -> None:
    bound = {name for name, value in vars(crmkit).items() if not name.startswith("_") and not inspect.ismodule(value)}
    helpers = {"TYPE_CHECKING", "Any", "annotations", "import_module"}
    assert (bound - helpers) | set(crmkit._ON_FIRST_USE) == set(crmkit.__all__)
    assert set(crmkit.__all__) <= set(dir(crmkit))
