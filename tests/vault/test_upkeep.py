"""Members, rotation and destruction of keys: who is out is out, and a crash leaves keys that open."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyrage
import pytest
from pyrage.x25519 import Identity

from crmkit.errors import CrmError, Damaged, Erased, Invalid, Locked, NotFound
from crmkit.vault import Vault
from crmkit.vault.identity import load_identity
from crmkit.vault.keyring_file import KeyringFile
from crmkit.vault.subjects import RECORD_LENGTH, SubjectKeys
from crmkit.vault.upkeep import Upkeep
from tests.store.disk import Disk, Fault

Scale = Callable[[int], int]
SUBJECTS = 5


def seal(vault: Vault, subject: str, value: str = "Ada") -> str:
    return vault.seal("customer", "name", subject, subject, value)


def opened(vault: Vault, subject: str, sealed: str) -> object:
    return vault.open("customer", "name", subject, subject, sealed)


def statuses(vault: Vault, purpose: str) -> list[str]:
    return sorted(key.status for key in vault.keys if key.purpose == purpose)


@pytest.fixture
def sealed(vault: Vault, new_id: Callable[[], str]) -> dict[str, str]:
    """Something sealed for each of a few subjects."""
    ids = [new_id() for _ in range(SUBJECTS)]
    vault.ensure_subjects(ids)
    return {id: seal(vault, id) for id in ids}


@pytest.fixture
def bob(vault: Vault) -> Identity:
    """Another member."""
    identity = Identity.generate()
    vault.add_member("bob", str(identity.to_public()))
    return identity


# ------------------------------------------------------------------------------------------------------- members


def test_a_new_member_opens_everything(
    vault: Vault, keys: Path, sealed: dict[str, str], bob: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRMKIT_IDENTITY", str(bob))
    bobs = Vault.unlock(keys)
    assert [member.name for member in bobs.members()][1:] == ["bob"]
    assert [(member.kind, bool(member.added)) for member in bobs.members()] == [("member", True)] * 2
    assert {opened(bobs, id, text) for id, text in sealed.items()} == {"Ada"}


def test_a_removed_member_is_locked_out_and_the_keys_are_new(
    vault: Vault, keys: Path, sealed: dict[str, str], bob: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (keys / "keyring.age").read_bytes(), (keys / "subjects.bin").read_bytes()
    vault.audit.append(actor="ann", action="reveal", entity="customer", record="r", subject="s")
    with monkeypatch.context() as his:
        his.setenv("CRMKIT_IDENTITY", str(bob))
        his.setenv("CRMKIT_CONFIG", str(keys.parent / "bobs"))
        bobs = Vault.unlock(keys)
        vault.remove_member("bob")
        with pytest.raises(Locked, match="you are not a member"):
            Vault.unlock(keys)
        with pytest.raises(Locked, match="you are not a member"):
            bobs.refresh()
    again = Vault.unlock(keys)
    assert {opened(again, id, text) for id, text in sealed.items()} == {"Ada"}
    assert (statuses(again, "wrap"), statuses(again, "bidx")) == (["destroyed", "primary"], ["active", "primary"])
    assert statuses(again, "audit") == ["active", "primary"], "old audit keys verify the old lines"
    assert again.audit.verify() == []
    assert sum(again.wrapped_by().values()) == SUBJECTS
    old = json.loads(pyrage.decrypt(kept[0], [bob]))
    taken = {key["id"] for key in old["keys"] if key["purpose"] == "wrap"}
    assert not taken & set(again.wrapped_by()), "what bob knows unwraps no key that is there now"


def test_who_can_be_no_member(vault: Vault, bob: Identity) -> None:
    me, mine = vault.members()[0].name, vault.public_key
    new = str(Identity.generate().to_public())
    for name, public_key, problem in (
        ("eve", "age1abc", "public_key: must be a whole age public key, which begins with age1"),
        ("eve", str(Identity.generate()), "public_key: must be a whole age public key, which begins with age1"),
        ("eve", None, "public_key: must be a whole age public key"),
        ("eve", mine, "public_key: is a member's already"),
        ("bob", new, "name: somebody is called so already"),
        ("  ", new, "name: must be text, and not blank"),
        ("a\nb", new, "name: must be text, and not blank"),
    ):
        with pytest.raises(Invalid, match=problem) as caught:
            vault.add_member(name, public_key)
        assert "AGE-SECRET" not in str(caught.value)
    with pytest.raises(Invalid, match=f"name: nobody is called so; the members are {me}, bob"):
        vault.remove_member("eve")
    vault.remove_member("bob")
    vault.add_member("drawer", new, "recovery")
    with pytest.raises(Invalid, match="name: is the last member; add another one first"):
        vault.remove_member(me)
    with pytest.raises(Invalid, match="name: is the recovery key, which a new one replaces"):
        vault.remove_member("drawer")


def test_a_new_recovery_key_replaces_the_former_one(vault: Vault, keys: Path, sealed: dict[str, str]) -> None:
    first, second = Identity.generate(), Identity.generate()
    vault.replace_recovery_key("recovery", str(first.to_public()))
    assert statuses(vault, "wrap") == ["primary"], "nobody lost anything yet"
    vault.replace_recovery_key("recovery", str(second.to_public()))
    assert [member.kind for member in vault.members()] == ["member", "recovery"]
    assert pyrage.decrypt((keys / "keyring.age").read_bytes(), [second])
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt((keys / "keyring.age").read_bytes(), [first])
    assert statuses(vault, "wrap") == ["destroyed", "primary"]
    assert {opened(vault, id, text) for id, text in sealed.items()} == {"Ada"}


# ------------------------------------------------------------------------------------------------------- rotation


def test_a_rotation_leaves_nothing_under_the_old_key(vault: Vault, keys: Path, sealed: dict[str, str]) -> None:
    old, before = vault.wrapped_by(), (keys / "subjects.bin").read_bytes()
    other = Vault.unlock(keys)
    vault.rotate_wrap()
    assert not old.keys() & vault.wrapped_by().keys()
    assert sum(vault.wrapped_by().values()) == sum(old.values()) == SUBJECTS
    assert statuses(vault, "wrap") == ["destroyed", "primary"]
    assert not vault.unfinished
    after = (keys / "subjects.bin").read_bytes()
    assert len(after) == SUBJECTS * RECORD_LENGTH
    assert {after[at : at + 16] for at in range(0, len(after), RECORD_LENGTH)} == {
        before[at : at + 16] for at in range(RECORD_LENGTH, len(before), RECORD_LENGTH)
    }
    for each in (vault, other, Vault.unlock(keys)):
        assert {opened(each, id, text) for id, text in sealed.items()} == {"Ada"}


def test_a_destroyed_key_stays_destroyed(vault: Vault, keys: Path, sealed: dict[str, str]) -> None:
    path = keys / "keyring.age"
    vault.rotate_wrap()
    payload = json.loads(pyrage.decrypt(path.read_bytes(), [load_identity()]))
    [gone] = [key for key in payload["keys"] if key["status"] == "destroyed"]
    assert gone["bytes"] == ""
    gone.update(status="active", bytes="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    payload["epoch"] += 1
    path.write_bytes(pyrage.encrypt(json.dumps(payload).encode(), [load_identity().to_public()]))
    with pytest.raises(Damaged, match="is not the one that you opened before"):
        Vault.unlock(keys)


def test_an_audit_key_is_never_destroyed(vault: Vault, keys: Path) -> None:
    path = keys / "keyring.age"
    payload = json.loads(pyrage.decrypt(path.read_bytes(), [load_identity()]))
    for key in payload["keys"]:
        if key["purpose"] == "audit":
            key.update(status="destroyed", bytes="")
    path.write_bytes(pyrage.encrypt(json.dumps(payload).encode(), [load_identity().to_public()]))
    with pytest.raises(Damaged, match="lacks audit key"):
        Vault.unlock(keys)


def test_tags_of_two_index_keys_are_found_until_the_old_one_is_retired(vault: Vault, keys: Path) -> None:
    old = vault.blind_tag("customer", "iban", "x")
    other = Vault.unlock(keys)
    vault.rotate_index()
    other.refresh()
    for each in (vault, other):
        assert each.blind_tag("customer", "iban", "x") != old
        assert len(each.blind_tags("customer", "iban", "x")) == 2
        assert old in each.blind_tags("customer", "iban", "x")
    vault.retire_index()
    assert vault.blind_tags("customer", "iban", "x") == [vault.blind_tag("customer", "iban", "x")]


def test_generations(vault: Vault, keys: Path, sealed: dict[str, str], new_id: Callable[[], str]) -> None:
    ada, bob, *_ = sealed
    other = Vault.unlock(keys)
    assert vault.new_generation() == 2
    newer = {id: seal(vault, id, "newer") for id in sealed}
    assert {opened(other, id, newer[id]) for id in sealed} == {"newer"}
    late = new_id()
    vault.ensure_subjects([late])
    assert vault.newest_generation(late) == 2, "what is new needs no rotation"
    assert {opened(vault, id, text) for id, text in sealed.items()} == {"Ada"}
    assert vault.drop_generations(2, keep={(ada, 1)}) == SUBJECTS - 1
    assert opened(vault, ada, sealed[ada]) == "Ada"
    with pytest.raises(Erased, match=r"data key 1 of .* was destroyed when a newer one took its place"):
        opened(vault, bob, sealed[bob])
    assert vault.drop_generations(9) == 1, "the newest key of a subject stays"
    assert {opened(Vault.unlock(keys), id, newer[id]) for id in sealed} == {"newer"}


def test_a_destroyed_subject_gets_dark_in_every_process(vault: Vault, keys: Path, sealed: dict[str, str]) -> None:
    ada, bob, *_ = sealed
    vault.new_generation([ada])
    other, raw = Vault.unlock(keys), (keys / "subjects.bin").read_bytes()
    vault.destroy([ada])
    other.refresh()
    for each in (vault, other, Vault.unlock(keys)):
        assert opened(each, bob, sealed[bob]) == "Ada"
        with pytest.raises(Damaged):
            opened(each, ada, sealed[ada])
        with pytest.raises(NotFound):
            seal(each, ada)
    assert raw.count(raw[RECORD_LENGTH : RECORD_LENGTH + 16]) == 2, "two generations of ada"
    assert raw[RECORD_LENGTH : RECORD_LENGTH + 16] not in (keys / "subjects.bin").read_bytes()


def test_nobody_appends_where_the_old_file_ended(
    vault: Vault, keys: Path, sealed: dict[str, str], new_id: Callable[[], str]
) -> None:
    ada, *others = sealed
    other, late = Vault.unlock(keys), new_id()
    vault.destroy([ada])
    other.ensure_subjects([late])
    kept = seal(other, late)
    assert opened(Vault.unlock(keys), late, kept) == "Ada"
    assert {opened(vault, id, sealed[id]) for id in others} == {"Ada"}


def test_control_without_looking_whether_the_file_is_the_same(
    vault: Vault, keys: Path, sealed: dict[str, str], new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SubjectKeys, "_goes_on_in", lambda self, file: True)
    other, late = Vault.unlock(keys), new_id()
    vault.destroy(list(sealed)[:3])
    other.ensure_subjects([late])
    with pytest.raises(Damaged):
        opened(Vault.unlock(keys), late, seal(other, late))


def test_the_seal_level(keys: Path, new_id: Callable[[], str]) -> None:
    vault = Vault.create(keys, new_id())
    assert (vault.seal_level, vault.may_be_plain) == ("personal", False)
    vault.set_seal_level("sensitive")
    vault.set_seal_level("personal")
    again = Vault.unlock(keys)
    assert (again.seal_level, again.may_be_plain) == ("personal", True), "older files may hold what was not sealed"
    for level in ("plain", "none", ""):
        with pytest.raises(Invalid, match="seal: must be one of personal, sensitive"):
            vault.set_seal_level(level)
        with pytest.raises(Invalid, match="seal: must be one of personal, sensitive"):
            Vault.create(keys.with_name("other"), new_id(), seal=level)
    plain = Vault.create(keys.with_name("third"), new_id(), seal="sensitive")
    assert (plain.seal_level, plain.may_be_plain) == ("sensitive", True)


@pytest.mark.proof
def test_many_keys_are_wrapped_anew_in_time(
    vault: Vault, new_id: Callable[[], str], scale: Scale, record_property: Any
) -> None:
    count = min(scale(5_000), 100_000)
    vault.ensure_subjects([new_id() for _ in range(count)])
    started = time.perf_counter()
    vault.rotate_wrap()
    record_property("microseconds_a_key", round((time.perf_counter() - started) / count * 1e6, 1))
    assert sum(vault.wrapped_by().values()) == count


# ------------------------------------------------------------------------------------------------------- cut short


class Case:
    """Something that changes keys, and how it should be afterwards."""

    def __init__(self, name: str, act: Callable[[Vault, list[str]], object], done: Callable[[Vault], bool]) -> None:
        self.name, self.act, self.done = name, act, done

    def __repr__(self) -> str:
        return self.name


def _is_rotated(vault: Vault) -> bool:
    [primary] = [key.id for key in vault.keys if key.purpose == "wrap" and not key.is_destroyed]
    return set(vault.wrapped_by()) == {primary} and len(statuses(vault, "wrap")) > 1


def _remove(vault: Vault, ids: list[str]) -> None:
    with suppress(Invalid):  # who is gone cannot be removed
        vault.remove_member("bob")


CASES = [
    Case("rotate_wrap", lambda vault, ids: vault.rotate_wrap(), _is_rotated),
    Case(
        "remove_member",
        _remove,
        lambda vault: _is_rotated(vault) and len(vault.members()) == 1,
    ),
    Case("destroy", lambda vault, ids: vault.destroy(ids[:1]), lambda vault: len(vault.subjects()) == SUBJECTS - 1),
    Case(
        "drop_generations",
        lambda vault, ids: vault.drop_generations(2),
        lambda vault: sum(vault.wrapped_by().values()) == SUBJECTS,
    ),
    Case(
        "new_generation",
        lambda vault, ids: vault.new_generation(),
        lambda vault: min(map(vault.newest_generation, vault.subjects())) > 2,
    ),
    Case(
        "secret",
        lambda vault, ids: vault.secret_settings.set("mail", "password", "pw"),
        lambda vault: vault.secret_settings.get("mail", "password") == "pw",
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=repr)


@pytest.fixture
def stage(vault: Vault, keys: Path, config: Path, bob: Identity, sealed: dict[str, str], tmp_path: Path) -> Path:
    """A folder with keys and config to be copied: two members, five subjects, two generations."""
    vault.new_generation()
    prepared = tmp_path / "prepared"
    shutil.copytree(keys, prepared / "keys")
    shutil.copytree(config, prepared / "config")
    return prepared


def cut_short(
    case: Case, stage: Path, sealed: dict[str, str], kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Let the process end, or a call fail, at every call; yield what is wrong afterwards, or nothing."""
    root, ids = stage.with_name("root"), list(sealed)
    number, total = 0, 1
    for kind in kinds:
        for number in range(1000):
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(stage, root)
            monkeypatch.setenv("CRMKIT_CONFIG", str(root / "config"))
            vault, disk = Vault.unlock(root / "keys"), Disk(root)
            error: Exception | None = None
            with disk.watching(Fault(number, kind, errno.EIO)):
                try:
                    case.act(vault, ids)
                except Exception as raised:
                    error = raised
            total = len(disk.calls)
            where = f"{kind} {disk.calls[min(number, total - 1)]} {number}"
            if error is not None and not isinstance(error, CrmError | OSError):
                yield f"{where}: raised {error!r}"
            elif number >= total:
                break
            else:
                problem = _problem(case, vault if kind == "error" else None, root, sealed)
                yield f"{where}: {problem}" if problem else ""
        assert number, "nothing was cut short"


def _problem(case: Case, alive: Vault | None, root: Path, sealed: dict[str, str]) -> str:
    """Look at what is left, do it again, and look again."""
    ids = list(sealed)
    try:
        for vault in ([alive] if alive else []) + [Vault.unlock(root / "keys")]:
            vault.refresh()
            for id in ids[1:]:
                seal(vault, id)
                if case.name != "drop_generations" and opened(vault, id, sealed[id]) != "Ada":
                    return "opens something else"
        case.act(vault, ids)
        again = Vault.unlock(root / "keys")
        if not case.done(again) or again.unfinished:
            return "is not done although it was done again"
        for id in ids[1:]:
            seal(again, id)
    except (CrmError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what the end of a process leaves
@pytest.mark.proof
@each_case
def test_it_may_be_cut_short_anywhere(
    case: Case, stage: Path, sealed: dict[str, str], monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    found = list(cut_short(case, stage, sealed, ("before", "within", "error"), monkeypatch))
    record_property("points", len(found))
    assert [problem for problem in found if problem] == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_control_the_old_key_is_destroyed_first(
    stage: Path, sealed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong_way_round(self: Upkeep) -> None:
        self._keyring.replace(self._keyring.current.without_active("wrap"))
        self._subjects.rewrap()

    monkeypatch.setattr(Upkeep, "finish", wrong_way_round)
    assert any(cut_short(CASES[0], stage, sealed, ("before",), monkeypatch))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_control_keys_written_in_place(stage: Path, sealed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crmkit.vault.subjects.replace_file", lambda path, data: path.write_bytes(data))
    assert any(cut_short(CASES[2], stage, sealed, ("within", "before"), monkeypatch))


# ------------------------------------------------------------------------------------------------------- processes

WORKER = """
import fcntl, sys
from pathlib import Path
from ulid import ULID
from crmkit.vault import Vault
from crmkit.vault.upkeep import Upkeep

folder, kind = Path(sys.argv[1]), sys.argv[2]
vault = Vault.unlock(folder)
known = str(ULID())
vault.ensure_subjects([known])
if kind == "naive":
    for part in (vault._keyring, vault._subjects, vault._erasures):
        part.refresh = lambda: False
print("ready", flush=True)
with (folder / "lock").open("w") as lock:
    while not (folder / "stop").exists():
        id = str(ULID())
        fcntl.flock(lock, fcntl.LOCK_EX)
        vault.refresh()
        vault.ensure_subjects([id])
        print(*(f"{each} {vault.seal('customer', 'name', each, each, 'Ada')}" for each in (id, known)), sep="\\n")
        fcntl.flock(lock, fcntl.LOCK_UN)
"""


def lost_while_keys_change(vault: Vault, keys: Path, rounds: int, kind: str) -> int:
    """Let another process go on sealing while this one changes keys; return how much does not open afterwards."""
    import fcntl

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", WORKER, str(keys), kind]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        answers: list[str] = []
        with (keys / "lock").open("w") as lock:
            for round in range(rounds):
                fcntl.flock(lock, fcntl.LOCK_EX)
                if round % 3 == 0:
                    vault.rotate_wrap()
                elif round % 3 == 1:
                    vault.add_member("eve", str(Identity.generate().to_public()))
                else:
                    vault.remove_member("eve")
                fcntl.flock(lock, fcntl.LOCK_UN)
                answers += [worker.stdout.readline() for _ in range(2)]
        (keys / "stop").touch()
        answers += worker.stdout.read().splitlines()  # not communicate(): that passes over what readline() has buffered
    except CrmError:  # what the other one wrote is in the way
        return 1
    finally:
        worker.kill()
        worker.wait()
        if worker.stdout:
            worker.stdout.close()
    again, lost = Vault.unlock(keys), 0
    for id, text in (answer.split() for answer in answers if answer.strip()):
        try:
            opened(again, id, text)
        except CrmError:
            lost += 1
    assert len(answers) > rounds
    return lost + (worker.returncode != 0)


@pytest.mark.proof
def test_who_writes_meanwhile_loses_nothing(vault: Vault, keys: Path, scale: Scale) -> None:
    assert lost_while_keys_change(vault, keys, scale(12), "sound") == 0


def test_control_who_does_not_look_loses(vault: Vault, keys: Path) -> None:
    assert lost_while_keys_change(vault, keys, 12, "naive") > 0


def test_a_closed_vault_does_nothing(vault: Vault, keys: Path) -> None:
    ring = vault._keyring
    assert isinstance(ring, KeyringFile)
    vault.close()
    for use in (vault.refresh, vault.members, vault.rotate_wrap, vault.finish, lambda: vault.erasures):
        with pytest.raises(Locked, match="the vault is closed"):
            use()
    with pytest.raises(Locked, match="the vault is closed"):
        ring.find("wrap", 99)
