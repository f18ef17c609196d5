"""The power fails at any moment: what was acknowledged or shown is there, at most the commit in flight beside it.

Each control is crmkit with one precaution taken away, in the same harness: it has to be found out.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from crmkit import durable
from crmkit.store.journal import Journal
from crmkit.vault import subjects
from tests.store.disk import Fault
from tests.store.power import crash_states
from tests.store.scenarios import BEFORE_SYNC, COMMITS, CREATE, NEW_KEYS, SCENARIOS, WITHIN_WRITE, Scenario, lay_out

Scale = Callable[[int], int]


def survey(
    scenario: Scenario, root: Path, wanted: int, faults: Sequence[Fault | None] = (None,), **disk: Any
) -> tuple[int, list[str]]:
    """Look at this many different states after a loss of power; return how many there were, and what was wrong."""
    seen: set[int] = set()
    problems: list[str] = []
    for seed in range(max(1, wanted)):
        with scenario.started(root, faults[seed % len(faults)], seed, **disk) as stage:
            assert stage.disk.unlike_the_folder() == []
        for files, allowed in crash_states(stage.disk, random.Random(seed), 60):
            known = hash((frozenset(files.items()), repr(allowed)))
            if known in seen:
                continue
            seen.add(known)
            lay_out(root, files)
            problem = scenario.problem(root, allowed)
            problems += [problem] if problem else []
            if len(seen) >= wanted:
                return len(seen), problems
    return len(seen), problems


@pytest.mark.proof
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_was_acknowledged_survives(scenario: Scenario, root: Path, scale: Scale, record_property: Any) -> None:
    wanted = scale(scenario.states)
    states, problems = survey(scenario, root, wanted)
    record_property("states", states)
    assert problems == []
    assert states == wanted


@pytest.mark.proof
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_was_acknowledged_survives_behind_a_failed_sync(scenario: Scenario, root: Path, scale: Scale) -> None:
    assert after_failed_syncs(scenario, root, scale(20)) == []


def after_failed_syncs(scenario: Scenario, root: Path, each: int) -> list[str]:
    """Let each sync fail once, which drops what was not synced, go on, and let the power fail after all."""
    with scenario.started(root) as stage:
        syncs = [number for number, call in enumerate(stage.disk.calls) if call == "sync"]
    problems: list[str] = []
    for number in syncs:
        problems += survey(scenario, root, each, [Fault(number, "error", errno.EIO)])[1]
    return problems


# --------------------------------------------------------------------------------------------------------- controls


def is_caught(scenario: Scenario, root: Path, **disk: Any) -> bool:
    return bool(survey(scenario, root, 300, **disk)[1])


def test_control_without_syncing_files_commits_are_lost(root: Path) -> None:
    assert is_caught(COMMITS, root, without=["sync"])


def test_control_a_commit_before_its_key_cannot_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_sync(fd: int, data: bytes, offset: int) -> None:
        os.pwrite(fd, data, offset)

    monkeypatch.setattr(subjects, "write_at", without_sync)
    assert is_caught(NEW_KEYS, root)


def test_control_keys_of_one_append_without_a_heading(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "_length_of_append", lambda first: 1)
    assert is_caught(NEW_KEYS, root)


def test_control_without_syncing_folders_files_are_lost(root: Path) -> None:
    assert is_caught(CREATE, root, without=["sync_folder"])


def test_control_acknowledging_before_the_sync_loses_commits(root: Path) -> None:
    assert is_caught(COMMITS, root, late_sync=True)


def test_control_without_a_sync_behind_a_foreign_frame_the_journal_breaks(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "_sync", lambda self: None)
    assert is_caught(BEFORE_SYNC, root)


def test_control_without_cutting_the_tail_bytes_are_left(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "cut_tail", lambda self: None)
    assert is_caught(WITHIN_WRITE, root)


def test_control_without_checksums_a_torn_commit_is_believed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "unframe", lambda line: line[9:-1] if line[-1:] == b"\n" else None)
    assert is_caught(COMMITS, root)


def test_control_believing_a_second_sync_loses_commits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def persistent(fd: int, data: bytes, offset: int) -> None:
        os.pwrite(fd, data, offset)
        try:
            os.fdatasync(fd)
        except OSError:
            os.fdatasync(fd)

    monkeypatch.setattr(durable, "write_at", persistent)
    assert after_failed_syncs(COMMITS, root, 20)
