"""What must never get in: unsealed values, foreign records, types that cannot be kept, answers that are none."""

from __future__ import annotations

import datetime as dt
import importlib.util
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

import crmkit
from crmkit import (
    CRM,
    Change,
    Conflict,
    Customer,
    Damaged,
    Instant,
    Invalid,
    Money,
    NotFound,
    Part,
    Personal,
    Record,
    Reference,
    Refused,
    Secret,
    Sensitive,
    Unique,
    hookimpl,
)

IBAN = "GB33BUKB20201555555555"
OTHER_IBAN = "DE89370400440532013000"


def plugin(**members: object) -> object:
    return type("Plugin", (), {name: hookimpl(member) for name, member in members.items()})()


def of_types(*types: object) -> object:
    return plugin(crm_record_types=lambda self: list(types))


def journal(crm: CRM) -> str:
    return (crm.workspace.data / "wal.1.jsonl").read_text()


# --------------------------------------------------------------------------- nothing unsealed reaches the disk


def unchecked(value: object) -> Iterator[Customer]:
    """Customers that were made past every check."""
    yield Customer(name="Z").model_copy(update={"iban": value})
    yield Customer.model_construct(name="Z", iban=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [0, 1])
def test_a_record_made_past_the_checks_is_checked_and_sealed(crm: CRM, number: int) -> None:
    crm.customers.add_many([list(unchecked(IBAN))[number]])
    assert "BUKB" not in journal(crm)
    (kept,) = crm.customers
    assert crm.reveal(kept, "iban", reason="x").value == IBAN
    for wrong in ("not an iban", Secret("m", "not an iban"), Secret("m")):
        with pytest.raises(Invalid, match="iban"):
            crm.customers.add_many([list(unchecked(wrong))[number]])


def test_the_codec_refuses_what_is_not_sealed(crm: CRM) -> None:
    """The last door: whatever wrote it, a sensitive value does not reach the disk in clear."""
    ada = crm.customers.add(name="Ada", iban=IBAN)
    with pytest.raises(Refused, match="not sealed"):
        crm._store.table("customers").update({"iban": "in clear"}, doc_ids=[ada.id])
    assert "in clear" not in journal(crm)


@pytest.mark.parametrize("given", ["x", 5, None, {"name": "x"}.items(), object()])
def test_what_is_no_record_is_refused(crm: CRM, given: object) -> None:
    with pytest.raises(Invalid, match="must be a customer"):
        crm.customers.add_many([given])  # type: ignore[list-item]


@pytest.mark.shipped_plugins
def test_a_record_of_another_type_is_refused(crm: CRM) -> None:
    product = crm.products.add(name="Widget")
    with pytest.raises(Invalid, match="must be a customer"):
        crm.customers.add_many([product])
    assert len(crm.customers) == 0


def test_what_crmkit_keeps_cannot_be_set(crm: CRM) -> None:
    for fields, says in (({"rev": 99}, "kept by crmkit"), ({"id": "../../etc"}, "ULID"), ({"updated_at": "x"}, "kept")):
        with pytest.raises(Invalid, match=says):
            crm.customers.add(name="x", **fields)
    ada = crm.customers.add(name="Ada")
    with pytest.raises(Invalid, match="taken"):
        crm.customers.add(id=ada.id, name="Bob")
    with pytest.raises(Invalid, match="id: is the same in records 1 and 2"):
        crm.customers.add_many([{"id": crmkit.Customer(name="x").id, "name": "a"}] * 2)
    with pytest.raises(Invalid, match="taken"), crm.transaction():
        bob = crm.customers.add(name="Bob")
        crm.customers.add(id=bob.id, name="Bob again")
    assert len(crm.customers) == 1


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_nothing_is_refused(crm: CRM, batch: int) -> None:
    with pytest.raises(Invalid, match="batch"):
        crm.customers.add_many([{"name": "x"}], batch=batch)


@pytest.mark.parametrize("value", ["0", 0, 1.5, "2026", " 20260101 "])
def test_a_number_is_no_date(crm: CRM, value: object) -> None:
    with pytest.raises(Invalid, match="is a number"):
        crm.customers.add(name="x", birthday=value)
    ada = crm.customers.add(name="Ada")
    with pytest.raises(Invalid, match="is a number"):
        crm.customers.update(ada, birthday=value)


def test_an_unspecified_country_is_none(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", country="Unspecified", email="", owner=None)
    assert (ada.country, ada.email, ada.owner) == (None, None, None)
    bob = crm.customers.add(name="Bob", country="GB")
    assert crm.customers.update(bob, country="unknown").country is None


# --------------------------------------------------------------------------- no value in errors


def everything_in(error: BaseException) -> str:
    """All text that is reachable from an error: its chain, its attributes, and what pydantic keeps."""
    texts, todo, seen = [], [error], set()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        texts += [str(each), repr(each), repr(vars(each)), repr(each.args)]
        if hasattr(each, "errors") and callable(each.errors):
            texts.append(repr(each.errors()))
        todo += [linked for linked in (each.__cause__, each.__context__) if linked is not None]
    return "\n".join(texts)


@pytest.mark.parametrize(
    "fields",
    [
        {"iban": "canary iban"},
        {"card": "canary card"},
        {"email": "canary mail"},
        {"phone": "canary phone"},
        {"birthday": "canary day"},
        {"contacts": [{"kind": "email", "value": "canary contact"}]},
        {"contacts": "canary contacts"},
        {"name": ["canary name"]},
    ],
)
def test_no_error_carries_what_was_typed(crm: CRM, fields: dict[str, Any]) -> None:
    ada = crm.customers.add(name="Ada")
    for attempt in (
        lambda: crm.customers.add(**{"name": "x", **fields}),
        lambda: crm.customers.update(ada, **fields),
        lambda: crm.customers.add_many([{"name": "x", **fields}]),
    ):
        with pytest.raises(Invalid) as caught:
            attempt()
        assert "canary" not in everything_in(caught.value)


def test_a_conflict_masks_what_is_sensitive(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", card="4242424242424242")
    crm.customers.update(ada, card="5000000000094242", city="x")
    with pytest.raises(Conflict) as caught:
        crm.customers.update(ada, card="5555555555554444")
    assert caught.value.fields == ("card",), "another card with the same last digits is a difference"
    assert "5555" not in everything_in(caught.value)
    with pytest.raises(Conflict) as inside, crm.transaction():
        bob = crm.customers.update(ada.id, source="mine")
        with crmkit.open(crm.workspace.folder) as other:
            other.customers.update(bob.id, source="theirs")
    assert (inside.value.fields, inside.value.theirs) == (("source",), {"source": "theirs"})


def test_a_frozen_record_does_not_show_what_was_assigned() -> None:
    ada = Customer(name="Ada")
    with pytest.raises(Refused) as caught:
        ada.iban = IBAN  # type: ignore[misc, assignment]
    assert "BUKB" not in everything_in(caught.value)
    assert "BUKB" not in str(caught.value)


def test_a_stored_record_that_does_not_fit_its_type_is_told_without_its_values(crm: CRM) -> None:
    class Old(Record, type="thing", plural="things"):
        name: Personal[str]
        size: str = "tiny canary"

    class New(Record, type="thing", plural="things"):
        name: Personal[str]
        size: int
        needed: str

    crm.register(of_types(Old), "things")
    crm.things.add(name="canary name")
    crm.register(of_types(New), "things")
    with pytest.raises(Damaged, match="does not fit its type: needed, size") as caught:
        crm.things.find()
    assert "canary" not in everything_in(caught.value)


@pytest.mark.parametrize(
    "error",
    [Conflict("customer", "x", ("a",), {"a": 1}, {"a": 2}), Invalid({"a": "b"}, "c"), NotFound("x"), Refused("y")],
)
def test_errors_survive_a_pickle(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


# --------------------------------------------------------------------------- types that cannot be kept


class NoType(Record):
    name: str = ""


class Evil(Record, type="customer", plural="customers"):
    name: str


class Squatter(Record, type="squatter", plural="customers"):
    name: str


class Shadow(Record, type="shadow", plural="timeline"):
    name: str


class Hidden(Record, type="hidden", plural="profile"):
    name: str


class Trash(Record, type="trash", plural="customers.removed"):
    name: str


class Heir(Customer):
    shoe_size: int = 0


class Listed(Record, type="listed", plural="listeds"):
    ibans: tuple[Sensitive[str], ...] = ()


class Mapped(Record, type="mapped", plural="mappeds"):
    ibans: dict[str, Sensitive[str]] = {}  # noqa: RUF012  # pydantic copies defaults


class SecretMoney(Record, type="secret_money", plural="secret_moneys"):
    amount: Sensitive[Money] | None = None


class UniqueSecret(Record, type="unique_secret", plural="unique_secrets"):
    code: Annotated[Sensitive[str] | None, Unique()] = None


class Naive(Record, type="naive", plural="naives"):
    at: dt.datetime | None = None


class NoSubject(Record, type="no_subject", plural="no_subjects", subject="client"):
    name: str


class KeepsRev(Record, type="keeps_rev", plural="keeps_revs"):
    rev: int = 5


class Raw(Record, type="raw", plural="raws"):
    data: bytes = b""


class Fine(Record, type="fine", plural="fines", subject="customer"):
    customer: Reference[Customer] | None = None
    at: Instant | None = None
    maybe: Instant
    title: Personal[str] | None = None
    code: Sensitive[str] | None = None
    door: Sensitive[int] | None = None
    born: Sensitive[dt.date]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (NoType, "type: must be a class like"),
        (Heir, "type: is missing"),
        (Evil, "'customer' is contributed by crmkit"),
        (Squatter, "'customers' is contributed by crmkit"),
        (Shadow, "'timeline' is a name of the CRM itself"),
        (Hidden, "'profile' is a name of the CRM itself"),
        (Trash, "plural: must be a word"),
        (Listed, "Sensitive must be the whole field"),
        (Mapped, "Sensitive must be the whole field"),
        (SecretMoney, "Sensitive holds text"),
        (UniqueSecret, "Unique works for"),
        (Naive, "must be an Instant"),
        (NoSubject, "must be a field of the type"),
        (KeepsRev, "rev: is kept by crmkit"),
        (Raw, "cannot be stored"),
        (Record, "must be a class like"),
        (BaseModel, "must be a class like"),
        ("deal", "must be a class like"),
        (5, "must be a class like"),
    ],
)
def test_a_type_that_cannot_be_kept_is_refused(crm: CRM, bad: object, says: str) -> None:
    before = crm.seq()
    with pytest.raises(Invalid, match=says):
        crm.register(of_types(bad), "mine")
    crm.customers.add(name="in clear?", iban=IBAN)
    assert "in clear?" not in journal(crm)
    assert crm.seq() == before + 1
    crmkit.open(crm.workspace.folder, plugins=[]).close()


def test_a_type_that_can_be_kept_is_taken(crm: CRM) -> None:
    crm.register(of_types(Fine), "mine")
    fine = crm.fines.add(maybe="2026-01-01T00:00:00Z", born="2000-01-01", code="secret code", door=1234)
    assert crm.reveal(fine, "born", reason="x").value == dt.date(2000, 1, 1)
    assert crm.reveal(fine, "door", reason="x").value == 1234
    assert "secret code" not in journal(crm)


def test_a_plugin_whose_type_no_longer_fits_its_data_is_taken_out_alone(crm: CRM) -> None:
    class Open(Record, type="thing", plural="things"):
        name: str

    class Sealed(Record, type="thing", plural="things"):
        name: Personal[str]

    crm.register(of_types(Open), "things")
    crm.things.add(name="in clear")
    crm.close()
    things = of_types(Sealed)
    with pytest.raises(Invalid, match="cannot be opened"):
        crmkit.open(crm.workspace.folder, plugins=[things])
    with crmkit.open(crm.workspace.folder) as again:
        again.customers.add(name="Ada")
        with pytest.raises(Invalid, match="cannot be opened"):
            again.register(things, "things")
        assert again.plugins["things"].state == "failed"
        again.register(plugin(crm_timeline=lambda self: []), "unrelated")
        assert again.plugins["unrelated"].state == "active"


@pytest.mark.parametrize(
    ("hook", "answer"), [("crm_views", None), ("crm_views", 5), ("crm_analyses", ["x"]), ("crm_views", [Part()])]
)
def test_contributions_that_are_none_are_refused(crm: CRM, hook: str, answer: object) -> None:
    with pytest.raises(Invalid, match=hook):
        crm.register(plugin(**{hook: lambda self: answer}), "mine")


def test_wrappers_and_the_name_of_the_core_are_refused(crm: CRM) -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def crm_timeline(self) -> Iterator[None]:
            yield

    with pytest.raises(Invalid, match="wrapper"):
        crm.register(Wrapper())
    with pytest.raises(Invalid, match="is the core"):
        crm.register(plugin(crm_timeline=lambda self: []), "crmkit")


def test_tryfirst_and_trylast_are_heeded(crm: CRM) -> None:
    asked: list[str] = []

    def asks(name: str, **options: bool) -> object:
        @hookimpl(**options)
        def crm_before_commit(self: object) -> None:
            asked.append(name)

        return type("Plugin", (), {"crm_before_commit": crm_before_commit})()

    for name, options in (("last", {"trylast": True}), ("one", {}), ("first", {"tryfirst": True}), ("two", {})):
        crm.register(asks(name, **options), name)
    crm.customers.add(name="x")
    assert asked == ["first", "one", "two", "last"]


# --------------------------------------------------------------------------- what plugins say before a commit


def saying(answer: Any) -> object:
    return plugin(crm_before_commit=lambda self, crm, changes: answer(crm, changes))


@pytest.mark.parametrize("rubbish", [5, "x", ["x"], [None], object()])
def test_an_answer_that_is_none_names_the_plugin(crm: CRM, rubbish: object) -> None:
    crm.register(saying(lambda crm, changes: rubbish), "sloppy")
    with pytest.raises(Invalid, match="sloppy must return changes"):
        crm.customers.add(name="x")
    assert len(crm.customers) == 0


def test_a_plugin_that_takes_a_change_back_is_heeded(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", stage="active")
    crm.register(saying(lambda crm, changes: [c.set(stage=c.before.stage) for c in changes if c.before]))
    before = crm.seq()
    assert crm.customers.update(ada, stage="lapsed").stage == "active"
    assert crm.seq() == before
    assert crm.customers.update(ada, stage="lapsed", city="London").city == "London"


def test_a_new_secret_survives_a_plugin_that_adjusts_another_field(crm: CRM) -> None:
    crm.register(saying(lambda crm, changes: [c.set(source="seen") for c in changes]))
    ada = crm.customers.add(name="Ada", iban=IBAN)
    with crm.transaction():
        newer = crm.customers.update(ada, iban=OTHER_IBAN)
        crm.customers.update(newer, city="London")
        bob = crm.customers.add(name="Bob", iban=IBAN)
        crm.customers.update(bob, city="Paris")
        assert crm.reveal(newer, "iban", reason="x").value == OTHER_IBAN
    for record, expected in ((ada, OTHER_IBAN), (bob, IBAN)):
        kept = crm.customers[record.id]
        assert (crm.reveal(kept, "iban", reason="x").value, kept.source) == (expected, "seen")


def test_a_plugin_removes_and_adds_other_records(crm: CRM) -> None:
    bob = crm.customers.add(name="Bob")
    new = Customer(name="x").id

    def both(crm: CRM, changes: tuple[Change, ...]) -> Iterable[Change]:
        if changes[0].fields.get("name") == "Ada":
            yield Change("customer", bob.id, "remove", None)
            yield Change("customer", new, "add", None, {"name": "Cid"})

    crm.register(saying(both))
    crm.customers.add(name="Ada")
    assert {customer.name for customer in crm.customers} == {"Ada", "Cid"}
    assert crm.customers.restore(bob.id).name == "Bob"


def test_a_removal_cannot_be_adjusted(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    crm.register(saying(lambda crm, changes: [c.set(name="x") for c in changes]), "mine")
    with pytest.raises(Invalid, match="mine cannot adjust a remove"):
        crm.customers.remove(ada)
    assert crm.customers[ada.id] == ada


def test_saving_while_being_asked_is_refused(crm: CRM) -> None:
    def saves(crm: CRM, changes: tuple[Change, ...]) -> None:
        crm.customers.add(name="inside")

    crm.register(saying(saves))
    with pytest.raises(Refused, match="must not save"):
        crm.customers.add(name="outside")
    assert len(crm.customers) == 0


@pytest.mark.shipped_plugins
def test_a_plugin_adjusts_lines_and_the_total_follows(crm: CRM) -> None:
    tea = crm.products.add(name="Tea")
    line = {"product": tea, "quantity": 1, "unit_price": "2"}
    crm.register(saying(lambda crm, changes: [c.set(lines=[line, line]) for c in changes if c.type == "purchase"]))
    assert crm.purchases.add(number="1", purchased_on="2026-01-01", lines=[line]).total == Money(400, "EUR")


@pytest.mark.shipped_plugins
def test_a_line_of_a_removed_product_stays_while_others_change(crm: CRM) -> None:
    tea, jam = crm.products.add(name="Tea"), crm.products.add(name="Jam")
    old = {"product": tea, "quantity": 1, "unit_price": "2"}
    purchase = crm.purchases.add(number="1", purchased_on="2026-01-01", lines=[old])
    crm.products.remove(tea)
    assert len(crm.purchases.update(purchase, lines=[old, {**old, "product": jam}]).lines) == 2
    with pytest.raises(Invalid, match="does not exist"):
        crm.purchases.add(number="2", purchased_on="2026-01-01", lines=[old])


@pytest.mark.parametrize(
    "answer", [["rubbish"], 5, [crmkit.Entry(None, "x", "x")], [crmkit.Entry(dt.datetime(2026, 1, 1), "x", "x")]]
)  # type: ignore[arg-type]
def test_a_timeline_that_is_none_is_the_plugins_failure(crm: CRM, answer: object) -> None:
    crm.register(plugin(crm_timeline=lambda self: answer), "sloppy")
    assert crm.timeline(crm.customers.add(name="Ada")).records == []
    assert "sloppy" in {failure.plugin for failure in crm.failures}


# --------------------------------------------------------------------------- transactions


def test_restore_update_and_remove_inside_a_transaction(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    crm.customers.remove(ada)
    with crm.transaction():
        back = crm.customers.restore(ada.id)
        crm.customers.update(back, city="London")
    assert crm.customers[ada.id].city == "London"
    before = crm.seq()
    with crm.transaction():
        crm.customers.remove(ada.id)
        assert crm.customers.restore(ada.id).city == "London"
    assert crm.customers[ada.id].city == "London"
    crm.customers.remove(ada.id)
    with crm.transaction():
        crm.customers.restore(ada.id)
        crm.customers.remove(ada.id)
    assert crm.customers.get(ada.id) is None
    assert crm.seq() == before + 1


# --------------------------------------------------------------------------- the folder


def test_byte_code_beside_a_trusted_plugin_is_not_run(crm: CRM, tmp_path: Path) -> None:
    good = crm.workspace.plugins / "good.py"
    good.write_text("from crmkit import hookimpl\n@hookimpl\ndef crm_views(): return []\n")
    crmkit.trust(crm.workspace.folder)
    planted = Path(importlib.util.cache_from_source(str(good)))
    planted.parent.mkdir()
    marker = tmp_path / "planted code ran"
    bad = compile(f"__import__('pathlib').Path({str(marker)!r}).touch()", "good.py", "exec")
    import marshal

    flags = (0b01).to_bytes(4, "little")  # a hash that is not compared with the source
    planted.write_bytes(importlib.util.MAGIC_NUMBER + flags + b"\0" * 8 + marshal.dumps(bad))
    with crmkit.open(crm.workspace.folder) as opened:
        assert opened.plugins["good"].state == "active"
    assert not marker.exists()
    import sys

    sys.path.insert(0, str(crm.workspace.plugins))
    try:
        importlib.import_module("good")
    finally:
        sys.path.pop(0)
        sys.modules.pop("good", None)
    assert marker.exists(), "the control, a plain import, must run it"


def test_types_of_a_workspace_file_may_use_postponed_annotations(crm: CRM) -> None:
    (crm.workspace.plugins / "parcels.py").write_text(
        "from __future__ import annotations\n"
        "from crmkit import Customer, Record, Reference, hookimpl\n"
        "class Parcel(Record, type='parcel', plural='parcels', subject='customer'):\n"
        "    customer: Reference[Customer]\n"
        "@hookimpl\n"
        "def crm_record_types(): return [Parcel]\n"
    )
    crmkit.trust(crm.workspace.folder)
    with crmkit.open(crm.workspace.folder) as opened:
        ada = opened.customers.add(name="Ada")
        assert opened.parcels.add(customer=ada).customer == ada.id


def test_what_is_no_file_in_the_plugins_folder_is_left_alone(crm: CRM) -> None:
    (crm.workspace.plugins / "folder.py").mkdir()
    (crm.workspace.plugins / "dangling.py").symlink_to("nowhere.py")
    crmkit.trust(crm.workspace.folder)
    with crmkit.open(crm.workspace.folder) as opened:
        assert [row for row in opened.plugins if row.source == "workspace"] == []


def test_a_creation_that_fails_leaves_nothing_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import crmkit.opening

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(crmkit.opening, "write_profile", fails)
        with pytest.raises(OSError, match="No space"):
            crmkit.create(tmp_path / "acme")
    assert not (tmp_path / "acme").exists()
    crmkit.create(tmp_path / "acme").close()


def test_a_folder_that_was_there_keeps_its_mode_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    (folder / "letter.txt").write_text("mine")
    crmkit.create(folder).close()
    assert oct(folder.stat().st_mode & 0o7777) == "0o700"
    assert (folder / "letter.txt").read_text() == "mine"


def test_keys_without_a_profile_are_never_overwritten(crm: CRM) -> None:
    crm.workspace.profile.rename(crm.workspace.folder / "elsewhere.toml")
    with pytest.raises(Invalid, match=r"no crmkit\.toml; put that file back"):
        crmkit.create(crm.workspace.folder)
    with pytest.raises(NotFound, match="put that file back"):
        crmkit.open(crm.workspace.folder)


@pytest.mark.parametrize("name", ["a\r\nb", "a\x01b", "  ", "\ud800"])
def test_a_name_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="name"):
        crmkit.create(tmp_path / "acme", name=name)
    assert not (tmp_path / "acme").exists()


# --------------------------------------------------------------------------- one clear line for everyday slips


@pytest.mark.parametrize("given", [None, 5, [], {"id": "x"}])
@pytest.mark.parametrize(
    "call",
    [
        lambda crm, given: crm.reveal(given, "iban", reason="test"),
        lambda crm, given: crm.card(given),
        lambda crm, given: crm.form("customer", given or 0),
        lambda crm, given: crm.history(given),
        lambda crm, given: crm.timeline(given),
        lambda crm, given: crm.customers.update(given, city="Rome"),
        lambda crm, given: crm.customers.remove(given),
        lambda crm, given: crm.customers.restore(given),
    ],
)
def test_what_is_no_record_is_told(crm: CRM, call: Any, given: object) -> None:
    with pytest.raises(Invalid, match="record: must be a record"):
        call(crm, given)


def test_where_an_id_is_not_enough_it_is_told(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", iban=IBAN)
    for call in (lambda: crm.reveal(ada.id, "iban", reason="x"), lambda: crm.card(ada.id)):  # type: ignore[arg-type]
        with pytest.raises(Invalid, match="record: must be a record"):
            call()
    assert len(crm.timeline(ada.id)) == len(crm.timeline(ada))


def test_other_slips_are_told(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    for wrong in (5, None, int):
        with pytest.raises(NotFound, match="is not a record type here"):
            crm.collection(wrong)  # type: ignore[call-overload]
        with pytest.raises(Invalid, match="actor: must be text"), crm.acting_as(wrong):  # type: ignore[arg-type]
            pass
    with pytest.raises(Invalid, match="record: must be a record"):
        crm.customers.check(5)  # type: ignore[arg-type]
    assert crm.customers.check(ada.id, email="no") == crm.customers.check(ada, email="no") != {}


def test_a_callback_is_a_function(crm: CRM) -> None:
    for call in (lambda: crm.watch(5), lambda: crm.follow("n", None)):  # type: ignore[arg-type]
        with pytest.raises(Invalid, match="callback: must be a function"):
            call()


def test_a_page_without_a_grid_says_so(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    with pytest.raises(crmkit.Unsupported, match="have a grid"):
        crm.history(ada).show()
    assert crm.customers.find().grid is not None


def test_a_closed_crm_has_a_text(crm: CRM) -> None:
    crm.close()
    assert repr(crm) == "<CRM closed>"


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(crmkit.CrmError, match="/proc/x: no workspace can be made there"):
        crmkit.create("/proc/x")


def test_what_was_changed_by_myself_is_not_said_to_be_by_somebody_else(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    crm.customers.update(ada, city="Rome")
    with pytest.raises(Conflict, match="was changed since it was read") as conflict:
        crm.customers.update(ada, city="Paris")
    assert "somebody" not in str(conflict.value)


def test_a_number_that_is_taken_names_who_has_it(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", number="1")
    for add in (
        lambda: crm.customers.add(name="Bob", number="1"),
        lambda: crm.customers.add_many([{"name": "Cid", "number": "2"}, {"name": "Bob", "number": "1"}]),
    ):
        with pytest.raises(Invalid) as refused:
            add()
        assert str(refused.value) == f"customers: number: already taken by another record: {ada.id}"
    assert len(crm.customers) == 1


def test_removed_records_are_listed(crm: CRM) -> None:
    ada, bob, cid = (crm.customers.add(name=name) for name in ("Ada", "Bob", "Cid"))
    crm.customers.merge(ada, [bob])
    crm.customers.remove(cid)
    page = crm.customers.removed(limit=1)
    [newest], [oldest] = page, crm.customers.removed(limit=1, after=page.next)
    assert (newest.record.name, newest.merged_into) == ("Cid", None)
    assert (oldest.record.name, oldest.merged_into) == ("Bob", ada.id)
    assert "Cid" not in repr(page.records)
    assert crm.customers.restore(newest.record).name == "Cid"
    with pytest.raises(Invalid):
        crm.customers.removed(limit=0)


def test_writing_to_what_is_gone_says_where_it_went(crm: CRM) -> None:
    ada, bob, cid = (crm.customers.add(name=name) for name in ("Ada", "Bob", "Cid"))
    crm.customers.merge(ada, [bob])
    crm.customers.remove(cid)
    for gone, told in ((bob, f"was merged into {ada.id}"), (cid, "was removed")):
        for write in (
            lambda gone=gone: crm.customers.update(gone.id, city="Rome"),
            lambda gone=gone: crm.customers.remove(gone),
        ):
            with pytest.raises(NotFound, match=told):
                write()
