"""tools/setup says what to do where it cannot do it itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

Run = subprocess.CompletedProcess[str]


@pytest.fixture
def machine(root: Path, tmp_path: Path) -> Path:
    """A folder with tools/setup and a bin/ that is all of PATH: the usual tools, no Python, and not root."""
    (tmp_path / "tools").mkdir()
    shutil.copy(root / "tools" / "setup", tmp_path / "tools" / "setup")
    shutil.copytree(root / "requirements", tmp_path / "requirements")
    shutil.copy(root / "pyproject.toml", tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "cat", "dirname", "sha256sum"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    command(tmp_path, "id", "echo 1000")
    return tmp_path


def command(machine: Path, name: str, script: str) -> None:
    path = machine / "bin" / name
    path.write_text(f"#!{shutil.which('bash')}\n{script}\n")
    path.chmod(0o755)


def setup(machine: Path, *arguments: str) -> Run:
    return subprocess.run(
        [str(machine / "tools" / "setup"), *arguments],
        env={"PATH": str(machine / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_python_it_says_what_is_needed(machine: Path) -> None:
    command(machine, "python3", 'case "$2" in *version_info*) exit 1;; esac')  # too old
    done = setup(machine)
    assert done.returncode == 1
    assert "no Python 3.11 or newer" in done.stderr


def test_without_venv_it_names_the_one_command(machine: Path) -> None:
    command(machine, "python3", 'case "$2" in *ensurepip*) exit 1;; esac')
    done = setup(machine)
    assert done.returncode == 1
    assert "sudo apt-get install -y --no-install-recommends python3-venv" in done.stderr


def finished(machine: Path) -> None:
    """Make the machine one on which setup has run."""
    (machine / ".venv" / "bin").mkdir(parents=True)
    (machine / ".venv" / "bin" / "python").symlink_to(machine / "bin" / "python3")
    command(machine, "python3", 'echo "$@" >>calls.txt')
    assert setup(machine).returncode == 0


def test_it_installs_with_hashes_and_then_nothing_again(machine: Path) -> None:
    finished(machine)
    calls = (machine / "calls.txt").read_text()
    assert "--require-hashes -r requirements/dev.txt" in calls
    (machine / "calls.txt").unlink()
    assert setup(machine).stdout == ""
    assert "pip" not in (machine / "calls.txt").read_text()


def test_a_new_lock_file_is_installed(machine: Path) -> None:
    finished(machine)
    (machine / "calls.txt").unlink()
    (machine / "requirements" / "dev.txt").write_text("something==1\n")
    assert setup(machine).returncode == 0
    assert "--require-hashes" in (machine / "calls.txt").read_text()


def test_without_chromium_and_root_it_says_so_and_goes_on(machine: Path) -> None:
    finished(machine)
    done = setup(machine, "browser")
    assert done.returncode == 0
    assert "apt-get install -y --no-install-recommends chromium" in done.stderr
