"""erase and allow-again on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import crmkit


def test_a_customer_is_erased_by_number(run: Any, workspace: Path) -> None:
    with crmkit.open(workspace) as crm:
        ada = crm.customers.find().records[0].id
        crm.customers.add(name="Bob", number="2")
    done = run("erase", "1", "--reason", "request 7", "--yes", "--json", "-w", workspace)
    assert done.code == 0, done.err
    assert json.loads(done.out)["record"] == ada
    with crmkit.open(workspace) as crm:
        assert [customer.name for customer in crm.customers.find()] == ["Bob"]
    again = run("erase", "1", "--reason", "request 7", "--yes", "-w", workspace)
    assert again.code == 1
    assert "neither the id of a record nor the number of exactly one" in again.err


@pytest.mark.parametrize(("options", "code"), [((), 2), (("--dry-run",), 0), (("--yes",), 0)])
def test_json_asks_nothing(run: Any, workspace: Path, options: tuple[str, ...], code: int) -> None:
    done = run("erase", "1", "--reason", "request 7", "--json", *options, "-w", workspace)
    assert done.code == code
    assert ("needs --yes or --dry-run" in done.err) is bool(code)


def test_a_suppressed_address_names_the_command_that_lets_it_back(run: Any, workspace: Path, tmp_path: Path) -> None:
    with crmkit.open(workspace) as crm:
        crm.customers.add(name="Eve", number="3", email="eve@example.org")
    assert run("erase", "3", "--reason", "request 8", "--yes", "-w", workspace).code == 0
    (tmp_path / "back.csv").write_text("name,email\nEve,eve@example.org\n", encoding="utf-8")
    assert "crmkit allow-again" in run("import", "back.csv", "--as", "customer", "-w", workspace).out
    assert run("allow-again", "eve@example.org", "--reason", "came back", "-w", workspace).code == 0
