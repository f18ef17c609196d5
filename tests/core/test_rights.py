"""Rights: each guarded action is refused with its reason and audited; who may is said; without roles everybody may."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit import CRM, Decision, F, Invalid, Record, Refused, hookimpl
from crmkit.commits import Commit
from crmkit.profile import ACTIONS, read_profile
from crmkit.rights import COOPERATIVE, Rights

IBAN = "GB33BUKB20201555555555"
ROLES = """
[roles.manager]
members = ["ann"]
may = ["reveal", "export", "erase", "bulk", "settings", "billing.refund"]
[roles.sales]
members = ["bob"]
may = ["reveal"]
"""


def with_settings(folder: Path, text: str) -> Path:
    """Make a workspace whose profile says more."""
    crmkit.create(folder, currency="EUR", country="GB").close()
    profile = folder / "crmkit.toml"
    profile.write_text(profile.read_text("utf-8") + text, "utf-8")
    return folder


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[CRM]:
    """A workspace with roles; who opened it has none."""
    with crmkit.open(with_settings(tmp_path / "strict", ROLES)) as crm:
        yield crm


def refusals(crm: CRM) -> list[tuple[str, str, tuple[str, ...]]]:
    """Who was refused what, newest first."""
    return [(each.actor, each.entity, each.fields) for each in crm.audit.entries(action="refused")]


def guarded(crm: CRM, tmp: Path) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Every guarded deed, with its action."""
    with crm.acting_as("ann"):
        ada = crm.customers.add(name="Ada", iban=IBAN)
        bob, cid = crm.customers.add(name="Bob"), crm.customers.add(name="Cid")
        with crm.transaction(reason="two"):
            crm.customers.update(bob.id, city="Rome")
            crm.customers.update(cid.id, city="Rome")
        two = crm.batches(1)[0]
    table = tmp / "in.csv"
    table.write_text("name\nDora\nEve\n")
    plan = crm.import_file(table, as_="customer", map={"name": "name"})
    return {
        "reveal": ("reveal", lambda: crm.reveal(ada, "iban", reason="x")),
        "export": ("export", lambda: crm.export("customer", tmp / "c.csv")),
        "export_all": ("export", lambda: crm.export_all(tmp / "all")),
        "erase": ("erase", lambda: crm.erase(ada, reason="x")),
        "allow_again": ("erase", lambda: crm.allow_again("ada@example.org", reason="x")),
        "add_many": ("bulk", lambda: crm.customers.add_many([{"name": "F"}, {"name": "G"}])),
        "import": ("bulk", plan.apply),
        "merge": ("bulk", lambda: crm.customers.merge(bob.id, [cid.id])),
        "undo": ("bulk", lambda: crm.undo(two)),
        "trust": ("settings", lambda: crmkit.trust(crm.workspace.folder)),
    }


@pytest.mark.proof
@pytest.mark.shipped_plugins
def test_each_guarded_action_is_refused_with_its_reason_and_audited(
    strict: CRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crmkit.handle.user_name", lambda: "cid")  # trust() opens the workspace as the system user
    for name, (action, do) in guarded(strict, tmp_path).items():
        seq = strict.seq()
        with strict.acting_as("cid"), pytest.raises(Refused) as refused:
            do()
        said = str(refused.value)
        words = {"bulk": "changing many records at once", "settings": "changing settings"}.get(action, action)
        assert said == f"{words} is refused to cid: cid has no role in crmkit.toml; {action} is for " + (
            "manager (ann); sales (bob)" if action == "reveal" else "manager (ann)"
        ), name
        assert refusals(strict)[0][0] == "cid", name
        assert refusals(strict)[0][2] == (action,), name
        assert strict.seq() == seq, name  # nothing was done
    assert len(refusals(strict)) == 10
    assert strict.verify() == []


@pytest.mark.proof
@pytest.mark.shipped_plugins
def test_those_who_may_are_let_pass(strict: CRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same deeds by somebody who may."""
    monkeypatch.setattr("crmkit.handle.user_name", lambda: "ann")
    deeds = guarded(strict, tmp_path)
    for name in ("reveal", "export", "export_all", "add_many", "import", "undo", "merge", "trust", "erase"):
        with strict.acting_as("ann"):
            deeds[name][1]()
    assert refusals(strict) == []


@pytest.mark.proof
@pytest.mark.shipped_plugins
def test_a_gate_that_is_not_asked_would_be_found(strict: CRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the guard, each of the deeds is done."""
    deeds = guarded(strict, tmp_path)
    monkeypatch.setattr(Rights, "guard", lambda *_: None)
    for name in ("reveal", "export", "export_all", "add_many", "import", "undo", "merge", "trust"):
        with strict.acting_as("cid"):
            deeds[name][1]()


@pytest.mark.shipped_plugins
def test_an_export_in_the_clear_asks_for_both_rights(strict: CRM, tmp_path: Path) -> None:
    profile = strict.workspace.profile
    clerk = '\n[roles.clerk]\nmembers = ["eve"]\nmay = ["export"]\n'
    profile.write_text(profile.read_text(encoding="utf-8") + clerk, encoding="utf-8")
    with crmkit.open(strict.workspace.folder) as crm, crm.acting_as("eve"):
        for deed in (
            lambda: crm.export("customer", tmp_path / "one.csv", reveal="audit"),
            lambda: crm.export_all(tmp_path / "all", reveal="audit"),
        ):
            with pytest.raises(Refused, match="reveal is for"):
                deed()
        assert [fields for _, _, fields in refusals(crm)] == [("reveal",), ("reveal",)]
        assert list(tmp_path.glob("*.csv")) == []
        crm.export("customer", tmp_path / "masked.csv")  # the control
        crm.export_all(tmp_path / "all")


@pytest.mark.shipped_plugins
def test_one_record_is_no_bulk(strict: CRM) -> None:
    with strict.acting_as("cid"):
        made = strict.customers.add_many([{"name": "One"}])
        assert made.count == 1
        assert strict.undo(made).count == 1


@pytest.mark.shipped_plugins
def test_a_role_may_what_it_says_and_no_more(strict: CRM) -> None:
    for who, allowed in (("ann", {*ACTIONS}), ("bob", {"reveal"}), ("cid", set())):
        with strict.acting_as(who):
            assert {action for action in ACTIONS if strict.can(action)} == allowed
            assert all(strict.can(action).rule == "governance.roles" for action in ACTIONS)
    with strict.acting_as("bob"):
        assert strict.can("export").reason == "bob has only the role sales; export is for manager (ann)"
        assert not strict.can("billing.refund")
        assert not strict.can("billing.other")
    with strict.acting_as("ann"):
        assert strict.can("billing.refund")


@pytest.mark.shipped_plugins
def test_it_is_explained(strict: CRM) -> None:
    ada = strict.customers.add(name="Ada")
    assert repr(strict.explain("reveal")).splitlines() == str(strict.explain("reveal")).splitlines()
    assert strict.explain("reveal", ada, actor="bob").splitlines() == [
        f"bob (roles: sales) asks for reveal for customer {ada.id}",
        "yes: bob has the role sales, which may reveal (says governance.roles)",
        COOPERATIVE,
    ]
    with strict.acting_as("cid"):
        assert strict.explain("erase").splitlines()[:2] == [
            "cid (roles: none) asks for erase",
            "no: cid has no role in crmkit.toml; erase is for manager (ann) (says governance.roles)",
        ]
    assert refusals(strict) == []  # who asks has done nothing


def test_without_roles_everybody_may_everything(crm: CRM) -> None:
    assert all(crm.can(action) for action in (*ACTIONS, "billing.refund"))
    assert crm.can("export") == Decision(True, "crmkit.toml has no roles: everybody may do everything", "crmkit")
    assert isinstance(crm.customers.add_many([{"name": "A"}, {"name": "B"}]), Commit)


@pytest.mark.parametrize("action", ["exprot", "", "Billing.refund", "billing.", 3])
def test_an_unknown_action_is_invalid(crm: CRM, action: Any) -> None:
    with pytest.raises(Invalid, match="is not an action"):
        crm.can(action)
    with pytest.raises(Invalid, match="did you mean 'export'"):
        crm.explain("exprot")


def test_a_right_is_about_a_record(crm: CRM) -> None:
    for asked in (crm.can, crm.explain):
        with pytest.raises(Invalid, match="record: must be a record"):
            asked("erase", "zz")  # type: ignore[arg-type]


@pytest.mark.proof
def test_roles_that_nobody_answers_for_allow_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRMKIT_DISABLE_PLUGINS", "roles")
    with crmkit.open(with_settings(tmp_path / "acme", ROLES)) as crm, crm.acting_as("ann"):
        ada = crm.customers.add(name="Ada", iban=IBAN)
        with pytest.raises(Refused, match=r"to ann: crmkit\.toml has roles, and no plugin answers"):
            crm.reveal(ada, "iban", reason="x")
        assert not any(crm.can(action) for action in ACTIONS)
        assert crm.customers.find(F.name == "Ada").records[0].id == ada.id  # what is not guarded goes on


class Vip:
    """A plugin with a rule of its own."""

    @hookimpl
    def crm_authorize(self, actor: str, action: str, record: Record | None) -> Decision | None:
        if action == "reveal" and record is not None and "vip" in record.tags:  # type: ignore[attr-defined]
            return Decision(actor == record.owner, f"the secrets of a VIP are for {record.owner} only")
        return None


def test_hook_crm_authorize(crm: CRM) -> None:
    crm.register(Vip())
    ada = crm.customers.add(name="Ada", iban=IBAN, tags=("vip",), owner="ann")
    other = crm.customers.add(name="Bob", iban=IBAN)
    with crm.acting_as("bob"):
        assert crm.can("reveal", ada) == Decision(False, "the secrets of a VIP are for ann only", "vip")
        with pytest.raises(Refused, match="reveal is refused to bob: the secrets of a VIP are for ann only"):
            crm.reveal(ada, "iban", reason="x")
        assert crm.reveal(other, "iban", reason="x").value == IBAN  # left to others
    with crm.acting_as("ann"):
        assert crm.reveal(ada, "iban", reason="x").value == IBAN
    entry = crm.audit.entries(action="refused")[0]
    assert (entry.actor, entry.entity, entry.record, entry.fields) == ("bob", "customer", ada.id, ("reveal",))
    assert entry.reason is None


def test_an_answer_that_is_none_of_ours_and_an_error_let_nothing_pass(crm: CRM) -> None:
    class Sloppy:
        @hookimpl
        def crm_authorize(self, action: str) -> Any:
            if action == "export":
                raise RuntimeError("out of order")
            return True

    crm.register(Sloppy())
    with pytest.raises(Invalid, match="crm_authorize: sloppy must return a Decision, or None"):
        crm.can("reveal")
    with pytest.raises(RuntimeError, match="out of order"):
        crm.export("customer", crm.workspace.folder.parent / "c.csv")
    assert not (crm.workspace.folder.parent / "c.csv").exists()


def test_a_refusal_survives_the_transaction_that_it_ends(crm: CRM) -> None:
    crm.register(Vip())
    ada = crm.customers.add(name="Ada", iban=IBAN, tags=("vip",), owner="ann")
    with crm.acting_as("bob"), pytest.raises(Refused), crm.transaction():
        crm.customers.update(ada.id, city="Rome")
        crm.reveal(ada, "iban", reason="x")
    assert crm.customers[ada.id].city is None
    assert len(refusals(crm)) == 1


# --------------------------------------------------------------------------- the profile


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[roles.a]\nmay = ['revael']", "roles.a.may: 'revael' is not an action; did you mean 'reveal'?"),
        ("[roles.a]\nmember = ['ann']", "roles.a.member: is not a key; did you mean 'members'?"),
        ("[roles.a]\nmembers = 'ann'", 'roles.a.members: must be a list, such as ["ann", "bob"]'),
        ("[teams]\nsales = 'ann'", 'teams.sales: must be a list, such as ["ann", "bob"]'),
        ("roles = 3", "roles: must be a table, such as [roles.manager] or [teams]"),
        ("[rolse.a]\nmay = []", "rolse: is not a key; did you mean 'roles'?"),
        (
            "[roles.a]\nmembers = ['ann']\n[roles.b]\n[teams]\nsales = ['ann', 'bob']",
            "teams: 'bob' of the team 'sales' is in no role; add the name to one of [roles.a], [roles.b]",
        ),
    ],
)
def test_a_profile_that_is_wrong_says_where(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "crmkit.toml"
    path.write_text(f'name = "x"\n{text}\n')
    with pytest.raises(Invalid) as refused:
        read_profile(path)
    assert str(refused.value) == f"{path}: {problem}"


def test_the_profile_that_is_written_shows_roles_and_teams_as_comments(crm: CRM) -> None:
    text = crm.workspace.profile.read_text("utf-8")
    assert "# [roles.manager]" in text
    assert "# [teams]" in text
    shown = re.sub(r"^# (?=\[|members|may|sales)", "", text, flags=re.MULTILINE)
    crm.workspace.profile.write_text(shown, "utf-8")
    profile = read_profile(crm.workspace.profile)  # what stands there works when its signs are taken away
    assert set(profile.roles) == {"manager", "sales"}
    assert profile.mates("bob") == {"ann", "bob"}
    assert profile.mates("eve") == {"eve"}
