"""The Python of the documents runs as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

import crmkit

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^ *```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (plugins/\w+\.py)\n")  # the first line of a block that is a file of a workspace


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_python_of_a_document_runs(root: Path, tmp_path: Path, page: str) -> None:
    blocks = [block for block in BLOCK.findall((root / page).read_text("utf-8")) if not FILE.match(block)]
    assert blocks
    done = run("\n".join(blocks), tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_document_that_is_wrong_would_be_seen(tmp_path: Path) -> None:
    """The control."""
    assert run("import crmkit\ncrmkit.create('acme').customers.no_such_method()", tmp_path).returncode != 0


def test_the_plugin_of_the_guide_does_what_the_guide_says(root: Path, tmp_path: Path) -> None:
    [code] = [block for block in BLOCK.findall((root / "docs" / "guide.md").read_text("utf-8")) if FILE.match(block)]
    place = tmp_path / "acme"
    crmkit.create(place).close()
    (place / FILE.match(code)[1]).write_text(code)  # type: ignore[index]
    with crmkit.open(place) as crm:
        assert crm.plugins["parcels"].state == "waiting"
    crmkit.trust(place)
    with crmkit.open(place, strict=True) as crm:
        assert crm.plugins["parcels"].state == "active", crm.plugins["parcels"].reason
        ada = crm.customers.add(name="Ada Lovelace")
        bob = crm.customers.add(name="Bob")
        parcel = crm.parcels.add(customer=ada, sent_on="2026-10-01", carrier="bicycle")
        crm.parcels.add(customer=bob, sent_on="2026-10-02", recipient="Somebody Else")
        with pytest.raises(crmkit.Refused, match="pigeon"):
            crm.parcels.add(customer=bob, sent_on="2026-10-02", carrier="pigeon")
        assert [each.recipient for each in crm.parcels] == ["Ada Lovelace", "Somebody Else"]
        assert [(entry.title, entry.record) for entry in crm.timeline(ada)] == [("Parcel by bicycle", parcel.id)]
        views = {type(view): view for view in crm.views if view.name == "parcels"}
        assert views[crmkit.Page].build(crm) == crmkit.Table("parcel", order="-sent_on")
        shown = views[crmkit.Panel].build(crm, ada).where
        assert [each.id for each in crm.parcels.find(shown)] == [parcel.id]
        result = crm.analyse("parcels", as_of=date(2026, 10, 1))
        assert result.table == [{"carrier": "bicycle", "parcels": 1}]
        assert list(result.figure().data[0].x) == ["bicycle"]
        assert crm.failures == []
    stored = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert b"Somebody Else" not in stored  # personal
    assert b"bicycle" in stored  # plain


def test_the_consultants_commands_of_the_guide_run(root: Path, tmp_path: Path) -> None:
    blocks = "".join(SHELL.findall((root / "docs" / "guide.md").read_text("utf-8")))
    commands = [shlex.split(line) for line in blocks.splitlines() if line.strip().startswith("crmkit ")]
    assert [command[1] for command in commands] == ["init", "import", "import"]
    (tmp_path / "customers.csv").write_text("Customer ID,Name\n1,Ada\n2,Bob\n3,\n")
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    with crmkit.open(tmp_path / "client") as crm:
        assert sorted(str(customer.number) for customer in crm.customers) == ["1", "2"]


def test_the_readme_says_what_make_does(root: Path) -> None:
    first, second, *_ = SHELL.findall((root / "README.md").read_text("utf-8"))
    targets = re.findall(r"^make (\w+)", first, re.MULTILINE)
    assert targets == ["demo", "test"]
    for target, line in zip(targets, second.splitlines(), strict=True):
        command = ["make", "--no-print-directory", "-n", target]
        alone = {
            name: value for name, value in os.environ.items() if not name.startswith("MAKE")
        }  # not as `make test` runs it
        done = subprocess.run(command, cwd=root, env=alone, capture_output=True, text=True, check=True)
        assert " && ".join(done.stdout.splitlines()) == line
