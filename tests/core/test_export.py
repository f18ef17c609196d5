"""Export: open formats that hold everything, count themselves, show no secret and run in no spreadsheet."""

from __future__ import annotations

import csv
import json
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit import CRM, CrmError, Damaged, Invalid, NotFound
from crmkit.safekeeping import export as module
from crmkit.store import NEW, Put
from crmkit.tables.formulas import guarded

pytestmark = pytest.mark.shipped_plugins  # the catalog's purchases

IBAN, OTHER_IBAN, CARD = "GB33BUKB20201555555555", "DE75512108001245126199", "4111111111111111"
EVIL = '=HYPERLINK("http://example.org";"click")'


@pytest.fixture
def ada(crm: CRM) -> str:
    """A customer with secrets and a past, beside one that was removed and a purchase."""
    ada = crm.customers.add(name=EVIL, iban=IBAN, card=CARD, phone="+442079460000", tags=["a", "b"], city="Zürich")
    bob = crm.customers.add(name="Bob, the first", notes="two\nlines")
    crm.purchases.add(number="1", customer=ada, purchased_on="2026-01-01", total="-1.50")
    with crm.transaction(reason="moved to Bob's"):
        crm.customers.update(ada, iban=OTHER_IBAN, city="Rome")
    crm.customers.remove(bob)
    (crm.workspace.files / "a").mkdir()
    (crm.workspace.files / "a" / "contract.txt").write_text("signed")
    return ada.id


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# --------------------------------------------------------------------------- what is in it


def test_everything_is_there(crm: CRM, ada: str, tmp_path: Path) -> None:
    made = crm.export_all(tmp_path / "out")
    assert (made.seq, made.commits, made.records["customers"], made.records["purchases"]) == (5, 5, 2, 1)
    first, second = _lines(tmp_path / "out" / "records" / "customers.jsonl")
    assert (first["name"], first["city"], first["tags"], "removed" in first) == (EVIL, "Rome", ["a", "b"], False)
    assert (second["name"], second["notes"], second["removed"]) == ("Bob, the first", "two\nlines", True)
    assert not any(name.startswith("_") for name in first)
    [purchase] = _lines(tmp_path / "out" / "records" / "purchases.jsonl")
    assert purchase["total"] == {"minor": -150, "currency": "EUR"}
    assert (tmp_path / "out" / "files" / "a" / "contract.txt").read_text() == "signed"
    assert (tmp_path / "out" / "crmkit.toml").exists()
    assert json.loads((tmp_path / "out" / "export.json").read_text())["records"] == dict(made.records)


def test_tables_say_the_same(crm: CRM, ada: str, tmp_path: Path) -> None:
    crm.export_all(tmp_path / "out")
    first, second = _rows(tmp_path / "out" / "records" / "customers.csv")
    assert (first["name"], first["phone"], first["tags"]) == (f"'{EVIL}", "+442079460000", "a; b")
    assert (second["name"], second["notes"], second["removed"]) == ("Bob, the first", "two\nlines", "true")
    [purchase] = _rows(tmp_path / "out" / "records" / "purchases.csv")
    assert (purchase["total"], purchase["customer"]) == ("-1.50 EUR", ada)


def test_history_is_opened_and_goes_back(crm: CRM, ada: str, tmp_path: Path) -> None:
    crm.export_all(tmp_path / "out")
    history = _lines(tmp_path / "out" / "history.jsonl")
    assert [commit["commit"] for commit in history] == [5, 4, 3, 2, 1]
    assert history[1]["reason"] == "moved to Bob's"
    [step] = history[1]["steps"]
    assert (step["action"], step["id"]) == ("change", ada)
    assert step["before"]["city"] == "Zürich"
    assert step["before"]["iban"] == "GB•• •••• 5555"
    assert history[0]["steps"][0]["to"] == "customers.removed"


def test_history_of_a_record_that_changed_hands_is_opened(crm: CRM, deals: Any, tmp_path: Path) -> None:
    """What was sealed under the key of the customer before is opened under it."""
    crm.register(deals())
    people = [crm.customers.add(name=f"Person {number}") for number in range(3)]
    deal = crm.deals.add(title="at first", customer=people[0])
    for number, person in enumerate((people[1], people[2], None)):
        deal = crm.deals.update(deal, title=f"then {number}", customer=person)
    crm.deals.remove(deal)
    assert crm._store.compact()
    crm.export_all(tmp_path / "out")
    steps = [step for commit in _lines(tmp_path / "out" / "history.jsonl") for step in commit["steps"]]
    titles = [step["before"]["title"] for step in steps if step["id"] == deal.id and "title" in step["before"]]
    assert titles == ["then 1", "then 0", "at first"]


def test_records_without_a_plugin_stay_sealed(crm: CRM, ada: str, deals: Any, tmp_path: Path) -> None:
    crm.register(deals())
    crm.deals.add(title="secret title", customer=ada)
    with crmkit.open(crm.workspace.folder) as without:
        without.export_all(tmp_path / "out")
    [deal] = _lines(tmp_path / "out" / "records" / "deals.jsonl")
    assert deal["title"].startswith("c1.")
    assert deal["stage"] == "qualified"
    [row] = _rows(tmp_path / "out" / "records" / "deals.csv")
    assert json.loads(row["other"])["stage"] == "qualified"


def test_what_was_salvaged_is_exported(crm: CRM, ada: str, tmp_path: Path) -> None:
    """What is left of damaged records stands beside the others, each kind in a file of its own."""
    for name in ("customers.parts", "customers.sealed"):
        crm._store.commit([Put(name, {"id": name, "city": "Rome"}, NEW)], {})
    made = crm.export_all(tmp_path / "out")
    for name in ("customers.parts", "customers.sealed"):
        assert made.records[name] == 1
        assert [line["id"] for line in _lines(tmp_path / "out" / "records" / f"{name}.jsonl")] == [name]
        assert (tmp_path / "out" / "records" / f"{name}.csv").exists()
    assert len(_lines(tmp_path / "out" / "records" / "customers.jsonl")) == made.records["customers"] == 2


def test_what_opens_of_salvaged_records_is_open(crm: CRM, ada: str, tmp_path: Path) -> None:
    """A value that opens is as it was, whatever became of the line around it."""
    damaged = {**crm._codec.seal("customers", dict(crm._store.get("customers", ada) or {})), "rev": 1}
    damaged["notes"] = damaged["name"]  # sealed for another field: it does not open
    crm._store.commit([Put("customers.unsure", damaged, NEW)], {})
    crm.export_all(tmp_path / "out")
    [row] = _rows(tmp_path / "out" / "records" / "customers.unsure.csv")
    assert (row["name"], row["iban"]) == (f"'{EVIL}", "DE•• •••• 6199")
    assert row["notes"].startswith("c1.")


def test_removed_ones_are_told_apart(crm: CRM, ada: str, tmp_path: Path) -> None:
    made = crm.export_all(tmp_path / "out")
    assert (made.records["customers"], made.removed) == (2, {"customers": 1})
    assert next(iter(_rows(tmp_path / "out" / "records" / "customers.csv")[0])) == "removed"
    assert made.files == 1  # the contract; crmkit.toml is there as well


def test_the_reasons_of_the_audit_log_are_open(crm: CRM, ada: str, tmp_path: Path) -> None:
    crm.reveal(crm.customers[ada], "iban", reason="she asked")
    crm.export_all(tmp_path / "out", reveal="we move")
    entries = _lines(tmp_path / "out" / "audit.jsonl")
    assert [entry["reason"] for entry in entries][:2] == ["she asked", "we move"]
    assert [entry["seq"] for entry in entries] == [entry["seq"] for entry in crm._vault.audit.entries()]


def test_one_type_goes_to_one_file(crm: CRM, ada: str, tmp_path: Path) -> None:
    made = crm.export("customer", tmp_path / "customers.csv")
    assert made.records == {"customers": 1}
    assert [row["city"] for row in _rows(tmp_path / "customers.csv")] == ["Rome"]
    crm.export(crmkit.Customer, tmp_path / "customers.jsonl")
    assert [line["city"] for line in _lines(tmp_path / "customers.jsonl")] == ["Rome"]
    assert stat.S_IMODE((tmp_path / "customers.csv").stat().st_mode) == 0o600


def test_a_table_can_be_imported_again(crm: CRM, tmp_path: Path) -> None:
    """What needs no apostrophe comes back as it was."""
    crm.customers.add(name="Ada", number="1", city="London", phone="+442079460000", tags=["a", "b"], email="a@b.org")
    crm.export("customer", tmp_path / "customers.csv")
    names = ("name", "number", "city", "phone", "tags", "email")
    with crmkit.create(tmp_path / "other", country="GB") as other:
        mapping = {name: name for name in names} | dict.fromkeys(
            _rows(tmp_path / "customers.csv")[0].keys() - {*names}, ""
        )
        other.import_file(tmp_path / "customers.csv", as_="customer", map=mapping).apply()
        [again], [ada] = list(other.customers), list(crm.customers)
        assert [getattr(again, name) for name in names] == [getattr(ada, name) for name in names]


# --------------------------------------------------------------------------- secrets


def test_sensitive_fields_are_masked(crm: CRM, ada: str, tmp_path: Path) -> None:
    crm.export_all(tmp_path / "out")
    crm.export("customer", tmp_path / "one.csv")
    written = _everything(tmp_path / "out") + (tmp_path / "one.csv").read_bytes()
    for secret in (IBAN, OTHER_IBAN, CARD):
        assert secret.encode() not in written
    [entry, *_] = [entry for entry in crm._vault.audit.entries() if entry["entity"] == "customer"]
    assert (entry["action"], entry["fields"], entry["reason"]) == ("export", [], None)


def test_they_are_open_with_a_reason_that_is_audited_first(
    crm: CRM, ada: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[Any] = []
    real = module.Exporter._write
    monkeypatch.setattr(
        module.Exporter,
        "_write",
        lambda self, *rest: (entries.append(list(crm._vault.audit.entries())), real(self, *rest))[1],
    )
    crm.export_all(tmp_path / "out", reveal="we move to another CRM")
    first, _ = _lines(tmp_path / "out" / "records" / "customers.jsonl")
    assert first["iban"] == OTHER_IBAN
    assert IBAN.encode() in (tmp_path / "out" / "history.jsonl").read_bytes()
    assert CARD.encode() not in _everything(tmp_path / "out")  # in no export
    [entry] = [entry for entry in entries[0] if entry["entity"] == "customer"]
    assert entry["fields"] == ["iban", "tax_id"]
    id = crm._vault.workspace_id
    assert crm._vault.open("audit", "reason", id, id, entry["reason"]) == "we move to another CRM"


@pytest.mark.parametrize("reason", ["", " "])
def test_a_blank_reason_is_none(crm: CRM, ada: str, tmp_path: Path, reason: str) -> None:
    with pytest.raises(Invalid, match="say why"):
        crm.export_all(tmp_path / "out", reveal=reason)
    assert not (tmp_path / "out").exists()


def test_nobody_else_can_read_it(crm: CRM, ada: str, tmp_path: Path) -> None:
    crm.export_all(tmp_path / "out")
    for path in (tmp_path / "out", *(tmp_path / "out").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


# --------------------------------------------------------------------------- spreadsheets


@pytest.mark.parametrize(
    "text",
    [
        EVIL,
        "+1+1",
        "-1-1",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "＝1",
        "＋1",
        "－1+2",
        "＠x",
        "=1",
        " =1",
        "  @x",
        "-cmd|'/c'!A",
    ],
)
def test_what_a_spreadsheet_would_run_is_guarded(text: str) -> None:
    assert guarded(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "Ada", "-1.50", "+442079460000", "-3", "1-1", "a=b", "ada@example.org", "c1.x"])
def test_what_it_would_not_is_left_alone(text: str) -> None:
    assert guarded(text) == text


def test_control_without_the_guard_a_formula_is_in_the_table(
    crm: CRM, ada: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "guarded", lambda text: text)
    crm.export("customer", tmp_path / "customers.csv")
    assert _rows(tmp_path / "customers.csv")[0]["name"] == EVIL


# --------------------------------------------------------------------------- its own counts


def test_a_record_that_was_not_written_is_noticed(
    crm: CRM, ada: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: whatever loses a line is found by reading again."""
    real = module._Lines.write
    monkeypatch.setattr(
        module._Lines, "write", lambda self, row, **how: None if row.get("id") == ada else real(self, row, **how)
    )
    with pytest.raises(Damaged, match=r"customers\.jsonl: 1 were written and 2 are stored; nothing was made"):
        crm.export_all(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_it_is_as_of_one_commit(crm: CRM, ada: str, tmp_path: Path) -> None:
    def meanwhile(step: str, part: float) -> None:
        with crmkit.open(crm.workspace.folder) as other:
            bob = other.customers.add(name="Bob")
            other.purchases.add(number=bob.id, customer=bob, purchased_on="2026-01-01", total="1.00")
            other._store.compact()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TOLD_EVERY", 1)
        made = crm.export_all(tmp_path / "out", progress=meanwhile)
    assert (made.records["customers"], made.records["purchases"], made.commits) == (2, 1, 5)
    assert len(crm.customers) > 1


def test_memory_does_not_grow_with_the_store(crm: CRM, tmp_path: Path) -> None:
    def peak(name: str) -> int:
        tracemalloc.start()
        try:
            crm.export_all(tmp_path / name)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    rows = [{"name": f"Person {number}", "notes": "n" * 2_000} for number in range(1_500)]
    crm.customers.add_many(rows[:100])
    crm.export_all(tmp_path / "warm")
    few = peak("few")
    crm.customers.add_many(rows[100:])
    assert peak("many") < few + 1_500_000  # the notes alone have three times as much, in memory and in each file


# --------------------------------------------------------------------------- refusals


def test_nothing_is_written_over_anything(crm: CRM, ada: str, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("mine")
    for work in (
        lambda: crm.export_all(tmp_path / "acme"),
        lambda: crm.export("customer", tmp_path / "old.csv"),
    ):
        with pytest.raises(Invalid, match="exists already"):
            work()
    assert (tmp_path / "old.csv").read_text() == "mine"


def test_what_it_cannot_do_is_said(crm: CRM, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"must end in \.csv or \.jsonl"):
        crm.export("customer", tmp_path / "customers.xlsx")
    with pytest.raises(NotFound, match="is not a record type"):
        crm.export("parcel", tmp_path / "parcels.csv")
    with pytest.raises(CrmError, match=r"nowhere/customers\.csv: No such file or directory"):
        crm.export("customer", tmp_path / "nowhere" / "customers.csv")


@pytest.mark.parametrize("call", ["open", "fsync", "rename", "mkdir"])
def test_a_failing_system_leaves_nothing(
    crm: CRM, ada: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    calls = fails_at = 0
    real = getattr(os, call)

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    def tried() -> bool:
        try:
            crm.export_all(tmp_path / "out")
        except CrmError:
            return False
        return True

    monkeypatch.setattr(os, call, failing)
    while fails_at < 200:
        calls, fails_at = 0, fails_at + 1
        if tried():
            break
        assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
    assert 1 < fails_at < 200
