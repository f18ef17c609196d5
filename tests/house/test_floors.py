"""The floors hold: as drawn, against planted breaches, and with plugins and screens taken away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Proofs are left out for their length: they are about bytes on disk, not about what is taken away.
WITHOUT_THEM = "not shipped_plugins and not proof"
# The tests of what stands above floor 4, or of the repository as a whole.
ABOVE = ("browser", "cli", "house", "plugins", "ui")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    return subprocess.run(
        command, cwd=folder, env=without_repository(folder), capture_output=True, text=True, check=False
    )


def without_repository(folder: Path) -> dict[str, str]:
    """Return an environment in which `crmkit` is the copy, not what is installed."""
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_the_floors_hold(root: Path) -> None:
    done = lint(root)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("crmkit/errors.py", "import crmkit.query"),
        ("crmkit/values.py", "def f() -> None:\n    import crmkit.records"),
        ("crmkit/store/__init__.py", "import crmkit.vault"),
        ("crmkit/registry.py", "import crmkit"),
        ("crmkit/store/tiny.py", "def f() -> None:\n    from crmkit import F"),
        ("crmkit/opening.py", "import crmkit"),
        ("crmkit/collection.py", "import crmkit.crm"),
        ("crmkit/ui/__init__.py", "import crmkit.plugins"),
        ("crmkit/plugins/__init__.py", "import crmkit.ui"),
        ("crmkit/plugins/__init__.py", "from crmkit.query import F"),
        ("crmkit/without_a_floor.py", ""),
    ],
)
def test_a_planted_breach_is_found(copy: Path, path: str, line: str) -> None:
    with (copy / path).open("a") as file:
        file.write(f"\n{line}\n")
    assert lint(copy).returncode != 0


def test_the_facade_is_found_below_itself_by_a_contract_of_its_own(copy: Path) -> None:
    with (copy / "crmkit" / "registry.py").open("a") as file:
        file.write("\nimport crmkit\n")
    told = lint(copy).stdout
    assert "Nothing below the facade imports it BROKEN" in told
    assert "1 broken" in told  # the control: without that contract nobody would have said a word


def test_floors_0_to_4_pass_their_tests_without_plugins_and_screens(copy: Path) -> None:
    for folder in ("plugins", "ui"):
        shutil.rmtree(copy / "crmkit" / folder)
    tests = sorted({str(path.parent) for path in copy.glob("tests/*/test_*.py") if path.parent.name not in ABOVE})
    assert len(tests) >= 4
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", WITHOUT_THEM, *tests],
        cwd=copy,
        env={**without_repository(copy), "CRMKIT_TEST_SCALE": "0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
