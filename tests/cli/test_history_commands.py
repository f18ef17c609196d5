"""`history`, `batches` and `undo` on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import crmkit


@pytest.fixture
def ada(workspace: Path) -> str:
    """The id of the customer, who has moved once."""
    with crmkit.open(workspace) as crm:
        [ada] = crm.customers
        with crm.acting_as("ann"), crm.transaction(reason="she moved"):
            crm.customers.update(ada, city="Paris", tags=["a", "b"], iban="DE75512108001245126199")
        return ada.id


def test_history_tells_who_changed_what_and_why(run: Any, workspace: Path, ada: str) -> None:
    done = run("history", ada, "-w", workspace)
    assert done.code == 0
    newest, oldest = done.out.splitlines()[1:]
    for word in (
        "ann",
        "update",
        "city: London → Paris",
        "tags: – → a b",
        "GB•• •••• 5555 → DE•• •••• 6199",
        "she moved",
    ):
        assert word in newest
    assert "add" in oldest
    assert "London" not in oldest
    assert "more" in run("history", ada, "-w", workspace, "--limit", "1").out
    [entry, _] = json.loads(run("history", ada, "-w", workspace, "--json").out)
    assert (entry["before"]["city"], entry["after"]["iban"]) == ("London", "DE•• •••• 6199")


def test_what_batches_list_is_undone_and_brought_back(run: Any, workspace: Path, ada: str) -> None:
    newest, _ = json.loads(run("batches", "-w", workspace, "--json").out)
    assert (newest["kind"], newest["reason"], newest["types"]) == ("transaction", "she moved", {"customer": 1})
    done = run("undo", newest["id"], "-w", workspace)
    assert done.out.startswith("Took back 1 record; crmkit undo ")
    with crmkit.open(workspace) as crm:
        assert crm.customers[ada].city == "London"
    listed = run("batches", "-w", workspace).out.splitlines()
    assert "1 customer" in listed[1]
    assert " undone " in listed[2]
    assert run("undo", done.out.split()[6], "-w", workspace).code == 0
    with crmkit.open(workspace) as crm:
        assert crm.customers[ada].city == "Paris"


def test_an_undo_that_is_refused_is_one_line(run: Any, workspace: Path, ada: str) -> None:
    *_, added = json.loads(run("batches", "-w", workspace, "--json").out)
    done = run("undo", added["id"], "-w", workspace)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert ada in done.err
    assert "--skip-changed leaves out" in done.err
    assert run("undo", added["id"], "-w", workspace, "--skip-changed").code == 1
    done = run("undo", "no-such-id", "-w", workspace)
    assert (done.code, "crm." in done.err) == (1, False)


def test_a_record_is_named_by_its_number_too(run: Any, workspace: Path, ada: str) -> None:
    assert run("history", "1", "-w", workspace).out == run("history", ada, "-w", workspace).out
    done = run("history", "no-such-id", "-w", workspace)
    assert (done.code, done.err.count("\n"), "crmkit find shows ids" in done.err) == (1, 1, True)
    with crmkit.open(workspace) as crm:
        crm.products.add(name="Bowl", sku="1")
    assert run("history", "1", "-w", workspace).code == 1  # of two


def test_times_have_one_form(run: Any, workspace: Path, ada: str) -> None:
    [found] = json.loads(run("find", "ada", "-w", workspace, "--json").out)
    [entry, _] = json.loads(run("history", ada, "-w", workspace, "--json").out)
    [batch, _] = json.loads(run("batches", "-w", workspace, "--json").out)
    for at in (found["created_at"], entry["at"], batch["at"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", at)


def test_merging_and_leaving_out_are_told(run: Any, workspace: Path, ada: str) -> None:
    with crmkit.open(workspace) as crm:
        made = crm.customers.add_many([{"name": "Bob"}, {"name": "Cid"}])
        [bob] = (each.id for each in crm.customers if each.name == "Bob")
        crm.customers.update(bob, city="Rome")
    assert (
        f"Took back 1 record; left out 1: customer {bob}; "
        in run("undo", made.id, "-w", workspace, "--skip-changed").out
    )
    with crmkit.open(workspace) as crm:
        crm.customers.merge(ada, [bob])
    assert f"merged with {bob}" in run("history", ada, "-w", workspace).out
    assert f"merged into {ada}" in run("history", bob, "-w", workspace).out
