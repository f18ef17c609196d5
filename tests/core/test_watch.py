"""Watching: each change once; errors kept; a saved place loses nothing when its process is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit import CRM, Invalid
from crmkit.store import Change

CONSUMER = Path(__file__).with_name("consumer.py")


def ids(changes: list[Change]) -> list[str]:
    return [change.id for change in changes]


# --------------------------------------------------------------------------- looking


def test_changes_are_told_from_the_beginning(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    crm._store.compact()
    crm.customers.remove(ada)
    assert [(change.collection, change.id, change.action) for change in crm.changes()] == [
        ("customers", ada.id, "put"),
        ("customers", ada.id, "delete"),
        ("customers.removed", ada.id, "put"),
    ]
    assert crm.changes(crm.seq()) == []


def test_each_change_is_told_once_own_and_others_alike(crm: CRM) -> None:
    crm.customers.add(name="Before")
    told: list[Change] = []
    watch = crm.watch(told.extend)
    ada = crm.customers.add(name="Ada")
    with crmkit.open(crm.workspace.folder) as other:
        bob = other.customers.add(name="Bob")
    assert watch.look()
    assert not watch.look()
    assert ids(told) == [ada.id, bob.id]


def test_what_a_callback_saves_is_told_at_the_next_look(crm: CRM) -> None:
    told: list[list[str]] = []

    def save(changes: list[Change]) -> None:
        told.append(ids(changes))
        if len(told) == 1:
            crm.customers.add(name="Echo")

    watch = crm.watch(save)
    crm.customers.add(name="Ada")
    assert [watch.look(), watch.look(), watch.look()] == [True, True, False]
    assert len(told) == 2


def test_an_error_is_kept_without_a_value_and_the_next_change_is_told(crm: CRM) -> None:
    told: list[str] = []

    def fail(changes: list[Change]) -> None:
        told.extend(ids(changes))
        if len(told) == 1:
            raise RuntimeError("Ada Canary")

    watch = crm.watch(fail)
    ada = crm.customers.add(name="Ada Canary")
    assert watch.look()
    bob = crm.customers.add(name="Bob")
    assert watch.look()
    assert told == [ada.id, bob.id]
    [failure] = [failure for failure in crm.failures if failure.hook != "load"]  # of plugins that are not there
    assert (failure.hook, failure.error) == ("watch", "RuntimeError")
    assert "Canary" not in str(failure)


def test_in_a_loop_it_looks_by_itself_and_goes_on_after_an_error(crm: CRM) -> None:
    """The control lets the callback's error out, and its task ends at the first one."""

    async def run(is_guarded: bool) -> int:
        calls: list[int] = []

        def fail_once(changes: list[Change]) -> None:
            calls.append(len(changes))
            if len(calls) == 1:
                raise RuntimeError("broken")

        watch = crm.watch(fail_once, every=0.01)
        if not is_guarded:

            def let_out(error: BaseException) -> None:
                raise error

            watch._failed = let_out
        for number in range(1, 3):
            crm.customers.add(name=f"N{number}")
            async with asyncio.timeout(20):
                while len(calls) < number and watch._task is not None and not watch._task.done():
                    await asyncio.sleep(0.01)
        if watch._task is not None and watch._task.done():
            assert isinstance(watch._task.exception(), RuntimeError)
        watch.stop()
        watch.stop()
        return len(calls)

    assert asyncio.run(run(is_guarded=True)) == 2
    assert asyncio.run(run(is_guarded=False)) == 1


def test_a_callback_saves_outside_of_the_transaction_that_was_open_when_it_began(crm: CRM) -> None:
    """Its saves are neither held back until the end of that transaction, nor lost with it."""

    async def run() -> None:
        told = asyncio.Event()

        def save(changes: list[Change]) -> None:
            if not told.is_set():
                told.set()
                crm.customers.add(name="Echo")

        with contextlib.suppress(RuntimeError), crm.acting_as("ann"), crm.transaction():
            watch = crm.watch(save, every=0.01)
            with crmkit.open(crm.workspace.folder) as other:
                other.customers.add(name="Ada")
            async with asyncio.timeout(20):
                await told.wait()
            raise RuntimeError
        watch.stop()

    asyncio.run(run())
    assert sorted(customer.name for customer in crm.customers) == ["Ada", "Echo"]
    assert crm.batches(1)[0].actor == "ann"


def test_closing_ends_what_looks(crm: CRM) -> None:
    async def run() -> bool:
        watch = crm.watch(lambda _: None, every=0.01)
        task = watch._task
        assert task is not None
        crm.close()
        await asyncio.sleep(0.05)
        return task.cancelled()

    assert asyncio.run(run())
    assert [failure for failure in crm.failures if failure.hook != "load"] == []


# --------------------------------------------------------------------------- a saved place


def test_a_follower_goes_on_where_it_was(crm: CRM) -> None:
    told: list[str] = []
    follower = crm.follow("mailer", lambda changes: told.extend(ids(changes)))
    ada = crm.customers.add(name="Ada")
    assert follower.look()
    bob = crm.customers.add(name="Bob")
    again: list[str] = []
    second = crm.follow("mailer", lambda changes: again.extend(ids(changes)))
    assert second.look()
    assert (told, again) == ([ada.id], [bob.id])
    seq = crm.seq()
    assert not second.look()
    assert crm.seq() == seq  # its own saved place is no change to save again
    assert all(change.collection == "customers" for change in crm.changes())
    assert [batch.types for batch in crm.batches()] == [{"customer": 1}, {"customer": 1}]


def test_what_a_follower_could_not_handle_is_told_again(crm: CRM) -> None:
    told: list[list[str]] = []

    def fail_once(changes: list[Change]) -> None:
        told.append(ids(changes))
        if len(told) == 1:
            raise RuntimeError

    follower = crm.follow("mailer", fail_once)
    ada = crm.customers.add(name="Ada")
    follower.look()
    bob = crm.customers.add(name="Bob")
    follower.look()
    assert told == [[ada.id], [ada.id, bob.id]]


def test_two_followers_of_one_name_do_not_go_back(crm: CRM) -> None:
    first, second = (crm.follow("mailer", lambda _: None) for _ in range(2))
    crm.customers.add(name="Ada")
    first.look()
    crm.customers.add(name="Bob")
    first.look()
    second.look()
    told: list[str] = []
    assert not crm.follow("mailer", lambda changes: told.extend(ids(changes))).look()
    assert told == []


@pytest.mark.parametrize("name", ["", "  ", None])
def test_a_follower_needs_a_name(crm: CRM, name: Any) -> None:
    with pytest.raises(Invalid):
        crm.follow(name, lambda _: None)


@pytest.mark.proof
def test_a_follower_that_is_killed_sees_again_what_it_had_not_saved(
    tmp_path: Path, scale: Callable[[int], int]
) -> None:
    """Killed between the work and saving the place; nothing is lost, something is seen twice."""
    for number in range(scale(1)):
        added, handled = killed_at_work(tmp_path / f"w{number}", "saved after")
        assert set(handled) == set(added)
        assert len(handled) > len(set(handled))


def test_a_place_that_is_saved_first_would_lose_something(tmp_path: Path) -> None:
    """The control."""
    added, handled = killed_at_work(tmp_path / "w", "saved first")
    assert set(handled) < set(added)


def killed_at_work(folder: Path, order: str) -> tuple[list[str], list[str]]:
    """Let a consumer handle three changes, killed with SIGKILL in the second; return added and handled."""
    out = folder.with_suffix(".handled")
    with crmkit.create(folder, currency="EUR") as crm:
        crm.follow("mailer", lambda _: None)
        added = []
        for number in range(3):
            added.append(crm.customers.add(name=f"N{number}").id)
            ended = consume(folder, out, order, "kill" if number == 1 else "live")
            assert ended == (-9 if number == 1 else 0)
    return added, out.read_text().split()


def consume(folder: Path, out: Path, order: str, end: str) -> int:
    command = [sys.executable, "-W", "error", str(CONSUMER), str(folder), str(out), order, end]
    return subprocess.run(command, env=os.environ, check=False).returncode
