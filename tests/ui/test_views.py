"""The widgets without a kernel: messages in, messages out; nothing of it in a trait; nothing left alive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
import pytest

import crmkit
from crmkit.contributions import Chart, Stack, Table, Timeline
from crmkit.ui import live, show
from crmkit.ui.compose import compose, safely
from crmkit.ui.screen import views
from crmkit.ui.viewmodels.grid import GridModel
from crmkit.ui.viewmodels.secret import SecretModel
from crmkit.ui.widgets.base import close_tree, explain
from crmkit.ui.widgets.form import Form
from crmkit.ui.widgets.grid import Grid
from crmkit.ui.widgets.secret import Secret

IBAN = "GB33BUKB20201555555555"
Keep = Callable[[Any], Any]


def of(widget: Any, kind: type[Any]) -> Any:
    """The first own view of a kind inside a widget."""
    return next(view for view in views(widget) if isinstance(view, kind))


def everything_synced(widget: Any) -> str:
    """All that a saved notebook could hold of a widget tree: traits, reprs and mime bundles."""
    text = str(widget.get_state()) + repr(widget) + str(widget._repr_mimebundle_())
    return text + "".join(everything_synced(child) for child in getattr(widget, "children", ()))


def test_app_shows_searches_opens_and_saves(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """The road of one saved customer, from the search box to the status line."""
    app = keep(crm.app())
    [bar, nav, *_] = drive(app.bar, "hello")
    assert bar["title"] == "Acme"
    assert nav["items"][0]["title"] == "Customers"
    [found] = drive(app.bar, "search", text="ada l")
    assert found["items"][0] == {
        "id": ada.id,
        "label": "Ada Lovelace",
        "detail": "A1815 · ada@example.org · London · United Kingdom",
    }
    drive(app.bar, "open", id=ada.id)
    form = of(app, Form)
    drive(form, "set", field="city", value="Bath")
    told = drive(form, "save")
    assert {"type": "status", "text": "Ada Lovelace saved.", "bad": False} in told
    assert crm.customers[ada.id].city == "Bath"


def test_pages_of_plugins_are_shown(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """Every contributed page and panel opens, the figure as data."""
    crm.purchases.add(number="P1", customer=ada, purchased_on="2026-11-01", total="12.00")
    app = keep(crm.app())
    drive(app.bar, "hello")
    for page in (view for view in crm.views if isinstance(view, crmkit.Page)):
        told = drive(app.bar, "go", id=page.name)
        assert not [message for message in told if message["type"] == "problem"], page.name
    output = app._parts["revenue"].children[1]
    assert "application/vnd.plotly.v1+json" in output.outputs[0]["data"]
    app.open_record(ada)
    card = app._parts[ada.id]
    for key in card._builders:
        card.tabs.go(key)
    assert len(card._built) == len(card._builders) >= 3


def test_a_broken_page_does_not_take_the_others_along(crm: crmkit.CRM, drive: Any, keep: Keep) -> None:
    """A plugin's error is a line in its place; it names no value."""

    class Broken:
        @crmkit.hookimpl
        def crm_views(self) -> list[crmkit.Page]:
            return [crmkit.Page("broken", "Broken", lambda _: 1 / 0)]  # type: ignore[arg-type,return-value]

    crm.register(Broken(), "broken")
    app = keep(crm.app())
    drive(app.bar, "hello")
    drive(app.bar, "go", id="broken")
    [shown] = drive(app._parts["broken"], "hello")
    assert "ZeroDivisionError" in shown["text"]
    drive(app.bar, "go", id="products")
    assert isinstance(app._parts["products"], Grid)


def test_typed_and_unsaved_stays(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """Drafts live through navigation; closing asks once; old clean cards make room, dirty ones stay."""
    app = keep(crm.app())
    drive(app.bar, "hello")
    app.open_record(ada)
    drive(of(app._parts[ada.id], Form), "set", field="city", value="Bath")
    drive(app.bar, "go", id="customers")
    for number in range(9):
        app.open_record(crm.customers.add(name=f"N{number}"))
    assert app._parts[ada.id].form.model.value("city") == "Bath"
    assert len(app._parts) < 10
    [warning] = drive(app.bar, "leave", id=ada.id)
    assert warning["bad"]
    drive(app.bar, "leave", id=ada.id)
    assert ada.id not in app._parts


def test_changes_of_others_arrive(crm: crmkit.CRM, ada: Any, drive: Any, sent: list[Any], keep: Keep) -> None:
    """One look of the watcher refreshes what is seen; a look without changes does nothing."""
    app = keep(crm.app())
    grid = of(app, Grid)
    drive(grid, "hello")
    drive(app.bar, "hello")
    assert not app.watcher.look()
    sent.clear()
    crm.customers.update(ada, name="Ada King")
    assert app.watcher.look()
    assert {"type": "stale"} in sent
    assert drive(grid, "window", gen=1, start=0, count=1)[0]["rows"][0]["cells"][0] == "Ada King"


def test_traits_and_reprs_hold_no_value(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """After searching, opening, typing and revealing, nothing of it is in what a notebook could save."""
    app = keep(crm.app())
    drive(app.bar, "hello")
    drive(app.bar, "search", text="lovelace")
    app.open_record(ada)
    drive(of(app, Form), "hello")
    drive(of(app, Form), "set", field="city", value="Bathampton")
    [shown] = drive(of(app, Secret), "reveal", reason="refund 812")
    assert shown["value"] == IBAN
    text = everything_synced(app)
    assert not [word for word in ("Lovelace", "ada@", "Bathampton", "refund", "5555") if word in text]


def test_traits_control(keep: Keep) -> None:
    """The same search finds the value of a plain ipywidgets form."""
    assert "Lovelace" in everything_synced(keep(ipywidgets.VBox([ipywidgets.Text("Ada Lovelace")])))


def test_secret_needs_a_reason_and_replaces(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """No reason, no value; a wrong new value is refused without being repeated."""
    field = keep(Secret(SecretModel(crm, ada, "iban")))
    [mask] = drive(field, "hello")
    assert mask["masked"] == "GB•• •••• 5555"
    [refused] = drive(field, "reveal", reason="  ")
    assert refused["type"] == "problem"
    [refused] = drive(field, "replace", value="DE00123")
    assert refused["type"] == "problem"
    assert "DE00123" not in refused["text"]
    [replaced] = drive(field, "replace", value="DE89370400440532013000")
    assert replaced["masked"] == "DE•• •••• 3000"
    [emptied] = drive(field, "replace", value="")
    assert emptied["masked"] == ""


@pytest.mark.parametrize(
    "message",
    [None, "x", {}, {"type": 3}, {"type": "unknown"}, {"type": "window", "start": "x"}, {"type": "open", "id": None}],
)
def test_nonsense_from_the_page_is_survived(crm: crmkit.CRM, message: Any, drive: Any, keep: Keep) -> None:
    """A message of another shape is ignored or answered with one line."""
    grid = keep(Grid(GridModel(crm, "customer")))
    grid._handle_custom_msg(message, [])
    [answer] = drive(grid, "window", gen=1, start=0, count=5)
    assert answer["type"] == "rows"


def test_late_answers_carry_their_generation(crm: crmkit.CRM, drive: Any, keep: Keep) -> None:
    """The page can tell an answer to an older question by its number."""
    grid = keep(Grid(GridModel(crm, "customer")))
    assert [drive(grid, "query", text="a", gen=gen, start=0, count=5)[0]["gen"] for gen in (1, 2)] == [1, 2]


def test_descriptions_become_widgets(crm: crmkit.CRM, ada: Any, keep: Keep) -> None:
    """Every kind of description has a widget."""
    import plotly.graph_objects as go

    parts = (Table("customer"), Timeline(ada), Chart("A chart", lambda: go.Figure(go.Bar(y=[1]))))
    made = keep(compose(crm, Stack(parts)))
    assert len(made.children) == 3
    told: list[Exception] = []
    failed = keep(safely(lambda: compose(crm, Table("nothing")), "A table", told.append))
    assert [type(error) for error in told] == [crmkit.NotFound]
    assert "nothing" in failed._content["text"]


def test_result_is_shown(crm: crmkit.CRM, keep: Keep) -> None:
    """An analysis is shown with its words and its figure."""
    assert len(keep(show(crm.analyse("revenue"))).children) == 2


def test_single_screens(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """Card, grid and form each work alone; an opened row shows its card below."""
    assert repr(keep(crm.card(ada))) == "<crmkit card>"
    assert repr(keep(crm.form("deal" if "deal" in dir(crm) else "product"))) == "<crmkit form>"
    alone = keep(crm.grid("customer"))
    drive(of(alone, Grid), "open", id=ada.id)
    assert of(alone, Form).model.record.id == ada.id


def test_close_tree_control() -> None:
    """Plain `close` leaves children alive, which is why there is `close_tree`."""
    box = ipywidgets.VBox([ipywidgets.Text("x")])
    text = box.children[0]
    box.close()
    assert text.comm is not None
    close_tree(box)
    close_tree(text)
    box.layout.close()


def test_cell_that_runs_again_ends_what_it_showed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of the same run stay together; the next run closes them."""

    class Thing:
        closed = False

        def close(self) -> None:
            self.closed = True

    runs = iter([("cell", "1"), ("cell", "1"), ("cell", "2"), ("other", "3")])
    monkeypatch.setattr(live, "_running_cell", lambda: next(runs))
    monkeypatch.setattr(live, "_shown", {})
    things = [Thing() for _ in range(4)]
    for thing in things:
        live.register(thing)
    assert [thing.closed for thing in things] == [True, True, False, False]


def test_unexpected_errors_name_a_place_and_no_value() -> None:
    """What a person reads of a bug has its type and place only."""
    try:
        int("Ada Lovelace")
    except ValueError as error:
        text = explain(error)
    assert "ValueError" in text
    assert "Ada" not in text


def test_scripts_and_styles_are_local() -> None:
    """No script, style or font comes from another host, and no data can become markup."""
    folder = Path(live.__file__).parent
    for path in [*folder.rglob("*.js"), *folder.rglob("*.css")]:
        text = path.read_text("utf-8")
        assert "http:" not in text.replace("http://www.w3.org", ""), path.name
        assert "https:" not in text, path.name
        assert "innerHTML" not in text, path.name
