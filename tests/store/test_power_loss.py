"""The power fails at any moment: what was acknowledged or shown is there, at most the commit in flight beside it.

Each control is crmkit with one precaution taken away, in the same harness: it has to be found out.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crmkit import durable
from crmkit.store.compaction import Compaction
from crmkit.store.journal import Journal
from crmkit.vault import key_records, subjects
from tests.store.disk import Fault
from tests.store.power import crash_states
from tests.store.scenarios import BEFORE_SYNC, COMMITS, COMPACTION, CREATE, MIGRATION, NEW_KEYS, SCENARIOS, WITHIN_WRITE
from tests.store.stage import Scenario, Stage, lay_out

Scale = Callable[[int], int]
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


def survey(scenario: Scenario, root: Path, wanted: int, **disk: Any) -> tuple[int, list[str]]:
    """Look at this many different states after a loss of power; return how many there were, and what was wrong.

    Every run is looked at to its end, so that each moment of it counts.
    """
    seen: set[int] = set()
    problems: list[str] = []
    seed = 0
    while len(seen) < wanted:
        with scenario.started(root, seed=seed, **disk) as stage:
            assert stage.disk.unlike_the_folder() == []
        problems += look_at(scenario, root, stage, seed, seen)
        seed += 1
    return len(seen), problems


def look_at(scenario: Scenario, root: Path, stage: Stage, seed: int, seen: set[int]) -> list[str]:
    """Look at the states that are not yet among the seen ones; return what was wrong."""
    problems = list(stage.problems)
    for files, allowed in crash_states(stage.disk, random.Random(seed), 3):
        state = hash((frozenset(files.items()), repr(allowed)))
        if state not in seen:
            seen.add(state)
            lay_out(root, files)
            problems.append(scenario.problem(root, allowed))
    return [problem for problem in problems if problem]


@pytest.mark.proof
@each_scenario
def test_what_was_acknowledged_survives(scenario: Scenario, root: Path, scale: Scale, record_property: Any) -> None:
    states, problems = survey(scenario, root, scale(scenario.states))
    record_property("states", states)
    assert problems == []


@pytest.mark.proof
@each_scenario
def test_what_was_acknowledged_survives_behind_a_failed_sync(scenario: Scenario, root: Path, scale: Scale) -> None:
    assert after_failed_syncs(scenario, root, scale(3)) == []


def after_failed_syncs(scenario: Scenario, root: Path, runs: int) -> list[str]:
    """Let the sync of a write fail, which drops the write, go on, and let the power fail after all."""
    with scenario.started(root) as stage:
        calls = stage.disk.calls
    syncs = [number for number, call in enumerate(calls) if call == "sync" and calls[number - 1] == "pwrite"]
    problems: list[str] = []
    for number in random.Random(1).sample(syncs, min(runs, len(syncs))):
        with scenario.started(root, Fault(number, "error", errno.EIO)) as stage:
            assert stage.disk.unlike_the_folder() == []
        problems += look_at(scenario, root, stage, number, set())
    return problems


# --------------------------------------------------------------------------------------------------------- controls


def is_caught(scenario: Scenario, root: Path, runs: int = 20, **disk: Any) -> bool:
    """Return whether something is found out in one of some runs."""
    for seed in range(runs):
        with scenario.started(root, seed=seed, **disk) as stage:
            pass
        if look_at(scenario, root, stage, seed, set()):
            return True
    return False


@pytest.mark.parametrize("scenario", [COMMITS, COMPACTION, MIGRATION], ids=lambda scenario: scenario.name)
def test_control_without_syncing_files_commits_are_lost(scenario: Scenario, root: Path) -> None:
    assert is_caught(scenario, root, without=["sync"])


def test_control_switching_before_the_files_are_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switched = Compaction.switch

    def hasty(self: Compaction, newer: Any) -> None:
        self._files.switch(self._new)
        switched(self, newer)

    monkeypatch.setattr(Compaction, "switch", hasty)
    assert is_caught(COMPACTION, root)


def test_control_a_commit_before_its_key_cannot_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_sync(fd: int, data: bytes, offset: int) -> None:
        os.pwrite(fd, data, offset)

    monkeypatch.setattr(subjects, "write_at", without_sync)
    assert is_caught(NEW_KEYS, root)


def test_control_keys_of_one_append_without_a_heading(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_records, "length_of_append", lambda first: 1)
    assert is_caught(NEW_KEYS, root, 100)


@pytest.mark.parametrize("scenario", [CREATE, COMPACTION], ids=lambda scenario: scenario.name)
def test_control_without_syncing_folders_files_are_lost(scenario: Scenario, root: Path) -> None:
    assert is_caught(scenario, root, without=["sync_folder"])


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
    assert after_failed_syncs(COMMITS, root, 9)
