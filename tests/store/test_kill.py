"""kill -9 of two processes that write and compact: what they said was saved is there, and the files can be read.

The control is the storage that TinyDB brings, in the same harness.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from crmkit.store import PlainCodec, TinyStore

Start = Callable[..., "subprocess.Popen[str]"]


class Score(NamedTuple):
    """What became of the records that two writers said were saved; `failed` counts writers that gave up."""

    acknowledged: int
    lost: int
    failed: int


def wait_until(is_done: Callable[[], bool]) -> None:
    """Wait for something that takes milliseconds."""
    deadline = time.monotonic() + 30
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def is_gone(process: int) -> bool:
    """Return whether a process has ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def fork_writer(nursery: subprocess.Popen[str], task: str, place: Path, said: Path) -> int:
    """Start a writer that appends what it saved to a file; return its process id."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write(f"{task} {said} {place} {said.name}\n")
    nursery.stdin.flush()
    return int(nursery.stdout.readline())


def kill_two(nursery: subprocess.Popen[str], task: str, place: Path, said: list[Path], pause: float) -> int:
    """Kill two writers a moment after both have saved something; return how many had ended by themselves."""
    writers = [fork_writer(nursery, task, place, file) for file in said]
    try:
        for file, writer in zip(said, writers):
            wait_until(lambda: (file.exists() and file.stat().st_size > 0) or is_gone(writer))  # noqa: B023
        time.sleep(pause)
    finally:
        failed = sum(map(is_gone, writers))
        for writer in writers:
            with suppress(ProcessLookupError):
                os.kill(writer, signal.SIGKILL)
            wait_until(lambda: is_gone(writer))  # noqa: B023
    return failed


def kill_rounds(
    start: Start, task: str, place: Path, rounds: int, read: Callable[[], set[str]], seed: int = 9
) -> Score:
    """Kill two writers, again and again, on one and the same store."""
    chance, nursery, acknowledged, failed = random.Random(seed), start("fork"), set[str](), 0
    for number in range(rounds):
        said = [place.parent / f"{name}{number}" for name in "ab"]
        failed += kill_two(nursery, task, place, said, chance.uniform(0, 0.03))
        lines = "".join(file.read_text() for file in said if file.exists()).splitlines(keepends=True)
        acknowledged |= {line.strip() for line in lines if line.endswith("\n")}
    return Score(len(acknowledged), len(acknowledged - read()), failed)


@pytest.mark.proof
def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path, start: Start, scale: Callable[[int], int]) -> None:
    """Fifty rounds on one store, then the next store: what a round costs grows with what the store holds."""
    generations = 0
    for number in range(math.ceil(scale(50) / 50)):
        folder = tmp_path / str(number) / "data"
        TinyStore.create(folder, f"workspace-{number}")

        def read(folder: Path = folder) -> set[str]:
            store = TinyStore(folder, PlainCodec())
            assert store.verify() == []
            ids = {doc["id"] for doc in store.scan("customers")}
            assert ids == {step.id for commit in store.commits() for step in commit.steps}, "history tells of each"
            nonlocal generations
            generations += store.generation - 1
            store.close()
            return ids

        rounds = min(scale(50), 50)
        score = kill_rounds(start, "write_forever", folder, rounds, read, seed=number)
        assert score.acknowledged >= 2 * rounds
        assert (score.lost, score.failed) == (0, 0)
    assert generations > 0, "there was compaction in between"


def test_control_the_storage_of_tinydb_loses_records(tmp_path: Path, start: Start) -> None:
    file = tmp_path / "plain.json"
    file.write_text("{}")

    def read() -> set[str]:
        try:
            return {doc["id"] for doc in json.loads(file.read_text())["customers"].values()}
        except ValueError:  # unreadable: everything is lost
            return set()

    score = kill_rounds(start, "write_json_forever", file, 3, read)
    assert score.lost + score.failed > 0
