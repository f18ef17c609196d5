"""Visibility: what somebody may not see is on no outlet, whatever is asked, and shows by nothing that it is there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import crmkit
from crmkit import CRM, Analysis, Customer, Entry, F, Invalid, Measurement, NotFound, Record, Reference, hookimpl
from crmkit.collection import Collection
from crmkit.fields import ID_FORM
from crmkit.query import And, Condition, Not, Or
from crmkit.visibility import Visible

IBAN, OTHER_IBAN = "GB33BUKB20201555555555", "DE75512108001245126199"
MARK = "Quux"  # in every text of what is hidden
TEAMS = '\n[teams]\nsales = ["ann", "bob"]\nservice = ["cid", "dora"]\n'


class Told:
    """A plugin that tells deals on the timeline, remembers what it is shown, and counts customers."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.ids: list[str] = []

    @hookimpl
    def crm_timeline(self, crm: CRM, customer: Customer) -> Iterable[Entry]:
        found = crm.deals.find(F.customer == customer.id, limit=100)
        told = [Entry(deal.created_at, "deal", deal.title, record=deal.id) for deal in found]
        kept = [Entry(datetime.now(UTC), "deal", "from the plugin's own memory", record=id) for id in self.ids]
        return [*told, *kept]

    @hookimpl
    def crm_before_commit(self, crm: CRM, changes: tuple[Any, ...]) -> None:
        self.shown = [crm.customers.find(limit=100), crm.deals.count(), changes]

    @hookimpl
    def crm_analyses(self) -> list[Analysis]:
        def measure(crm: CRM, as_of: Any) -> Measurement:
            return Measurement([{"name": each.name} for each in crm.customers], {"deals": len(crm.deals)}, "")

        return [Analysis("names", "Names", measure, lambda _: None)]  # type: ignore[arg-type,return-value]


class World:
    """A workspace of several people, with what ann keeps to herself, and what everybody sees."""

    def __init__(self, crm: CRM, plugin: Told) -> None:
        self.crm, self.plugin = crm, plugin
        self.start = datetime.now(UTC) - timedelta(seconds=1)
        self.open = crm.customers.add(name="Olga Open", city="Rome", iban=OTHER_IBAN)
        self.gone = crm.customers.add(name="Gone Open")
        with crm.acting_as("ann"):
            self.before = crm.seq()
            secret = {"name": f"Zora {MARK}", "city": f"{MARK}ville", "iban": IBAN, "number": f"{MARK}-1"}
            self.hidden = crm.customers.add(**secret, visible_to="private")
            self.removed = crm.customers.add(name=f"Removed {MARK}", visible_to="private")
            self.deal = crm.deals.add(title=f"Deal of {MARK}", customer=self.hidden.id, account=IBAN, stage=MARK)
            self.own = crm.deals.add(title=f"Own {MARK}", customer=self.open.id, visible_to="private")
            crm.customers.remove(self.removed)
            crm.reveal(self.hidden, "iban", reason=f"because of {MARK}")
            with crm.transaction(reason=f"for {MARK}"):
                crm.customers.update(self.hidden.id, notes=f"note on {MARK}")
        crm.customers.remove(self.gone)
        self.shown = crm.deals.add(title="Open deal", customer=self.open.id)
        with crm.acting_as("ann"):
            self.cause = next(each.id for each in crm.batches(50) if each.reason == f"for {MARK}")
        plugin.ids = [self.deal.id, self.own.id, self.shown.id]
        self.ids = (self.hidden.id, self.removed.id, self.deal.id, self.own.id)


@pytest.fixture
def world(tmp_path: Path, deals: type) -> Iterator[World]:
    """A workspace with hidden records."""
    crmkit.create(tmp_path / "acme", currency="EUR", country="GB").close()
    profile = tmp_path / "acme" / "crmkit.toml"
    profile.write_text(profile.read_text() + TEAMS)
    plugin = Told()
    with crmkit.open(tmp_path / "acme", plugins=[deals(), plugin]) as crm:
        yield World(crm, plugin)


def told(value: Any, depth: int = 0) -> str:
    """Everything that a value tells, as text."""
    if isinstance(value, BaseModel):
        return repr(value) + " ".join(told(part, depth + 1) for part in dict(value).values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [getattr(value, each.name) for each in dataclasses.fields(value) if each.repr or depth < 6]
        return " ".join(told(part, depth + 1) for part in fields if not callable(part))
    if isinstance(value, Mapping):
        return " ".join(f"{told(key, depth + 1)} {told(part, depth + 1)}" for key, part in value.items())
    if isinstance(value, str | bytes | int | float | datetime) or value is None or depth > 8:
        return str(value)
    if isinstance(value, Iterable):
        return " ".join(told(part, depth + 1) for part in value)
    return str(value)


def files(made: Any) -> str:
    """Everything that was written."""
    paths = [made.path] if made.path.is_file() else [path for path in made.path.rglob("*") if path.is_file()]
    return " ".join(path.read_text("utf-8") for path in paths if path.name != "crmkit.toml") + told(made)


def heard(world: World, watch: Callable[[Callable[[Any], None]], Any]) -> Any:
    """What a watch tells of a change of everything."""
    seen: list[Any] = []
    watching = watch(seen.extend)
    with world.crm.acting_as("ann"):
        for id in (world.hidden.id, world.open.id):
            world.crm.customers.update(id, city=f"C{world.crm.seq()}")
    watching.look()
    watching.stop()
    return seen


def written(world: World) -> Any:
    """What plugins are shown when something is saved."""
    world.crm.customers.update(world.open.id, city="Paris")
    return world.plugin.shown


def imported(world: World, tmp: Path) -> Any:
    """What an import finds."""
    path = tmp / f"in-{world.crm.seq()}.csv"
    path.write_text(f"title,customer.number\nBoat,{MARK}-1\n")
    plan = world.crm.import_file(path, as_="deal", map={"customer.number": "customer.number"})
    return [told(record) for record in plan.records]  # the number in the file is no answer of ours


def outlets(world: World, tmp: Path) -> dict[str, Callable[[], Any]]:
    """Every way out of the workspace, by the name of the method or what it is."""
    crm, hidden, deal, removed = world.crm, world.hidden, world.deal, world.removed
    customers, everything = crm.customers, [*world.ids, world.open.id]
    past = crm.at(datetime.now(UTC))
    return {
        # collections
        "get": lambda: [crm[plural].get(id) for plural in ("customers", "deals") for id in everything],
        "[id]": lambda: customers[hidden.id],
        "in": lambda: hidden.id if hidden.id in customers else "",
        "len": lambda: MARK if len(customers) + len(crm.deals) > 2 else "",
        "iter": lambda: [list(customers), list(crm.deals)],
        "repr": lambda: MARK if "2 customers" in repr(crm) or "3 deals" in repr(crm.deals) else "",
        "completion": customers._ipython_key_completions_,
        "get_many": lambda: [customers.get_many(everything), crm.deals.get_many(everything)],
        "find": lambda: [customers.find(F.city == f"{MARK}ville"), customers.find(F.iban == IBAN), crm.deals.find()],
        "search": lambda: [customers.search("zora"), customers.search("zorra quuz"), crm.deals.search("own")],
        "count": lambda: MARK if customers.count(text="zora") + customers.count(F.iban == IBAN) else "",
        "window": lambda: [customers.window(0, 50), customers.window(0, 50, text="zora"), crm.deals.window(0, 9)],
        "removed": lambda: customers.removed(),
        "keys": lambda: customers.keys("number"),
        "columns": lambda: [
            customers.columns("id", "name"),
            crm.deals.columns("title"),
            customers.columns("id", since=1),
        ],
        "to_frame": lambda: [customers.to_frame().to_csv(), crm.deals.to_frame().to_csv()],
        "check": lambda: customers.check(hidden.id),
        "update": lambda: customers.update(hidden.id, name=f"Re {MARK}"),
        "remove": lambda: (crm.deals.remove(world.own.id), MARK),
        "restore": lambda: customers.restore(removed.id),
        "merge": lambda: (customers.merge(world.open.id, [hidden.id]), MARK),
        "merge into": lambda: (customers.merge(hidden.id, [world.open.id]), MARK),
        # the handle
        "reveal": lambda: (crm.reveal(hidden, "iban", reason="x"), MARK),
        "can": lambda: (crm.can("reveal", hidden), MARK),
        "explain": lambda: (crm.explain("reveal", hidden), MARK),
        "erase": lambda: (crm.erase(hidden, reason="x", dry_run=True), MARK),
        "timeline": lambda: crm.timeline(hidden),
        "timeline of another": lambda: crm.timeline(world.open),
        "analyse": lambda: [crm.analyse("names").table, MARK if crm.analyse("names").metrics["deals"] > 1 else ""],
        "changes": lambda: crm.changes(),
        "watch": lambda: heard(world, crm.watch),
        "follow": lambda: heard(world, lambda handle: crm.follow(f"f{crm.seq()}", handle)),
        "history": lambda: crm.history(hidden),
        "history by id": lambda: crm.history(deal.id),
        "batches": lambda: [each for each in crm.batches(50) if told(each)],
        "counts of batches": lambda: MARK if sum(each.types.get("deal", 0) for each in crm.batches(50)) > 1 else "",
        "undo": lambda: (crm.undo(world.cause), MARK),
        "at": lambda: [list(crm.at(datetime.now(UTC)).customers), crm.at(datetime.now(UTC)).deals.find()],
        "a past made before": lambda: [list(past.customers), past.get(Customer, hidden.id), past.deals.search("own")],
        "since": lambda: crm.since(world.start),
        "export": lambda: files(crm.export("customer", tmp / f"c{crm.seq()}-{crm.actor}.jsonl", reveal="x")),
        "export_all": lambda: files(crm.export_all(tmp / f"all{crm.seq()}-{crm.actor}")),
        "import_file": lambda: imported(world, tmp),
        "audit": lambda: [list(crm.audit), crm.audit.entries(record=hidden.id)],
        "crm_before_commit": lambda: written(world),
    }


def screens(world: World) -> dict[str, Callable[[], Any]]:
    """What screens show, by their models."""
    from crmkit.ui.viewmodels.form import FormModel
    from crmkit.ui.viewmodels.grid import GridModel

    def grid(type: str) -> Any:
        model = GridModel(world.crm, type)
        return [model.caption(), model.window(0, 50), model.record(world.hidden.id)]

    crm = world.crm
    return {
        "grid": lambda: [grid("customer"), grid("deal")],
        "form": lambda: crm.form("customer", world.hidden),
        "suggestions": lambda: FormModel(crm, "deal").suggest("customer", "zora"),
        "labels": lambda: FormModel(crm, "deal", defaults={"customer": world.hidden.id}).labels().values(),
        "card": lambda: crm.card(world.hidden),
        "app": lambda: crm.app(),
    }


# Public names that let no record out, each with the reason why it needs no check of its own.
NO_OUTLET = {
    "add": "returns what was given",
    "add_many": "returns a count",
    "validate": "returns what was given",
    "info": "of the type",
    "acting_as": "who acts",
    "actor": "who acts",
    "allow_again": "by address, for those who may erase",
    "analyses": "descriptions",
    "atomically": "runs what is given",
    "backup": "the whole folder, sealed; made by the system user",
    "close": "",
    "collection": "checked through its methods",
    "erasures": "certificates name nobody",
    "examine": "counts of files for the doctor; says nothing of a record but its id",
    "failures": "of plugins; hold no value",
    "id": "of the workspace",
    "is_locked": "",
    "keys": "of the vault, or checked as a method of a collection",
    "lock": "",
    "members": "of the vault",
    "plugins": "states",
    "record_failure": "",
    "register": "",
    "secrets": "settings of plugins",
    "security": "counts",
    "seq": "a number",
    "transaction": "what is buffered is checked below",
    "types": "classes",
    "unlock": "",
    "verify": "of files",
    "views": "descriptions",
}


def leaks(world: World, ask: Callable[[], Any], *, as_: str) -> bool:
    """Whether an outlet shows somebody anything of what is hidden."""
    with world.crm.acting_as(as_):
        try:
            said = told(ask())
        except NotFound as error:
            said = ID_FORM.sub("", str(error))  # the one that was asked for
        except (Invalid, crmkit.Refused, crmkit.ImportProblem) as error:
            said = str(error)
    return MARK.lower() in said.lower() or any(id in said for id in world.ids)


def names() -> list[str]:
    public = {name for each in (CRM, Collection) for name in dir(each) if not name.startswith("_")}
    return sorted(public)


def test_every_public_name_is_an_outlet_that_is_checked_or_is_known_to_be_none(world: World, tmp_path: Path) -> None:
    checked = {*outlets(world, tmp_path), "grid", "form", "card", "app"}
    assert [name for name in names() if name not in checked and name not in NO_OUTLET] == []
    assert [name for name in NO_OUTLET if name not in names()] == []


@pytest.mark.proof
def test_what_is_private_is_on_no_outlet(world: World, tmp_path: Path) -> None:
    found = outlets(world, tmp_path)
    assert [name for name, ask in found.items() for who in ("bob", "cid") if leaks(world, ask, as_=who)] == []


# What changes the hidden records comes last; "check" has no answer for anybody.
SILENT = {"check"}


@pytest.mark.proof
def test_the_harness_finds_what_the_owner_sees(world: World, tmp_path: Path) -> None:
    """The control: the same outlets, asked by the one who may see."""
    found = outlets(world, tmp_path)
    changing = ("update", "remove", "restore", "merge", "merge into")
    order = sorted(found, key=lambda name: (name != "undo", name in changing))
    order.remove("merge")  # afterwards there is nothing to merge into
    silent = [name for name in order if name not in SILENT and not leaks(world, found[name], as_="ann")]
    assert silent == []


@pytest.mark.proof
@pytest.mark.parametrize("name", ["get", "find", "search", "history", "changes", "export_all", "at", "timeline"])
def test_the_harness_finds_an_outlet_past_the_read_path(
    name: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the filter, strangers see it all."""
    monkeypatch.setattr(Visible, "_hides", lambda *_: None)
    monkeypatch.setattr(Visible, "_is_limited", lambda *_: False)
    assert leaks(world, outlets(world, tmp_path)[name], as_="bob")


@pytest.mark.proof
def test_one_outlet_that_reads_the_store_itself_is_found(world: World, tmp_path: Path) -> None:
    """The control: a single mistake in the wiring."""
    world.crm.customers._store = world.crm._store  # type: ignore[assignment]
    found = outlets(world, tmp_path)
    assert [name for name in found if leaks(world, found[name], as_="bob")] != []


@pytest.mark.shipped_plugins
def test_what_is_private_is_on_no_screen(world: World) -> None:
    for name, ask in screens(world).items():
        assert not leaks(world, ask, as_="bob"), name
    shown = screens(world)
    with world.crm.acting_as("ann"):  # the control
        assert MARK in told(shown["grid"]())
        assert MARK in told(shown["suggestions"]())
        assert MARK in told(shown["labels"]())


# --------------------------------------------------------------------------- who sees what


def seen_by(crm: CRM) -> dict[str, list[str]]:
    """Who sees which customers."""
    found = {}
    for who in ("ann", "bob", "cid", "eve"):
        with crm.acting_as(who):
            found[who] = [record.name for record in crm.customers.find(order="name")]
    return found


def test_a_team_sees_what_its_members_share(world: World) -> None:
    crm = world.crm
    crm.customers.update(world.open.id, visible_to="team", owner="bob")
    with crm.acting_as("ann"):
        crm.customers.update(world.hidden.id, visible_to="all")
    zora = f"Zora {MARK}"
    assert seen_by(crm) == {"ann": ["Olga Open", zora], "bob": ["Olga Open", zora], "cid": [zora], "eve": [zora]}


def test_what_is_for_all_says_nothing(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", visible_to="all")
    assert (ada.visible_to, ada.owner) == (None, None)
    assert not {"visible_to", "owner"} & set(crm._store.get("customers", ada.id) or ())
    with crm.acting_as("eve"):
        hers = crm.customers.update(ada, visible_to="private")
    assert (hers.visible_to, hers.owner) == ("private", "eve")
    assert crm.customers.get(ada.id) is None
    with crm.acting_as("eve"):
        assert crm.customers.update(hers, owner=None).owner == "eve"  # nobody loses a record
        assert crm.customers.update(hers.id, visible_to=None).visible_to is None
    assert ada.id in crm.customers
    with pytest.raises(Invalid, match="visible_to: must be 'team' or 'private'"):
        crm.customers.add(name="Bad", visible_to="me")


def test_who_hands_a_record_over_gets_it_once_more(world: World) -> None:
    crm = world.crm
    with crm.acting_as("ann"):
        assert crm.customers.update(world.hidden.id, owner="cid").owner == "cid"
        assert world.hidden.id not in crm.customers
        with crm.transaction():
            mine = crm.customers.add(name="For Cid", visible_to="private", owner="cid")
            assert crm.customers.get(mine.id) is None
    with crm.acting_as("cid"):
        assert crm.customers[mine.id].name == "For Cid"


def test_a_transaction_shows_each_actor_their_own(world: World) -> None:
    crm = world.crm
    with crm.acting_as("ann"), crm.transaction():
        assert crm.customers.get(world.hidden.id) is not None
        crm.customers.update(world.hidden.id, notes="buffered")
        with crm.acting_as("bob"):
            assert crm.customers.get(world.hidden.id) is None
            assert crm.deals.get(world.deal.id) is None
        assert crm.deals.get(world.deal.id) is not None


def test_nobody_writes_what_they_do_not_see(world: World) -> None:
    crm = world.crm
    seq = crm.seq()
    for do in (
        lambda: crm.customers.update(world.hidden.id, city="X"),
        lambda: crm.customers.remove(world.hidden.id),
        lambda: crm.customers.update(world.hidden, city="X"),
        lambda: crm.customers.restore(world.removed.id),
        lambda: crm.undo(world.cause),
    ):
        with pytest.raises(NotFound):
            do()
    with pytest.raises(Invalid, match="customer: refers to a record that does not exist in customers"):
        crm.deals.add(title="Boat", customer=world.hidden.id)
    assert crm.seq() == seq


def test_a_unique_value_of_a_hidden_record_is_taken_without_a_name(world: World) -> None:
    with pytest.raises(Invalid) as refused:
        world.crm.customers.add(name="Zoe", number=f"{MARK}-1")
    assert refused.value.problems == {"number": "already taken by another record"}
    with world.crm.acting_as("ann"), pytest.raises(Invalid, match=world.hidden.id):  # the owner is told which
        world.crm.customers.add(name="Zoe", number=f"{MARK}-1")


def test_an_export_says_how_many_it_left_out(world: World, tmp_path: Path) -> None:
    crm = world.crm
    assert crm.export_all(tmp_path / "mine").left_out == 4
    assert json.loads((tmp_path / "mine" / "export.json").read_text())["left_out"] == 4
    assert crm.export("deal", tmp_path / "deals.csv").left_out == 2
    with crm.acting_as("ann"):
        assert crm.export_all(tmp_path / "ann").left_out == 0


def test_another_process_learns_of_it(world: World, deals: type) -> None:
    crm = world.crm
    with closing(crmkit.open(crm.workspace.folder, plugins=[deals()])) as other:
        with other.acting_as("eve"):
            assert world.open.id in other.customers
            assert len(other.deals) == 1
        crm.customers.update(world.open.id, visible_to="private", owner="bob")
        with other.acting_as("eve"):
            assert world.open.id not in other.customers
            assert len(other.deals) == 0
        with other.acting_as("bob"):
            assert [deal.title for deal in other.deals] == ["Open deal"]


def test_a_past_is_seen_as_the_record_is_now(world: World) -> None:
    crm, then = world.crm, datetime.now(UTC)
    past = crm.at(then)
    assert past.customers.get(world.open.id) is not None
    with crm.acting_as("ann"):
        crm.customers.update(world.hidden.id, visible_to=None)
    assert past.customers[world.hidden.id].name == f"Zora {MARK}"  # it was private then, and is not now
    crm.customers.update(world.open.id, visible_to="private", owner="ann")
    assert past.customers.get(world.open.id) is None  # it was open then, and is not now
    assert [record.id for record in past.customers if record.id == world.open.id] == []


def test_an_undo_leaves_out_what_is_not_seen(world: World) -> None:
    crm = world.crm
    with crm.acting_as("ann"), crm.transaction(reason="both"):
        crm.customers.update(world.hidden.id, city="Oslo")
        crm.customers.update(world.open.id, city="Oslo")
    batch = crm.batches(1)[0]
    assert (batch.count, batch.types) == (1, {"customer": 1})
    assert crm.undo(batch).count == 1
    assert crm.customers[world.open.id].city == "Rome"
    with crm.acting_as("ann"):
        assert crm.customers[world.hidden.id].city == "Oslo"


def test_the_team_of_a_removed_customer_still_hides_its_deals(world: World) -> None:
    crm = world.crm
    with crm.acting_as("ann"):
        crm.customers.remove(world.hidden.id)
        assert crm.deals.get(world.deal.id) is not None
    assert crm.deals.get(world.deal.id) is None


class Boat(Record, type="boat", plural="boats"):
    """Something whose owner is no colleague."""

    owner: Reference[Customer] | None = None  # type: ignore[assignment]


class Seen(Record, type="seen", plural="seen_ones"):
    """A type with a visibility of its own."""

    visible_to: str | None = None  # type: ignore[assignment]


def test_a_type_may_have_other_owners_but_no_other_visibility(crm: CRM) -> None:
    class Types:
        def __init__(self, which: type[Record]) -> None:
            self.which = which

        @hookimpl
        def crm_record_types(self) -> list[type[Record]]:
            return [self.which]

    crm.register(Types(Boat))
    ada = crm.customers.add(name="Ada")
    boat = crm.boats.add(owner=ada.id)
    for save in (lambda: crm.boats.add(visible_to="private"), lambda: crm.boats.update(boat, visible_to="team")):
        with pytest.raises(Invalid, match="visible_to: cannot be set: the owner of a boat is no colleague"):
            save()
    with pytest.raises(Invalid, match="visible_to: is kept by crmkit; choose another name"):
        crm.register(Types(Seen), "other")


# --------------------------------------------------------------------------- random, against a plain filter

PEOPLE = ("ann", "bob", "cid", "dora", "eve")
MATES = {"ann": {"ann", "bob"}, "bob": {"ann", "bob"}, "cid": {"cid", "dora"}, "dora": {"cid", "dora"}, "eve": {"eve"}}
CONDITIONS = st.recursive(
    st.one_of(
        st.builds(lambda stage: F.stage == stage, st.sampled_from(["a", "b", "c"])),
        st.builds(lambda owner: F.owner == owner, st.sampled_from(PEOPLE)),
        st.just(F.visible_to.exists()),
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: And((a, b)), inner, inner),
        st.builds(lambda a, b: Or((a, b)), inner, inner),
        st.builds(Not, inner),
    ),
    max_leaves=4,
)


def may_see(actor: str, visible_to: str | None, owner: str | None) -> bool:
    if visible_to == "team":
        return owner in MATES[actor]
    return visible_to is None or owner == actor


def meets(condition: Condition | None, deal: Record) -> bool:
    from crmkit.store.evaluate import predicate

    doc = {"stage": deal.stage, "owner": deal.owner, "visible_to": deal.visible_to}  # type: ignore[attr-defined]
    return predicate(condition)({name: value for name, value in doc.items() if value is not None})


@pytest.fixture
def many(tmp_path: Path, deals: type) -> Iterator[CRM]:
    """A workspace with random visibilities."""
    crmkit.create(tmp_path / "many", currency="EUR", country="GB").close()
    profile = tmp_path / "many" / "crmkit.toml"
    profile.write_text(profile.read_text() + TEAMS)
    with crmkit.open(tmp_path / "many", plugins=[deals()]) as crm:
        random = Random(7)

        def sharing() -> dict[str, Any]:
            visible_to = random.choice([None, None, "team", "private"])
            return {"visible_to": visible_to, "owner": random.choice(PEOPLE)}

        people = [{"name": f"Name{number} Same", **sharing()} for number in range(60)]
        crm.customers.add_many(people)
        ids = list(crm.customers._store._store.tables()["customers"])  # type: ignore[attr-defined]
        for number in range(240):
            fields = {"title": f"Deal {number}", "stage": random.choice("abc"), **sharing()}
            customer = random.choice([None, *ids])
            with crm.acting_as(_owner(crm, customer)):
                crm.deals.add(**fields, customer=customer)
        yield crm


def _owner(crm: CRM, customer: str | None) -> str:
    doc = crm._store.get("customers", customer) if customer else None
    return str((doc or {}).get("owner") or "ann")


def everything(crm: CRM) -> tuple[dict[str, Record], list[Record]]:
    """All customers and deals, past the read path."""
    tables = crm._store.tables()
    customers = {id: crm._codec.record(Customer, "customers", doc) for id, doc in tables["customers"].items()}
    kind = crm.deals.type
    return customers, [crm._codec.record(kind, "deals", doc) for doc in tables["deals"].values()]


def expected(crm: CRM, actor: str, where: Condition | None) -> list[str]:
    """The ids of the deals that somebody sees, by a plain filter."""
    customers, found = everything(crm)

    def visible(deal: Any) -> bool:
        customer: Any = customers.get(deal.customer)
        about = customer is None or may_see(actor, customer.visible_to, customer.owner)
        return about and may_see(actor, deal.visible_to, deal.owner)

    return sorted(deal.id for deal in found if visible(deal) and meets(where, deal))


def paged(crm: CRM, where: Condition | None, limit: int) -> list[str]:
    found, after = [], None
    while True:
        page = crm.deals.find(where, limit=limit, after=after)
        assert len(page) == limit or page.next is None  # pages are full
        found += [deal.id for deal in page]
        after = page.next
        if after is None:
            return found


def agrees(crm: CRM, actor: str, where: Condition | None, limit: int) -> bool:
    wanted = expected(crm, actor, where)
    with crm.acting_as(actor):
        return (
            paged(crm, where, limit) == wanted
            and crm.deals.count(where) == len(wanted)
            and [deal.id for deal in crm.deals.window(0, 500, where)] == wanted
        )


@pytest.mark.proof
def test_random_questions_agree_with_a_plain_filter(many: CRM, scale: Callable[[int], int]) -> None:
    @settings(
        max_examples=scale(60), deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
    )
    @given(
        actor=st.sampled_from(PEOPLE),
        where=st.none() | CONDITIONS,
        limit=st.integers(1, 300),
        change=st.none() | st.tuples(st.integers(0, 59), st.sampled_from([None, "team", "private"])),
    )
    def ask(actor: str, where: Condition | None, limit: int, change: tuple[int, str | None] | None) -> None:
        if change is not None:
            customers, _ = everything(many)
            record: Any = sorted(customers.values(), key=lambda each: each.id)[change[0]]
            with many.acting_as(record.owner):
                many.customers.update(record.id, visible_to=change[1])
        assert agrees(many, actor, where, limit)

    ask()


@pytest.mark.proof
def test_a_read_path_that_forgets_the_teams_would_be_found(many: CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the questions."""
    assert all(agrees(many, actor, None, 50) for actor in PEOPLE)
    monkeypatch.setattr(Visible, "_hidden_customers", lambda *_: ())
    many._visible._begin_anew()
    assert not all(agrees(many, actor, None, 50) for actor in PEOPLE)


@pytest.mark.proof
def test_what_is_typed_finds_what_is_seen_and_no_less(many: CRM) -> None:
    customers, _ = everything(many)
    for actor in PEOPLE:
        wanted = {id for id, each in customers.items() if may_see(actor, each.visible_to, each.owner)}  # type: ignore[attr-defined]
        with many.acting_as(actor):
            for limit in (1, 7, 500):
                for typed in ("same", "saem"):
                    found = [record.id for record in many.customers.search(typed, limit)]
                    assert len(found) == len(set(found)) == min(limit, len(wanted))
                    assert set(found) <= wanted
