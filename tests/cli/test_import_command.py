"""`crmkit import` on files as they come, the real invoices among them; totals against an independent count."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit import CRM, hookimpl
from crmkit.cli import imports

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
LINES = ("--as", "purchase", "--group-by", "Invoice", "--map", "StockCode=lines.product.sku",
         "--map", "Description=lines.product.name", "--map", "Customer ID=customer.number")  # fmt: skip


@pytest.fixture
def customers(tmp_path: Path) -> Path:
    return Path(shutil.copy(DATA / "online_retail_customers_sample.csv", tmp_path / "customers.csv"))


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return Path(shutil.copy(DATA / "online_retail_sample.csv", tmp_path / "lines.csv"))


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    crmkit.create(tmp_path / "ws", currency="GBP", country="GB").close()
    return tmp_path / "ws"


def count(workspace: Path, plural: str) -> int:
    with crmkit.open(workspace) as crm:
        return len(getattr(crm, plural))


def test_real_invoices_add_up_to_what_the_file_says(run: Any, ws: Path, customers: Path, lines: Path) -> None:
    done = run("import", customers, "--as", "customer", "-w", ws, "--keep-good")
    assert done.code == 0, done.err
    done = run("import", lines, *LINES, "-w", ws, "--keep-good", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    with lines.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    left_out = {row["Invoice"] for row in rows if Decimal(row["Price"]) < 0}  # bad debts; all else is taken
    assert left_out
    invoices: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["Invoice"] not in left_out:
            invoices[row["Invoice"]].append(row)
    assert report["rows"] == len(rows)
    assert report["bad_rows"] == sum(row["Invoice"] in left_out for row in rows)
    with crmkit.open(ws) as crm:
        stored = {purchase.number: purchase for purchase in crm.purchases}
        assert stored.keys() == invoices.keys()
        assert len(crm.products) == len({row["StockCode"].strip() for each in invoices.values() for row in each})
        for number, each in invoices.items():
            assert [(line.quantity, line.unit_price) for line in stored[number].lines] == [
                (Decimal(row["Quantity"]), Decimal(row["Price"])) for row in each
            ]
            assert stored[number].purchased_on.isoformat() == each[0]["InvoiceDate"][:10]
            known = stored[number].customer and crm.customers[stored[number].customer].number
            assert known == (each[0]["Customer ID"] or None)
    assert any(row["Invoice"].startswith("C") for each in invoices.values() for row in each)


def test_bad_rows_refuse_unless_said_otherwise(run: Any, ws: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text("number,name\n1,Ada\n2,\n3,Bob\n")
    done = run("import", file, "--as", "customer", "-w", ws)
    assert done.code == 1
    assert "line 3: name: is required" in done.out
    assert done.err == "crmkit: nothing was written: 1 of 3 rows are bad; --keep-good writes the good ones\n"
    assert run("import", file, "--as", "customer", "-w", ws, "--all-or-nothing").code == 1
    assert count(ws, "customers") == 0
    assert (tmp_path / "c.csv.errors.csv").read_text() == "line,field,reason,group\n3,name,is required,\n"
    done = run("import", file, "--as", "customer", "-w", ws, "--keep-good")
    assert done.code == 0
    told, _, how = done.out.splitlines()[-1].partition("; ")
    assert told == "written: 2 customers"
    assert how.startswith("crmkit undo ")
    assert how.endswith(" takes it back")
    assert run(*how.split()[1:3], "-w", ws).code == 0
    assert count(ws, "customers") == 0
    report = json.loads(run("import", file, "--as", "customer", "-w", ws, "--keep-good", "--json").out)
    assert (report["written"], run("undo", report["commit"], "-w", ws).code) == (2, 0)
    assert run("import", file, "--as", "customer", "-w", ws, "--keep-good", "--all-or-nothing").code == 2


def test_a_dry_run_writes_nothing(run: Any, ws: Path, customers: Path) -> None:
    done = run("import", customers, "--as", "customer", "-w", ws, "--dry-run")
    assert done.code == 0
    assert "nothing was written (dry run)" in done.out
    assert "customer_id → number" in done.out
    assert "left out: first_invoice, last_invoice" in done.out
    assert count(ws, "customers") == 0


def test_json_is_printed_before_bad_rows_are_refused(run: Any, ws: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text("number,name\n1,Ada\n2,\n")
    done = run("import", file, "--as", "customer", "-w", ws, "--json")
    assert done.code == 1
    report = json.loads(done.out)
    assert (report["bad_rows"], report["written"]) == (1, 0)
    assert report["bad"][0]["line"] == 3
    assert done.err.count("\n") == 1


def test_a_dry_run_leaves_no_file_and_says_when_nothing_could_be_written(run: Any, ws: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text("number,name\n1,Ada\n2,\n")
    assert run("import", file, "--as", "customer", "-w", ws, "--dry-run").code == 0
    file.write_text("number,name\n1,\n2,\n")
    done = run("import", file, "--as", "customer", "-w", ws, "--dry-run")
    assert (done.code, done.err) == (1, "crmkit: nothing was written: no row of 2 can be imported\n")
    assert not (tmp_path / "c.csv.errors.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--as", "custmer"), "is not a record type here"),
        (("--as", "customer", "--map", "Nmae=name"), "no column 'Nmae'"),
        (("--as", "customer", "--map", "name=nmae"), "did you mean 'name'"),
        (("--as", "customer", "--group-by", "nmae"), "did you mean 'name'"),
        (("--as", "customer", "--encoding", "klingon"), "no text encoding"),
        (("--as", "customer", "--encoding", "utf-16"), "is not utf-16 text"),
        (("--as", "customer", "--delimiter", ";;"), "the delimiter is one sign"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Any, ws: Path, customers: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = run("import", customers, *arguments, "-w", ws)
    assert done.code == 1
    assert words in done.err
    assert done.err.count("\n") == 1


def test_a_file_in_another_encoding_says_what_to_give(run: Any, ws: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes("name;city\nRenée;Orléans\n".encode("cp1252"))
    done = run("import", file, "--as", "customer", "-w", ws)
    assert "--encoding cp1252" in done.err
    assert run("import", file, "--as", "customer", "-w", ws, "--encoding", "cp1252").code == 0
    with crmkit.open(ws) as crm:
        assert crm.customers.find().records[0].city == "Orléans"


def test_a_map_is_column_equals_field(run: Any, ws: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text("a=b,name\n7,Ada\n")
    done = run("import", file, "--as", "customer", "-w", ws, "--map", "name")
    assert done.code == 2
    assert "is not COLUMN=FIELD" in done.err
    assert run("import", file, "--as", "customer", "-w", ws, "--map", "a=b=number").code == 0
    with crmkit.open(ws) as crm:
        assert crm.customers.find().records[0].number == "7"


class Interrupt:
    """Ctrl-C, in the second batch."""

    @hookimpl
    def crm_before_commit(self, crm: CRM, changes: tuple[Any, ...]) -> None:
        if any(change.fields.get("number") == "1200" for change in changes):
            raise KeyboardInterrupt


@pytest.mark.parametrize(("flags", "stays"), [((), 1000), (("--all-or-nothing",), 0)])
def test_ctrl_c_says_how_many_stay(
    run: Any, ws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], stays: int
) -> None:
    def interrupted(workspace: Path | None) -> CRM:
        crm = crmkit.open(workspace)
        crm.register(Interrupt(), "interrupt")
        return crm

    file = tmp_path / "c.csv"
    file.write_text("number,name\n" + "".join(f"{n},Ada\n" for n in range(1, 1501)))
    with monkeypatch.context() as patched:
        patched.setattr(imports, "open_crm", interrupted)
        done = run("import", file, "--as", "customer", "-w", ws, *flags)
    assert done.code == 130
    assert f"interrupted: {stays:,} customers were written and stay" in done.err
    assert count(ws, "customers") == stays
    assert run("import", file, "--as", "customer", "-w", ws, "--keep-good").code == 0
    assert count(ws, "customers") == 1500


def terminal(*arguments: str) -> str:
    """Run the program with a terminal for its stderr and return what that shows."""
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "crmkit", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        check=False,
    )
    os.close(theirs)
    shown = b"".join(_until_closed(ours))
    os.close(ours)
    assert done.returncode == 0, shown
    return shown.decode()


def _until_closed(terminal: int) -> Iterator[bytes]:
    try:
        while data := os.read(terminal, 4096):
            yield data
    except OSError:  # how Linux says that the other end is closed
        return


def test_a_terminal_sees_a_bar_and_a_pipe_does_not(run: Any, ws: Path, customers: Path) -> None:
    assert "reading" in terminal("import", str(customers), "--as", "customer", "-w", str(ws), "--keep-good")
    done = run("import", customers, "--as", "customer", "-w", ws, "--dry-run")
    assert done.err.count("\n") == 1  # they are there by now, which is all that is said


def test_it_is_said_why_numbers_stay_in_texts(run: Any, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("name,notes,card\nZoe,4111111111111111,5555555555554444\n", encoding="utf-8")
    done = run("import", "c.csv", "--as", "customer", "--move-sensitive", "-w", workspace)
    assert "card numbers or IBANs stay in 1 text: the field for them is filled already, or there is none" in done.err
