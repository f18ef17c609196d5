"""Strings that break software go through every text field and every way in and out, and come back as they were."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit import CRM, Customer, F, Invalid, LongText, Part, Personal, Record, Reference, hookimpl
from crmkit.codec import RecordCodec
from crmkit.tables.formulas import unguarded
from crmkit.ui.viewmodels.form import FormModel
from crmkit.ui.viewmodels.grid import GridModel

pytestmark = pytest.mark.proof
DATA = Path(__file__).parents[1] / "data" / "blns.json"

FIELDS = (
    "name",
    "job_title",
    "website",
    "street",
    "postcode",
    "city",
    "region",
    "owner",
    "language",
    "source",
    "notes",
)
TEXTS = ("title", "text", "plain")


class Line(Part):
    """A nested row."""

    note: Personal[str] = ""


class Memo(Record, type="memo", subject="customer"):
    """A type of a plugin, with every kind of field that takes text."""

    customer: Reference[Customer]
    title: Personal[str]
    text: Personal[LongText] | None = None
    plain: str | None = None
    words: tuple[Personal[str], ...] = ()
    lines: tuple[Line, ...] = ()


class Memos:
    """The plugin."""

    @hookimpl
    def crm_record_types(self) -> list[type[Record]]:
        """Bring the type."""
        return [Memo]


def oddities() -> Iterator[str]:
    """Yield strings of signs that are seldom seen: every category, both ends of each plane, and known troublemakers."""
    by_category: dict[str, list[str]] = {}
    for code in range(1, 0x30000):
        if not 0xD800 <= code <= 0xDFFF:
            by_category.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    for signs in by_category.values():
        for sign in (*signs[:12], *signs[-12:]):
            yield f"a{sign}z"
    for plane in range(17):
        yield "".join(chr((plane << 16) | low) for low in (0x21, 0x1234, 0xFFFD, 0xFFFE, 0xFFFF))
    yield from ("e\u0301 \u00e9", "A\u030a \u212b \u00c5", "\ufb01 fi", "\u1e9e ß SS", "İı Iiİ", "\u03c3\u03c2 Σ")
    yield from (
        "\u202etxt.exe",
        "\u2066a\u2069",
        "\ufeffbom",
        "a\u200bb\u200d\u2060c",
        "a\u00adb",
        "x\u2028y\u2029z\u0085w",
    )
    yield from (
        "'=1+1",
        "=1+1",
        "''",
        "+",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "|cmd",
        "＝1",
        '"',
        '","',
        'a"b,c;d\te',
        "\\",
        "\\n",
    )
    yield from ("[1, 2", "{", "[]", "null", "true", "NaN", "1e999", "0x10", "-0", "b1.00000002.fff", "c1.AAAA", "••••")
    yield from ("a\nb", "a\r\nb", "a\rb", "a" * 5_000, "🧑🏽‍🚀" * 50, "Z" + "\u0301" * 200, "%s %n {0} {{x}} ${y} #{z}")


def strings() -> list[str]:
    """All of them; empty ones mean that there is no value."""
    given = [text for text in json.loads(DATA.read_text("utf-8")) if text.strip()]
    return list(dict.fromkeys([*given, *oddities()]))


ALL = strings()


@pytest.fixture
def full(crm: CRM) -> CRM:
    """One customer and one memo for each string."""
    crm.register(Memos(), "memos")
    made = crm.customers.add_many(
        {**dict.fromkeys(FIELDS, text), "number": str(number), "tags": (text,), "interests": (text, "x"),
         "contacts": [{"kind": "address", "value": text, "label": text}]}
        for number, text in enumerate(ALL)
    )  # fmt: skip
    owner = crm.customers.find(F.number == "0").records[0]
    crm.collection("memo").add_many(
        {**dict.fromkeys(TEXTS, text), "customer": owner.id, "words": (text,), "lines": [{"note": text}]}
        for text in ALL
    )
    assert made.count == len(ALL)
    return crm


def held(crm: CRM) -> dict[str, list[Any]]:
    """What every customer holds, by number, one text for each place it was put in."""
    return {
        customer.number: [
            *(getattr(customer, name) for name in FIELDS),
            *customer.tags, customer.interests[0], customer.contacts[0].value, customer.contacts[0].label,
        ]
        for customer in crm.customers
    }  # fmt: skip


def expected() -> dict[str, list[str]]:
    """What they should hold."""
    return {str(number): [text] * (len(FIELDS) + 4) for number, text in enumerate(ALL)}


def memos(crm: CRM) -> list[str]:
    """Every text of every memo; each string stands for itself, once per place."""
    found = []
    memo: Any
    for memo in crm.collection("memo"):
        texts = {*(getattr(memo, name) for name in TEXTS), *memo.words, *(line.note for line in memo.lines)}
        assert len(texts) == 1
        found.append(texts.pop())
    return sorted(found)


def test_there_are_enough() -> None:
    assert len(ALL) > 1_000
    assert len(json.loads(DATA.read_text("utf-8"))) == 485


def test_stored_and_read_by_another_process(full: CRM, tmp_path: Path) -> None:
    assert held(full) == expected()
    assert memos(full) == sorted(ALL)
    out = tmp_path / "seen.json"
    program = (
        "import json, crmkit\n"
        f"with crmkit.open({str(full.workspace.folder)!r}) as crm:\n"
        f"    seen = {{c.number: [*(getattr(c, name) for name in {FIELDS!r}), *c.tags, c.interests[0],"
        " c.contacts[0].value, c.contacts[0].label] for c in crm.customers}\n"
        f"open({str(out)!r}, 'w').write(json.dumps(seen))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert json.loads(out.read_text()) == expected()


def test_found_by_equality(full: CRM) -> None:
    for number, text in enumerate(ALL):
        for condition in (F.street == text, F.city == text, F.region == text, F.tags.has(text)):
            assert [found.number for found in full.customers.find(condition)] == [str(number)], text
    for text in ALL[::40]:
        assert isinstance(full.customers.search(text), list)


def test_updated_and_undone(full: CRM) -> None:
    with full.transaction(reason=ALL[-1]):
        for customer in full.customers:
            full.customers.update(customer, notes=ALL[-1 - int(customer.number)], city=None)
    for customer in full.customers:
        assert (customer.notes, customer.city) == (ALL[-1 - int(customer.number)], None)
    assert full.history(customer).records[0].reason == ALL[-1]
    full.undo(full.batches(1)[0])
    assert held(full) == expected()


def test_exported_as_csv_and_imported_again(full: CRM, tmp_path: Path) -> None:
    """Blanks at the ends of a cell are left out on import; everything else comes back."""
    path = full.export("customer", tmp_path / "people.csv").path
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        rows = {row["number"]: row for row in csv.DictReader(file)}
    for number, text in enumerate(ALL):
        assert {unguarded(rows[str(number)][name]) for name in FIELDS} == {text}
    with crmkit.create(tmp_path / "again", currency="EUR", country="GB") as again:
        again.import_file(path, as_="customer").apply()
        texts = {number: set(map(str.strip, texts)) for number, texts in held(again).items()}
    assert texts == {str(number): {text.strip()} for number, text in enumerate(ALL)}


def test_exported_as_json(full: CRM, tmp_path: Path) -> None:
    path = Path(full.export("customer", tmp_path / "people.jsonl").path)
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    assert {row["number"]: {row[name] for name in FIELDS} for row in rows} == {
        str(number): {text} for number, text in enumerate(ALL)
    }


def test_backed_up_and_restored(full: CRM, tmp_path: Path) -> None:
    full.backup(tmp_path / "backups")
    with crmkit.restore(tmp_path / "backups", tmp_path / "again") as again:
        again.register(Memos(), "memos")
        assert held(again) == expected()
        assert memos(again) == sorted(ALL)


def test_shown_in_the_form(full: CRM) -> None:
    for customer in full.customers:
        text = ALL[int(customer.number)]
        model = FormModel(full, "customer", customer)
        assert {model.value(name) for name in FIELDS} == {text}
        model.set("notes", f"{text} ")
        model.set("notes", text)
        assert model.dirty == []
        json.dumps(model.values())


def test_shown_in_the_grid(full: CRM) -> None:
    model = GridModel(full, "customer", columns=("number", "name", "city"), order="number")
    rows = [row for start in range(0, len(ALL), 500) for row in model.window(start, 500)]
    assert len(rows) == len(ALL)
    assert json.loads(json.dumps(rows)) == rows
    for row in rows:
        number, name, city = row["cells"]
        assert name == city
        assert {name} <= {ALL[int(number)], " ".join(ALL[int(number)].split())}


def test_control_a_store_that_tidies_texts_is_found_out(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    def tidy(self: RecordCodec, record: Record) -> dict[str, Any]:
        made = document(self, record)
        return {name: unicodedata.normalize("NFC", v) if isinstance(v, str) else v for name, v in made.items()}

    document = RecordCodec.document
    monkeypatch.setattr(RecordCodec, "document", tidy)
    crm.customers.add_many({**dict.fromkeys(FIELDS, text), "number": str(at)} for at, text in enumerate(ALL))
    changed = [customer for customer in crm.customers if customer.name != ALL[int(customer.number)]]
    assert len(changed) > 5


@pytest.mark.parametrize("bad", ["a\0b", "\ud800", "a\udfffz", "\ud83d \ude00"])
@pytest.mark.parametrize("field", [*FIELDS, "tags", "interests", "contacts"])
def test_what_no_store_can_keep_is_refused_by_name(crm: CRM, field: str, bad: str) -> None:
    rows: dict[str, Any] = {"contacts": [{"kind": "address", "value": bad}], "tags": (bad,), "interests": ("x", bad)}
    with pytest.raises(Invalid) as caught:
        crm.customers.add(**{"name": "Ada", field: rows.get(field, bad)})
    assert list(caught.value.problems) == [field]
    assert "U+0000, or half of a surrogate pair" in str(caught.value)
    assert bad not in str(caught.value)
