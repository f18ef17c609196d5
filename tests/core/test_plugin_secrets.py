"""Secrets of plugins: shown to who may change settings, and noted; a plugin in its hook takes its own."""

from __future__ import annotations

import pytest

import crmkit
from crmkit import CRM, Invalid, Refused, hookimpl

MAY_EXPORT = """
[roles.keeper]
members = ["ann"]
may = ["settings", "export"]

[roles.clerk]
members = ["bob"]
may = ["export"]
"""


@pytest.mark.shipped_plugins
def test_a_secret_is_shown_to_who_may_change_settings_and_noted(crm: CRM) -> None:
    crm.secrets["mail"]["password"] = "hunter2"
    crm.workspace.profile.write_text(crm.workspace.profile.read_text(encoding="utf-8") + MAY_EXPORT, encoding="utf-8")
    with crmkit.open(crm.workspace.folder) as again:
        with again.acting_as("bob"), pytest.raises(Refused):
            again.secrets["mail"]["password"]
        with again.acting_as("ann"):
            assert "password" in again.secrets["mail"]  # looking what there is, is not looking at it
            assert again.secrets["mail"]["password"].value == "hunter2"
            assert next(iter(again.secrets["mail"].values())).value == "hunter2"
        with pytest.raises(KeyError):
            again.secrets["mail"]["nothing"]
        noted = [(e.actor, e.action, e.entity, e.fields) for e in again.audit.entries(limit=3)]
    shown = ("ann", "secret", "plugin:mail", ("password",))
    assert noted == [shown, shown, ("bob", "refused", "workspace", ("settings",))]


@pytest.mark.shipped_plugins
def test_a_plugin_takes_its_own_secret_in_its_hook_and_no_other(crm: CRM) -> None:
    taken: list[str] = []

    class Mail:
        @hookimpl
        def crm_timeline(self, crm: CRM, customer: object) -> list[object]:
            for whose in ("mail", "bank"):
                taken.append(crm.secrets[whose]["password"].value)
            return []

    for whose in ("mail", "bank"):
        crm.secrets[whose]["password"] = f"of {whose}"
    ada = crm.customers.add(name="Ada")
    crm.workspace.profile.write_text(crm.workspace.profile.read_text(encoding="utf-8") + MAY_EXPORT, encoding="utf-8")
    with crmkit.open(crm.workspace.folder, plugins=[Mail()]) as again:
        with again.acting_as("bob"):
            again.timeline(ada)
        assert taken == ["of mail"]
        assert [(failure.plugin, failure.error) for failure in again.failures] == [("mail", "Refused")]
        with again.acting_as("ann"):
            again.timeline(ada)
        assert taken == ["of mail", "of mail", "of bank"]
        noted = [(e.action, e.entity, e.plugin) for e in again.audit.entries(limit=2)]
    assert noted == [("secret", "plugin:bank", "mail"), ("refused", "workspace", "mail")]


def test_the_plugins_that_have_secrets_are_listed(crm: CRM) -> None:
    assert list(crm.secrets) == []
    for whose in ("mail", "bank"):
        crm.secrets[whose]["password"] = f"of {whose}"
    assert list(crm.secrets) == ["bank", "mail"]
    assert "post" not in crm.secrets


@pytest.mark.parametrize("name", [5, None, " "])
def test_secrets_are_those_of_a_plugin_with_a_name(crm: CRM, name: object) -> None:
    with pytest.raises(Invalid, match="plugin: must be its name, as text"):
        crm.secrets[name]  # type: ignore[index]
