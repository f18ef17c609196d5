"""Planning and applying an import: mapping, references, groups, bad rows, all or nothing."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

import crmkit
from crmkit import (
    CRM,
    Code,
    Customer,
    F,
    ImportProblem,
    Invalid,
    Personal,
    Record,
    Reference,
    Refused,
    Unique,
    hookimpl,
)
from crmkit.transfer import ImportPlan
from crmkit.values import LongText


class Article(Record, type="article", plural="articles"):
    name: str
    sku: Annotated[Code | None, Unique()] = None


class OrderLine(BaseModel):
    article: Reference[Article]
    quantity: Decimal
    unit_price: Annotated[Decimal, Field(ge=0)]


class Order(Record, type="order", plural="orders", subject="customer"):
    number: Annotated[Code, Unique()]
    customer: Reference[Customer] | None = None
    ordered_by: Personal[str] | None = None
    remark: Personal[LongText] | None = None
    lines: tuple[OrderLine, ...] = ()


class Shop:
    @hookimpl
    def crm_record_types(self) -> list[type[Record]]:
        return [Article, Order]


HEADER = "Invoice,StockCode,Description,Quantity,Price,Customer ID,Note"
MAP = {
    "Invoice": "number",
    "StockCode": "lines.article.sku",
    "Description": "lines.article.name",
    "Note": "remark",
}


@pytest.fixture
def shop(crm: CRM) -> CRM:
    crm.register(Shop(), "shop")
    crm.customers.add(name="Ada", number="1")
    crm.customers.add(name="Bob", number="2")
    return crm


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(*rows: str, header: str = HEADER, name: str = "lines.csv") -> Path:
        (tmp_path / name).write_text("\n".join([header, *rows]), encoding="utf-8")
        return tmp_path / name

    return write


def plan_lines(crm: CRM, path: Path) -> ImportPlan:
    return crm.import_file(path, as_="order", map=MAP, group_by="Invoice")


def reasons(plan: ImportPlan) -> list[tuple[int, str, str]]:
    return [(row.line, row.field, row.reason) for row in plan.bad]


# --------------------------------------------------------------------------- columns


def test_columns_are_guessed_by_name(crm: CRM, file: Any) -> None:
    header = "Customer ID,FULL NAME,E-Mail,phone_number,Zip Code,Shoe size"
    plan = crm.import_file(file("7,Ada,ada@example.org,+442079460018,N1,38", header=header), as_="customer")
    assert plan.mapping == {
        "Customer ID": "number",
        "FULL NAME": "name",
        "E-Mail": "email",
        "phone_number": "phone",
        "Zip Code": "postcode",
    }
    assert plan.unmapped == ("Shoe size",)
    assert "Shoe size" in plan.summary()
    plan.apply()
    assert crm.customers.find(F.number == "7").records[0].postcode == "N1"


def test_a_given_map_wins_and_an_empty_field_leaves_a_column_out(crm: CRM, file: Any) -> None:
    path = file("x,Ada,Countess", header="name,real name,title")
    plan = crm.import_file(path, as_="customer", map={"real name": "name", "name": "", "title": "job_title"})
    assert plan.mapping == {"real name": "name", "title": "job_title"}
    assert (plan.unmapped, plan.records[0].name) == (("name",), "Ada")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nme": "name"}, "no column 'nme', did you mean 'name'"),
        ({"name": "nmae"}, "customer has no field 'nmae', did you mean 'name'"),
        ({"name": "organisation.nmber"}, "did you mean 'organisation.number'"),
        ({"name": "city", "town": "city"}, "columns 'name' and 'town' both go to 'city'"),
        ({"name": "notes"}, "no column goes to 'name', which every customer needs"),
        ({"name": "", "town": ""}, "no column fits a field of customer"),
        (
            {"name": "name", "town": "organisation.name"},
            "^organisation.name cannot identify a customer; use organisation.number$",
        ),
    ],
)
def test_a_wrong_map_is_refused_before_any_row(crm: CRM, file: Any, given: dict[str, str], words: str) -> None:
    with pytest.raises(ImportProblem, match=words):
        crm.import_file(file("Ada,London", header="name,town"), as_="customer", map=given)


def test_a_wrong_group_column_is_refused(shop: CRM, file: Any) -> None:
    with pytest.raises(ImportProblem, match="no column 'Invioce' to group by, did you mean 'Invoice'"):
        shop.import_file(file("A,a,x,1,1,1,"), as_="order", map=MAP, group_by="Invioce")


def test_lists_and_blanks(crm: CRM, file: Any) -> None:
    plan = crm.import_file(
        file("  Ada  ,vip; b2b,client", header="name;x,tags,roles".replace(";x", "")), as_="customer"
    )
    ada = plan.records[0]
    assert isinstance(ada, Customer)
    assert (ada.name, ada.tags, ada.roles) == ("Ada", ("vip", "b2b"), ("client",))


# --------------------------------------------------------------------------- references and groups


def test_rows_of_one_group_make_one_record_consecutive_or_not(shop: CRM, file: Any) -> None:
    plan = plan_lines(shop, file("A,a ,,2,1.5,1,", "B,b,Bowl,1,0.001,,", "A,b,Other,-1,3,1,hello"))
    assert plan.bad == []
    assert len(plan.made["article"]) == 2
    plan.apply()
    order = shop.collection(Order).find(F.number == "A").records[0]
    assert order.customer == shop.customers.find(F.number == "1").records[0].id
    assert order.remark == "hello"
    assert [(line.quantity, line.unit_price) for line in order.lines] == [(2, Decimal("1.5")), (-1, 3)]
    names = {article.sku: article.name for article in shop.collection(Article)}
    assert names == {"a": "a", "b": "Bowl"}  # the first name that is not empty, else the sku
    assert shop.collection(Order).find(F.number == "B").records[0].customer is None


def test_articles_that_exist_are_found_and_not_changed(shop: CRM, file: Any) -> None:
    known = shop.collection(Article).add(sku="a", name="Known")
    plan = plan_lines(shop, file("A,a,Other name,1,1,1,"))
    plan.apply()
    assert plan.made == {}
    assert [article.name for article in shop.collection(Article)] == ["Known"]
    assert shop.collection(Order).find().records[0].lines[0].article == known.id


def test_without_a_second_field_nothing_is_made(shop: CRM, file: Any) -> None:
    plan = shop.import_file(file("A,a,x,1,1,1,"), as_="order", map={**MAP, "Description": ""}, group_by="Invoice")
    assert reasons(plan) == [(2, "lines.article.sku", "no article has this sku")]


def test_a_bad_row_takes_its_whole_group_and_what_only_it_names(shop: CRM, file: Any) -> None:
    plan = plan_lines(shop, file("A,a,x,1,1,1,", "A,b,y,many,1,1,", "B,c,z,1,1,1,"))
    assert [(line, field) for line, field, _ in reasons(plan)] == [(2, ""), (3, "lines.quantity")]
    assert plan.bad[0].reason == "left out with its group because of line 3"
    assert {row.group for row in plan.bad} == {"A"}
    assert plan.bad_rows == 2
    plan.apply(keep_good=True)
    assert {article.sku for article in shop.collection(Article)} == {"c"}
    assert [order.number for order in shop.collection(Order)] == ["B"]


def test_rows_of_a_group_must_agree(shop: CRM, file: Any) -> None:
    plan = plan_lines(shop, file("A,a,x,1,1,1,", "A,a,x,1,1,2,", ",a,x,1,1,1,", ",b,x,1,1,1,"))
    assert (3, "customer.number", "differs from an earlier row of the same group") in reasons(plan)
    assert [line for line, _, reason in reasons(plan) if "is empty" in reason] == [4, 5]
    assert plan.records == []


def test_an_unknown_number_is_a_bad_row(shop: CRM, file: Any) -> None:
    assert reasons(plan_lines(shop, file("A,a,x,1,1,99,"))) == [
        (2, "customer.number", "no customer has this number")  # not which: it may be a mail in the wrong column
    ]


def test_the_line_of_a_problem_is_the_row_that_has_it(shop: CRM, file: Any) -> None:
    plan = plan_lines(shop, file("A,,,,,1,only a head", "A,a,x,1,1,,", "A,a,x,1,-1,,"))
    wrong = [(line, field) for line, field, reason in reasons(plan) if field]
    assert wrong == [(4, "lines.unit_price")]


def test_forgotten_grouping_is_explained(shop: CRM, file: Any) -> None:
    plan = shop.import_file(file("A,a,x,1,1,1,", "A,b,x,1,1,1,"), as_="order", map=MAP)
    assert reasons(plan) == [
        (3, "number", "is in line 2 already; to make one record of such rows, group by their column")
    ]


# --------------------------------------------------------------------------- bad rows

CUSTOMERS = "number,name,email,country"


def test_every_bad_row_is_told_once_with_field_and_reason_and_no_value(crm: CRM, file: Any) -> None:
    crm.customers.add(name="Old", number="3")
    rows = (
        "1,Ada,ada@example.org,GB",
        "2,,secret.mail,XQ",
        "3,Again,,",
        "1,Twin,,",
        "4,short",
        "5,Eve,e@example.org,EIRE",
    )
    plan = crm.import_file(file(*rows, header=CUSTOMERS), as_="customer")
    told = {(row.line, row.field) for row in plan.bad}
    assert told == {(3, "name"), (3, "email"), (3, "country"), (4, "number"), (5, "number"), (6, "")}
    assert (plan.rows, len(plan.records), plan.bad_rows) == (6, 2, 4)
    text = plan.summary() + repr(plan.bad) + str(plan.to_dict())
    assert "exists already" in text
    assert "is in line 2 already" in text
    assert "secret.mail" not in text


def test_bad_rows_stop_the_import_unless_the_good_ones_are_asked_for(crm: CRM, file: Any) -> None:
    path = file("1,Ada,,", "2,,,", header=CUSTOMERS)
    plan = crm.import_file(path, as_="customer")
    with pytest.raises(ImportProblem, match=r"nothing was written: 1 of 2 rows are bad .*keep_good=True"):
        plan.apply()
    with pytest.raises(ImportProblem):
        plan.apply(all_or_nothing=True)
    assert len(crm.customers) == 0
    assert plan.apply(keep_good=True).count == 1
    assert [customer.name for customer in crm.customers] == ["Ada"]
    with pytest.raises(Refused, match="applied already"):
        plan.apply(keep_good=True)


def test_the_error_file_lies_beside_the_source(crm: CRM, file: Any) -> None:
    path = file("1,,,", "=1+1,,,", header=CUSTOMERS)
    errors = crm.import_file(path, as_="customer", group_by="number").write_errors()
    assert errors == path.with_name("lines.csv.errors.csv")
    with errors.open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["line", "field", "reason", "group"],
            ["2", "name", "is required", "1"],
            ["3", "name", "is required", "'=1+1"],  # a spreadsheet shows it and does not reckon with it
        ]


def test_a_group_of_personal_values_is_not_shown(crm: CRM, file: Any) -> None:
    path = file("1,Ada,not a mail,", header=CUSTOMERS)
    plan = crm.import_file(path, as_="customer", group_by="name")
    assert [row.group for row in plan.bad] == [""]


def test_the_error_file_of_a_place_that_takes_none_lies_beside_the_workspace(crm: CRM, file: Any) -> None:
    path = file("1,,,", header=CUSTOMERS)
    path.with_name("lines.csv.errors.csv").mkdir()
    plan = crm.import_file(path, as_="customer")
    plan._crm = SimpleNamespace(workspace=SimpleNamespace(folder=path.parent / "elsewhere" / "acme"))  # type: ignore[assignment]
    (path.parent / "elsewhere").mkdir()
    assert plan.write_errors() == path.parent / "elsewhere" / "lines.csv.errors.csv"


def test_the_error_file_follows_no_link_and_replaces_only_its_own(crm: CRM, file: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = file("1,,,", header=CUSTOMERS, name="in/lines.csv")
    errors = path.with_name("lines.csv.errors.csv")
    precious = tmp_path / "precious"
    precious.write_text("line,field,reason,group\nprecious")
    errors.symlink_to(precious)
    elsewhere = tmp_path / "lines.csv.errors.csv"  # beside the workspace
    assert crm.import_file(path, as_="customer").write_errors() == elsewhere
    assert precious.read_text().endswith("precious")
    elsewhere.write_text("somebody's own")
    with pytest.raises(FileExistsError):
        crm.import_file(path, as_="customer").write_errors()
    errors.unlink()
    assert crm.import_file(path, as_="customer").write_errors() == errors
    assert sorted(entry.name for entry in errors.parent.iterdir()) == ["lines.csv", "lines.csv.errors.csv"]


def test_an_error_file_goes_when_nothing_is_bad_any_more(crm: CRM, file: Any) -> None:
    errors = crm.import_file(file("1,,,", header=CUSTOMERS), as_="customer").write_errors()
    assert errors.exists()
    assert crm.import_file(file("1,Ada,,", header=CUSTOMERS), as_="customer").write_errors() is None
    assert not errors.exists()
    errors.write_text("somebody's own")
    crm.import_file(file("1,Ada,,", header=CUSTOMERS), as_="customer").write_errors()
    assert errors.exists()


def test_a_second_import_of_the_same_file_adds_nothing(crm: CRM, file: Any) -> None:
    path = file("1,Ada,,", "2,Bob,,", header=CUSTOMERS)
    crm.import_file(path, as_="customer").apply()
    again = crm.import_file(path, as_="customer")
    assert {row.reason for row in again.bad} == {"a customer with this number exists already"}
    with pytest.raises(ImportProblem, match="no row of 2 can be imported"):
        again.apply(keep_good=True)
    assert len(crm.customers) == 2


# --------------------------------------------------------------------------- writing


def test_planning_writes_nothing(shop: CRM, file: Any) -> None:
    before = shop.seq()
    plan_lines(shop, file("A,a,x,1,1,1,")).summary()
    assert shop.seq() == before


def test_all_or_nothing_is_one_commit_and_batches_are_several(shop: CRM, file: Any) -> None:
    rows = [f"{n},a{n},x,1,1,1," for n in range(1500)]
    before = shop.seq()
    plan_lines(shop, file(*rows)).apply(all_or_nothing=True)
    assert shop.seq() == before + 1
    moves: list[float] = []
    crm_rows = [f"{n},Ada,," for n in range(10_000, 11_500)]
    before = shop.seq()
    plan = shop.import_file(file(*crm_rows, header=CUSTOMERS, name="c.csv"), as_="customer")
    plan.apply(progress=lambda step, part: moves.append(part))
    assert shop.seq() == before + 2
    assert moves == [1000 / 1500, 1.0]


class Stop:
    """Refuses one customer, or is interrupted at it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def crm_before_commit(self, crm: CRM, changes: tuple[Any, ...]) -> None:
        if any(change.fields.get("number") == "1200" for change in changes):
            raise self.error


@pytest.mark.parametrize("error", [Refused("not that one"), KeyboardInterrupt()], ids=["refused", "Ctrl-C"])
@pytest.mark.parametrize(("all_or_nothing", "stays"), [(True, 0), (False, 1000)])
def test_what_stops_an_import_half_way(
    crm: CRM, file: Any, error: BaseException, all_or_nothing: bool, stays: int
) -> None:
    """Batches that were written stay, whole; all or nothing is nothing. The batches are the control of the other."""
    crm.register(Stop(error), "stop")
    path = file(*(f"{n},Ada,," for n in range(1, 1501)), header=CUSTOMERS)
    with pytest.raises(type(error)):
        crm.import_file(path, as_="customer").apply(all_or_nothing=all_or_nothing)
    assert len(crm.customers) == stays
    with crmkit.open(crm.workspace.folder) as again:
        assert len(again.customers) == stays
        assert again.verify() == []


def test_a_number_taken_since_the_plan_is_refused_and_nothing_is_written(crm: CRM, file: Any) -> None:
    plan = crm.import_file(file("1,Ada,,", "2,Bob,,", header=CUSTOMERS), as_="customer")
    crm.customers.add(name="Faster", number="2")
    with pytest.raises(Invalid, match="number"):
        plan.apply()
    assert [customer.name for customer in crm.customers] == ["Faster"]


def test_a_frame_is_imported_like_a_file(crm: CRM) -> None:
    import pandas as pd

    frame = pd.DataFrame({"Customer ID": [13085.0, float("nan")], "name": ["Ada", "Bob"]})
    plan = crm.import_file(frame, as_="customer")
    assert plan.write_errors() is None
    plan.apply()
    assert {customer.number for customer in crm.customers} == {"13085", None}


def test_sensitive_fields_are_sealed_and_masked_everywhere(crm: CRM, file: Any) -> None:
    iban = "GB33BUKB20201555555555"
    plan = crm.import_file(file(f"Ada,{iban}", "Bob,GB00", header="name,iban"), as_="customer")
    assert iban not in repr(plan) + str(plan.to_dict()) + repr(plan.records)
    plan.apply(keep_good=True)
    ada = crm.customers.find(F.iban == iban).records[0]
    assert crm.reveal(ada, "iban", reason="test").value == iban
    stored = b"".join(path.read_bytes() for path in crm.workspace.folder.rglob("*") if path.is_file())
    assert iban.encode() not in stored


@pytest.fixture(autouse=True)
def collector_is_put_back() -> Iterator[None]:
    import gc

    was = gc.isenabled()
    yield
    assert gc.isenabled() is was  # planning pauses the collector and puts it back


# --------------------------------------------------------------------------- what crmkit exported

KEPT = ("id", "rev", "created_at", "updated_at")
ODD = ("=1+1", "'=1", "'quoted", "+44 20", "-3", "''@x", "a; b")


def test_an_export_comes_back_as_it_was(crm: CRM, tmp_path: Path) -> None:
    mail = {"kind": "email", "value": "ada@example.org", "label": "=home"}
    for number, odd in enumerate(ODD):
        crm.customers.add(name=odd, number=f"@{number}", notes=odd, tags=[odd, "x"], contacts=[mail], roles=["client"])
    exported = crm.export("customer", tmp_path / "round.csv")
    assert exported.records == {"customers": len(ODD)}
    with crmkit.create(tmp_path / "other", country="GB") as other:
        plan = other.import_file(tmp_path / "round.csv", as_="customer")
        assert plan.mapping["number"] == "number"
        assert {*KEPT, "removed", "other"} == {*plan.unmapped}
        plan.apply()
        there = {each.number: each for each in other.customers}
        for each in crm.customers:
            again = there[each.number]
            assert [getattr(again, n) for n in crm.customers.info.fields] == [
                getattr(each, n) for n in crm.customers.info.fields
            ]


@pytest.mark.shipped_plugins
def test_an_export_of_purchases_comes_back(crm: CRM, tmp_path: Path) -> None:
    tea = crm.products.add(name="Tea", sku="T")
    ada = crm.customers.add(name="Ada")
    crm.purchases.add(
        number="1",
        customer=ada,
        purchased_on="2026-10-01",
        lines=[{"product": tea, "quantity": 2, "unit_price": "1.50"}],
    )
    crm.export("purchase", tmp_path / "purchases.csv")
    [sold] = crm.purchases
    crm.purchases.remove(sold)
    crm.import_file(tmp_path / "purchases.csv", as_="purchase").apply()
    [again] = crm.purchases
    assert (again.lines, again.total, again.customer) == (sold.lines, sold.total, sold.customer)


def test_masks_and_removed_records_of_an_export_are_left_out_and_told(crm: CRM, tmp_path: Path) -> None:
    crm.customers.add(name="Ada", number="1", iban="GB33BUKB20201555555555")
    crm.customers.remove(crm.customers.add(name="Gone", number="2"))
    crm.export_all(tmp_path / "all")
    with crmkit.create(tmp_path / "other") as other:
        plan = other.import_file(tmp_path / "all" / "records" / "customers.csv", as_="customer")
        assert (len(plan.records), reasons(plan)) == (1, [(3, "", "had been removed when this was exported")])
        assert "left empty: iban (masked in the export)" in plan.summary()
        plan.apply(keep_good=True)
        assert [(each.number, each.iban) for each in other.customers] == [("1", None)]


def test_an_id_of_others_is_a_number_unless_there_is_one(shop: CRM, file: Any) -> None:
    plan = shop.import_file(file("7,Ada", header="id,name"), as_="customer")
    assert plan.mapping == {"id": "number", "name": "name"}
    plan = shop.import_file(file("7,Ada,8", header="id,name,number"), as_="customer")
    assert plan.mapping == {"name": "name", "number": "number"}
    plan = shop.import_file(file("7,2", header="id,lines"), as_="order")
    assert plan.mapping == {"id": "number"}  # no guess at nested rows


def test_a_mask_in_a_file_of_others_is_no_value(crm: CRM, file: Any) -> None:
    plan = crm.import_file(file("Ada,GB•• •••• 5555", header="name,iban"), as_="customer")
    assert plan.bad_rows == 1
