"""A process that ends at any of its calls, and a call that fails: the store opens again and has lost nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crmkit import durable
from crmkit.errors import CrmError
from crmkit.store import NEW, PlainCodec, Put, TinyStore
from crmkit.store.journal import Journal
from tests.store.disk import Fault
from tests.store.scenarios import COMMITS, CREATE, SCENARIOS, WITHIN_WRITE
from tests.store.stage import Scenario, Stage

Scale = Callable[[int], int]
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)

# What a call may say. Python itself makes a call again that a signal interrupted, so nobody sees EINTR.
ERRORS = {
    "open": (errno.EACCES, errno.EIO, errno.ENOSPC, errno.EMFILE),
    "pwrite": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "write": (errno.ENOSPC, errno.EIO),
    "sync": (errno.EIO, errno.ENOSPC),
    "sync_folder": (errno.EIO,),
    "ftruncate": (errno.EIO,),
    "replace": (errno.EACCES, errno.EIO, errno.ENOSPC),
    "unlink": (errno.EACCES, errno.EIO),
    "mkdir": (errno.EACCES, errno.ENOSPC, errno.EROFS),
    "lock": (errno.EIO, errno.ENOLCK),
    "chmod": (errno.EPERM,),
    "fchmod": (errno.EPERM,),
    "unlock": (),  # cannot fail on a file that is open
}


def calls_of(scenario: Scenario, root: Path) -> list[str]:
    """Return the calls that a scenario makes when nothing disturbs it."""
    with scenario.started(root) as stage:
        assert stage.disk.unlike_the_folder() == []
        return stage.disk.calls


def some(calls: list[str], most: int) -> list[tuple[int, str]]:
    """Return all calls with their numbers, or so many of them, spread evenly."""
    step = max(1, len(calls) // most)
    return list(enumerate(calls))[::step]


# ----------------------------------------------------------------------------------------------- the process ends


def ended(scenario: Scenario, root: Path, most: int = 60) -> Iterator[str]:
    """Let the process end before, and in the middle of, each call; yield what is wrong afterwards, or nothing."""
    for number, call in some(calls_of(scenario, root), most):
        for kind in ("before", "within") if call in ("pwrite", "write") else ("before",):
            with scenario.started(root, Fault(number, kind)) as stage:
                problem = "; ".join(stage.problems) or scenario.problem(root, tuple(stage.allowed))
            yield f"{kind} call {number}, {call}: {problem}" if problem else ""


@pytest.mark.proof
@each_scenario
def test_a_process_may_end_at_any_call(scenario: Scenario, root: Path, scale: Scale, record_property: Any) -> None:
    found = list(ended(scenario, root, scale(50)))
    record_property("points", len(found))
    assert [problem for problem in found if problem] == []


def test_control_without_cutting_the_tail(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "cut_tail", lambda self: None)
    assert any(ended(WITHIN_WRITE, root))


def test_control_files_written_in_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_place(path: Path, data: bytes, mode: int = durable.FILE_MODE) -> None:
        fd = durable.open_file(path, os.O_RDWR | os.O_TRUNC, mode)
        durable.write_at(fd, data, 0)
        os.close(fd)

    monkeypatch.setattr(durable, "replace_file", in_place)
    assert any(ended(CREATE, root))


# --------------------------------------------------------------------------------------------------- a call fails


def disturbed(scenario: Scenario, root: Path, most: int = 60) -> Iterator[str]:
    """Let each call fail in each way; yield what is wrong afterwards, or nothing."""
    for number, call in some(calls_of(scenario, root), most):
        faults = [Fault(number, "error", code) for code in ERRORS.get(call, (errno.EIO,))]
        for fault in [*faults, *([Fault(number, "short")] if call in ("pwrite", "write") else [])]:
            with scenario.started(root, fault) as stage:
                problem = after_an_error(stage) or scenario.problem(root, tuple(stage.allowed))
            how = errno.errorcode.get(fault.code, fault.kind)
            yield f"{how} at call {number}, {call}: {problem}" if problem else ""


def after_an_error(stage: Stage) -> str:
    """Return what was wrong with the error itself, or with what was open when it came."""
    if stage.error is not None and not isinstance(stage.error, CrmError):
        return f"raised {stage.error!r}"
    return "; ".join(stage.problems)


@pytest.mark.proof
@each_scenario
def test_any_call_may_fail(scenario: Scenario, root: Path, scale: Scale, record_property: Any) -> None:
    found = list(disturbed(scenario, root, scale(25)))
    record_property("errors", len(found))
    assert [problem for problem in found if problem] == []


def test_control_a_short_write_that_nobody_looks_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hopeful(fd: int, data: bytes, offset: int) -> None:
        os.pwrite(fd, data, offset)
        os.fdatasync(fd)

    monkeypatch.setattr(durable, "write_at", hopeful)
    assert any("short" in problem for problem in disturbed(COMMITS, root))


# -------------------------------------------------------------------------------------------------- a real, full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        if "CI" in os.environ:
            pytest.fail("needs root to mount a file system")
        pytest.skip("needs root to mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk(small_disk: Path, start: Any, finish: Any) -> None:
    folder, filler = small_disk / "data", small_disk / "filler"
    TinyStore.create(folder, "workspace-1")
    *saved, error = finish(start("fill_up", folder, filler, "usual")).splitlines()
    assert "nothing was saved" in error
    filler.unlink()
    store = TinyStore(folder, PlainCodec())
    assert [doc["id"] for doc in store.scan("customers")] == saved
    store.commit([Put("customers", {"id": "again"}, NEW)], {})
    assert store.verify() == []
    store.close()


def test_control_a_hole_in_a_file_that_is_mapped_into_memory(small_disk: Path, start: Any) -> None:
    TinyStore.create(small_disk / "data", "workspace-1")
    worker = start("fill_up", small_disk / "data", small_disk / "filler", "hole")
    worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGBUS
