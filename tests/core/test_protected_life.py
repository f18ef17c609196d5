"""A random life of one workspace with everything that seals, erases and renews keys, against a plain model of it."""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

import crmkit
from crmkit import CRM, F
from crmkit.codec import ERASED
from crmkit.errors import ChangedSince, Conflict, CrmError, Damaged, Erased, Invalid, NotFound, Refused
from crmkit.keys.rotation import Past
from tests.core.test_erase import Types, holding
from tests.core.test_seal_level import set_level

Key = tuple[str, str]
PEOPLE = ("name", "email", "notes", "iban")
READ = {"customers": PEOPLE, "visits": ("customer", "title", "text", "code"), "dinners": ("guests", "title", "note")}
SECRET = {"iban", "code", "note"}


class Model:
    """What has to be there: the values of each document and where it is, what it was called, who is gone.

    Attributes:
        docs: By collection and id; ``state`` is here, removed, merged or erased.
        versions: How often each was written.
        names: The former names of each customer.
        marks: What only stands in values of each customer.
        mixed: Customers of whom a merge that was undone may have left something with somebody else.
        batches: What each document was before a batch, by its id.
        merges: Which of the batches are merges.
    """

    def __init__(self) -> None:
        self.docs: dict[Key, dict[str, Any]] = {}
        self.versions: dict[Key, int] = {}
        self.names: dict[str, set[str]] = {}
        self.marks: dict[str, set[str]] = {}
        self.mixed: set[str] = set()
        self.batches: dict[str, dict[Key, dict[str, Any] | None]] = {}
        self.merges: set[str] = set()
        self._open: dict[Key, dict[str, Any] | None] = {}

    def put(self, collection: str, id: str, **fields: Any) -> None:
        key = collection, id
        old = self.docs.get(key)
        self._open.setdefault(key, copy.deepcopy(old))
        if collection == "customers" and old and old["name"] != fields.get("name", old["name"]):
            self.names.setdefault(id, set()).add(old["name"])
        self.docs[key] = {"state": "here", **(old or {}), **fields}
        self.versions[key] = self.versions.get(key, 0) + 1

    def commit(self, cause: str | None) -> None:
        if cause:
            self.batches[cause] = self._open
        self._open = {}

    def ids(self, collection: str, *states: str) -> list[str]:
        return [id for (name, id), doc in self.docs.items() if name == collection and doc["state"] in states]

    def with_merged(self, ids: Iterable[str]) -> list[str]:
        """Return customers and everybody who was merged into them, in turn."""
        found = list(ids)
        for each in found:
            merged = self.ids("customers", "merged")
            found += [other for other in merged if self.docs["customers", other]["into"] == each and other not in found]
        return found

    def erase(self, id: str) -> None:
        gone = self.with_merged([id])
        for each in gone:
            self.put("customers", each, state="erased")
        for (collection, of), doc in list(self.docs.items()):
            if collection == "visits" and doc["customer"] in gone:
                self.put(collection, of, title=ERASED, text=None, code=None)
            elif collection == "dinners" and set(doc["guests"]) & set(gone):
                left = [each for each in doc["guests"] if each not in gone]
                self.put(collection, of, guests=left, **({} if left else {"title": ERASED, "note": None}))
        self.commit(None)


class ProtectedLife:
    """Lives a workspace with two handles at random, and compares it with the model after each step.

    Args:
        root: An empty folder.
        seed: Decides everything.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.place, self.random, self.model = root, root / "acme", Random(seed), Model()
        self.level = self.random.choice(["personal", "sensitive"])
        crmkit.create(self.place, seal=self.level).close()
        self.crms = [self._open() for _ in range(2)]
        self.crm = self.crms[0]
        self.saved: list[tuple[Path, Model, bool]] = []  # backups, with what they hold and whether keys were dropped
        self.moments: list[tuple[datetime, dict[str, str]]] = []
        self.rotated = False
        self.told: list[str] = []

    def go_on(self, steps: int) -> None:
        """Live some steps; every error that is a fault is noted with what led to it."""
        deeds = [getattr(self, name) for name in dir(type(self)) if name.startswith("do_")]
        weights = [WEIGHTS.get(deed.__name__, 1) for deed in deeds]
        try:
            for _ in range(steps):
                self.crm = self.crms[self.random.random() < 0.25]
                (deed,) = self.random.choices(deeds, weights)
                self.told.append(f"{deed.__name__}({self.crms.index(self.crm)})")
                deed()
                self._remember()
                if self.random.random() < 0.3:
                    self.check(self.crms[self.random.random() < 0.25])
            for crm in self.crms:
                self.check(crm, full=True)
            self.do_reopen()
            self.check(self.crms[0], full=True)
        except Exception as error:
            error.add_note(f"{len(self.told)} steps: {' '.join(self.told[-25:])}")
            raise
        finally:
            for crm in self.crms:
                crm.close()

    # ------------------------------------------------------------------ deeds

    def do_add(self) -> None:
        mark = self._mark()
        fields = {"name": f"Name {mark}", "email": f"{mark}@example.org", "notes": f"notes {mark}"}
        fields |= {"iban": self._iban()} if self.random.random() < 0.7 else {}
        id = self.crm.customers.add(**fields).id
        self.model.marks[id] = {mark}
        self._done("customers", id, **{"iban": None, **fields})

    def do_update(self) -> None:
        for id in self._some("customers"):
            self._done("customers", id, **self._change(id))

    def do_remove(self) -> None:
        for id in self._some("customers"):
            self.crm.customers.remove(id)
            self._done("customers", id, state="removed")

    def do_restore(self) -> None:
        for id in self._some("customers", state="removed"):
            self.crm.customers.restore(id)
            self._done("customers", id, state="here")

    def do_visit(self) -> None:
        for owner in self._some("customers"):
            fields = self._visit(owner)
            self._done("visits", self.crm.visits.add(**fields).id, **fields)

    def do_change_visit(self) -> None:
        """Also from one customer to another."""
        for owner in self._some("customers"):
            for id in self._some("visits"):
                fields = self._visit(owner)
                with self._refused(Erased if self.model.docs["visits", id]["title"] == ERASED else ()):
                    self.crm.visits.update(id, **fields)
                    self._done("visits", id, **fields)

    def do_dinner(self) -> None:
        guests = self._some("customers", most=3)
        if guests:
            fields = {"guests": guests, "title": f"Dinner {self._mark()}", "note": f"note {self._mark()}"}
            self._done("dinners", self.crm.dinners.add(**fields).id, **fields)

    def do_change_dinner(self) -> None:
        for id in self._some("dinners"):
            fields = {"guests": self._some("customers", most=2), "title": f"Dinner {self._mark()}"}
            if fields["guests"]:
                self.crm.dinners.update(id, **fields)
                self._done("dinners", id, **fields)

    def do_merge(self) -> None:
        pair = self._some("customers", most=2)
        if len(pair) < 2:
            return
        winner, loser = pair
        try:
            cause = self.crm.customers.merge(winner, [loser]).id
        except Invalid:  # an address that another merge brought is suppressed
            assert self.model.mixed
            return
        kept, lost = (self.model.docs["customers", id] for id in pair)
        self.model.put("customers", winner, **{name: kept[name] or lost[name] for name in PEOPLE})
        self.model.put("customers", loser, state="merged", into=winner)
        for (collection, id), doc in list(self.model.docs.items()):
            if collection == "visits" and doc["customer"] == loser:
                self.model.put(collection, id, customer=winner)
            elif collection == "dinners" and loser in doc["guests"]:
                united = list(dict.fromkeys(winner if each == loser else each for each in doc["guests"]))
                self.model.put(collection, id, guests=united)
        self.model.commit(cause)
        self.model.merges.add(cause)

    def do_undo(self) -> None:
        if not self.model.batches:
            return
        cause = self.random.choice(list(self.model.batches)[-8:])
        was = self.model.batches[cause]
        with self._refused((Refused, ChangedSince, Invalid, Erased)):
            undone = self.crm.undo(cause, skip_changed=True)
            for key, doc in was.items():
                if (key[0].removesuffix("s"), key[1]) not in undone.left_out:
                    self.model.put(*key, **(doc or {"state": "removed"}))
            self.model.commit(undone.id)
        if cause in self.model.merges:  # what the winner got of the loser, it may keep, and did have
            self.model.mixed |= set(self.model.with_merged(id for collection, id in was if collection == "customers"))

    def do_transaction(self) -> None:
        """Leave a transaction open while the other handle does something else."""
        for id in self._some("customers"):
            mine, other = self.crm, self.crms[1 - self.crms.index(self.crm)]
            version = self.model.versions["customers", id]
            quiet = [self.do_add, self.do_update, self.do_remove, self.do_erase, self.do_rotate, self.do_merge]
            deed = self.random.choice([*quiet, self.do_drop, self.do_seal, self.do_compact, self.do_undo])
            self.told.append(f"meanwhile {deed.__name__}")
            changes: dict[str, Any] = {}
            try:
                with mine.transaction():
                    changes = self._change(id)
                    self.crm = other
                    deed()
            except (Conflict, Invalid, Erased, NotFound) as error:
                if self.model.versions["customers", id] == version:
                    raise AssertionError(f"refused, though nobody changed it: {error!r}") from error
            else:
                assert self.model.versions["customers", id] == version, "what changed meanwhile was overwritten"
                self.crm = mine
                self._done("customers", id, **changes)

    def do_erase(self) -> None:
        for id in self._some("customers", state=self.random.choice(["here", "here", "removed"])):
            assert self.crm.erase(id, reason="asked").finished
            self.model.erase(id)
            with self._refused((Erased,)):
                assert id in self.crm.erase(id, reason="again").subjects  # where it finished something

    def do_rotate(self) -> None:
        scope = self.random.choice(["wrap", "data", "data", "index"])
        assert self.crm.keys.rotate(scope).left == {}
        self.rotated |= scope == "data"

    def do_drop(self) -> None:
        with self._refused(() if self.rotated else (Refused,)):
            self.crm.keys.drop_old()
            self.saved = [(data, model, True) for data, model, _ in self.saved]

    def do_seal(self) -> None:
        self.level = {"personal": "sensitive", "sensitive": "personal"}[self.level]
        set_level(self.place, self.level)
        assert self.crm.keys.seal().left == {}

    def do_compact(self) -> None:
        self.crm._store.compact()

    def do_lock(self) -> None:
        self.crm.lock()
        self.crm.unlock()

    def do_reopen(self) -> None:
        at = self.crms.index(self.crm)
        self.crm.close()
        self.crms[at] = self.crm = self._open()

    def do_backup(self) -> None:
        data = self.crm.backup(self.root / "backups").data
        self.saved.append((data, copy.deepcopy(self.model), False))

    def do_look_at_backup(self) -> None:
        if not self.saved:
            return
        data, then, may_be_dark = self.random.choice(self.saved)
        for id in self.model.ids("customers", "erased"):
            if ("customers", id) in then.docs and then.docs["customers", id]["state"] != "erased":
                then.docs["customers", id]["state"] = "erased"
        folder = self.root / "restored"
        with self._refused((Damaged,) if may_be_dark else ()), crmkit.restore(data, folder) as back:
            back.register(Types())
            here = {id: then.docs["customers", id]["name"] for id in then.ids("customers", "here")}
            assert {each.id: each.name for each in back.customers} == here
            assert back.verify() == []
            for id in then.ids("customers", "here"):
                assert self._opened(back, "customers", id) == self._wanted("customers", id, then)
        shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------------ what must be true

    def check(self, crm: CRM, *, full: bool = False) -> None:
        """Compare what a handle shows with the model."""
        self.told.append(f"check({self.crms.index(crm) if crm in self.crms else '-'})")
        for collection in READ:
            here = sorted(self.model.ids(collection, "here"))
            assert sorted(each.id for each in crm.collection(collection)) == here
            for id in here:
                assert self._opened(crm, collection, id) == self._wanted(collection, id, self.model)
        people, gone = self.model.ids("customers", "here"), self.model.ids("customers", "erased")
        picked = people if full else self._some("customers", most=2)
        for id in picked:
            iban = self.model.docs["customers", id]["iban"]
            same = {each for each in people if self.model.docs["customers", each]["iban"] == iban}
            assert iban is None or {each.id for each in crm.customers.find(F.iban == iban)} == same
            assert id in {each.id for each in crm.customers.search(self.model.docs["customers", id]["name"][5:])}
            told = [entry.before for entry in crm.history(id, limit=10_000)]
            lost = self.model.names.get(id, set()) - {before.get("name") for before in told if before}
            assert not lost, f"the history of {id} lacks {len(lost)} names"
        for id in gone if full else gone[-3:]:
            assert crm.customers.get(id) is None
            for mark in self.model.marks[id]:
                assert id not in {each.id for each in crm.customers.search(mark)}
            iban = self.model.docs["customers", id]["iban"]
            assert iban is None or id not in {each.id for each in crm.customers.find(F.iban == iban)}
            with self._refused((Erased,)):
                crm.history(id)
                raise AssertionError("somebody who was erased has a history")
        if self.moments and (full or self.random.random() < 0.3):
            self._check_past(crm, gone)
        if full or self.random.random() < 0.3:
            assert crm.verify() == []
            assert [made for made in crm.erasures() if not made.finished] == []
        marks = [mark for id in gone if id not in self.model.mixed for mark in self.model.marks[id]]
        found = holding(self.place if self.level == "personal" else self.place / "data", *marks) if marks else []
        assert not found, f"of somebody who was erased there is something in {found}"

    def _check_past(self, crm: CRM, gone: list[str]) -> None:
        at, names = self.random.choice(self.moments)
        past = crm.at(at)
        assert {each.id: each.name for each in past.customers} == {
            id: name for id, name in names.items() if id not in gone
        }
        told = str([dict(each) for each in past["visit"]])
        assert not any(mark in told for id in gone if id not in self.model.mixed for mark in self.model.marks[id])

    def _opened(self, crm: CRM, collection: str, id: str) -> dict[str, Any]:
        """Return what can be read of a document; without `CRM.reveal`, which counts."""
        record, doc = crm.collection(collection)[id], crm._store.get(collection, id)
        shown = {name: getattr(record, name) for name in READ[collection]}
        for name in SECRET & {name for name, value in shown.items() if value is not None}:
            shown[name] = crm._codec.opened(collection, doc, name)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}

    def _wanted(self, collection: str, id: str, model: Model) -> dict[str, Any]:
        return {name: model.docs[collection, id].get(name) for name in READ[collection]}

    # ------------------------------------------------------------------ parts

    def _open(self) -> CRM:
        return crmkit.open(self.place, plugins=[Types()])

    def _some(self, collection: str, most: int = 1, state: str = "here") -> list[str]:
        found = self.model.ids(collection, state)
        return self.random.sample(found, min(most, len(found)))

    def _mark(self) -> str:
        return "".join(self.random.choices("bcdfghjklmnpqrstvwxz", k=14))

    def _iban(self) -> str:
        bank = "".join(self.random.choices("0123456789", k=18))
        return f"DE{98 - int(f'{bank}131400') % 97:02d}{bank}"

    def _change(self, id: str) -> dict[str, Any]:
        mark = self._mark()
        self.model.marks[id].add(mark)
        every = {"name": f"Name {mark}", "email": f"{mark}@example.org", "notes": f"notes {mark}", "iban": self._iban()}
        changes = {name: every[name] for name in self.random.sample(PEOPLE, 2)}
        self.crm.customers.update(id, **changes)
        return changes

    def _visit(self, owner: str) -> dict[str, Any]:
        mark = next(iter(sorted(self.model.marks[owner])))
        more = self._mark()[:6]
        return {"customer": owner, "title": f"{more} with {mark}", "text": f"{mark} {more}", "code": f"{more} {mark}"}

    def _done(self, collection: str, id: str, **fields: Any) -> None:
        self.model.put(collection, id, **fields)
        self.model.commit(self.crm.batches(limit=1)[0].id)

    def _remember(self) -> None:
        if self.random.random() < 0.2:
            here = {id: self.model.docs["customers", id]["name"] for id in self.model.ids("customers", "here")}
            self.moments.append((datetime.now(UTC), here))

    @contextlib.contextmanager
    def _refused(self, errors: type[CrmError] | tuple[type[CrmError], ...]) -> Iterator[None]:
        with contextlib.suppress(*(errors if isinstance(errors, tuple) else (errors,))):
            yield


WEIGHTS = {"do_add": 8, "do_update": 8, "do_visit": 5, "do_change_visit": 3, "do_dinner": 3, "do_undo": 3}
WEIGHTS |= {"do_transaction": 3, "do_rotate": 2, "do_erase": 2, "do_merge": 2, "do_restore": 2}


@pytest.fixture(autouse=True)
def never_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRMKIT_IDLE_MINUTES", "0")


@pytest.mark.proof
def test_a_life_of_everything_that_is_protected(
    tmp_path: Path, scale: Callable[[int], int], record_property: Any
) -> None:
    seed, lives, steps = Random().getrandbits(32), scale(6), 80
    record_property("seed", seed)
    record_property("steps", lives * steps)
    for number in range(lives):
        (tmp_path / f"{number}").mkdir()
        ProtectedLife(tmp_path / f"{number}", seed + number).go_on(steps)


def test_control_a_rotation_that_leaves_out_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Past, "resealed", lambda self, step: step.before)
    life = ProtectedLife(tmp_path, 3)  # at level personal
    for deed in (life.do_add, *[life.do_update] * 8):
        deed()
    life.rotated = bool(life.crm.keys.rotate("data").documents)
    life.do_drop()
    with pytest.raises(AssertionError, match="lacks"):
        life.go_on(0)
