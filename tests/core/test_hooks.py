"""The hooks: documented in one shape, typed, tested, used by a shipped plugin, callable with no plugin at all."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from crmkit import CRM, Change, Customer, Decision, Entry, F, Page, hookimpl, hooks
from crmkit.plugin_checks import CONTRIBUTIONS
from crmkit.registry import DEFAULT_PLUGINS, Registry

HOOKS = sorted(name for name in vars(hooks) if name.startswith("crm_"))
TESTS = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_documented_in_one_shape(name: str) -> None:
    text = inspect.getdoc(getattr(hooks, name)) or ""
    parameters = inspect.signature(getattr(hooks, name)).parameters
    for heading in ("When:", "Returns:", "Combined:", "Failure:", "Example::", "Added in "):
        assert heading in text, heading
    for parameter in parameters:
        assert f"    {parameter}:" in text, parameter
    assert len(parameters) <= 4


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_typed(name: str) -> None:
    signature = inspect.signature(getattr(hooks, name))
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(parameter.annotation is not parameter.empty for parameter in signature.parameters.values())


@pytest.mark.shipped_plugins
@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_used_by_a_plugin_that_ships_with_crmkit(name: str) -> None:
    assert any(hasattr(importlib.import_module(dotted), name) for dotted in DEFAULT_PLUGINS)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_has_a_test_of_its_own(name: str) -> None:
    assert f"def test_hook_{name}(" in TESTS


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_can_be_called_when_there_is_no_plugin(name: str) -> None:
    registry = Registry()
    assert not registry.has(name)
    assert registry.ask(name, lambda _plugin, answer: answer) == []
    assert list(registry.chain(name)) == []
    if name in CONTRIBUTIONS:
        assert registry.contributions(name) == []


@pytest.mark.shipped_plugins
def test_hook_crm_record_types(crm: CRM) -> None:
    assert {record_type.__info__.plural for record_type in crm.types} == {
        "customers",
        "interactions",
        "products",
        "purchases",
    }


@pytest.mark.shipped_plugins
def test_hook_crm_views(crm: CRM) -> None:
    assert [(type(view).__name__, view.name, view.provider) for view in crm.views] == [
        ("Page", "interactions", "collaborative.interactions"),
        ("Page", "products", "operational.catalog"),
        ("Page", "purchases", "operational.catalog"),
        ("Page", "revenue", "analytical.revenue"),
        ("Page", "security", "governance.protection"),
        ("Panel", "purchases", "operational.catalog"),
        ("Panel", "timeline", "collaborative.interactions"),
    ]
    ada = crm.customers.add(name="Ada")
    for view in crm.views:
        description = view.build(crm) if isinstance(view, Page) else view.build(crm, ada)
        assert type(description).__name__ in ("Table", "Chart", "Timeline", "Stack")


@pytest.mark.shipped_plugins
def test_hook_crm_analyses(crm: CRM) -> None:
    assert [(analysis.name, analysis.provider) for analysis in crm.analyses] == [("revenue", "analytical.revenue")]
    result = crm.analyse("revenue", as_of=date(2026, 11, 1))
    assert result.metrics["revenue"] == 0
    assert result.as_of == date(2026, 11, 1)


def test_hook_crm_before_commit(crm: CRM) -> None:
    seen: list[Change] = []

    class Watcher:
        @hooks.hookimpl
        def crm_before_commit(self, changes: tuple[Change, ...]) -> None:
            seen.extend(changes)

    crm.register(Watcher())
    ada = crm.customers.add(name="Ada")
    assert [(change.type, change.id, change.action, change.before) for change in seen] == [
        ("customer", ada.id, "add", None)
    ]


@pytest.mark.shipped_plugins
def test_hook_crm_timeline(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    call = crm.interactions.add(customer=ada, title="Called", kind="call", happened_at="2026-01-02T10:00:00Z")
    bought = crm.purchases.add(number="1", customer=ada, purchased_on="2026-01-03", total="5")
    crm.interactions.add(customer=crm.customers.add(name="Bob"), title="of somebody else")
    entries = crm.timeline(ada).records
    assert [(entry.kind, entry.record) for entry in entries] == [("purchase", bought.id), ("call", call.id)]
    assert entries[1].provider == "collaborative.interactions"
    assert [entry.kind for entry in crm.timeline(ada, kinds=["call"])] == ["call"]
    first = crm.timeline(ada, limit=1)
    rest = crm.timeline(ada, limit=1, after=first.next)
    assert [entry.kind for entry in (*first, *rest)] == ["purchase", "call"]
    assert rest.next is None


def test_entries_of_one_instant_survive_a_page_break(crm: CRM) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)

    class Many:
        @hooks.hookimpl
        def crm_timeline(self) -> list[Entry]:
            return [Entry(at, "note", f"n{number}") for number in range(10)]

    crm.register(Many())
    ada, told, after = crm.customers.add(name="Ada"), [], None
    while True:
        page = crm.timeline(ada, limit=4, after=after)
        told += [entry.title for entry in page]
        after = page.next
        if after is None:
            break
    assert sorted(told) == sorted(f"n{number}" for number in range(10))


@pytest.mark.shipped_plugins
def test_conditions_in_hooks_take_ids(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada")
    crm.purchases.add(number="1", customer=ada, purchased_on="2026-01-03", total="5")
    assert crm.purchases.count(F.customer == ada) == crm.purchases.count(F.customer == ada.id) == 1


def example(name: str, **known: object) -> Any:
    """The function in the example of a hook, run as it stands there."""
    text = (inspect.getdoc(getattr(hooks, name)) or "").partition("Example::")[2].partition("Added in ")[0]
    exec(textwrap.dedent(text), there := {"hookimpl": hookimpl, **known})
    return there[name]


@pytest.mark.shipped_plugins
def test_the_example_of_crm_authorize_decides_about_every_record_and_none(crm: CRM) -> None:
    ada = crm.customers.add(name="Ada", tags=("vip",), owner="ann")
    bob = crm.customers.add(name="Bob", owner="ann")
    bought = crm.purchases.add(customer=ada, number="7", purchased_on="2026-11-22", total="3.00 EUR")
    asked = example("crm_authorize", Customer=Customer, Decision=Decision)
    for about, is_allowed in ((None, True), (bought, True), (bob, True), (ada, False)):
        answer = asked(actor="eve", action="reveal", record=about)
        assert (answer is None) is is_allowed
    assert asked(actor="ann", action="reveal", record=ada) is None


def test_the_example_of_crm_unlock_identity_answers_its_own_uris() -> None:
    asked = example("crm_unlock_identity", ask_my_safe=lambda uri: f"the identity of {uri}")
    assert asked(uri="safe:ada") == "the identity of safe:ada"
    assert asked(uri="keyring:crmkit/ada") is None
