"""Locking an open workspace: nothing is left to read, nothing goes on, and it opens again as it should."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pyrage
import pytest

import crmkit
from crmkit import CRM, Locked
from crmkit.errors import CrmError
from crmkit.locking import IDLE, Locking, idle_minutes
from crmkit.store.tiny import TinyStore
from crmkit.vault import Vault
from crmkit.vault.identity import Identity
from crmkit.visibility import Visible

pytestmark = pytest.mark.shipped_plugins  # collections and an analysis of theirs are among what is refused

IBAN = "GB33BUKB20201555555555"
NAME = "Ada CANARY Lovelace"

DEEDS: dict[str, Callable[[CRM, Any], object]] = {
    "get": lambda crm, ada: crm.customers[ada.id],
    "find": lambda crm, ada: crm.customers.find(),
    "search": lambda crm, ada: crm.customers.search("ada"),
    "len": lambda crm, ada: len(crm.customers),
    "count of what is not sealed": lambda crm, ada: crm.products.count(),
    "an empty collection": lambda crm, ada: list(crm.purchases),
    "columns": lambda crm, ada: crm.customers.columns("number"),
    "add": lambda crm, ada: crm.customers.add(name="Bob"),
    "update": lambda crm, ada: crm.customers.update(ada, city="Paris"),
    "remove": lambda crm, ada: crm.customers.remove(ada),
    "reveal": lambda crm, ada: crm.reveal(ada, "iban", reason="refund 812"),
    "audit": lambda crm, ada: crm.audit.entries(),
    "history": lambda crm, ada: crm.history(ada),
    "batches": lambda crm, ada: crm.batches(),
    "timeline": lambda crm, ada: crm.timeline(ada),
    "changes": lambda crm, ada: crm.changes(),
    "seq": lambda crm, ada: crm.seq(),
    "verify": lambda crm, ada: crm.verify(),
    "examine": lambda crm, ada: crm.examine(),
    "keys": lambda crm, ada: crm.keys.status(),
    "members": lambda crm, ada: list(crm.members),
    "security": lambda crm, ada: crm.security.report(),
    "erase": lambda crm, ada: crm.erase(ada, reason="request 17", dry_run=True),
    "analyse": lambda crm, ada: crm.analyse("revenue"),
}


@pytest.fixture
def ada(crm: CRM) -> Any:
    return crm.customers.add(name=NAME, city="London", iban=IBAN, number="A1")


def _outcomes(crm: CRM, ada: Any) -> dict[str, str]:
    """What comes of each deed: what it says when it is refused, or that it was done."""
    found = {}
    for name, deed in DEEDS.items():
        try:
            deed(crm, ada)
            found[name] = "done"
        except Locked as refused:
            found[name] = str(refused)
    return found


def test_everything_is_refused_until_unlock(crm: CRM, ada: Any) -> None:
    crm.lock()
    assert crm.is_locked
    assert set(_outcomes(crm, ada).values()) == {"the workspace is locked; crm.unlock() opens it again"}
    assert repr(crm) == "<CRM Acme: locked>"
    assert repr(crm.customers) == "<customers: locked>"
    crm.lock()  # again does nothing
    crm.unlock()
    assert not crm.is_locked
    assert crm.customers[ada.id].name == NAME
    assert crm.reveal(ada, "iban", reason="refund 812").value == IBAN
    assert crm.verify() == []
    crm.unlock()


def test_control_without_the_gate_what_is_not_sealed_is_read(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    crm.lock()
    with pytest.raises(Locked):
        crm.products.count()
    monkeypatch.setattr(crm._visible, "_use", lambda: None)
    assert crm.products.count() == 0


def test_keys_and_opened_values_are_gone_from_memory(tmp_path: Path) -> None:
    canary = "Grace " + "CANARY" * 3
    with crmkit.create(tmp_path / "w") as crm:
        id = crm.customers.add(name=canary, iban=IBAN).id
    crm = crmkit.open(tmp_path / "w")
    assert crm.customers.search("grace")[0].id == id
    str(crm.customers[id].iban)
    gc.collect()
    keyring = crm._vault._keyring.current
    secrets = [key.secret for key in keyring.keys.values()]
    assert _documents(canary)
    crm.lock()
    assert all(not any(secret) for secret in secrets)
    assert not _documents(canary)
    assert crm._codec._mask.cache_info().currsize == 0
    assert crm._vault._subjects.get.cache_info().currsize == 0
    assert not [each for each in gc.get_objects() if isinstance(each, Identity)]
    crm.close()


def _documents(name: str) -> int:
    """How many documents with this name the collector finds."""
    gc.collect()
    return sum(1 for each in gc.get_objects() if isinstance(each, dict) and each.get("name") == name)


@pytest.fixture
def idle(crm: CRM) -> Callable[[], None]:
    """Locks as the clock does."""

    def lock() -> None:
        crm._locking.lock(IDLE)
        assert crm.is_locked

    return lock


@pytest.mark.parametrize("deed", DEEDS)
def test_the_next_use_opens_what_locked_itself(crm: CRM, ada: Any, idle: Callable[[], None], deed: str) -> None:
    idle()
    DEEDS[deed](crm, ada)
    assert not crm.is_locked


def test_after_a_lock_on_purpose_the_clock_changes_nothing(crm: CRM, ada: Any) -> None:
    crm.lock()
    crm._locking.lock(IDLE)
    with pytest.raises(Locked, match=r"crm\.unlock\(\)"):
        crm.customers.find()


def test_with_a_passphrase_it_names_the_command(
    crm: CRM, ada: Any, idle: Callable[[], None], own_identity: Path
) -> None:
    file = own_identity / "identity.txt"
    plain = file.read_bytes()
    file.write_bytes(pyrage.encrypt(plain, [pyrage.x25519.Identity.generate().to_public()]))  # as good as protected
    idle()
    for ask in (crm.unlock, lambda: crm.customers[ada.id]):
        with pytest.raises(Locked, match="protected with a passphrase; open it with: crmkit unlock"):
            ask()
    assert crm.is_locked
    file.write_bytes(plain)
    assert crm.customers[ada.id].name == NAME


def test_somebody_who_is_no_member_any_more_does_not_get_back_in(crm: CRM, ada: Any, own_identity: Path) -> None:
    crm.lock()
    (own_identity / "identity.txt").write_text(f"{Identity.generate()}\n")
    with pytest.raises(Locked, match="you are not a member"):
        crm.unlock()
    assert crm.is_locked


def test_a_closed_workspace_is_not_unlocked(crm: CRM) -> None:
    crm.lock()
    crm.close()
    with pytest.raises(Locked, match="closed; open it anew"):
        crm.unlock()


def test_a_closed_workspace_says_so_though_it_was_locked(crm: CRM, ada: Any) -> None:
    crm.lock()
    crm.close()
    crm.lock()
    for deed in DEEDS.values():
        with pytest.raises(CrmError, match="the workspace is closed; open it again"):
            deed(crm, ada)


# ------------------------------------------------------------------------------------------- beside other threads


def test_no_thread_writes_while_keys_are_overwritten(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    drop, outcomes = Vault.lock, list[str]()

    def try_to_write() -> None:
        try:
            with crm._store.lock(timeout=0.1):
                outcomes.append("has the lock")
        except CrmError as error:
            outcomes.append(type(error).__name__)

    def beside_a_writer(vault: Vault, wake: Callable[[], None]) -> None:
        writer = Thread(target=try_to_write)
        writer.start()
        writer.join()
        drop(vault, wake)

    monkeypatch.setattr(Vault, "lock", beside_a_writer)
    crm.lock()
    assert outcomes == ["StoreBusy"]
    try_to_write()
    assert outcomes == ["StoreBusy", "has the lock"]


def test_what_was_saved_is_not_said_to_be_locked(crm: CRM, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = TinyStore.commit

    def then_lock(store: TinyStore, *what: Any) -> int:
        seq = commit(store, *what)
        crm.lock()
        return seq

    with monkeypatch.context() as locking:
        locking.setattr(TinyStore, "commit", then_lock)
        bob = crm.customers.add(name="Bob", iban=IBAN)
        crm.unlock()
        changed = crm.customers.update(ada, city="Paris")
    crm.unlock()
    assert crm.customers[bob.id].name == bob.name == "Bob"
    assert (changed.city, changed.rev) == ("Paris", crm.customers[ada.id].rev)
    assert IBAN not in f"{bob!r} {bob.iban} {changed!r}"


# ------------------------------------------------------------------------------------------- the clock


class Deeds:
    """Counts what a `Locking` does."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def locking(self, seconds: float) -> Locking:
        return Locking(lambda: self.done.append("drop"), lambda: self.done.append("open"), seconds / 60)


def _until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_it_locks_after_a_while_and_opens_with_the_next_use() -> None:
    deeds = Deeds()
    locking = deeds.locking(0.1)
    assert _until(lambda: locking.is_locked)
    locking.use()
    assert deeds.done == ["drop", "open"]
    assert _until(lambda: locking.is_locked)
    locking.close()


def test_use_keeps_it_open_and_so_does_what_takes_long() -> None:
    deeds = Deeds()
    locking = deeds.locking(0.4)
    for _ in range(12):
        locking.use()
        time.sleep(0.05)
    with locking.busy():
        time.sleep(0.6)
        assert not deeds.done
    locking.close()


def test_nothing_is_locked_by_a_clock_that_is_off() -> None:
    deeds = Deeds()
    locking = deeds.locking(0)
    assert locking._timer is None
    locking.close()


def test_the_clock_keeps_nothing_alive() -> None:
    locking: Locking | None = Deeds().locking(0.05)
    timer = locking._timer if locking else None
    locking = None
    gc.collect()
    assert timer is not None
    timer.join(5)
    assert not timer.is_alive()


def test_the_time_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert idle_minutes() == 15
    for text, minutes in (("", 15), ("0", 0), ("2.5", 2.5)):
        monkeypatch.setenv("CRMKIT_IDLE_MINUTES", text)
        assert idle_minutes() == minutes
    for text in ("soon", "-1", "nan", "1e9"):
        monkeypatch.setenv("CRMKIT_IDLE_MINUTES", text)
        with pytest.raises(crmkit.Invalid, match="must be minutes from 0"):
            idle_minutes()


# ------------------------------------------------------------------------------------------- watches and screens


def test_a_watch_opens_nothing_and_keeps_nothing_open(crm: CRM, ada: Any, idle: Callable[[], None]) -> None:
    seen: list[Any] = []
    watch = crm.watch(seen.append)
    used = crm._locking._used
    crm._visible._store.seq()
    watch.look()
    assert crm._locking._used == used
    idle()
    with pytest.raises(Locked):
        watch.look()
    assert crm.is_locked
    crm.unlock()
    crm.customers.add(name="Bob")
    assert watch.look()
    assert len(seen) == 1


def test_a_watch_tells_once_of_the_lock_and_fails_nothing(crm: CRM, ada: Any) -> None:
    told: list[bool] = []

    async def go() -> None:
        watch = crm.watch(lambda _: None, every=0.01, locked=told.append)
        crm.lock()
        await asyncio.sleep(0.1)
        crm.unlock()
        await asyncio.sleep(0.1)
        watch.stop()

    asyncio.run(go())
    assert told == [True, False]
    assert crm.failures == []


def test_no_memory_image_is_left_by_a_crash(crm: CRM) -> None:
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0


def test_every_way_into_the_store_notes_its_use() -> None:
    """A method of the read path that is new must not go round the lock."""
    free = {"know", "register", "forget", "close"}
    calls = {name for name, member in vars(Visible).items() if callable(member) and not name.startswith("_")} - free
    noting = {name for name in calls if "_use" in vars(Visible)[name].__code__.co_names}
    assert calls == noting
