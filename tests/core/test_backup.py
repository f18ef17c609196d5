"""Backups: two files that make the workspace again as it was at one commit, and refuse to be anything else."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest

import crmkit
from crmkit import CRM, CrmError, Damaged, Invalid, Locked, NotFound, Refused
from crmkit.safekeeping import backup as module
from crmkit.safekeeping.backup import DATA, KEYS, Backup, accept_restored, restore_backup
from crmkit.store import PlainCodec, TinyStore
from crmkit.vault import Vault
from crmkit.vault.identity import load_identity

ROOT = Path(__file__).parents[2]
SCALE = float(os.environ.get("CRMKIT_TEST_SCALE", "1"))
IBAN = "GB33BUKB20201555555555"


@pytest.fixture
def ada(crm: CRM) -> str:
    """A customer with a file, in a workspace with a note and a plugin."""
    (crm.workspace.files / "contracts").mkdir()
    (crm.workspace.files / "contracts" / "ä b.txt").write_text("signed")
    (crm.workspace.files / "empty").write_bytes(b"")
    (crm.workspace.notebooks / "mine.ipynb").write_text("{}")
    (crm.workspace.plugins / "own.py").write_text('"""Nothing."""\n')
    return crm.customers.add(name="Ada Lovelace", city="London", iban=IBAN).id


@pytest.fixture
def saved(crm: CRM, ada: str, tmp_path: Path) -> Backup:
    return crm.backup(tmp_path / "backups")


def _opened(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(pyrage.decrypt(path.read_bytes(), [load_identity()])))


def _sealed(path: Path, files: dict[str, bytes]) -> None:
    """Write a file of a backup as somebody could who knows the public keys."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        for name, data in files.items():
            content.writestr(name, data)
    path.write_bytes(pyrage.encrypt(archive.getvalue(), [load_identity().to_public()]))


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --------------------------------------------------------------------------- there and back


def test_a_restored_workspace_is_what_it_was(crm: CRM, ada: str, saved: Backup, tmp_path: Path) -> None:
    crm.customers.add(name="Bob")
    with crmkit.restore(tmp_path / "backups", tmp_path / "again") as again:
        assert again.verify() == []
        assert again.seq() == saved.seq
        assert [each.name for each in again.customers] == ["Ada Lovelace"]
        assert again.reveal(again.customers[ada], "iban", reason="test").value == IBAN
        assert again.history(ada).records == [
            entry for entry in crm.history(ada).records if entry.commit
        ]  # the same commits
    old, new = _tree(crm.workspace.folder), _tree(tmp_path / "again")
    assert {name for name in old if not name.startswith("data/")} <= new.keys()
    for name in ("crmkit.toml", "files/contracts/ä b.txt", "files/empty", "notebooks/mine.ipynb", "plugins/own.py"):
        assert new[name] == old[name]
    assert not {name for name in new if name.startswith((".", "data.", "keys."))}


def test_modes_are_those_of_a_new_workspace(saved: Backup, tmp_path: Path) -> None:
    crmkit.restore(saved.data, tmp_path / "again").close()
    for path in (tmp_path / "again").rglob("*"):
        assert oct(path.stat().st_mode & 0o7777) == ("0o2770" if path.is_dir() else "0o660"), path


def test_the_newest_backup_of_a_folder_is_taken_or_the_one_that_is_named(
    crm: CRM, saved: Backup, tmp_path: Path
) -> None:
    crm.customers.add(name="Bob")
    second = crm.backup(tmp_path / "backups")
    assert second.keys == saved.keys
    assert second.data != saved.data
    with crmkit.restore(tmp_path / "backups", tmp_path / "newest") as newest:
        assert len(newest.customers) == 2
    with crmkit.restore(saved.data, tmp_path / "first") as first:  # the file of keys opens the older ones too
        assert len(first.customers) == 1
    (tmp_path / "elsewhere").mkdir()
    moved = saved.keys.rename(tmp_path / "elsewhere" / "the keys")
    with crmkit.restore(saved.data, tmp_path / "third", keys=moved) as third:
        assert len(third.customers) == 1


def test_the_data_is_dark_without_the_keys(crm: CRM, ada: str, saved: Backup) -> None:
    names = _opened(saved.data).namelist()
    assert not [name for name in names if name.startswith("keys/")]
    assert sorted(_opened(saved.keys).namelist()) == [
        "keys.json", "keys.sha256", "keys/audit.jsonl", "keys/erasures.jsonl", "keys/keyring.age", "keys/subjects.bin",
    ]  # fmt: skip
    everything = b"".join(_opened(saved.data).read(name) for name in names)
    assert b"Lovelace" not in everything
    assert IBAN.encode() not in everything
    for path in (saved.data, saved.keys):
        assert path.read_bytes().startswith(b"age-encryption.org/v1\n")
        assert b"London" not in path.read_bytes()


def test_links_and_what_is_no_file_are_named_and_left_out(crm: CRM, ada: str, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("somebody else's")
    (crm.workspace.files / "link").symlink_to(tmp_path / "outside.txt")
    (crm.workspace.files / "folder").symlink_to(tmp_path)
    os.mkfifo(crm.workspace.files / "pipe")
    (crm.workspace.files / "two\nlines").write_text("")
    saved = crm.backup(tmp_path / "backups")
    assert saved.left_out == ("files/folder", "files/link", "files/pipe", "files/two\\nlines")
    assert b"somebody else" not in b"".join(_opened(saved.data).read(name) for name in _opened(saved.data).namelist())


def test_compacted_stores_are_saved_whole(crm: CRM, ada: str, tmp_path: Path) -> None:
    for number in range(3):
        crm.customers.update(ada, city=f"city {number}")
        assert crm._store.compact()
    saved = crm.backup(tmp_path / "backups")
    names = [name for name in _opened(saved.data).namelist() if name.startswith("data/")]
    assert sorted(names) == [
        "data/CURRENT", "data/LOCK",
        "data/log.1.jsonl", "data/log.2.jsonl", "data/log.3.jsonl", "data/snap.4.jsonl", "data/wal.4.jsonl",
    ]  # fmt: skip
    assert _opened(saved.data).read("data/LOCK") == b""  # what writers note in it holds for their files only
    with crmkit.restore(saved.data, tmp_path / "again") as again:
        assert again.customers[ada].city == "city 2"
        assert len(list(again._store.commits())) == len(list(crm._store.commits())) == 4


def test_equal_archives_have_equal_bytes(crm: CRM, saved: Backup, tmp_path: Path) -> None:
    def made(name: str) -> bytes:
        return pyrage.decrypt(crm.backup(tmp_path / name).data.read_bytes(), [load_identity()])

    class Always(module.datetime):  # type: ignore[name-defined, misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2026, 11, 22, tzinfo=tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "datetime", Always)
        head = crm._vault.audit.head()  # the log has a line for each backup
        patch.setattr(type(crm._vault.audit), "head", lambda self: head)
        assert made("one") == made("two")


def test_progress_is_told(crm: CRM, ada: str, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    crm.backup(tmp_path / "backups", progress=lambda step, part: told.append((step, part)))
    assert told[-1] == ("saving", 1.0)
    crmkit.restore(tmp_path / "backups", tmp_path / "again", progress=lambda *step: told.append(step)).close()
    assert [part for step, part in told if step == "restoring"] == [0.1, 0.7, 0.9]


# --------------------------------------------------------------------------- pins of the user


def test_a_restore_of_an_older_state_locks_nobody_out(crm: CRM, ada: str, saved: Backup, tmp_path: Path) -> None:
    """The user saw lines of the audit log that the backup does not have; both workspaces go on."""
    crm.reveal(crm.customers[ada], "iban", reason="after the backup")
    with crmkit.restore(saved.data, tmp_path / "again") as again:
        again.reveal(again.customers[ada], "iban", reason="in the copy")
        entries = list(again._vault.audit.entries())
        assert [entry["action"] for entry in entries] == ["backup", "restore", "reveal"]
        assert again.verify() == []
    for _ in range(2):
        crm.reveal(crm.customers[ada], "iban", reason="in the original")
        with crmkit.open(tmp_path / "again") as again:
            again.reveal(again.customers[ada], "iban", reason="in the copy")
            assert again.verify() == crm.verify() == []


def test_a_restore_does_not_lock_out_of_an_original_without_an_audit_log(
    crm: CRM, ada: str, saved: Backup, tmp_path: Path
) -> None:
    with crmkit.restore(saved.data, tmp_path / "again") as again:
        again.reveal(again.customers[ada], "iban", reason="in the copy")
    crm.reveal(crm.customers[ada], "iban", reason="in the original")
    assert crm.verify() == []


def test_the_original_stays_guarded_as_it_was(crm: CRM, ada: str, saved: Backup, tmp_path: Path) -> None:
    """A restore elsewhere must not let somebody cut the log of the original."""
    log = crm.workspace.keys / "audit.jsonl"
    for _ in range(3):
        crm.reveal(crm.customers[ada], "iban", reason="test")
    crmkit.restore(saved.data, tmp_path / "again").close()
    whole = log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert "it was cut, or an older copy was put back" in crm.verify()[0] or "is not the one" in crm.verify()[0]
    log.write_bytes(whole)
    assert crm.verify() == []


def test_another_user_accepts_what_was_restored(
    crm: CRM, ada: str, saved: Backup, tmp_path: Path, own_identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRMKIT_IDENTITY", str(own_identity / "identity.txt"))
    monkeypatch.setenv("CRMKIT_CONFIG", str(tmp_path / "config of bob"))
    for _ in range(2):
        crm.reveal(crm.customers[ada], "iban", reason="test")
    with crmkit.open(crm.workspace.folder) as bobs:
        assert bobs.verify() == []
    monkeypatch.setenv("CRMKIT_CONFIG", str(own_identity))
    crmkit.restore(saved.data, tmp_path / "again").close()
    monkeypatch.setenv("CRMKIT_CONFIG", str(tmp_path / "config of bob"))
    with crmkit.open(tmp_path / "again") as bobs:
        with pytest.raises(Damaged, match="crmkit doctor --accept-restored"):
            bobs.reveal(bobs.customers[ada], "iban", reason="test")
        accepted = accept_restored(bobs.workspace, "bob")
        assert accepted == "accepted as it is; the audit log ends at line 2, 3 were seen"
        assert [entry["action"] for entry in bobs._vault.audit.entries()] == ["backup", "restore", "accept"]
        assert accept_restored(bobs.workspace, "bob") == ""  # there is nothing more to accept
        assert bobs.reveal(bobs.customers[ada], "iban", reason="test").value == IBAN
    with crmkit.open(crm.workspace.folder) as bobs:
        assert bobs.verify() == []


def test_a_log_that_was_forged_is_not_accepted(crm: CRM, ada: str) -> None:
    crm.reveal(crm.customers[ada], "iban", reason="test")
    log = crm.workspace.keys / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"reveal"', b'"nothing"'))
    with pytest.raises(Damaged, match="line 1 was changed"):
        accept_restored(crm.workspace, "ann")


def test_a_log_that_was_emptied_is_not_accepted_without_a_trace(crm: CRM, ada: str) -> None:
    for _ in range(3):
        crm.reveal(crm.customers[ada], "iban", reason="test")
    (crm.workspace.keys / "audit.jsonl").write_bytes(b"")
    noted = "accepted as it is; the audit log ends at line 0, 3 were seen"
    assert accept_restored(crm.workspace, "eve") == noted
    with crmkit.open(crm.workspace.folder) as again:
        [entry] = again._vault.audit.entries()
        id = again._vault.workspace_id
        assert (entry["actor"], entry["action"]) == ("eve", "accept")
        assert again._vault.open("audit", "reason", id, id, entry["reason"]) == noted


# --------------------------------------------------------------------------- refusals


def test_nothing_is_written_over_anything(crm: CRM, saved: Backup, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    for place in (crm.workspace.folder, tmp_path / "a file", tmp_path / "backups"):
        before = _tree(tmp_path)
        with pytest.raises(Invalid, match="exists already; name a new folder"):
            crmkit.restore(saved.data, place)
        assert _tree(tmp_path) == before
    (tmp_path / "an empty one").mkdir()
    crmkit.restore(saved.data, tmp_path / "an empty one").close()


@pytest.mark.parametrize("place", ["acme/files/backups", "acme"])
def test_a_backup_into_the_workspace_is_refused(crm: CRM, tmp_path: Path, place: str) -> None:
    with pytest.raises(Invalid, match="lies in the workspace"):
        crm.backup(tmp_path / place)


def test_a_backup_onto_a_file_or_beside_another_workspaces_is_refused(crm: CRM, saved: Backup, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(Invalid, match="is a file; name a folder"):
        crm.backup(tmp_path / "a file")
    with crmkit.create(tmp_path / "other" / "acme") as other, pytest.raises(Refused, match="keys of another workspace"):
        other.backup(tmp_path / "backups")
    assert _opened(saved.keys)


def test_what_is_not_there(tmp_path: Path, saved: Backup) -> None:
    for path in (tmp_path / "nowhere", tmp_path / "nowhere" / saved.data.name):
        with pytest.raises(NotFound, match="there is no backup"):
            crmkit.restore(path, tmp_path / "again")
    with pytest.raises(NotFound, match="holds no backup"):
        crmkit.restore(tmp_path / "config", tmp_path / "again")
    shutil.copy(saved.keys, saved.keys.with_name(f"other{KEYS}"))
    with pytest.raises(NotFound, match=r"holds the backups of several workspaces \(acme.keys.zip.age, other.keys"):
        crmkit.restore(tmp_path / "backups", tmp_path / "again")
    saved.keys.unlink()
    with pytest.raises(NotFound, match=f"there is no backup {re.escape(str(saved.keys))}"):
        crmkit.restore(saved.data, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_file_of_keys_is_not_what_is_restored(saved: Backup, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"is the file of keys; name the data file, \*\.data\.zip\.age"):
        crmkit.restore(saved.keys, tmp_path / "again")


def test_messages_name_what_was_to_be_made(saved: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the hidden name that it has until it is complete."""

    def failing(vault: Vault, *rest: Any) -> str:
        raise Damaged(f"{vault.files[0]} is bad")

    monkeypatch.setattr(Vault, "begin_branch", failing)
    with pytest.raises(Damaged) as caught:
        crmkit.restore(saved.data, tmp_path / "again")
    assert str(caught.value) == f"{tmp_path / 'again' / 'keys' / 'keyring.age'} is bad"


def test_mixed_and_swapped_files_are_refused(crm: CRM, saved: Backup, tmp_path: Path) -> None:
    def refused(data: Path, keys: Path, words: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(Damaged, match=words):
            crmkit.restore(data, tmp_path / "again", keys=keys)
        assert sorted(tmp_path.rglob("*")) == before

    old_keys = Path(shutil.copy(saved.keys, tmp_path / "old.keys"))
    crm.customers.add(name="Bob")
    second = crm.backup(tmp_path / "backups")
    refused(second.data, old_keys, "does not open acme.*was saved for 1 other backup")
    refused(saved.keys, saved.data, "does not hold the keys of a backup|no archive")
    with crmkit.create(tmp_path / "other") as other:
        others = other.backup(tmp_path / "backups of the other")
    refused(saved.data, others.keys, "does not open acme")
    renamed = Path(shutil.copy(second.data, tmp_path / saved.data.name))
    crmkit.restore(renamed, tmp_path / "renamed", keys=saved.keys).close()  # a name says nothing


def test_somebody_else_cannot_restore(saved: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRMKIT_CONFIG", str(tmp_path / "config of eve"))
    with pytest.raises(Locked, match="you have no identity"):
        crmkit.restore(saved.data, tmp_path / "again")
    crmkit.create(tmp_path / "eves").close()
    with pytest.raises(Locked, match="is not sealed for your identity"):
        crmkit.restore(saved.data, tmp_path / "again")


@pytest.mark.proof
def test_every_changed_byte_is_found_and_nothing_is_left_behind(saved: Backup, tmp_path: Path) -> None:
    for path in (saved.data, saved.keys):
        whole = path.read_bytes()
        step = max(1, int(len(whole) / (40 * SCALE)))
        for at in range(0, len(whole), step):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(CrmError):
                crmkit.restore(saved.data, tmp_path / "again")
            assert not [each for each in tmp_path.iterdir() if "again" in each.name]
        for end in range(0, len(whole), step * 4):
            path.write_bytes(whole[:end])
            with pytest.raises(CrmError):
                crmkit.restore(saved.data, tmp_path / "again")
        path.write_bytes(whole)
    crmkit.restore(saved.data, tmp_path / "again").close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.update({"data/wal.1.jsonl": b""}), "is not as it was when the backup was made"),
        (lambda files: files.pop("crmkit.toml"), "files are missing, or were added"),
        (lambda files: files.update({"plugins/evil.py": b"x"}), "files are missing, or were added"),
        (lambda files: files.pop("data.sha256"), "no archive as crmkit makes it"),
        (lambda files: _add(files, "../evil.py"), "is no name of a file of a workspace"),
        (lambda files: _add(files, "/tmp/evil.py"), "is no name of a file of a workspace"),
        (lambda files: _add(files, "files/../../evil"), "is no name of a file of a workspace"),
    ],
)
def test_archives_of_another_make_are_refused(
    saved: Backup, tmp_path: Path, change: Callable[[dict[str, bytes]], object], words: str
) -> None:
    with _opened(saved.data) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    _sealed(saved.data, files)
    with _opened(saved.keys) as archive:
        keys = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(keys["keys.json"])
    about["opens"][0]["sha256"] = hashlib.sha256(saved.data.read_bytes()).hexdigest()
    keys["keys.json"] = json.dumps(about).encode()
    keys["keys.sha256"] = _sums({name: data for name, data in keys.items() if name != "keys.sha256"})
    _sealed(saved.keys, keys)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Damaged, match=words):
        crmkit.restore(saved.data, tmp_path / "again")
    assert sorted(tmp_path.rglob("*")) == before


def _add(files: dict[str, bytes], name: str) -> None:
    sums = files.pop("data.sha256")
    files[name] = b"x"
    files["data.sha256"] = sums + f"{hashlib.sha256(b'x').hexdigest()}  {name}\n".encode()


def _sums(files: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()).encode()


# --------------------------------------------------------------------------- damage, and systems that cannot write


def test_damage_is_not_saved_over_what_is_sound(crm: CRM, ada: str, saved: Backup, tmp_path: Path) -> None:
    before = _tree(tmp_path / "backups")
    wal, log = crm.workspace.data / "wal.1.jsonl", crm.workspace.keys / "audit.jsonl"
    whole = wal.read_bytes()
    crm.reveal(crm.customers[ada], "iban", reason="test")
    with log.open("r+b") as file:
        file.write(b"[")
    with pytest.raises(Damaged, match=r"nothing was saved: .*audit\.jsonl: line 1 was changed"):
        crm.backup(tmp_path / "backups")
    with log.open("r+b") as file:
        file.write(b"{")
    wal.write_bytes(whole.replace(b'"customers"', b'"customerz"'))
    with pytest.raises(Damaged, match=r"nothing was saved: .*wal\.1\.jsonl, line 2: damaged; run crmkit doctor"):
        crm.backup(tmp_path / "backups")
    assert _tree(tmp_path / "backups") == before


def test_what_an_unfinished_write_left_is_saved_and_told_of(crm: CRM, ada: str, tmp_path: Path) -> None:
    torn = b'12345678 [99,[["m",{}],["p","customers","c7'
    with (crm.workspace.data / "wal.1.jsonl").open("ab") as file:
        file.write(torn)
    saved = crm.backup(tmp_path / "backups")
    [warning] = saved.warnings
    assert "holds 43 bytes that an unfinished write left" in warning
    with crmkit.restore(saved.data, tmp_path / "again") as again:
        assert again.customers[ada].name == "Ada Lovelace"
        [kept] = again.workspace.data.glob("torn.*")
        assert kept.read_bytes() == torn


@pytest.mark.parametrize("call", ["open", "fsync", "rename", "replace", "mkdir"])
def test_a_failing_system_leaves_no_half_of_a_backup(
    crm: CRM, saved: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Each call fails at its first, second, third… use, until the backup and the restore go through."""
    calls = fails_at = 0
    real = getattr(os, call)

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    def until_it_goes_through(work: Callable[[], Any]) -> Any:
        nonlocal calls, fails_at
        for _ in range(200):
            calls, fails_at = 0, fails_at + 1
            try:
                return work()
            except CrmError as error:
                problems.add(str(error))
            calls = 1_000_000
            assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp" or "again" in path.name]
        return pytest.fail("it never went through")

    problems: set[str] = set()
    monkeypatch.setattr(os, call, failing)
    new = until_it_goes_through(lambda: crm.backup(tmp_path / "backups"))
    for data in (saved.data, new.data):
        fails_at = 0
        until_it_goes_through(lambda data=data: restore_backup(data, tmp_path / "again", "ann"))
        shutil.rmtree(tmp_path / "again")
    assert problems
    assert all("No space left on device" in problem for problem in problems), problems


def test_a_folder_that_cannot_be_written(crm: CRM, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(CrmError, match="Not a directory; nothing was made"):
        crm.backup(tmp_path / "a file" / "backups")


# --------------------------------------------------------------------------- while others write


WRITER = """
import sys
import crmkit
from crmkit.store import compaction
compaction.SMALLEST = 20_000
with crmkit.open(sys.argv[1]) as crm:
    print("ready", flush=True)
    for number in range(100_000):
        with crm.transaction():
            one = crm.customers.add(name=f"one {number} of {sys.argv[2]}", tags=["pair"])
            crm.customers.add(name=f"two {number} of {sys.argv[2]}", tags=["pair"], organisation=one)
"""


@pytest.fixture
def writers(crm: CRM) -> Iterator[None]:
    """Two processes that add customers in pairs, and compact often."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(crm.workspace.folder), name],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    yield
    for process in processes:
        process.kill()
        process.communicate()


def _state_at(crm: CRM, seq: int) -> set[str]:
    """Return the ids of the customers that the first commits made; nobody removes or changes one here."""
    return {step.id for commit in crm._store.commits() if commit.seq <= seq for step in commit.steps}


@pytest.mark.proof
def test_a_backup_while_others_write_is_the_state_at_one_commit(
    crm: CRM, writers: None, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    rounds = int(10 * SCALE) or 1
    for number in range(rounds):
        saved = crm.backup(tmp_path / "backups")
        with crmkit.restore(saved.data, tmp_path / f"again {number}") as again:
            assert again.verify() == []
            assert {customer.id for customer in again.customers} == _state_at(crm, saved.seq)
            assert len(again.customers) % 2 == 0  # no half of a transaction
            assert all(customer.name for customer in again.customers)  # there is a key for each
        shutil.rmtree(tmp_path / f"again {number}")
    assert crm._store.generation > 2  # it was compacted meanwhile
    record_property("backups", rounds)


def _meanwhile(crm: CRM) -> str:
    """Write as another process, until the files that there were are no longer there; return whom it added."""
    with crmkit.open(crm.workspace.folder) as other:
        bob = other.customers.add(name="Bob").id
        assert other._store.compact()
        assert other._store.compact()
        return bob


def test_writers_do_not_wait_for_the_copying(crm: CRM, ada: str, tmp_path: Path) -> None:
    """The lock is let go before the first byte is read: a commit in the middle goes through, and is not in it."""
    added: list[str] = []
    saved = crm.backup(tmp_path / "backups", progress=lambda step, part: added or added.append(_meanwhile(crm)))
    assert added[0] in crm.customers
    with crmkit.restore(saved.data, tmp_path / "again") as again:
        assert again.verify() == []
        assert [customer.id for customer in again.customers] == [ada]


def test_control_copying_one_file_after_the_other_is_inconsistent(crm: CRM, ada: str, tmp_path: Path) -> None:
    """What `cp -r` does: here the same happens after the first file."""
    (tmp_path / "copy").mkdir()
    for number, path in enumerate(sorted(crm.workspace.data.iterdir())):
        if path.exists():
            shutil.copy(path, tmp_path / "copy")
        if number == 0:
            _meanwhile(crm)
    with pytest.raises(Damaged):
        TinyStore(tmp_path / "copy", PlainCodec())


# --------------------------------------------------------------------------- by hand


def test_a_person_restores_with_stock_tools(
    crm: CRM, ada: str, saved: Backup, tmp_path: Path, own_identity: Path
) -> None:
    """Exactly the commands of docs/backup.md."""
    missing = [tool for tool in ("age", "unzip", "sha256sum") if shutil.which(tool) is None]
    if missing:
        assert not os.environ.get("CI"), f"missing in CI: {missing}"
        pytest.skip(f"not installed: {', '.join(missing)}")
    page = (ROOT / "docs" / "backup.md").read_text("utf-8")
    [commands] = re.findall(r"```sh\n# by hand\n(.*?)```", page, re.DOTALL)
    hand = tmp_path / "by hand"
    hand.mkdir()
    shutil.copy(saved.keys, hand / f"acme{KEYS}")
    shutil.copy(saved.data, hand / f"acme.20261122T053000Z{DATA}")
    shutil.copy(own_identity / "identity.txt", hand / "identity.txt")
    done = subprocess.run(["sh", "-euxc", commands], cwd=hand, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FAILED" not in done.stdout
    with crmkit.open(hand / "acme") as again:
        assert again.verify() == []
        assert again.reveal(again.customers[ada], "iban", reason="test").value == IBAN


def test_the_commands_of_the_page_are_those_of_crmkit() -> None:
    page = (ROOT / "docs" / "backup.md").read_text("utf-8")
    for line in re.findall(r"^crmkit .*$", page, re.MULTILINE):
        command = shlex.split(line, comments=True)
        done = subprocess.run(
            [sys.executable, "-m", *command[:2], "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, line
        for option in (word for word in command if word.startswith("--")):
            assert option in done.stdout, line


def test_the_vault_that_made_a_backup_is_still_usable(crm: CRM, ada: str, saved: Backup) -> None:
    assert Vault.unlock(crm.workspace.keys).workspace_id == crm._vault.workspace_id
    assert crm.customers.update(ada, city="Paris").city == "Paris"


# ------------------------------------------------------------------------------------------- erasing and copies


def test_erasing_in_a_copy_is_not_in_the_way_of_the_original(crm: CRM, ada: str, saved: Backup, tmp_path: Path) -> None:
    with crmkit.restore(saved.data, tmp_path / "copy") as copy:
        copy.erase(ada, reason="request 17")
    with crmkit.open(crm.workspace.folder) as again:
        assert again.customers[ada].name == "Ada Lovelace"
        assert again.verify() == []
    with crmkit.open(tmp_path / "copy") as copy:
        assert [each.subjects for each in copy.erasures()] == [(ada,)]
        assert copy.verify() == []


def test_erasing_in_a_plain_copy_of_the_folder_is_accepted_in_the_original(crm: CRM, ada: str, tmp_path: Path) -> None:
    shutil.copytree(crm.workspace.folder, tmp_path / "copy")
    with crmkit.open(tmp_path / "copy") as copy:
        copy.erase(ada, reason="request 17")
    crm.close()
    with pytest.raises(Damaged, match="crmkit doctor --accept-restored"):
        crmkit.open(crm.workspace.folder)
    assert accept_restored(crm.workspace, "ann").startswith("accepted as it is")
    with crmkit.open(crm.workspace.folder) as again:
        assert ada not in again.customers, "this user remembers the erasure"
        assert again.verify() == []
    assert accept_restored(crm.workspace, "ann") == ""


def test_a_ledger_alone_that_is_older_is_accepted(crm: CRM, ada: str) -> None:
    ledger = crm.workspace.keys / "erasures.jsonl"
    before, pins = ledger.read_bytes(), len(crm._vault._trust.heads("audit"))
    crm.erase(ada, reason="request 17")
    crm.close()
    ledger.write_bytes(before)
    with pytest.raises(Damaged, match="crmkit doctor --accept-restored"):
        crmkit.open(crm.workspace.folder)
    assert accept_restored(crm.workspace, "ann").startswith("accepted as it is")
    with crmkit.open(crm.workspace.folder) as again:
        assert again._vault.erasures.subjects == {ada}
        assert len(again._vault._trust.heads("audit")) == pins, "that log was as this user saw it"


def test_suppressed_addresses_stay_so_with_keys_of_an_earlier_day(crm: CRM, tmp_path: Path) -> None:
    for name in ("ada", "bob", "cid"):
        crm.customers.add(name=name, email=f"{name}@example.org")
    saved = crm.backup(tmp_path / "backups")
    old = shutil.copy(saved.keys, tmp_path / f"old{KEYS}")
    for each in list(crm.customers):
        crm.erase(each, reason="request 17")
    crm.allow_again("bob@example.org", reason="came back")
    with crmkit.restore(saved.data, tmp_path / "copy", keys=old) as copy:
        assert list(copy.customers) == []
        for name in ("ada", "cid"):
            with pytest.raises(Invalid, match="email"):
                copy.customers.add(name=name, email=f"{name}@example.org")
        copy.customers.add(name="bob", email="bob@example.org")
        copy.allow_again("cid@example.org", reason="came back")
    with crmkit.open(tmp_path / "copy") as again:
        again.customers.add(name="cid", email="cid@example.org")


# ------------------------------------------------------------------------------------------- what killed ones leave


def test_what_killed_backups_left_is_removed_and_nothing_else(crm: CRM, saved: Backup) -> None:
    stem, folder = saved.keys.name.removesuffix(KEYS), saved.keys.parent
    dead = [folder / f".{stem}{KEYS}.123.tmp", folder / f".{stem}.20261122T101500Z{DATA}.123.tmp"]
    living, others = folder / f".{stem}{KEYS}.124.tmp", folder / f".{stem}2{KEYS}.125.tmp"
    for path in (*dead, living, others):
        path.write_bytes(b"keys")
    unpacked = folder / ".crmkit-abc"
    (unpacked / "keys").mkdir(parents=True)
    with living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        crm.backup(folder)
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == {living.name, others.name}


def test_a_backup_that_is_being_made_is_not_taken_for_a_killed_one(
    crm: CRM, saved: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, folder = module._Sealed.keep, saved.keys.parent

    def beside_another(sealed: Any) -> None:
        module._sweep(folder, saved.keys.name.removesuffix(KEYS))
        keep(sealed)

    monkeypatch.setattr(module._Sealed, "keep", beside_another)
    assert crm.backup(folder).data.exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_further_backup_writes_no_keys_in_the_clear(crm: CRM, saved: Backup, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the keys were unpacked on disk")

    monkeypatch.setattr(module.tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", refused)
    monkeypatch.setattr(module, "unpack", refused)
    crm.backup(saved.keys.parent)
    about = json.loads(_opened(saved.keys).read("keys.json"))
    assert about["opens"][0]["file"] == saved.data.name
    assert len(about["opens"]) == 2
