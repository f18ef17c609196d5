"""Several processes, threads and system users at work on one store."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crmkit.errors import CrmError, StoreBusy
from crmkit.query import F, Find
from crmkit.store import ANY, NEW, Delete, PlainCodec, Put, TinyStore
from crmkit.store.lock import WorkspaceLock

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


def increments(
    open_tiny: Callable[..., TinyStore], start: Start, finish: Finish, times: int, mode: str, processes: int = 2
) -> tuple[int, int]:
    """Let processes count up; return how many increments are in the counter, and how many conflicts were reported."""
    store = open_tiny()
    store.commit([Put("counters", {"id": "c", "value": 0}, NEW)], {})
    folder = Path(store._replica.journal.path).parent
    said = together([start("increment", folder, times, mode) for _ in range(processes)], finish)
    counter = store.get("counters", "c")
    assert counter is not None
    assert store.verify() == []
    assert numbers(folder) == list(range(1, store.seq() + 1)), "no gap, and no number twice"
    assert store.generation > 1 or times * processes < 500, "there was compaction in between"
    return int(counter["value"]), sum(int(conflicts) for (conflicts,) in said)


def numbers(folder: Path) -> list[int]:
    """Return the numbers of all commits, from the logs and the journal."""
    logs = sorted(folder.glob("log.*.jsonl"), key=lambda path: int(path.name.split(".")[1]))
    *_, journal = sorted(folder.glob("wal.*.jsonl"), key=lambda path: int(path.name.split(".")[1]))
    lines = [line for path in logs for line in path.read_text().splitlines()[1:-1]]
    return [int(line[10:].split(",")[0]) for line in [*lines, *journal.read_text().splitlines()[1:]]]


@pytest.mark.proof
def test_no_increment_of_eight_processes_is_lost(
    open_tiny: Any, start: Start, finish: Finish, scale: Callable[[int], int], record_property: Any
) -> None:
    times = scale(100)
    counted, conflicts = increments(open_tiny, start, finish, times, "checked", processes=8)
    record_property("conflicts", conflicts)
    assert counted == 8 * times
    assert conflicts > 0


def test_control_without_the_revision_check_increments_are_lost(open_tiny: Any, start: Start, finish: Finish) -> None:
    assert increments(open_tiny, start, finish, 500, "unchecked")[0] < 1000


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


def test_a_holder_of_the_lock_that_is_stopped_loses_nothing(folder: Path, start: Start, finish: Finish) -> None:
    worker = start("pause_in_sync", folder)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "held\n"
    worker.send_signal(signal.SIGSTOP)
    store = TinyStore(folder, PlainCodec(), timeout=0.05)
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    for _ in range(2):  # nobody breaks the lock
        with pytest.raises(StoreBusy, match="another process"):
            store.commit([Put("customers", {"id": "b"}, NEW)], {})
        with pytest.raises(StoreBusy):
            store.compact()
    worker.send_signal(signal.SIGCONT)
    assert finish(worker) == "done\n"
    store.commit([Put("customers", {"id": "b"}, NEW)], {})
    assert [doc["id"] for doc in store.scan("customers")] == ["paused", "after", "b"]
    assert store.verify() == []
    store.close()


def written_by_a_child_and_its_parent(store: TinyStore, folder: Path, times: int) -> list[str]:
    """Fork while a store is open, write in both processes at once, and return what is wrong afterwards."""
    child = os.fork()
    name = "parent" if child else "child"
    try:
        for number in range(times):
            store.commit([Put("customers", {"id": f"{name}{number}"}, NEW)], {})
            time.sleep(0)
    except Exception as error:
        if child:
            os.waitpid(child, 0)
            return [str(error)]
        os._exit(1)
    if not child:
        os._exit(0)
    failed = os.waitpid(child, 0)[1]
    try:
        again = TinyStore(folder, PlainCodec())
    except CrmError as error:
        return [str(error)]
    count = again.count("customers")
    problems = again.verify() + ([f"{count} of {2 * times} are there"] if count != 2 * times else [])
    again.close()
    return problems + (["the child failed"] if failed else [])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_of_an_open_store(folder: Path, open_tiny: Callable[..., TinyStore]) -> None:
    assert written_by_a_child_and_its_parent(open_tiny(), folder, 200) == []


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_beside_a_store_whose_folder_is_gone(
    folder: Path, tmp_path: Path, open_tiny: Callable[..., TinyStore]
) -> None:
    """The lock that cannot be opened again must not keep the child from opening the other ones."""
    store, gone = open_tiny(), []
    for number in range(8):  # they are told in no order
        TinyStore.create(tmp_path / f"gone {number}", "workspace-2")
        gone.append(TinyStore(tmp_path / f"gone {number}", PlainCodec()))
        shutil.rmtree(tmp_path / f"gone {number}")
    assert written_by_a_child_and_its_parent(store, folder, 300) == []
    for each in gone:
        each.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_control_a_child_that_shares_the_lock_of_its_parent(
    folder: Path, open_tiny: Callable[..., TinyStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkspaceLock, "_begin_anew", lambda self: None)
    assert written_by_a_child_and_its_parent(open_tiny(), folder, 2000) != []


def test_a_clock_that_jumps(open_tiny: Callable[..., TinyStore], monkeypatch: pytest.MonkeyPatch) -> None:
    store, other, now = open_tiny(timeout=0.05), open_tiny(timeout=0.05), iter(range(10**6, 0, -3600))
    for name in ("time", "time_ns", "monotonic"):
        monkeypatch.setattr(time, name, lambda: next(now))
    for number, writer in enumerate((store, other) * 3):
        writer.commit([Put("customers", {"id": f"{number}"}, NEW)], {})
    with store.lock(), pytest.raises(StoreBusy):
        monkeypatch.setattr(time, "monotonic", itertools.count(0, 3600).__next__)
        other.commit([Put("customers", {"id": "late"}, NEW)], {})
    store.compact()
    assert [commit.seq for commit in other.commits()] == list(range(1, 7))
    assert [doc["id"] for doc in other.scan("customers")] == list("012345")


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
            assert store.compact()
            store.close()

        as_user(_USERS[0], lambda: TinyStore.create(folder, "workspace-1"))
        for number in range(4):
            as_user(_USERS[number % 2], lambda: write(f"c{number}"))  # noqa: B023  # runs at once
        store = TinyStore(folder, PlainCodec())
        assert (store.count("customers"), store.generation) == (4, 5)
        assert store.verify() == []
        store.close()
        for file in folder.iterdir():
            assert (file.stat().st_mode & 0o777, file.stat().st_gid) == (0o660, _GROUP), file
