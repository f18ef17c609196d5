"""Several processes, threads and system users at work on one store."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crmkit.errors import StoreBusy
from crmkit.query import F, Find
from crmkit.store import ANY, NEW, Delete, PlainCodec, Put, TinyStore

Start = Callable[..., "subprocess.Popen[str]"]
Finish = Callable[["subprocess.Popen[str]"], str]


def together(workers: list[subprocess.Popen[str]], finish: Finish) -> list[list[str]]:
    """Let workers that said "ready" run at the same time and return the lines that each said after it."""
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return [finish(worker).split() for worker in workers]


def increments(open_tiny: Callable[..., TinyStore], start: Start, finish: Finish, times: int, mode: str) -> int:
    """Let two processes count up and return how many increments are in the counter."""
    store = open_tiny()
    store.commit([Put("counters", {"id": "c", "value": 0}, NEW)], {})
    folder = Path(store._journal.path).parent
    together([start("increment", folder, times, mode) for _ in range(2)], finish)
    counter = store.get("counters", "c")
    assert counter is not None
    assert store.verify() == []
    return int(counter["value"])


@pytest.mark.proof
def test_no_increment_of_two_processes_is_lost(
    open_tiny: Any, start: Start, finish: Finish, scale: Callable[[int], int]
) -> None:
    times = scale(500)
    assert increments(open_tiny, start, finish, times, "checked") == 2 * times


def test_control_without_the_revision_check_increments_are_lost(open_tiny: Any, start: Start, finish: Finish) -> None:
    assert increments(open_tiny, start, finish, 500, "unchecked") < 1000


@pytest.mark.proof
def test_a_unique_value_goes_to_one_of_two_processes(
    folder: Path, open_tiny: Any, start: Start, finish: Finish, scale: Callable[[int], int]
) -> None:
    values = scale(200)
    first, second = together([start("take", folder, name, values) for name in "ab"], finish)
    assert sorted([*first, *second], key=int) == [str(value) for value in range(values)]
    assert open_tiny().count("customers") == values


@pytest.mark.proof
def test_no_reference_dangles_while_another_process_removes(
    folder: Path, open_tiny: Any, start: Start, finish: Finish, scale: Callable[[int], int]
) -> None:
    store, times = open_tiny(), scale(200)
    store.commit([Put("customers", {"id": f"c{n}"}, NEW) for n in range(times)], {})
    worker = start("refer", folder, times)
    assert worker.stdout is not None
    worker.stdout.readline()
    remover = threading.Thread(target=_remove_unreferenced, args=(store, times))
    remover.start()
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    said = finish(worker).split()
    remover.join()
    assert all(store.get("customers", customer) for customer in said)
    assert store.count("customers") == store.count("purchases") == len(said)


def _remove_unreferenced(store: TinyStore, times: int) -> None:
    for number in reversed(range(times)):
        with store.lock():
            if store.count("purchases", F.customer == f"c{number}") == 0:
                store.commit([Delete("customers", f"c{number}", ANY)], {})


def test_a_store_that_another_process_holds_is_busy(folder: Path, start: Start, finish: Finish) -> None:
    worker = start("hold", folder)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "held\n"
    store = TinyStore(folder, PlainCodec(), timeout=0.05)
    with pytest.raises(StoreBusy, match=r"another process .* 0\.05 seconds"):
        store.commit([Put("customers", {"id": "a"}, NEW)], {})
    assert store.count("customers") == 0, "reading needs no lock"
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    finish(worker)
    store.commit([Put("customers", {"id": "a"}, NEW)], {})
    store.close()


def test_a_store_that_another_thread_holds_is_busy(open_tiny: Callable[..., TinyStore]) -> None:
    store, held, done = open_tiny(timeout=0.05), threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock():
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    with pytest.raises(StoreBusy, match="another thread"):
        store.commit([Put("customers", {"id": "a"}, NEW)], {})
    assert store.count("customers") == 0
    done.set()
    holder.join()
    store.commit([Put("customers", {"id": "a"}, NEW)], {})


def test_an_interrupt_on_the_way_out_leaves_no_lock_behind(
    open_tiny: Callable[..., TinyStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other, real = open_tiny(timeout=0.05), open_tiny(timeout=0.05), fcntl.flock

    def interrupted(fd: int, operation: int) -> None:
        real(fd, operation)
        if operation == fcntl.LOCK_UN:
            raise KeyboardInterrupt

    monkeypatch.setattr(fcntl, "flock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.commit([Put("customers", {"id": "a"}, NEW)], {})
    monkeypatch.undo()
    problems: list[Exception] = []

    def write(writer: TinyStore, id: str) -> None:
        try:
            writer.commit([Put("customers", {"id": id}, NEW)], {})
        except StoreBusy as error:
            problems.append(error)

    for writer, id in ((store, "b"), (other, "c")):
        thread = threading.Thread(target=write, args=(writer, id))
        thread.start()
        thread.join()
    assert problems == []
    assert store.count("customers") == 3


def test_closing_ends_the_wait_for_the_lock(open_tiny: Callable[..., TinyStore]) -> None:
    holder, waiter, problems = open_tiny(), open_tiny(timeout=30), []

    def write() -> None:
        try:
            waiter.commit([Put("customers", {"id": "a"}, NEW)], {})
        except Exception as error:
            problems.append(str(error))

    with holder.lock():
        thread = threading.Thread(target=write)
        thread.start()
        time.sleep(0.05)
        waiter.close()
        thread.join(10)
    assert problems == ["the workspace is closed; open it again"]


def test_threads_of_one_store(open_tiny: Callable[..., TinyStore], scale: Callable[[int], int]) -> None:
    store, other, each, failures = open_tiny(), open_tiny(), scale(100), []

    def write(writer: TinyStore, name: str) -> None:
        try:
            for number in range(each):
                writer.commit([Put("customers", {"id": f"{name}{number}", "n": number}, NEW)], {})
                writer.find(Find("customers", F.n >= 1, limit=5))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=args) for args in ((store, "a"), (store, "b"), (other, "c"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.count("customers") == other.count("customers") == 3 * each
    assert store.seq() == 3 * each


# --------------------------------------------------------------------------------------------------- two system users

_GROUP, _USERS = 54_321, (54_322, 54_323)


def as_user(user: int, task: Callable[[], None]) -> None:
    """Run a task in a child process of another system user, whose files nobody else may read by default."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([_GROUP])
            os.setgid(user)
            os.setuid(user)
            os.umask(0o077)
            task()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads that earlier tests left
def test_two_system_users_of_one_group_share_a_store() -> None:
    if os.geteuid() != 0:
        if "CI" in os.environ:
            pytest.fail("needs root to become two users")
        pytest.skip("needs root to become two users")
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        folder = Path(top) / "shared" / "data"
        folder.parent.mkdir()
        os.chown(folder.parent, 0, _GROUP)
        folder.parent.chmod(0o2770)

        def write(name: str) -> None:
            store = TinyStore(folder, PlainCodec())
            store.commit([Put("customers", {"id": name}, NEW)], {})

        as_user(_USERS[0], lambda: TinyStore.create(folder, "workspace-1"))
        for number in range(4):
            as_user(_USERS[number % 2], lambda: write(f"c{number}"))  # noqa: B023  # runs at once
        store = TinyStore(folder, PlainCodec())
        assert store.count("customers") == 4
        store.close()
        for file in folder.iterdir():
            assert (file.stat().st_mode & 0o777, file.stat().st_gid) == (0o660, _GROUP), file
