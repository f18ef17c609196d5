"""Making and opening a workspace, and every way in which that can go wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

import crmkit
from crmkit import CRM, CrmError, Damaged, Invalid, Locked, NotFound, Refused, Unsupported


def test_a_workspace_is_a_folder(crm: CRM) -> None:
    names = {path.name for path in crm.workspace.folder.iterdir()}
    assert names == {"crmkit.toml", "data", "keys", "plugins", "files", "notebooks"}
    assert crm.profile.name == "Acme"
    assert oct(crm.workspace.folder.stat().st_mode & 0o7777) == "0o2770"
    assert oct(crm.workspace.profile.stat().st_mode & 0o777) == "0o660"


def test_making_one_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crmkit.create(tmp_path / "quiet").close()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"currency": "EURO"}, "currency: 'EURO' is not a currency"),
        ({"country": "Germany"}, "ISO 3166"),
        ({"time_zone": "Berlin"}, "IANA time zone"),
    ],
)
def test_wrong_settings_make_nothing(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        crmkit.create(tmp_path / "acme", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "acme").exists()


def test_an_existing_workspace_is_not_made_again(crm: CRM) -> None:
    with pytest.raises(Invalid, match="is a workspace already"):
        crmkit.create(crm.workspace.folder)
    (crm.workspace.folder / "file").touch()
    with pytest.raises(Invalid, match="is a file"):
        crmkit.create(crm.workspace.folder / "file")


def test_open_looks_upward_and_then_at_the_environment(
    crm: CRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(crm.workspace.notebooks)
    with crmkit.open() as found:
        assert found.workspace.folder == crm.workspace.folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRMKIT_WORKSPACE", str(crm.workspace.folder))
    with crmkit.open() as found:
        assert found.workspace.folder == crm.workspace.folder


def test_where_there_is_none_it_says_where_it_looked_and_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for argument, says in ((None, str(tmp_path)), (tmp_path, "has no crmkit.toml"), (tmp_path / "x", "does not exist")):
        with pytest.raises(NotFound) as caught:
            crmkit.open(argument)
        assert says in str(caught.value)
        assert "crmkit init" in str(caught.value)
    monkeypatch.setenv("CRMKIT_WORKSPACE", str(tmp_path / "gone"))
    with pytest.raises(NotFound, match="does not exist"):
        crmkit.open()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "x"\ncurency = "EUR"', "did you mean 'currency'"),
        ('name = "x"\ncurrency = 5', "currency"),
        ("currency = 'EUR'", "name"),
        ("name = ", "cannot be read as TOML"),
        ('name = "x"\ncountry = "XX"', "country"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_wrong_profile_is_named_with_its_key(crm: CRM, text: str, says: str) -> None:
    crm.workspace.profile.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Invalid, match=says) as caught:
        crmkit.open(crm.workspace.folder)
    assert "crmkit.toml" in str(caught.value)


def test_without_the_identity_it_is_locked(crm: CRM, own_identity: Path) -> None:
    (own_identity / "identity.txt").unlink()
    with pytest.raises(Locked):
        crmkit.open(crm.workspace.folder)


def test_somebody_who_is_no_member_is_locked_out(crm: CRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRMKIT_CONFIG", str(tmp_path / "stranger"))
    crmkit.create(tmp_path / "of the stranger").close()
    with pytest.raises(Locked):
        crmkit.open(crm.workspace.folder)


def journal_of(crm: CRM) -> Path:
    return crm.workspace.data / "wal.1.jsonl"


def test_a_half_written_last_line_is_no_damage(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    crm.close()
    with journal_of(crm).open("ab") as journal:
        journal.write(b'0badc0de [2,[["p"')
    with crmkit.open(crm.workspace.folder) as again:
        assert again.customers[ada.id].name == "Ada"
        again.customers.add(name="Bob")
    with crmkit.open(crm.workspace.folder) as again:
        assert len(again.customers) == 2


def test_damage_in_the_middle_is_told(crm: CRM) -> None:
    for name in ("Ada", "Bob", "Cid"):
        crm.customers.add(name=name)
    crm.close()
    content = bytearray(journal_of(crm).read_bytes())
    content[len(content) // 2] ^= 1
    journal_of(crm).write_bytes(content)
    with pytest.raises(Damaged, match=r"wal\.1\.jsonl"):
        crmkit.open(crm.workspace.folder)


def test_a_newer_format_is_told(crm: CRM) -> None:
    from crmkit.durable import frame

    crm.close()
    journal_of(crm).write_bytes(frame(b'[0,[["m",{"format":99,"workspace":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}]]]'))
    with pytest.raises(Unsupported, match="99"):
        crmkit.open(crm.workspace.folder)


@pytest.mark.parametrize("name", ["data/CURRENT", "data/wal.1.jsonl", "keys/keyring.age"])
def test_a_missing_file_is_named(crm: CRM, name: str) -> None:
    crm.close()
    (crm.workspace.folder / name).unlink()
    with pytest.raises(CrmError) as caught:
        crmkit.open(crm.workspace.folder)
    assert Path(name).name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_journal_is_refused(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    crm.close()
    really_open = os.open

    def refusing(path: str, *args: object, **options: object) -> int:
        if Path(path) == journal_of(crm):  # root, who runs these tests in CI, may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(Refused, match="may not read"):
        crmkit.open(crm.workspace.folder)


def test_windows_is_not_supported_yet(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(Unsupported, match="Windows"):
        crmkit.open(crm.workspace.folder)


@pytest.mark.parametrize("harm", ["flip", "append"])
def test_what_is_no_whole_commit_at_the_end_is_told_until_it_is_taken_off(crm: CRM, harm: str) -> None:
    crm.customers.add(name="Ada")
    crm.customers.add(name="Bob")
    crm.close()
    content = bytearray(journal_of(crm).read_bytes())
    if harm == "flip":
        content[-10] ^= 1
    else:
        content += b"rubbish\n"
    journal_of(crm).write_bytes(content)
    with crmkit.open(crm.workspace.folder) as again:
        (problem,) = again.verify()
        assert "no whole commit" in problem
        assert journal_of(crm).name in problem
        again.customers.add(name="Cid")
        assert again.verify() == []


def test_verify_finds_nothing_where_nothing_is_wrong(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", iban="GB33BUKB20201555555555")
    crm.reveal(ada, "iban", reason="x")
    assert crm.verify() == []


def test_two_handles_see_each_others_commits_and_the_feed_names_them(crm: CRM) -> None:
    with crmkit.open(crm.workspace.folder) as other:
        start = other.seq()
        ada = crm.customers.add(name="Ada")
        assert other.customers[ada.id] == ada
        other.customers.update(ada, city="London")
        assert crm.customers[ada.id].city == "London"
        changes = crm.changes(start)
        assert changes is not None
        assert [(change.seq, change.collection, change.id) for change in changes] == [
            (start + 1, "customers", ada.id),
            (start + 2, "customers", ada.id),
        ]


def test_opening_removes_what_killed_writers_left_among_the_keys(crm: CRM) -> None:
    left = crm.workspace.keys / ".subjects.bin.0123456789ab.tmp"
    left.write_bytes(b"keys")
    begun, go_on = Event(), Event()

    def write() -> None:
        with crm._store.lock():
            begun.set()
            go_on.wait(10)

    writer = Thread(target=write)
    writer.start()
    begun.wait(10)
    crmkit.open(crm.workspace.folder).close()
    assert left.exists(), "it may be of whoever has the lock"
    go_on.set()
    writer.join()
    crmkit.open(crm.workspace.folder).close()
    assert not left.exists()
