"""A rotation of the data keys that is cut short, or others work meanwhile: all can be read, and it can be completed."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit.errors import CrmError
from crmkit.keys import rotation
from crmkit.keys.rotation import Past
from tests.store.disk import Disk, Fault

Scale = Callable[[int], int]
IBANS = ["DE89370400440532013000", "GB29NWBK60161331926819"]

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what a process leaves


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "BATCH", 2)
    monkeypatch.setenv("CRMKIT_IDLE_MINUTES", "0")


@pytest.fixture
def stage(crm: crmkit.CRM, own_identity: Path, tmp_path: Path) -> Path:
    """A folder to be copied, with a workspace of some customers with histories, and the user's config."""
    for number in range(4):
        customer = crm.customers.add(name=f"Customer {number}", iban=IBANS[0])
        crm.customers.update(customer, name=f"Renamed {number}", iban=IBANS[1])
    crm.secrets["mail"]["password"] = "hunter2"
    crm.close()
    shutil.copytree(crm.workspace.folder, tmp_path / "prepared" / "acme")
    shutil.copytree(own_identity, tmp_path / "prepared" / "config")
    return tmp_path / "prepared"


def everything(crm: crmkit.CRM) -> dict[str, Any]:
    """Return what can be read: values, sensitive ones too, former ones, secrets."""
    told: dict[str, Any] = {"secret": crm.secrets["mail"]["password"].value}
    for customer in crm.customers.find():
        doc = crm._store.get("customers", customer.id)
        assert doc is not None
        iban = crm._codec.opened("customers", doc, "iban") if "iban" in doc else None
        told[customer.id] = customer.name, iban, [str(entry.before) for entry in crm.history(customer)]
    for logged in crm._store.commits():
        for step in logged.steps:
            if step.collection == "customers" and "iban" in step.before:
                told[step.id, "former"] = crm._codec.opened("customers", {"id": step.id, **step.before}, "iban")
    return told


def cut_short(stage: Path, kind: str, most: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Rotate, and let the process end or a call fail at some calls; yield what is wrong afterwards, or nothing."""
    root = stage.with_name("root")
    told = _run(stage, root, monkeypatch, None)[1]
    calls = _run(stage, root, monkeypatch, Fault(10**9, kind))[0].calls
    changing = [at for at, call in enumerate(calls) if call in _CHANGING]
    for number in sorted(random.Random(7).sample(changing, min(most, len(changing)))):
        _, _, error = _run(stage, root, monkeypatch, Fault(number, kind, errno.EIO))
        where = f"{kind} call {number}, {calls[number]}"
        if error is not None and not isinstance(error, CrmError):
            yield f"{where}: raised {error!r}"
            continue
        try:
            with crmkit.open(root / "acme") as crm:
                problem = "" if everything(crm) == told else "cut short, it reads otherwise"
                crm.keys.rotate("data")
                crm.keys.drop_old()
            with crmkit.open(root / "acme") as crm:
                old = {row.id for row in crm.keys.status() if row.purpose == "data" and row.status != "primary"}
                if everything(crm) != told:
                    problem = "completed, it reads otherwise"
                if old - {"1"}:  # of reasons, under the key of the workspace
                    problem = f"completed, there are values under {old}"
        except CrmError as refused:
            problem = f"{type(refused).__name__}: {refused}"
        yield f"{where}: {problem}" if problem else ""


_CHANGING = ("pwrite", "write", "sync", "sync_folder", "replace", "unlink", "ftruncate")


def _run(
    stage: Path, root: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault | None
) -> tuple[Disk, dict[str, Any], Exception | None]:
    """Rotate in a copy, with a fault; without one only say what can be read there."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(stage, root)
    monkeypatch.setenv("CRMKIT_CONFIG", str(root / "config"))
    if fault is None:
        with crmkit.open(root / "acme") as crm:
            return Disk(root), everything(crm), None
    disk, error = Disk(root), None
    with disk.watching(fault):
        try:
            with crmkit.open(root / "acme") as crm:
                crm.keys.rotate("data")
        except Exception as raised:
            error = raised
    return disk, {}, error


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["before", "within", "error"])
def test_a_rotation_may_be_cut_short_anywhere(
    stage: Path, kind: str, scale: Scale, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    found = list(cut_short(stage, kind, scale(8), monkeypatch))
    record_property("points", len(found))
    assert len(found) > 5
    assert [problem for problem in found if problem] == []


def test_control_the_history_is_left_out(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Past, "resealed", lambda self, step: step.before)
    assert any(cut_short(stage, "before", 2, monkeypatch))


# ------------------------------------------------------------------------------------------------------- processes

WORKER = """
import sys
from pathlib import Path
import crmkit

with crmkit.open(sys.argv[1]) as crm:
    if sys.argv[2] == "naive":
        for part in (crm._vault._keyring, crm._vault._subjects, crm._vault._erasures):
            part.refresh = lambda: False
    known = [customer.id for customer in crm.customers.find()]
    print("ready", flush=True)
    number = 0
    while not Path(sys.argv[1], "stop").exists():
        number += 1
        crm.customers.add(name=f"New {number}")
        crm.customers.update(known[number % len(known)], name=f"Name {number}")
        entry = next(iter(crm.history(known[0])))
        crm.undo(entry, skip_changed=True)
"""


def after_working_meanwhile(stage: Path, kind: str, rounds: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rotate, drop old keys and give and take membership while another process writes; return what is wrong then."""
    from pyrage.x25519 import Identity

    folder = stage / "acme"
    monkeypatch.setenv("CRMKIT_CONFIG", str(stage / "config"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", WORKER, str(folder), kind]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        with crmkit.open(folder) as crm:
            for _ in range(rounds):
                crm.members.add("eve", str(Identity.generate().to_public()))
                crm.keys.rotate("data")
                crm.members.remove("eve")
                crm.keys.rotate("index")
        (folder / "stop").touch()
        said = worker.communicate(timeout=60)[1]
    except CrmError as error:
        return [str(error)]
    finally:
        worker.kill()
        worker.communicate()
    problems = [said] if worker.returncode else []
    with crmkit.open(folder) as crm:
        try:
            crm.keys.rotate("data")
            crm.keys.drop_old()
            everything(crm)
        except CrmError as error:
            problems.append(str(error))
        problems += crm.verify()
    return problems


@pytest.mark.proof
def test_others_may_work_meanwhile(stage: Path, scale: Scale, monkeypatch: pytest.MonkeyPatch) -> None:
    assert after_working_meanwhile(stage, "sound", scale(2), monkeypatch) == []


def test_control_who_does_not_look_at_the_keys(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert after_working_meanwhile(stage, "naive", 2, monkeypatch) != []
