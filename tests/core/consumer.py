"""A consumer of changes in a process of its own: ``consumer.py WORKSPACE OUT ORDER END``.

It appends the id of each change to OUT. END "kill" ends it by SIGKILL when that is done and the place is not saved yet;
with ORDER "saved first", the control, the place is saved before the work, and the kill comes before the work.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import crmkit

folder, out, order, end = sys.argv[1:]


def work(changes: list[Any]) -> None:
    with Path(out).open("a") as file:
        file.writelines(f"{change.id}\n" for change in changes)
        file.flush()
        os.fsync(file.fileno())


def handle(changes: list[Any]) -> None:
    if order == "saved first":
        cursor.save(changes[-1].seq)
    else:
        work(changes)
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "saved first":
        work(changes)


with crmkit.open(folder) as crm:
    follower = crm.follow("mailer", handle)
    cursor = follower._cursor
    assert cursor is not None
    follower.look()
