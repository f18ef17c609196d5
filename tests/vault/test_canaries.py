"""No value of a personal or sensitive field lies anywhere: a search of every byte that a whole day of work writes.

Left out by name, because values are what they are for: the file that was imported, exports (personal fields are in the
clear there, sensitive ones are searched for), the messages of live widgets, and what commands print of personal fields.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ipywidgets.widgets.widget import _instances, _remove_buffers
from nbclient import NotebookClient

import crmkit
from crmkit import CRM, CrmError, F, hookimpl
from crmkit.codec import RecordCodec
from crmkit.fields import Secret
from tests.vault.canaries import Person, hits, needles, person, scan

pytestmark = [pytest.mark.proof, pytest.mark.shipped_plugins]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for everything that is written, temporary files and logs included."""
    written = tmp_path / "written"
    for name, variable in {
        "config": "CRMKIT_CONFIG",
        "temporary": "TMPDIR",
        "runtime": "XDG_RUNTIME_DIR",
        "ipython": "IPYTHONDIR",
        "jupyter": "JUPYTER_RUNTIME_DIR",
        "home": "HOME",
    }.items():
        (written / name).mkdir(parents=True, mode=0o700)
        monkeypatch.setenv(variable, str(written / name))
    monkeypatch.setattr(tempfile, "tempdir", str(written / "temporary"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (written / "outputs").mkdir()
    (tmp_path / "given").mkdir()
    return written


@pytest.fixture
def debug_log(place: Path) -> Iterator[None]:
    """Everything that anybody logs, at the lowest level."""
    root, handler = logging.getLogger(), logging.FileHandler(place / "outputs" / "debug.log")
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield
    root.setLevel(before)
    root.removeHandler(handler)
    handler.close()


@pytest.fixture
def people(scale: Callable[[int], int]) -> list[Person]:
    """Customers with values of their own in every field."""
    chance = random.Random(2026)
    return [person(chance) for _ in range(max(20, scale(40)))]


def personal(people: list[Person]) -> set[bytes]:
    """Every form of every value."""
    return needles(value for each in people for value in chain(each.personal.values(), each.sensitive.values()))


def sensitive(people: list[Person]) -> set[bytes]:
    """Every form of the sensitive values."""
    return needles(value for each in people for value in each.sensitive.values())


def test_no_value_lies_anywhere(
    place: Path, debug_log: None, people: list[Person], record_property: Callable[[str, object], None]
) -> None:
    outputs = place / "outputs"
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        with crmkit.create(place / "acme", currency="EUR", country="GB") as crm:
            work(crm, people, place.parent / "given")
            (outputs / "errors").write_text(errors(crm, people, place.parent / "given"))
            (outputs / "widgets").write_bytes(widgets(crm))
            (outputs / "texts").write_text(texts(crm))
            crm.backup(place / "backups")
            crm._store.compact()
            crm.export_all(place.parent / "exported")
            crm.customers.add(**people[-1].fields)
        notebook(place / "acme" / "notebooks" / "day.ipynb")
        (outputs / "commands").write_text(commands(place / "acme"))
    (outputs / "printed").write_text(out.getvalue() + err.getvalue())
    wanted, looked_at = personal(people), sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    assert scan(place, wanted) == {}
    in_notes = needles([people[1].sensitive["card"]])  # typed into notes and moved later: an export has the former text
    assert scan(place.parent / "exported", sensitive(people) - in_notes) == {}
    assert scan(place.parent / "given", wanted)  # the file that was imported, for comparison
    record_property("canaries: values", len(people) * 13)
    record_property("canaries: forms searched for", len(wanted))
    record_property("canaries: bytes searched", looked_at)


def work(crm: CRM, people: list[Person], given: Path) -> None:
    """Do to customers what people do to them."""
    added = [crm.customers.add(**each.fields) for each in people[:-6]]
    first, second, third, fourth = added[:4]
    source = given / "people.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["name", "email", "phone", "street", "notes", "iban", "card", "tax_id"])
        writer.writeheader()
        for each in people[-6:-2]:
            writer.writerow({name: {**each.personal, **each.sensitive}[name] for name in writer.fieldnames})
    crm.import_file(source, as_="customer").apply()
    mine, other = people[0], people[-2]
    with crm.transaction(reason=f"call of {mine.personal['name']}"):
        crm.customers.update(first, **{name: other.fields[name] for name in ("name", "notes", "iban", "contacts")})
        crm.interactions.add(customer=first, kind="call", title=mine.personal["notes"], text=mine.personal["street"],
                             happened_at="2026-10-01T09:30:00Z")  # fmt: skip
    crm.undo(crm.history(first).records[0])
    moved = crm.customers.update(second, notes=f"{second.notes} pays by {people[1].sensitive['card']}", card=None)
    crm.security.move(moved, "notes")
    crm.customers.remove(third)
    crm.customers.restore(third)
    crm.customers.merge(second.id, [fourth], reason=mine.personal["email"])
    for each in people[:5]:
        crm.customers.search(each.personal["name"][:8])
        assert crm.customers.find(F.email == each.personal["email"]) is not None
        crm.customers.find(F.iban == each.sensitive["iban"])
    crm.reveal(crm.customers[first.id], "iban", reason=f"refund for {mine.personal['name']}")
    crm.history(first.id)
    crm.timeline(crm.customers[first.id])
    crm.security.report()


def errors(crm: CRM, people: list[Person], given: Path) -> str:
    """Return the traceback of every kind of error, chained ones and what they were made of included."""
    mine = people[0]
    secret, name, mail = mine.sensitive["iban"], mine.personal["name"], mine.personal["email"]
    first, second = crm.customers.find(limit=2)
    stale = first.model_copy(update={"rev": 0})
    bad = given / "bad.csv"
    bad.write_text(f"name,email,iban,birthday\n{name},{name},{secret}9,{mail}\n", encoding="utf-8")

    class Clumsy:
        is_on = True

        @hookimpl
        def crm_before_commit(self, crm: CRM, changes: Any) -> None:
            if self.is_on:
                raise ValueError(f"{type(changes).__name__} refused")

    def refused() -> None:
        clumsy = Clumsy()
        crm.register(clumsy, "clumsy")
        try:
            crm.customers.add(**mine.fields)
        finally:
            clumsy.is_on = False

    attempts: list[Callable[[], object]] = [
        lambda: crm.customers.add(name=name, email=name, phone=mail, iban=f"{secret}9", card=secret, birthday=name),
        lambda: crm.customers.add(name=name, unknown=secret),
        lambda: crm.customers.add(name=name, notes=f"{name}\0"),
        lambda: crm.customers.add(name=name, notes=f"%B{mine.sensitive['card']}^{name}^27121010000?"),
        lambda: crm.customers.update(stale, name=name, iban=secret),
        lambda: crm.customers.update(first, country=name, stage=secret, contacts=[{"kind": "email", "value": secret}]),
        lambda: crm.customers.update(first, iban=second.iban),
        lambda: crm.customers.find(F.iban > secret),
        lambda: crm.customers.find(F.iban == f"{secret}9"),
        lambda: crm.customers.find(F.birthday == name),
        lambda: crm.customers.find(F.email == name),
        lambda: crm.reveal(first, "name", reason=name),
        lambda: crm.interactions.add(customer=name, kind=secret, title=mail),
        lambda: crm.import_file(bad, as_="customer").apply(),
        lambda: crm.import_file(bad, as_="customer", map={"iban": "notes", "email": "nothing"}),
        lambda: setattr(first, "name", name),
        lambda: crm.customers.validate(name=name, iban=mail),
        refused,
    ]
    told = []
    for attempt in attempts:
        try:
            attempt()
        except (CrmError, ValueError, AttributeError) as error:
            shown = error.__context__ or error.__cause__
            told += ["".join(traceback.format_exception(error)), repr(error), repr(vars(error).get("problems"))]
            told += [repr(shown), repr(getattr(error, "args", ""))] if shown else []
        else:
            raise AssertionError("an error was expected")
    written = bad.with_name(f"{bad.name}.errors.csv")
    plan = crm.import_file(bad, as_="customer")
    return "\n".join([*told, written.read_text(), plan.summary(), json.dumps(plan.to_dict(), default=str)])


def widgets(crm: CRM) -> bytes:
    """Return the state of every widget of every screen, as a notebook would save it."""
    customer = crm.customers.find().records[0]
    shown = [crm.app(), crm.grid("customer"), crm.card(customer), crm.form("customer"), crm.form("customer", customer)]
    parts = [repr(each).encode() for each in shown]
    for widget in list(_instances.values()):
        state, _, buffers = _remove_buffers(widget.get_state())
        parts += [repr(widget).encode(), json.dumps(state, default=str).encode(), *map(bytes, buffers)]
    for each in shown:
        each.close()
    return b"\n".join(parts)


def texts(crm: CRM) -> str:
    """Return what things show as the last expression of a cell, and what they say of themselves."""
    customer = crm.customers.find().records[0]
    opened = crm.reveal(customer, "iban", reason="look")
    things = [crm, crm.customers, crm.customers.find(), customer, customer.iban, opened, crm.history(customer),
              crm.batches(), crm.customers.removed(), crm.audit, crm.plugins, crm.timeline(customer),
              crm.security.report(), crm.examine(), crm.failures, crm._vault, crm._codec]  # fmt: skip
    return "\n".join(f"{each!r} {each} {_static(each)}" for each in things)


def _static(thing: Any) -> str:
    """Return what of a thing's display is text: a live widget's values travel by message only."""
    method = getattr(thing, "_repr_mimebundle_", None)
    bundle = method() if method and not isinstance(thing, Secret) else {}
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    for widget in list(_instances.values()):
        widget.close()
    return json.dumps(data, default=repr)


def notebook(path: Path) -> None:
    """Run a notebook that shows every screen and some errors; keep its outputs and the state of its widgets."""
    cells = [
        "import crmkit\ncrm = crmkit.open()\ncrm",
        "customer = crm.customers.find().records[0]\ncustomer",
        "crm.app()", "crm.customers", "crm.customers.find()", "crm.card(customer)", "crm.grid('customer')",
        "crm.form('customer', customer)", "crm.history(customer)", "crm.timeline(customer)", "customer.iban",
        "crm.reveal(customer, 'iban', reason='notebook')", "print(customer, customer.iban)", "crm.security.report()",
        "crm.customers.update(customer, email=customer.name, iban=customer.name)",
        "crm.customers.update(customer.model_copy(update={'rev': 0}), notes=customer.notes + customer.name)",
    ]  # fmt: skip
    code: list[dict[str, Any]] = [
        {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": None, "id": f"c{at}"}
        for at, source in enumerate(cells)
    ]
    reads: Any = nbformat.reads
    book = reads(json.dumps({"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(book, timeout=120, store_widget_state=True, allow_errors=True, resources=folder).execute()
    failed = [cell.source for cell in book.cells if any(out.output_type == "error" for out in cell.outputs)]
    assert failed == cells[-2:]
    assert book.metadata.widgets  # the state of the widgets was saved
    path.write_text(json.dumps(book), encoding="utf-8")


def commands(workspace: Path) -> str:
    """Return what commands print that are not there to print records or the reasons that people gave."""
    told = []
    for command in ("doctor", "doctor --json", "doctor --security --json", "plugins", "keys status"):
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-m", "crmkit", *command.split(), "-w", str(workspace)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        told.append(done.stdout + done.stderr)
    return "\n".join(told)


# --------------------------------------------------------------------------- controls


def test_control_a_codec_that_seals_nothing_is_found_out(
    place: Path, people: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_to_all(_self: RecordCodec, _collection: str, doc: dict[str, Any], names: Any = None) -> dict[str, Any]:
        kept = doc if names is None else {name: doc[name] for name in names if name in doc}
        return {name: value.value if isinstance(value, Secret) else value for name, value in kept.items()}

    monkeypatch.setattr(RecordCodec, "seal", open_to_all)
    monkeypatch.setattr(RecordCodec, "open", lambda _self, _collection, fields, _doc: fields)
    with crmkit.create(place / "acme", currency="EUR", country="GB") as crm:
        crm.customers.add_many([people[0].fields])
    assert set(scan(place, personal(people))) == {"acme/data/wal.1.jsonl"}
    for value in (*people[0].personal.values(), *people[0].sensitive.values()):
        assert scan(place, needles([value])), "a value was not found in the clear"


def test_control_every_form_is_found_wherever_it_stands(people: list[Person]) -> None:
    chance = random.Random(5)
    wanted = personal(people[:3])
    for needle in wanted:
        data = chance.randbytes(chance.randint(0, 40)) + needle + chance.randbytes(chance.randint(0, 9))
        assert needle in hits(data, wanted)
    assert hits(chance.randbytes(100_000), wanted) == []


def test_control_base64_of_a_whole_document_is_found(people: list[Person]) -> None:
    import base64

    for before in range(3):
        for value in people[0].personal.values():
            coded = base64.b64encode(b"x" * before + value.encode() + b", and more")
            assert hits(coded, needles([value])), value


def test_control_the_folder_of_another_run_is_clean(place: Path, people: list[Person]) -> None:
    """The values of people who were never stored are not found: a hit means what it says."""
    with crmkit.create(place / "acme", currency="EUR", country="GB") as crm:
        crm.customers.add(**people[0].fields)
    shutil.copytree(place / "acme", place / "copy")
    assert scan(place, personal(people[1:])) == {}
