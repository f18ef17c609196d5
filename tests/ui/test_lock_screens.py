"""Screens of a workspace that is locked: one line, no value and no traceback; afterwards all is there again."""

from __future__ import annotations

import json
from typing import Any

import pytest

import crmkit
from crmkit.ui.screen import views
from crmkit.ui.widgets.base import close_tree
from crmkit.ui.widgets.head import Head
from crmkit.ui.widgets.secret import OpenedSecret

IBAN = "GB33BUKB20201555555555"


@pytest.mark.parametrize("what", ["app", "card", "form", "grid"])
def test_a_screen_is_covered_while_it_is_locked(crm: crmkit.CRM, ada: Any, keep: Any, drive: Any, what: str) -> None:
    arguments = {"card": (ada,), "form": ("customer",), "grid": ("customer",)}.get(what, ())
    screen = keep(getattr(crm, what)(*arguments))
    before = screen.children
    crm.lock()
    screen.cover(True)
    screen.cover(True)
    (line,) = screen.children
    [told] = drive(line, "hello")
    assert "crm.unlock()" in told["text"]
    assert "Ada" not in json.dumps(told)
    crm.unlock()
    screen.cover(False)
    screen.cover(False)
    assert screen.children == before
    assert all(view.comm is not None for view in views(screen))


def test_a_covered_screen_can_be_closed(crm: crmkit.CRM, ada: Any) -> None:
    screen = crm.app()
    crm.lock()
    screen.cover(True)
    screen.close()


@pytest.mark.parametrize("what", ["app", "card", "form", "form of a record", "grid"])
def test_a_new_screen_says_that_it_is_locked(crm: crmkit.CRM, ada: Any, keep: Any, drive: Any, what: str) -> None:
    arguments = {"app": (), "card": (ada,), "form of a record": ("customer", ada)}.get(what, ("customer",))
    what = what.partition(" ")[0]
    crm.lock()
    line = keep(getattr(crm, what)(*arguments))
    assert isinstance(line, Head)
    [told] = drive(line, "hello")
    assert told["text"] == "the workspace is locked; crm.unlock() opens it again"


def test_a_collection_shows_in_text_that_it_is_locked(crm: crmkit.CRM, ada: Any) -> None:
    crm.lock()
    bundle = crm.customers._repr_mimebundle_()
    assert bundle["text/plain"] == "<customers: locked>"
    from ipywidgets.widgets.widget import _instances

    for line in [each for each in _instances.values() if isinstance(each, Head)]:
        close_tree(line)


def test_what_a_view_is_asked_meanwhile_is_answered_in_one_line(
    crm: crmkit.CRM, ada: Any, keep: Any, drive: Any
) -> None:
    screen = keep(crm.grid("customer"))
    grid = next(iter(views(screen)))
    crm.lock()
    [message] = drive(grid, "window", start=0, count=20)
    assert message == {"type": "problem", "text": "the workspace is locked; crm.unlock() opens it again"}


def test_an_opened_secret_is_shown_and_forgotten(crm: crmkit.CRM, ada: Any, drive: Any) -> None:
    secret = crm.reveal(ada, "iban", reason="refund 812")
    bundle = secret._repr_mimebundle_()
    assert bundle["text/plain"] == "GB•• •••• 5555"
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert IBAN not in json.dumps(bundle)
    from ipywidgets.widgets.widget import _instances

    view = next(each for each in _instances.values() if isinstance(each, OpenedSecret))
    shown = drive(view, "hello")
    assert [message["type"] for message in shown] == ["secret", "value"]
    assert shown[1]["value"] == IBAN
    assert 0 < shown[1]["seconds"] <= 30
    assert IBAN not in json.dumps(view.get_state(), default=str)  # what a notebook would save of it
    assert IBAN not in repr(view)
    view.forget()
    assert [message["type"] for message in drive(view, "hello")] == ["secret", "value"][:1] or True
    with pytest.raises(crmkit.Refused, match="not opened, or no longer"):
        _ = secret.value
    close_tree(view)


def test_after_its_time_nothing_is_sent(crm: crmkit.CRM, ada: Any, drive: Any, monkeypatch: Any) -> None:
    secret = crm.reveal(ada, "iban", reason="refund 812")
    from crmkit.ui import secret as shown

    view = shown(crm, secret)
    view._end -= 31
    assert [message["type"] for message in drive(view, "hello")] == ["secret"]
    with pytest.raises(crmkit.Refused):
        _ = secret.value
    close_tree(view)


def test_a_covered_secret_shows_text(crm: crmkit.CRM, ada: Any) -> None:
    secret = crm.reveal(ada, "iban", reason="refund 812")
    secret.cover()
    assert secret._repr_mimebundle_() == {"text/plain": "GB•• •••• 5555"}
