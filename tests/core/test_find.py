"""Questions: what find, count, window, search, columns and the timeline answer, and what they refuse."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError, create_model

from crmkit import CRM, Customer, Entry, F, Instant, Invalid, Money, NotFound, Record, Reference, hookimpl
from crmkit.collection import Collection
from crmkit.finder import Finder
from crmkit.query import And, AnyRow, Compare, Condition, Not, Or
from crmkit.schema import adapter
from crmkit.store.cursors import Gap

IBAN = "GB33BUKB20201555555555"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Row(BaseModel):
    word: str = ""
    size: Decimal | None = None
    price: Money | None = None
    tags: tuple[str, ...] = ()


class _Sample(Record):
    """One field of each kind that can be asked for."""

    word: str | None = None
    size: int | None = None
    flag: bool | None = None
    day: date | None = None
    at: Instant | None = None
    total: Money | None = None
    rate: Decimal | None = None
    colour: Colour | None = None
    labels: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    owner: Reference[Customer] | None = None
    friends: tuple[Reference[Customer], ...] = ()
    rates: tuple[Decimal, ...] = ()
    row: Row | None = None
    rows: tuple[Row, ...] = ()


ADDED: Any = {"x.acme.tier": (str | None, None)}  # a field that another plugin could have added
Sample = create_model(
    "Sample", __base__=_Sample, __cls_kwargs__={"type": "sample", "plural": "samples"}, __doc__=_Sample.__doc__, **ADDED
)


class Samples:
    @hookimpl
    def crm_record_types(self) -> list[type[Record]]:
        return [Sample]


@pytest.fixture
def samples(crm: CRM) -> Collection[Any]:
    crm.register(Samples())
    return crm.collection(Sample)


def words(found: Iterable[Any]) -> set[str | None]:
    return {sample.word for sample in found}


# --------------------------------------------------------------------------- sensitive fields


@pytest.fixture
def one_tag(crm: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every value have the same blind index tag, so that all records are candidates of any match."""
    monkeypatch.setattr(type(crm._vault), "blind_tag", lambda *_: "same")
    monkeypatch.setattr(type(crm._vault), "blind_tags", lambda *_: ["same"])


def add_strangers(crm: CRM) -> list[Customer]:
    """Add customers of whom every third is wanted, and return those by name."""
    crm.customers.add_many([{"name": f"C{n}", "tax_id": "WANTED" if n % 3 == 0 else f"OTHER{n}"} for n in range(9)])
    return [customer for customer in crm.customers.find(order="name") if int(customer.name[1:]) % 3 == 0]


def what_is_shown(crm: CRM) -> list[Any]:
    where = F.tax_id == "WANTED"
    return [
        crm.customers.find(where, order="name").records,
        crm.customers.window(0, 50, where, order="name"),
        crm.customers.window(0, 50, where, order="name", text="c"),
        [crm.customers.count(where)] * 3,
        [crm.customers.count(where, text="c")] * 3,
    ]


@pytest.mark.proof
def test_a_match_on_a_sensitive_field_shows_no_stranger(crm: CRM, one_tag: None) -> None:
    wanted = add_strangers(crm)
    assert what_is_shown(crm) == [wanted, wanted, wanted, [3] * 3, [3] * 3]


def test_control_a_reader_that_trusts_the_blind_index_shows_strangers(
    crm: CRM, one_tag: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = add_strangers(crm)
    monkeypatch.setattr(Finder, "_matches", lambda *_: True)
    assert all(shown not in (wanted, [3] * 3) for shown in what_is_shown(crm))


def test_matches_on_a_sensitive_field_are_paged(crm: CRM, one_tag: None) -> None:
    wanted = add_strangers(crm)
    first = crm.customers.find(F.tax_id == "WANTED", order="name", limit=2)
    rest = crm.customers.find(F.tax_id == "WANTED", order="name", limit=2, after=first.next)
    assert [first.records, rest.records, rest.next] == [wanted[:2], wanted[2:], None]
    assert crm.customers.find(F.tax_id == "WANTED", order="name", limit=2, before=rest.previous) == first
    assert crm.customers.find(F.tax_id == "WANTED", limit=3).next is None
    with pytest.raises(Invalid, match="after"):
        crm.customers.find(F.tax_id == "WANTED", after="junk")


def test_two_secrets_of_one_mask_are_two_questions(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", tax_id="AAAA0099")
    bob = crm.customers.add(name="Bob", tax_id="BBBB0099")
    for record in (ada, bob):
        opened = crm.reveal(record, "tax_id", reason="test")
        assert crm.customers.window(0, 9, F.tax_id == opened) == [record]


def test_who_has_a_sensitive_field(crm: CRM) -> None:
    ada, bob = crm.customers.add(name="Ada", iban=IBAN), crm.customers.add(name="Bob")
    assert crm.customers.find(F.iban != None).records == [ada]  # noqa: E711
    assert crm.customers.find((F.iban == None) | (F.name == "x")).records == [bob]  # noqa: E711
    assert crm.customers.find(F.card == None, order="name").records == [ada, bob]  # noqa: E711


# --------------------------------------------------------------------------- errors say no value


def told(error: BaseException | None) -> Iterator[str]:
    """Yield everything that an error and those behind it can tell."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        yield from (str(each), repr(each), str(each.args), str(vars(each)))
        if isinstance(each, ValidationError):
            yield str(each.errors())
        waiting += [each.__cause__, each.__context__]


CANARY = "canary-4711"
BAD = [
    F.iban == CANARY,
    F.iban.isin([IBAN, CANARY]),
    F.tax_id == CANARY * 9,
    F.email == CANARY,
    F.phone == CANARY * 9,
    F.birthday == CANARY,
    F.birthday.isin([CANARY]),
    F.birthday < CANARY,
    F.name == [CANARY],
    F.iban == {"iban": CANARY},
    F.contacts.has(CANARY),
    F.card == CANARY,
    F.iban.startswith(CANARY),
]


@pytest.mark.proof
@pytest.mark.parametrize("where", BAD, ids=range(len(BAD)))
def test_what_was_asked_for_is_in_no_error(crm: CRM, where: Condition) -> None:
    for ask in (crm.customers.find, crm.customers.count, lambda where: crm.customers.window(0, 9, where)):
        with pytest.raises(Invalid) as caught:
            ask(where)
        assert not [text for text in told(caught.value) if CANARY in text]


@pytest.mark.parametrize("field", ["iban", "email", "total"])
def test_control_an_error_raised_inside_the_except_block_tells_it(field: str) -> None:
    record_type = Sample if field == "total" else Customer
    with pytest.raises(Invalid) as caught:
        try:
            adapter(record_type, field).validate_python(CANARY)
        except ValidationError:
            raise Invalid({field: "is wrong"}) from None
    assert [text for text in told(caught.value) if CANARY in text]


def test_the_validator_of_a_field_hides_its_input() -> None:
    for field in ("iban", "email", "birthday", "contacts"):
        with pytest.raises(ValidationError) as caught:
            adapter(Customer, field).validate_python(CANARY)
        assert CANARY not in str(caught.value)


def test_a_key_that_is_no_id_is_not_repeated(crm: CRM) -> None:
    for ask in (lambda: crm.customers["ada@x.org"], lambda: crm.customers.update("ada@x.org", city="x")):
        with pytest.raises(NotFound, match="no customer has the id that was given") as caught:
            ask()
        assert not [text for text in told(caught.value) if "ada@x.org" in text]
    with pytest.raises(NotFound, match="01J0000000000000000000000X"):
        crm.customers["01J0000000000000000000000X"]
    with pytest.raises(NotFound):
        crm.customers[["ada@x.org"]]  # type: ignore[index]


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.find(limit=None),
        lambda c: c.find(limit="5"),
        lambda c: c.find(limit=10**30),
        lambda c: c.find(limit=0),
        lambda c: c.find(limit=True),
        lambda c: c.find(F.word == "x", limit=-1),
        lambda c: c.find(order=5),
        lambda c: c.find(order=[1]),
        lambda c: c.find(order=["-"]),
        lambda c: c.find(order=F.word),
        lambda c: c.find(order={"word"}),
        lambda c: c.find(after="junk"),
        lambda c: c.find(after=5),
        lambda c: c.find(after=""),
        lambda c: c.find(after=b"x"),
        lambda c: c.find(order="word", after=c.find(limit=1).next),
        lambda c: c.find("word"),
        lambda c: c.find(F.word),
        lambda c: c.find((F.word == "x") & True),
        lambda c: c.search(None),
        lambda c: c.search("x", limit=0),
        lambda c: c.search("", limit=None),
        lambda c: c.count(text=None),
        lambda c: c.window(-1, 5),
        lambda c: c.window(0, None),
        lambda c: c.window(0, 5, order=5),
        lambda c: c.window(0, 5, text=5),
        lambda c: c.keys("labels"),
        lambda c: c.keys("total"),
        lambda c: c.keys("wrod"),
        lambda c: c.columns("wrod"),
        lambda c: c.columns("word.foo"),
        lambda c: c.columns("rows.wrod"),
        lambda c: c.find(before="junk"),
        lambda c: c.find(after=c.find(limit=1).next, before=c.find(limit=1).next),
        lambda c: c.find(order="word", before=c.find(limit=1).next),
    ],
)
def test_a_question_that_is_none_is_refused_in_one_line(samples: Collection[Any], ask: Callable[[Any], object]) -> None:
    samples.add_many([{"word": "x"}, {"word": "y"}])
    with pytest.raises(Invalid) as caught:
        ask(samples)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (F.word.foo == "x", "word.foo: is not there: word has no fields below it"),
        (F.foo.bar.exists(), "is not a field of sample"),
        (F.owner.word == "x", "has no fields below it"),
        (F.total.cents > 5, "F.total.minor and F.total.currency"),
        (F.total.minor.foo > 5, "F.total.minor and F.total.currency"),
        (F.labels.isin(["x"]), "has"),
        (F.labels.startswith("x"), "has"),
        (F.labels.any(F.word == "x"), "no list of rows"),
        (F.labels.has(5), "must be"),
        (F.labels.has(None), "must be"),
        (F.sizes == 3, "has"),
        (F.word.has("x"), "is not a list"),
        (F.size < None, "== and != only"),
        (F.word.isin([None]), "== and != only"),
        (F.size.startswith("1"), "is no text"),
        (F.total.contains("1"), "is no text"),
        (F.word.startswith(None), "compared with text"),
        (F.rate < "five", "rate: must be a number"),
        (F.rate < None, "== and != only"),
        (F.rate.startswith("1"), "is no text"),
        (F.rates.has(1), "has\\(\\) cannot compare"),
        (F.rows == "x", "F.rows.word == value"),
        (F.rows.wrod == "x", "rows.wrod: is not a field of rows; did you mean 'word'"),
        (F.rows.word.has("x"), "rows.word: is not a list"),
        (F.rows.word.foo == "x", "rows.word has no fields below it"),
        (F.rows.word == 5, "rows.word: must be"),
        (F.rows.size < "many", "rows.size: must be a number"),
        (F.rows.price == "5 XXY", "rows.price: is not in a known currency"),
        (F.rows.price.cents == 5, "F.rows.price.minor"),
        (F.rows.has("x"), "holds rows"),
        (F.rows.any(F.row.word == "x"), "rows.row: is not a field of rows"),
        (F.rows.any("x"), "made with F"),
        (F.rows.any(F.tags == "x"), "rows.tags: is a list; ask F.rows.tags.has"),
        (F.word.any(F.word == "x"), "no list of rows"),
        (F.row.any(F.word == "x"), "no list of rows"),
        (F.row == "x", "holds fields of its own; ask for one of them, F.row.word"),
        (F.row.wrod == "x", "row.wrod: is not a field of row; did you mean 'word'"),
        (F["x.acme.teir"] == "gold", "did you mean 'x.acme.tier'"),
        (F["x.acme.tier"] == 5, "x.acme.tier: must be"),
        (F.at > datetime(2026, 1, 1), "time zone"),
        (F.at > "2026", "is a number"),
        (F.created_at > datetime(2026, 1, 1), "time zone"),
        (F.created_at.foo > datetime(2026, 1, 1, tzinfo=UTC), "has no fields below it"),
        (F.day == 0, "is a number"),
        (F.word == F.day, "must be"),
        (F.id == 5, "must be"),
        (F.owner == "x", "must be a record"),
    ],
)
def test_a_condition_that_could_only_be_empty_is_refused(samples: Collection[Any], where: Condition, says: str) -> None:
    for ask in (samples.find, samples.count, lambda where: samples.window(0, 9, where)):
        with pytest.raises(Invalid, match=says):
            ask(where)


@pytest.mark.parametrize("values", ["London", b"London", 5, None, F.city == "London"])
def test_a_single_value_is_no_list_of_values(values: Any) -> None:
    with pytest.raises(Invalid, match="city: isin takes a list"):
        F.city.isin(values)


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ("-labels", "is a list"),
        ("sizes", "is a list"),
        ("rows", "holds rows"),
        ("rows.word", "holds rows"),
        ("row", "holds fields of its own"),
        ("rates", "is a list"),
        ("word.foo", "has no fields below it"),
        ("wrod", "did you mean 'word'"),
    ],
)
def test_an_order_that_is_none_is_refused(samples: Collection[Any], order: str, says: str) -> None:
    for ask in (lambda: samples.find(order=order), lambda: samples.window(0, 5, order=order)):
        with pytest.raises(Invalid, match=says):
            ask()


def test_records_are_not_sorted_by_a_sensitive_field(crm: CRM) -> None:
    for field in ("iban", "card", "iban.foo"):
        with pytest.raises(Invalid, match="is sensitive"):
            crm.customers.find(order=field)


# --------------------------------------------------------------------------- what is answered


def test_an_amount_of_another_currency_is_another_amount(samples: Collection[Any]) -> None:
    samples.add_many([{"word": total or "none", "total": total} for total in ("5", "7", "5 GBP", "0.05 USD", None)])
    assert words(samples.find(F.total != "5")) == {"7", "5 GBP", "0.05 USD"}
    assert words(samples.find(~(F.total == "5"))) == {"7", "5 GBP", "0.05 USD", "none"}
    assert words(samples.find(F.total.isin(["5", "5 GBP", "9"]))) == {"5", "5 GBP"}
    assert words(samples.find(F.total.isin([]))) == set()
    assert words(samples.find(F.total.minor > 5)) == {"5", "7", "5 GBP"}
    assert words(samples.find(F.total.currency == "EUR")) == {"5", "7"}
    assert words(samples.find(F.total == None)) == {"none"}  # noqa: E711
    assert words(samples.find(F.total != None)) == {"5", "7", "5 GBP", "0.05 USD"}  # noqa: E711
    assert [sample.word for sample in samples.find(order=["-total.currency", "total"])] == [
        *("0.05 USD", "5 GBP", "5", "7", "none"),
    ]


def test_decimals_are_equal_whatever_zeros_they_end_with(samples: Collection[Any]) -> None:
    samples.add_many([{"word": text, "rate": text} for text in ("1.5", "1.50", "1.500", "15", "0", "0.00", "1E+2")])
    samples.add(word="none")
    assert words(samples.find(F.rate == "1.50")) == {"1.5", "1.50", "1.500"}
    assert words(samples.find(F.rate.isin([Decimal("1.5"), 0]))) == {"1.5", "1.50", "1.500", "0", "0.00"}
    assert words(samples.find(F.rate == 100)) == {"1E+2"}
    assert words(samples.find(F.rate != "1.5")) == {"15", "0", "0.00", "1E+2"}
    assert words(samples.find((F.rate >= "1.5") & (F.rate < 16))) == {"1.5", "1.50", "1.500", "15"}
    ordered = [sample.word for sample in samples.find(order=["rate", "word"])]
    assert ordered == ["none", "0", "0.00", "1.5", "1.50", "1.500", "15", "1E+2"]
    assert samples.columns("rate")["rate"][:2] == ["1.5", "1.50"]


def test_a_comparison_inside_rows_asks_for_any_row(samples: Collection[Any]) -> None:
    samples.add(word="two", rows=[{"word": "tea", "size": 1}, {"word": "milk", "size": 12}])
    samples.add(word="one", rows=[{"word": "tea", "size": "12.00", "price": "5 GBP", "tags": ["x"]}])
    samples.add(word="none")
    assert words(samples.find(F.rows.word == "tea")) == {"one", "two"}
    assert words(samples.find(F.rows.word != "tea")) == {"two"}
    assert words(samples.find(~(F.rows.word == "tea"))) == {"none"}
    assert words(samples.find((F.rows.word == "tea") & (F.rows.size > 9))) == {"one", "two"}
    assert words(samples.find(F.rows.any((F.word == "tea") & (F.size == 12)))) == {"one"}
    assert words(samples.find(F.rows.any(~(F.word == "tea")))) == {"two"}
    assert words(samples.find(~F.rows.any(~(F.word == "tea")))) == {"one", "none"}
    assert words(samples.find(F.rows.price == "5 GBP")) == {"one"}
    assert words(samples.find(F.rows.price == "5")) == set()
    assert words(samples.find(F.rows.price == None)) == {"two"}  # noqa: E711
    assert words(samples.find(F.rows.tags.has("x"))) == {"one"}
    assert words(samples.find(F.rows.exists())) == {"one", "two"}
    assert words(samples.find(F.rows == None)) == {"none"}  # noqa: E711


def test_columns_inside_rows_and_of_added_fields(samples: Collection[Any]) -> None:
    samples.add(
        word="a", rows=[{"word": "x", "price": "5"}, {"word": "y"}], row={"word": "z"}, **{"x.acme.tier": "gold"}
    )
    samples.add(word="b")
    columns = samples.columns("rows.word", "rows.price", "rows.price.currency", "row.word", "x.acme.tier")
    assert columns == {
        "rows.word": [["x", "y"], []],
        "rows.price": [[500, None], []],
        "rows.price.currency": [["EUR", None], []],
        "row.word": ["z", None],
        "x.acme.tier": ["gold", None],
    }
    assert words(samples.find(F["x.acme.tier"] == "gold", order="-x.acme.tier")) == {"a"}
    assert words(samples.find(F.x.acme.tier != None)) == {"a"}  # noqa: E711


def test_columns_hold_the_largest_numbers(samples: Collection[Any]) -> None:
    samples.add(sizes=[2**64 - 1], size=-(2**63))
    assert samples.columns("sizes", "size") == {"sizes": [[2**64 - 1]], "size": [-(2**63)]}


def test_an_empty_list_is_missing(samples: Collection[Any]) -> None:
    samples.add(word="with", labels=["x"])
    samples.add(word="without")
    assert words(samples.find(F.labels.exists())) == words(samples.find(F.labels != None)) == {"with"}  # noqa: E711
    assert words(samples.find(F.labels == None)) == {"without"}  # noqa: E711


def test_contacts_are_found_by_their_values(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", contacts=[{"kind": "email", "value": "ada@example.org", "label": "home"}])
    crm.customers.add(name="Bob", contacts=[{"kind": "phone", "value": "+44 20 7946 0018"}], email="ada@example.org")
    assert crm.customers.find(F.contacts.value == "ada@example.org").records == [ada]
    assert crm.customers.find(F.contacts.any((F.kind == "email") & F.label.startswith("h"))).records == [ada]
    with pytest.raises(Invalid, match=r"contacts\.kind: must be 'email', 'phone' or 'address'"):
        crm.customers.find(F.contacts.kind == "fax")


def test_records_and_items_of_lists_are_values(crm: CRM, samples: Collection[Any]) -> None:
    ada, bob = crm.customers.add(name="Ada"), crm.customers.add(name="Bob")
    one = samples.add(owner=ada, friends=[ada, bob], sizes=[1, 2], colour="red", at="2026-01-01T12:00:00+02:00")
    samples.add(owner=bob)
    for where in (
        F.owner == ada,
        F.owner.isin([ada]),
        F.friends.has(bob),
        F.friends.has(bob.id),
        F.sizes.has(2),
        F.colour == Colour.RED,
        F.colour.startswith("r"),
        F.at == datetime(2026, 1, 1, 10, tzinfo=UTC),
        F.id == one,
        F.id.isin([one]),
        F.id == one.id,
    ):
        assert samples.find(where).records == [one], where
    assert samples.find(F.id != one, order="-colour").records != [one]


def test_a_search_for_zeros_is_not_a_search_for_anything(crm: CRM) -> None:
    crm.customers.add(name="Ada", number="7")
    zeros = crm.customers.add(name="Bob", number="000000")
    assert crm.customers.search("00000") == [zeros]


def test_columns_do_not_hand_out_what_lies_in_the_store(samples: Collection[Any]) -> None:
    samples.add(word="a", total="5", labels=["x"], rows=[{"word": "y"}], row={"word": "z"})
    found = samples.columns("word", "total", "total.currency", "labels", "rows", "row")
    assert (found["total"], found["total.currency"]) == ([500], ["EUR"])
    assert found["rows"] == [[{"word": "y", "tags": []}]]
    found["labels"][0].append("mine")
    found["rows"][0][0]["word"] = "mine"
    found["row"][0]["word"] = "mine"
    (sample,) = samples.find()
    assert (sample.labels, sample.rows, sample.row) == (("x",), (Row(word="y"),), Row(word="z"))


# --------------------------------------------------------------------------- the timeline


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": None},
        {"limit": "5"},
        {"after": "junk"},
        {"after": "a|b|c"},
        {"after": 5},
        {"after": "2026-01-01"},
        {"kinds": "call"},
    ],
)
def test_a_timeline_refuses_what_is_no_page(crm: CRM, wrong: dict[str, Any]) -> None:
    ada = crm.customers.add(name="Ada")

    class Calls:
        @hookimpl
        def crm_timeline(self, crm: CRM, customer: Customer) -> list[Entry]:
            return [Entry(datetime(2026, 1, day, tzinfo=UTC), "call", f"call {day}") for day in (1, 2, 3)]

    crm.register(Calls())
    with pytest.raises(Invalid) as caught:
        crm.timeline(ada, **wrong)
    assert "\n" not in str(caught.value)
    first = crm.timeline(ada, limit=2, kinds=["call"])
    assert [each.title for each in crm.timeline(ada, after=first.next)] == ["call 1"]


# --------------------------------------------------------------------------- against plain Python

Question = tuple[Condition, Callable[[Any], bool]]
TEXTS = ("", "a", "A", "ab", "b", "é", "\U0001f600", "10", "9")
VALUES: dict[str, tuple[Any, ...]] = {
    "word": TEXTS,
    "size": (-3, 0, 1, 2, 10, 2**60),
    "flag": (True, False),
    "day": (date(1999, 12, 31), date(2026, 1, 1), date(2026, 1, 2)),
    "total": (Money(0, "EUR"), Money(5, "EUR"), Money(5, "GBP"), Money(-7, "EUR"), Money(10, "JPY")),
    "total.minor": (-7, 0, 5, 10),
    "total.currency": ("EUR", "GBP", "USD"),
    "rate": tuple(map(Decimal, ("1.5", "1.50", "-2", "10", "9", "0", "1E+2", "1.5000000000000000000000000001"))),
    "x.acme.tier": ("gold", "Gold", "é", "e\u0301"),
    "row.word": TEXTS,
    "row.size": (Decimal("1.5"), Decimal("1.50"), Decimal(10)),
}
IN_ROWS: dict[str, tuple[Any, ...]] = {
    "word": TEXTS,
    "size": (Decimal("0.10"), Decimal("0.1"), Decimal(-1), Decimal(9), Decimal(10)),
    "price": (Money(5, "EUR"), Money(5, "GBP"), Money(-7, "EUR")),
    "price.minor": (-7, 5),
    "price.currency": ("EUR", "GBP"),
}
COMPARING = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")


def read(record: Any, path: str) -> Any:
    """Return the value of a record at a path; None where there is none."""
    for name in [path] if path.startswith("x.") else path.split("."):
        record = getattr(record, name, None)
    return record


def is_comparable(found: Any, value: Any) -> bool:
    """Return whether two values can be brought into an order; amounts of two currencies cannot."""
    return found is not None and (not isinstance(value, Money) or found.currency == value.currency)


def compared(path: str, name: str, value: Any) -> Callable[[Any], bool]:
    def holds(record: Any) -> bool:
        found = read(record, path)
        if name == "__ne__":
            return found is not None and found != value
        return is_comparable(found, value) and bool(getattr(found, name)(value))

    return holds


def leaves(values: dict[str, tuple[Any, ...]], above: str = "") -> st.SearchStrategy[Question]:
    """Ask for one field: of the record or of a row; or, seen from the record, of any of its rows."""

    def told(pair: Question) -> Question:
        condition, holds = pair
        return (condition, lambda record: any(map(holds, record.rows))) if above else pair

    paths = st.sampled_from(list(values))
    with_value = st.sampled_from([(path, value) for path in values for value in values[path]])
    some = paths.flatmap(lambda path: st.tuples(st.just(path), st.lists(st.sampled_from(values[path]), max_size=3)))
    return st.one_of(
        st.builds(
            lambda pair, name: (getattr(F[above + pair[0]], name)(pair[1]), compared(pair[0], name, pair[1])),
            with_value,
            st.sampled_from(COMPARING),
        ),
        paths.map(lambda path: (F[above + path].exists(), lambda r: read(r, path) is not None)),
        paths.map(lambda path: (F[above + path] == None, lambda r: read(r, path) is None)),  # noqa: E711
        paths.map(lambda path: (F[above + path] != None, lambda r: read(r, path) is not None)),  # noqa: E711
        some.map(
            lambda pair: (
                F[above + pair[0]].isin(pair[1]),
                lambda r: read(r, pair[0]) is not None and read(r, pair[0]) in [getattr(v, "id", v) for v in pair[1]],
            )
        ),
        st.sampled_from(TEXTS).map(
            lambda text: (F[above + "word"].contains(text), lambda r: r.word is not None and text in r.word)
        ),
        st.sampled_from(TEXTS).map(
            lambda text: (F[above + "word"].startswith(text), lambda r: r.word is not None and r.word.startswith(text))
        ),
    ).map(told)


def questions(owners: list[Customer]) -> st.SearchStrategy[Question]:
    of_a_row = st.recursive(leaves(IN_ROWS), combined, max_leaves=3)
    every = st.one_of(
        leaves(VALUES),
        leaves(IN_ROWS, "rows."),
        of_a_row.map(lambda row: (F.rows.any(row[0]), lambda r: any(map(row[1], r.rows)))),
        st.builds(lambda owner: (F.owner == owner, lambda r: r.owner == owner.id), st.sampled_from(owners)),
        st.builds(lambda owner: (F.owner != owner, lambda r: r.owner not in (None, owner.id)), st.sampled_from(owners)),
        st.sampled_from(TEXTS).map(lambda text: (F.labels.has(text), lambda r: text in r.labels)),
        st.sampled_from(TEXTS).map(
            lambda text: (F.rows.tags.has(text), lambda r: any(text in row.tags for row in r.rows))
        ),
        st.sampled_from(("labels", "rows", "row")).map(lambda name: (F[name].exists(), lambda r: bool(read(r, name)))),
    )
    return st.recursive(every, combined, max_leaves=5)


def combined(inner: st.SearchStrategy[Question]) -> st.SearchStrategy[Question]:
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        some.map(lambda all_: (And(tuple(c for c, _ in all_)), lambda r: all(holds(r) for _, holds in all_))),
        some.map(lambda any_: (Or(tuple(c for c, _ in any_)), lambda r: any(holds(r) for _, holds in any_))),
        inner.map(lambda one: (Not(one[0]), lambda r: not one[1](r))),
    )


def in_order(records: list[Any], order: list[str]) -> list[Any]:
    """Sort by one field after the other, the last one first; what is missing is the lowest."""
    last = bool(order) and order[-1].startswith("-")
    records = sorted(records, key=lambda record: record.id, reverse=last)
    for name in reversed(order):

        def key(record: Any, path: str = name.removeprefix("-")) -> tuple[Any, ...]:
            value = read(record, path)
            return () if value is None else (value.minor if isinstance(value, Money) else value,)

        records = sorted(records, key=key, reverse=name.startswith("-"))
    return records


def add_samples(crm: CRM, count: int) -> tuple[list[Customer], list[Any]]:
    """Add records of which about a third of the values are missing, some as a null that is stored."""
    random = Random(7)
    owners = [crm.customers.add(name=name) for name in ("Ada", "Bob", "Cid")]

    def some(values: dict[str, tuple[Any, ...]], without: str) -> dict[str, Any]:
        """Return a value for two fields in three."""
        names = [name for name in values if not name.startswith(without) and random.random() < 0.66]
        return {name: random.choice(values[name]) for name in names}

    rows = []
    for _ in range(count):
        inner = [some(IN_ROWS, "price.") | {"tags": random.sample(TEXTS, random.randrange(2))} for _ in range(3)]
        row = {name: value for name, value in some(VALUES, "total.").items() if not name.startswith("row.")}
        row |= {"rows": inner[: random.randrange(4)]} | ({"row": inner[0]} if random.random() < 0.66 else {})
        rows.append({**row, "labels": random.sample(TEXTS[1:], random.randrange(3))})
        rows[-1] |= {"owner": random.choice(owners)} if random.random() < 0.66 else {}
    samples = crm.collection(Sample)
    samples.add_many(rows)
    ids = [sample.id for sample in samples]
    crm._store.table("samples").update({"word": None, "day": None}, doc_ids=ids[:5])
    return owners, list(samples)


def differences(crm: CRM, examples: int) -> None:
    """Ask random questions, page by page, and compare with plain Python over all records."""
    owners, records = add_samples(crm, 40)
    samples = crm.collection(Sample)
    sortable = [*VALUES, "owner", "id", "created_at"]
    orders = st.lists(st.sampled_from([*sortable, *(f"-{name}" for name in sortable)]), max_size=3)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.none() | questions(owners), orders, st.sampled_from([3, 5, 9, 16, 20, 40]))
    def run(question: Question | None, order: list[str], limit: int) -> None:
        where, holds = question or (None, lambda _: True)
        expected = in_order([record for record in records if holds(record)], order)
        pages = [samples.find(where, order=order, limit=limit)]
        while pages[-1].next is not None:
            pages.append(samples.find(where, order=order, limit=limit, after=pages[-1].next))
        assert [record.id for page in pages for record in page] == [record.id for record in expected]
        last = pages[-1]
        for page in reversed(pages[:-1]):
            last = samples.find(where, order=order, limit=limit, before=last.previous)
            assert last == page
        assert last.previous is None
        assert samples.count(where) == len(expected)
        assert samples.window(limit, 5, where, order=order) == expected[limit : limit + 5]

    run()


EXAMPLES = int(1000 * max(1.0, float(os.environ.get("CRMKIT_TEST_SCALE", "1"))))


@pytest.mark.proof
def test_find_answers_as_plain_python_does(crm: CRM, samples: Collection[Any]) -> None:
    differences(crm, EXAMPLES)


def without_currency(path: str, operator: Any, money: Money) -> Condition:
    return Compare(f"{path}.minor", operator, money.minor)


@pytest.mark.parametrize(
    ("place", "mutant"),
    [
        ("crmkit.binding._amount", without_currency),
        ("crmkit.binding.Not", lambda part: part),
        ("crmkit.store.plan.encode_cursor", lambda gap, order: None),
        ("crmkit.store.plan.Gap", lambda key, is_behind: Gap(key, True)),  # a page before ends with the one it precedes
        ("crmkit.binding.AnyRow", lambda path, condition: Not(AnyRow(path, Not(condition)))),  # each row, not any
        ("crmkit.binding._comparable", lambda place: place.path),  # decimals as text
    ],
)
def test_control_wrong_answers_are_caught(
    crm: CRM, samples: Collection[Any], monkeypatch: pytest.MonkeyPatch, place: str, mutant: Any
) -> None:
    monkeypatch.setattr(place, mutant)
    with pytest.raises((AssertionError, TypeError)):
        differences(crm, 300)
