"""`import crmkit` is light, every module can be imported alone, and what a package offers is in order."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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


def test_every_module_can_be_imported_alone_without_a_warning() -> None:
    modules = all_modules()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = dict(zip(modules, pool.map(lambda name: in_fresh_interpreter(f"import {name}"), modules), strict=True))
    failed = {name: result.stderr.splitlines()[-1] for name, result in done.items() if result.returncode}
    assert len(modules) > 30
    assert not failed


@pytest.mark.parametrize("name", ["crmkit", *all_modules()])
def test_what_a_module_offers_exists_and_is_sorted(name: str) -> None:
    module = importlib.import_module(name)
    offered = getattr(module, "__all__", None)
    if offered is None:
        assert name != "crmkit"
        return
    assert list(offered) == sorted(offered)
    assert not [each for each in offered if not hasattr(module, each)]


def test_the_facade_offers_every_public_name_that_it_binds() -> None:
    bound = {name for name, value in vars(crmkit).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert bound - {"annotations"} == {name for name in crmkit.__all__ if not name.startswith("_")}
