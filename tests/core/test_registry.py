"""Plugins: found, loaded, refused, isolated, listed; and what pluggy does that the registry relies on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pluggy
import pytest

import crmkit
from crmkit import CRM, Analysis, Entry, Invalid, Measurement, Page, Record, Table, hookimpl
from crmkit.registry import DEFAULT_PLUGINS

MARK = "the code of this workspace was run"


def write_plugin(crm: CRM, name: str = "local", body: str = "") -> Path:
    path = crm.workspace.plugins / f"{name}.py"
    path.write_text(f"from crmkit import Page, Table, hookimpl\nprint({MARK!r})\n{body or VIEW}\n")
    return path


VIEW = """
@hookimpl
def crm_views():
    return [Page("local", "Local", lambda crm: Table("customer"))]
"""


@pytest.mark.shipped_plugins
def test_the_defaults_are_loaded_as_anyones(crm: CRM) -> None:
    assert [row.name for row in crm.plugins] == [".".join(name.split(".")[-2:]) for name in DEFAULT_PLUGINS]
    assert {row.state for row in crm.plugins} == {"active"}
    assert crm.plugins["operational.catalog"].hooks == ("crm_record_types", "crm_timeline", "crm_views")
    assert "operational.catalog" in repr(crm.plugins)
    assert crm.failures == []


@pytest.mark.shipped_plugins
@pytest.mark.parametrize("name", ["operational.catalog", "interactions", "analytical.revenue"])
def test_each_default_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CRMKIT_DISABLE_PLUGINS", name)
    with crmkit.create(tmp_path / "acme") as crm:
        states = {row.name: row.state for row in crm.plugins}
        assert sorted(states.values()) == ["active"] * (len(DEFAULT_PLUGINS) - 1) + ["disabled"]
        ada = crm.customers.add(name="Ada")
        assert crm.timeline(ada).records == []
        assert all(view.provider != name for view in crm.views)
        assert crm.failures == []


def test_a_plugin_written_in_a_cell_works_at_once(crm: CRM) -> None:
    class Hello:
        """Says hello."""

        @hookimpl
        def crm_views(self) -> Iterable[Page]:
            return [Page("hello", "Hello", lambda crm: Table("customer"))]

        @hookimpl
        def crm_analyses(self) -> Iterable[Analysis]:
            return [Analysis("hello", "Hello", lambda crm, as_of: Measurement([], {"n": 1}, "hello"), lambda m: None)]  # type: ignore[arg-type, return-value]

    assert crm.register(Hello()) == "hello"
    assert [view.name for view in crm.views if view.provider == "hello"] == ["hello"]
    assert crm.analyse("hello").metrics == {"n": 1}
    crm.register(Hello())
    assert len([view for view in crm.views if view.name == "hello"]) == 1, "registered again, it replaces itself"


def plugin(**members: object) -> object:
    return type("Plugin", (), {name: hookimpl(member) for name, member in members.items()})()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (type("AClass", (), {"crm_views": hookimpl(lambda self: [])}), "is a class"),
        (object(), "implements no hook"),
        (plugin(crm_vews=lambda self: []), "crm_vews is not a hook; hooks are"),
        (plugin(crm_timeline=lambda self, client: []), "crm_timeline takes crm, customer"),
        (plugin(crm_timeline=lambda self, customer=None: []), "no defaults"),
        (type("Unmarked", (), {"crm_views": lambda self: []})(), "not marked with @hookimpl"),
    ],
)
def test_what_is_no_plugin_is_refused_with_the_reason(crm: CRM, bad: object, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        crm.register(bad)
    assert len(crm.plugins) == len(DEFAULT_PLUGINS)


@pytest.mark.shipped_plugins
def test_two_plugins_with_one_name_of_something_are_named_both(crm: CRM) -> None:
    mine = plugin(crm_views=lambda self: [Page("products", "Mine", lambda crm: Table("customer"))])
    with pytest.raises(Invalid, match=r"'products' is contributed by operational\.catalog and by mine"):
        crm.register(mine, "mine")

    class Product(Record, type="product", plural="goods"):
        name: str

    with pytest.raises(Invalid, match="record type: 'product'"):
        crm.register(plugin(crm_record_types=lambda self: [Product]), "mine")
    assert [view.title for view in crm.views if view.name == "products"] == ["Products"]


def test_a_bad_new_version_does_not_take_the_old_one_away(crm: CRM) -> None:
    crm.register(plugin(crm_views=lambda self: [Page("mine", "Mine", lambda crm: Table("customer"))]), "mine")
    with pytest.raises(Invalid):
        crm.register(plugin(crm_vews=lambda self: []), "mine")
    assert crm.plugins["mine"].state == "active"
    assert any(view.name == "mine" for view in crm.views)


@pytest.mark.shipped_plugins
@pytest.mark.parametrize("trouble", [RuntimeError("secret value"), SystemExit(3), ZeroDivisionError()])
def test_a_failing_question_is_isolated_and_listed_without_values(crm: CRM, trouble: BaseException) -> None:
    def broken(self: object, customer: object) -> list[Entry]:
        raise trouble

    crm.register(plugin(crm_timeline=broken), "broken")
    ada = crm.customers.add(name="Ada")
    crm.interactions.add(customer=ada, title="Called")
    assert [entry.title for entry in crm.timeline(ada)] == ["Called"]
    (failure,) = crm.failures
    assert (failure.plugin, failure.hook, failure.error) == ("broken", "crm_timeline", type(trouble).__name__)
    assert failure.place.startswith("test_registry.py:")
    assert "secret" not in repr(failure)


def test_an_analysis_that_fails_is_listed_and_the_error_reaches_who_asked(crm: CRM) -> None:
    broken = Analysis("broken", "Broken", lambda crm, as_of: 1 / 0, lambda measured: None)  # type: ignore[arg-type, return-value]
    crm.register(plugin(crm_analyses=lambda self: [broken]), "mine")
    with pytest.raises(ZeroDivisionError):
        crm.analyse("broken")
    with pytest.raises(Invalid, match="must be a date"):
        crm.analyse("broken", as_of="2026-01-01")  # type: ignore[arg-type]
    failure = crm.failures[-1]
    assert (failure.plugin, failure.hook, failure.error) == ("mine", "crm_analyses", "ZeroDivisionError")


def test_an_interrupt_is_not_isolated(crm: CRM) -> None:
    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    crm.register(plugin(crm_timeline=interrupted))
    with pytest.raises(KeyboardInterrupt):
        crm.timeline(crm.customers.add(name="Ada"))


def test_strict_lets_errors_through(tmp_path: Path) -> None:
    crmkit.create(tmp_path / "acme").close()
    broken = plugin(crm_timeline=lambda self: 1 / 0)
    with crmkit.open(tmp_path / "acme", plugins=[broken], strict=True) as crm, pytest.raises(ZeroDivisionError):
        crm.timeline(crm.customers.add(name="Ada"))


# --------------------------------------------------------------------------- code that comes with a folder


def test_code_of_a_folder_waits_until_its_user_trusts_it(crm: CRM, capsys: pytest.CaptureFixture[str]) -> None:
    write_plugin(crm)
    with crmkit.open(crm.workspace.folder) as waiting:
        assert waiting.plugins["local"].state == "waiting"
        assert "crmkit plugins trust" in waiting.plugins["local"].reason
    assert MARK not in capsys.readouterr().out
    assert crmkit.trust(crm.workspace.folder) == ("local.py",)
    with crmkit.open(crm.workspace.folder) as trusted:
        assert trusted.plugins["local"].state == "active"
        assert any(view.name == "local" for view in trusted.views)
    assert MARK in capsys.readouterr().out


@pytest.mark.parametrize("change", ["edit", "add"])
def test_changed_or_added_code_is_asked_about_again(crm: CRM, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_plugin(crm)
    crmkit.trust(crm.workspace.folder)
    if change == "edit":
        path.write_text(path.read_text() + "# changed\n")
    else:
        write_plugin(crm, "another")
    with crmkit.open(crm.workspace.folder) as opened:
        assert {row.state for row in opened.plugins if row.source == "workspace"} == {"waiting"}
    assert MARK not in capsys.readouterr().out


def test_another_user_has_not_trusted_it(
    crm: CRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_identity: Path
) -> None:
    write_plugin(crm)
    crmkit.trust(crm.workspace.folder)
    monkeypatch.setenv("CRMKIT_IDENTITY", str(own_identity / "identity.txt"))
    monkeypatch.setenv("CRMKIT_CONFIG", str(tmp_path / "other user"))
    with crmkit.open(crm.workspace.folder) as opened:
        assert opened.plugins["local"].state == "waiting"


@pytest.mark.shipped_plugins
def test_a_broken_file_hurts_nobody_else(crm: CRM) -> None:
    write_plugin(crm, "broken", "1 / 0")
    write_plugin(crm, "fine")
    crmkit.trust(crm.workspace.folder)
    with crmkit.open(crm.workspace.folder) as opened:
        assert opened.plugins["broken"].state == "failed"
        assert opened.plugins["broken"].reason == "ZeroDivisionError (broken.py:3)"
        assert opened.plugins["fine"].state == "active"
        assert [failure.plugin for failure in opened.failures] == ["broken"]


# --------------------------------------------------------------------------- installed plugins that the profile names


def install(folder: Path, name: str, version: str, body: str) -> None:
    """Make a distribution that offers one plugin, as an installer would leave it."""
    (folder / f"crmkit_{name}.py").write_text(body)
    info = folder / f"crmkit_{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: crmkit-{name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[crmkit]\n{name} = crmkit_{name}\n")


@pytest.mark.parametrize(
    ("named", "state"),
    [
        ("webhooks", "active"),
        ("webhooks==1.2", "active"),
        ("webhooks==2.0", "incompatible"),
        ("missing", "failed"),
        ("", None),
    ],
)
def test_installed_plugins_load_only_when_the_profile_names_them(
    crm: CRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, state: str | None
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "webhooks", "1.2", VIEW.replace("local", "hooks").join(["from crmkit import *\n", ""]))
    monkeypatch.syspath_prepend(site)
    sys.modules.pop("crmkit_webhooks", None)
    text = crm.workspace.profile.read_text().replace(
        "plugins = []", f'plugins = ["{named}"]' if named else "plugins = []"
    )
    crm.workspace.profile.write_text(text)
    with crmkit.open(crm.workspace.folder) as opened:
        rows = {row.name: row.state for row in opened.plugins if row.source == "installed"}
        assert rows == ({named.partition("==")[0]: state} if state else {})
        assert ("crmkit_webhooks" in sys.modules) == (state == "active")


# --------------------------------------------------------------------------- facts about pluggy


def specs(*functions: Callable[..., object]) -> pluggy.PluginManager:
    manager = pluggy.PluginManager("crmkit")
    namespace = type("Specs", (), {f.__name__: staticmethod(pluggy.HookspecMarker("crmkit")(f)) for f in functions})
    manager.add_hookspecs(namespace)
    return manager


def test_pluggy_lists_implementations_in_the_order_of_registration() -> None:
    def crm_thing() -> None: ...

    manager = specs(crm_thing)
    for name in ("one", "two", "three"):
        manager.register(plugin(crm_thing=lambda self: None), name)
    assert [impl.plugin_name for impl in manager.hook.crm_thing.get_hookimpls()] == ["one", "two", "three"]


def test_pluggy_accepts_a_class_and_only_fails_when_it_is_called() -> None:
    def crm_thing() -> None: ...

    class AClass:
        @hookimpl
        def crm_thing(self) -> None: ...

    manager = specs(crm_thing)
    manager.register(AClass)
    with pytest.raises(TypeError):
        manager.hook.crm_thing()


def test_pluggy_notices_a_misspelt_hook_only_when_asked() -> None:
    def crm_thing() -> None: ...

    manager = specs(crm_thing)
    manager.register(plugin(crm_thnig=lambda self: 1))
    with pytest.raises(pluggy.PluginValidationError):
        manager.check_pending()


def test_workspace_code_is_not_run_by_a_plain_import_of_crmkit(crm: CRM) -> None:
    write_plugin(crm)
    command = "import crmkit; crmkit.open('.').close()"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=crm.workspace.folder, capture_output=True, text=True, check=True
    )
    assert MARK not in done.stdout
