"""What other processes do to a store in the tests: ``worker.py TASK FOLDER …``, started by the fixture `start`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinydb import TinyDB

from crmkit.errors import Conflict, CrmError, Invalid
from crmkit.store import ANY, NEW, PlainCodec, Put, Requirement, Step, TinyStore, compaction

compaction.SMALLEST = 20_000  # bytes; so that there is compaction in between, and often


def _open(folder: str) -> TinyStore:
    store = TinyStore(Path(folder), PlainCodec(), timeout=60)
    store.register("customers", unique=["email"])
    return store


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def write_forever(folder: str, name: str) -> None:
    """Add records and say each id once it is acknowledged, until killed."""
    store, number = _open(folder), 0
    while True:
        id = f"{name}-{number}"
        store.commit([Put("customers", {"id": id, "text": "é" * (number % 700)}, NEW)], {"by": name})
        _say(id)
        number += 1


def write_json_forever(file: str, name: str) -> None:
    """The same with the storage that TinyDB brings."""
    table, number = TinyDB(file).table("customers"), 0
    while True:
        table.insert({"id": f"{name}-{number}"})
        _say(f"{name}-{number}")
        number += 1


def increment(folder: str, times: str, mode: str) -> None:
    """Add 1 to a counter, many times, and say how often somebody else was faster.

    Without the revision check the last writer wins.
    """
    store, done, conflicts = _open(folder), 0, 0
    _say("ready")
    sys.stdin.readline()
    while done < int(times):
        doc = store.get("counters", "c")
        assert doc is not None
        time.sleep(0)
        try:
            changed = {**doc, "value": doc["value"] + 1, "by": os.getpid(), "text": "é" * 40}
            store.commit([Put("counters", changed, doc["rev"] if mode == "checked" else ANY)], {})
            done += 1
        except Conflict:
            conflicts += 1
    _say(conflicts)


def take(folder: str, name: str, values: str) -> None:
    """Try to take each of some unique values, and say which ones were got."""
    store = _open(folder)
    _say("ready")
    sys.stdin.readline()
    for value in range(int(values)):
        try:
            store.commit([Put("customers", {"id": f"{name}-{value}", "email": f"{value}@example.org"}, NEW)], {})
        except Invalid:
            continue
        _say(value)


def refer(folder: str, times: str) -> None:
    """Add purchases of customers that somebody else is removing, and say the customer of each."""
    store = _open(folder)
    _say("ready")
    sys.stdin.readline()
    for number in range(int(times)):
        customer = f"c{number}"
        purchase = {"id": f"p{number}", "customer": customer}
        try:
            store.commit([Put("purchases", purchase, NEW)], {}, [Requirement("customers", customer, "customer")])
        except Invalid:
            continue
        _say(customer)


def hold(folder: str) -> None:
    """Hold the lock until told to let go."""
    with _open(folder).lock():
        _say("held")
        sys.stdin.readline()


def pause_in_sync(folder: str) -> None:
    """Commit, and say so when everything is written but not yet synced, with the lock held; go on when told to."""
    store, sync = _open(folder), os.fdatasync

    def pausing(fd: int) -> None:
        _say("held")
        sys.stdin.readline()
        sync(fd)

    os.fdatasync = pausing
    store.commit([Put("customers", {"id": "paused"}, NEW)], {})
    os.fdatasync = sync
    store.commit([Put("customers", {"id": "after"}, NEW)], {})
    _say("done")


def fill_up(folder: str, filler: str, mode: str) -> None:
    """Commit on a disk that is full but for a little; say each id, and the error at the end."""
    if mode == "hole":
        os.posix_fallocate = lambda fd, start, length: os.ftruncate(fd, length)
    store, number = _open(folder), 0
    with suppress(OSError), open(filler, "wb", buffering=0) as file:  # noqa: PTH123
        while True:
            file.write(bytes(4096))
    try:
        while True:
            store.commit([Put("customers", {"id": f"{number}", "text": "é" * 400}, NEW)], {})
            _say(number)
            number += 1
    except CrmError as error:
        _say(error)


def rewrite_and_wait(folder: str) -> None:
    """Rewrite the history, and say so when the first step is asked for; never go on."""

    def change(step: Step) -> Mapping[str, Any]:
        _say("asked")
        sys.stdin.readline()
        return step.before

    _open(folder).rewrite_history(change)


def rewrite_forever(folder: str, name: str) -> None:
    """Rewrite the history again and again, until killed."""
    store, number = _open(folder), 0
    _say("begun")
    while True:
        number += 1
        store.rewrite_history(lambda step, name=f"{name}-{number}": {**step.before, "name": name})


def read_the_past(folder: str, stop: str) -> None:
    """Read all commits and verify the store, again and again, and say how often; fail where one is missing."""
    store, times = _open(folder), 0
    _say("ready")
    while not Path(stop).exists():
        newest = store.seq()
        seqs = [commit.seq for commit in store.commits()]
        assert seqs == list(range(1, len(seqs) + 1)), seqs
        assert len(seqs) >= newest
        assert store.verify() == []
        times += 1
    _say(times)


def fork() -> None:
    """For each line ``TASK FILE …`` fork a process that does the task and speaks to the file; say its id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the killed ones leave at once
    for line in sys.stdin:
        task, file, *arguments = line.split()
        child = os.fork()
        if child == 0:
            sys.stdout = open(file, "w")  # noqa: PTH123, SIM115  # until it is killed
            globals()[task](*arguments)
        _say(child)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
