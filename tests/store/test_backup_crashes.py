"""A backup that is interrupted, at any call or by a loss of power: some backup can be restored, and it is whole."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import crmkit
import crmkit.safekeeping.backup
from crmkit import durable
from crmkit.errors import CrmError
from tests.store.disk import Disk, Fault
from tests.store.power import crash_states

Scale = Callable[[int], int]
Names = tuple[str, ...]
ONE, BOTH = ("Ada",), ("Ada", "Bob")


@pytest.fixture
def crm(root: Path) -> Iterator[crmkit.CRM]:
    """A workspace with Ada; there is a backup of it, and Bob came afterwards."""
    with crmkit.create(root, currency="EUR") as opened:
        opened.customers.add(name="Ada")
        opened.backup(backups_of(root))
        shutil.copytree(backups_of(root), root.with_name("kept"))
        opened.customers.add(name="Bob")
        yield opened


def backups_of(root: Path) -> Path:
    return root.with_name("backups")


@contextmanager
def second_backup(
    crm: crmkit.CRM, root: Path, fault: Fault | None = None, **options: Any
) -> Iterator[tuple[Disk, Any]]:
    """Make a second backup beside the first one, while its folder is watched."""
    folder = backups_of(root)
    shutil.rmtree(folder)
    shutil.copytree(root.with_name("kept"), folder)
    disk, error = Disk(folder, **options), list[Exception]()
    with disk.watching(fault):
        disk.note([ONE, BOTH])
        try:
            crm.backup(folder)
            disk.note([BOTH])
        except Exception as raised:
            error.append(raised)
    yield disk, error[0] if error else None


def chosen(calls: list[str], kind: str, most: int) -> list[int]:
    """Return the numbers of some calls; only those that change something can fail for want of room."""
    looks = ("stat", "lstat", "fstat", "scandir", "listdir", "unlock")
    numbers = [number for number, call in enumerate(calls) if kind != "error" or call not in looks]
    return random.Random(3).sample(numbers, min(most, len(numbers)))


def restored(root: Path) -> Names | str:
    """Return who is in the newest backup, or why it cannot be restored."""
    folder = root.with_name("restored")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with crmkit.restore(backups_of(root), folder) as crm:
            return tuple(sorted(customer.name for customer in crm.customers.find()))
    except CrmError as error:
        return f"{type(error).__name__}: {error}"


def after_power_losses(crm: crmkit.CRM, root: Path, most: int, **options: Any) -> list[Any]:
    """Return what was found, where it is not what may be found, after so many losses of power."""
    with second_backup(crm, root, **options) as (disk, error):
        assert error is None
        assert disk.unlike_the_folder() == []
    states = {tuple(sorted(files.items())): allowed for files, allowed in crash_states(disk, random.Random(1), 5)}
    problems = []
    for files in random.Random(2).sample(sorted(states), min(most, len(states))):
        shutil.rmtree(backups_of(root))
        for path, content in files:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content)
        found = restored(root)
        problems += [found] if found not in states[files] else []
    return problems


@pytest.mark.proof
def test_a_loss_of_power(crm: crmkit.CRM, root: Path, scale: Scale) -> None:
    assert after_power_losses(crm, root, scale(30)) == []


@pytest.mark.parametrize("call", ["sync", "sync_folder"])
def test_control_without_syncs(crm: crmkit.CRM, root: Path, call: str) -> None:
    assert after_power_losses(crm, root, 100, without=[call]) != []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what the end of a process leaves
@pytest.mark.proof
@pytest.mark.parametrize("kind", ["before", "within", "error"])
def test_any_call_may_be_the_last_or_fail(crm: crmkit.CRM, root: Path, kind: str, scale: Scale) -> None:
    with second_backup(crm, root) as (disk, _):
        calls = disk.calls
    problems = []
    for number in chosen(calls, kind, scale(10)):
        with second_backup(crm, root, Fault(number, kind, errno.ENOSPC)) as (_, error):
            found = restored(root)
        if found not in (ONE, BOTH) or not (error is None or isinstance(error, CrmError)):
            problems.append((number, calls[number], found, error))
    assert problems == []


def restored_by_a_child(root: Path, place: Path, fault: Fault) -> bool:
    """Restore in a process of its own, which may end at a call; return whether an error that came was one of ours."""
    child = os.fork()
    if child == 0:
        try:
            with Disk(place).watching(fault):
                crmkit.restore(backups_of(root), place / "acme").close()
        except CrmError:
            os._exit(0)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def after_restores_cut_short(root: Path, kind: str, most: int) -> Iterator[str]:
    """Cut restores short at some calls, do each again where nothing is there; yield what is wrong, or nothing."""
    place = root.with_name("place")
    place.mkdir()
    with Disk(place).watching() as disk:
        crmkit.restore(backups_of(root), place / "acme").close()
    calls = disk.calls
    for number in chosen(calls, kind, most):
        shutil.rmtree(place / "acme")
        if not restored_by_a_child(root, place, Fault(number, kind, errno.ENOSPC)):
            yield f"{calls[number]}: not an error of ours"
        if kind == "error" and list(place.glob(".*")):
            yield f"{calls[number]}: something is left behind"
        try:
            if not (place / "acme").exists():
                crmkit.restore(backups_of(root), place / "acme").close()
            with crmkit.open(place / "acme") as again:
                assert [customer.name for customer in again.customers.find()] == ["Ada"]
        except CrmError as error:
            yield f"{calls[number]}: {error}"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.proof
@pytest.mark.parametrize("kind", ["before", "within", "error"])
def test_a_restore_that_is_cut_short_leaves_no_half_of_a_workspace(
    crm: crmkit.CRM, root: Path, kind: str, scale: Scale
) -> None:
    assert list(after_restores_cut_short(root, kind, scale(10))) == []


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_control_a_restore_into_the_folder_itself(crm: crmkit.CRM, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def at_once(path: Path, mode: int = durable.FOLDER_MODE) -> Iterator[Path]:
        durable.make_folder(path, mode)
        yield path

    monkeypatch.setattr(crmkit.safekeeping.backup, "new_folder", at_once)
    assert any(after_restores_cut_short(root, "before", 20))
