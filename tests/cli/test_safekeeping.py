"""doctor, backup, restore and export on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import crmkit


def refused(done: Any, words: str) -> None:
    """Check that a command ended with one clear line on stderr."""
    assert done.code == 1
    assert words in done.err
    assert done.err.count("\n") == 1


def damaged(workspace: Path) -> None:
    """Damage the only customer."""
    wal = workspace / "data" / "wal.1.jsonl"
    wal.write_bytes(wal.read_bytes().replace(b'"customers"', b'"customerz"'))


# --------------------------------------------------------------------------- backup and restore


def test_a_backup_is_made_and_restored(run: Any, workspace: Path, tmp_path: Path, own_identity: Path) -> None:
    done = run("backup", "backups", "-w", workspace)
    assert (done.code, done.err) == (0, "")
    assert "acme.keys.zip.age" in done.out
    assert f"both open with {own_identity / 'identity.txt'}" in done.out
    done = run("restore", "backups", "again")
    assert (done.code, done.err) == (0, "")
    [data] = (tmp_path / "backups").glob("*.data.zip.age")
    assert f"from {data}" in done.out
    assert f"restored Acme into {tmp_path / 'again'}, up to commit " in done.out
    assert ": customers 1, " in done.out
    with crmkit.open(tmp_path / "again") as crm:
        assert [customer.name for customer in crm.customers] == ["Ada Lovelace"]


def test_a_backup_says_its_files_as_json(run: Any, workspace: Path, tmp_path: Path) -> None:
    made = json.loads(run("backup", "backups", "-w", workspace, "--json").out)
    with crmkit.open(workspace) as crm:
        assert made["seq"] == crm.seq()
    shutil.move(made["keys"], tmp_path / "keys")
    assert run("restore", made["data"], "again", "--keys", "keys").code == 0


def test_what_cannot_be_restored(run: Any, workspace: Path, tmp_path: Path) -> None:
    run("backup", "backups", "-w", workspace)
    refused(run("restore", "nowhere", "again"), "there is no backup")
    refused(run("restore", "backups", workspace), "exists already")
    (tmp_path / "cust.csv").write_text("name\nAda\n", encoding="utf-8")
    refused(run("restore", "cust.csv", "again"), "cust.csv is no backup; name the folder of backups, or a file *.data")
    [data] = (tmp_path / "backups").glob("*.data.zip.age")
    data.write_bytes(data.read_bytes()[:-1])
    refused(run("restore", "backups", "again"), "is not as it was when the backup was made")
    refused(run("backup", workspace / "files", "-w", workspace), "lies in the workspace")


# --------------------------------------------------------------------------- doctor


def test_doctor_explains_a_workspace_that_does_not_open(run: Any, workspace: Path) -> None:
    damaged(workspace)
    done = run("doctor", "-w", workspace)
    assert (done.code, done.err) == (1, "")
    assert "wal.1.jsonl, line 2: is damaged" in done.out
    assert "to do: stop using the workspace" in done.out
    report = json.loads(run("doctor", "-w", workspace, "--json").out)
    assert len(report["problems"]) == 2
    assert report["advice"]


@pytest.mark.parametrize("content", [None, "currency = 7", "["])
def test_doctor_looks_into_a_workspace_without_good_settings(run: Any, workspace: Path, content: str | None) -> None:
    (workspace / "crmkit.toml").unlink()
    if content is not None:
        (workspace / "crmkit.toml").write_text(content)
    done = run("doctor", "-w", workspace)
    assert (done.code, done.err) == (1, "")
    assert "records: customers 1" in done.out
    assert "wrong: " in done.out
    assert "crmkit.toml" in done.out
    assert "to do: mend crmkit.toml" in done.out
    assert "salvage" not in done.out


def test_doctor_is_calm_about_an_unfinished_write(run: Any, workspace: Path) -> None:
    with (workspace / "data" / "wal.1.jsonl").open("ab") as file:
        file.write(b"12345678 [99,")
    done = run("doctor", "-w", workspace)
    assert (done.code, done.err) == (0, "")
    assert "mind: " in done.out
    assert "nothing is wrong" in done.out
    assert "to do" not in done.out
    assert "mind: " in run("backup", "backups", "-w", workspace).out


def test_doctor_counts_what_is_lost_and_names_it_as_json(run: Any, workspace: Path) -> None:
    with crmkit.open(workspace) as crm:
        crm.customers.add_many([{"name": f"Person {number}"} for number in range(50)])
        ids = sorted(customer.id for customer in crm.customers if customer.name != "Ada Lovelace")
    wal = workspace / "data" / "wal.1.jsonl"
    line = next(line for line in wal.read_bytes().splitlines(keepends=True) if b'"kind":"import"' in line)
    wal.write_bytes(wal.read_bytes().replace(line, line.replace(b'"rev":', b'"rev"::')))
    done = run("doctor", "-w", workspace, "--salvage", "new")
    assert "lost: 50 customers" in done.out
    assert ids[0] not in done.out
    assert json.loads(run("doctor", "-w", workspace, "--json").out)["lost"] == {"customers": ids}
    assert json.loads(run("doctor", "-w", workspace, "--salvage", "newer", "--json").out)["lost"]["customers"]


def test_doctor_salvages(run: Any, workspace: Path, tmp_path: Path) -> None:
    with crmkit.open(workspace) as crm:
        crm.customers.add(name="Bob")
    damaged(workspace)
    done = run("doctor", "-w", workspace, "--salvage", "new")
    assert (done.code, done.err) == (1, "")  # something was lost
    assert f"saved into {tmp_path / 'new'}: customerz 1" not in done.out
    assert "lost: " in done.out
    assert "the old workspace is as it was" in done.out
    assert run("doctor", "-w", "new").code == 0
    refused(run("doctor", "-w", workspace, "--salvage", "new"), "exists already")
    saved = json.loads(run("doctor", "-w", workspace, "--salvage", "newer", "--json").out)
    assert saved["losses"]


def test_doctor_salvages_a_sound_workspace_whole(run: Any, workspace: Path) -> None:
    done = run("doctor", "-w", workspace, "--salvage", "new")
    assert done.code == 0
    assert "nothing was lost" in done.out


def test_doctor_accepts_what_was_restored(
    run: Any, workspace: Path, tmp_path: Path, own_identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: an older copy of the folder was put back."""
    shutil.copytree(workspace, tmp_path / "older")
    with crmkit.open(workspace) as crm:
        crm.reveal(next(iter(crm.customers)), "iban", reason="test")
    done = run("doctor", "-w", "older")
    assert done.code == 1
    assert "it was cut, or an older copy was put back" in done.out
    assert "to do: find out who wrote to keys/audit.jsonl" in done.out
    done = run("doctor", "-w", "older", "--accept-restored")
    assert done.code == 0
    assert "the audit log ends at line 0, 1 were seen; the audit log keeps that" in done.err
    assert run("doctor", "-w", "older", "--accept-restored").err == ""
    assert run("doctor", "-w", "older").code == 0
    assert run("doctor", "-w", workspace).code == 0


# --------------------------------------------------------------------------- export


def test_everything_is_exported(run: Any, workspace: Path, tmp_path: Path) -> None:
    done = run("export", "--all", "out", "-w", workspace)
    assert (done.code, done.err) == (0, "")
    assert "customers 1" in done.out
    assert "read again, and as many as are stored" in done.out
    assert "files, notebooks and plugins: 0;" in done.out
    assert "history: 1 commits, and 1 left out that changed nothing" in done.out
    assert "sensitive fields are masked" in done.out
    assert "5555" in (tmp_path / "out" / "records" / "customers.csv").read_text("utf-8")
    assert "GB33BUKB20201555555555" not in (tmp_path / "out" / "records" / "customers.csv").read_text("utf-8")


def test_one_type_is_exported_in_the_clear(run: Any, workspace: Path, tmp_path: Path) -> None:
    made = json.loads(run("export", "customer", "c.jsonl", "--reveal", "a move", "-w", workspace, "--json").out)
    assert (made["records"], made["revealed"]) == ({"customers": 1}, True)
    assert json.loads((tmp_path / "c.jsonl").read_text())["iban"] == "GB33BUKB20201555555555"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("customer",), 2, "give a record type and a file, or --all and a folder"),
        (("customer", "c.csv", "--all"), 2, "give a record type and a file, or --all and a folder"),
        (("customer", "c.xlsx"), 1, "must end in .csv or .jsonl"),
        (("parcel", "c.csv"), 1, "is not a record type"),
        (("--all", "acme"), 1, "exists already"),
        (("--all", "out", "--reveal", ""), 1, "say why"),
    ],
)
def test_what_export_refuses(run: Any, workspace: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = run("export", *arguments, "-w", workspace)
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err
