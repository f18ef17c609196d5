"""`crmkit lab`: whose notebook it starts, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import crmkit
from crmkit.ui import lab


def test_the_server_ends_with_the_command(tmp_path: Path) -> None:
    crmkit.create(tmp_path / "acme").close()
    command = [sys.executable, "-m", "crmkit", "lab", "-w", str(tmp_path / "acme"), "--no-browser"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert started.stdout is not None
    while "the app is at" not in (line := started.stdout.readline()):
        assert line, "it ended before the app was running"
    children = psutil.Process(started.pid).children(recursive=True)
    assert children
    started.send_signal(signal.SIGTERM)
    assert started.wait(30) == 128 + signal.SIGTERM
    started.stdout.close()
    gone, alive = psutil.wait_procs(children, timeout=15)
    assert len(gone) == len(children)
    assert alive == []


def test_a_colleagues_notebook_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.place_notebooks(tmp_path)
    folder = tmp_path / "notebooks"
    assert lab._own(folder, "home.ipynb") == "home.ipynb"
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    monkeypatch.setattr(lab.getpass, "getuser", lambda: "ann")
    (folder / "home.ipynb").write_text("what the colleague has open")
    assert lab._own(folder, "home.ipynb") == "home-ann.ipynb"
    assert "crm.app()" in (folder / "home-ann.ipynb").read_text()
    assert (folder / "home.ipynb").read_text() == "what the colleague has open"
