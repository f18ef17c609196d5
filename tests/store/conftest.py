"""What the tests of the store share: stores in a temporary folder, and other processes that use them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crmkit.store import NEW, PlainCodec, Put, Store, TinyStore

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="session")
def scale() -> Callable[[int], int]:
    """Multiplies a count of repetitions by CRMKIT_TEST_SCALE; never below 1."""
    factor = float(os.environ.get("CRMKIT_TEST_SCALE", "1"))
    return lambda count: max(1, round(count * factor))


@pytest.fixture
def root() -> Iterator[Path]:
    """A workspace folder, in memory where the system has one: tens of thousands of states are laid out in it."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield folder / "acme"
    shutil.rmtree(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an empty TinyStore."""
    TinyStore.create(tmp_path / "data", "workspace-1")
    return tmp_path / "data"


@pytest.fixture
def wal(folder: Path) -> Path:
    """The journal of that store."""
    return folder / "wal.1.jsonl"


@pytest.fixture
def open_tiny(folder: Path) -> Iterator[Callable[..., TinyStore]]:
    """Opens the store of `folder`, as often as wanted."""
    opened: list[TinyStore] = []

    def open_one(**options: Any) -> TinyStore:
        opened.append(TinyStore(folder, PlainCodec(), **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture(params=["TinyStore"])
def open_store(request: pytest.FixtureRequest, open_tiny: Callable[..., TinyStore]) -> Callable[[], Store]:
    """Opens one and the same store; the contract runs once for every class of store."""
    return {"TinyStore": open_tiny}[request.param]


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    """An empty store."""
    return open_store()


@pytest.fixture
def put() -> Callable[..., int]:
    """Puts new documents into a store: ``put(store, {"id": "a"}, …)``."""

    def put_new(store: Store, *docs: dict[str, Any], collection: str = "customers") -> int:
        return store.commit([Put(collection, doc, NEW) for doc in docs], {})

    return put_new


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a task of worker.py in a process of its own; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start_one(task: str, *arguments: object) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, str(WORKER), task, *map(str, arguments)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a worker and return what it printed; fail with its errors where it failed."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


@pytest.fixture(name="finish")
def finish_fixture() -> Callable[[subprocess.Popen[str]], str]:
    """Waits for a worker and returns what it printed."""
    return finish
