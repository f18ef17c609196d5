"""What the tests of the screens share: a filled workspace, a record of what is sent, a guard against leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances

import crmkit
from crmkit.ui.widgets.base import View

Drive = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def no_widget_left() -> Iterator[None]:
    """Fail a test that leaves widgets alive; `close` ends a tree."""
    _instances.clear()
    yield
    left = [type(widget).__name__ for widget in _instances.values()]
    assert not left, f"widgets left alive: {left}"


@pytest.fixture
def ada(crm: crmkit.CRM) -> Any:
    """One customer with something in every kind of field."""
    return crm.customers.add(
        name="Ada Lovelace",
        number="A1815",
        email="ada@example.org",
        city="London",
        country="GB",
        tags=("vip",),
        contacts=[{"kind": "email", "value": "countess@example.org"}],
        iban="GB33BUKB20201555555555",
    )


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every message that a view sends to the browser."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(View, "send", lambda _self, content, _buffers=None: messages.append(content))
    return messages


@pytest.fixture
def drive(sent: list[dict[str, Any]]) -> Drive:
    """``drive(view, "save", ...)``: send a message as a browser would; returns what was sent back."""

    def drive(view: View, kind: str, **content: Any) -> list[dict[str, Any]]:
        sent.clear()
        view._handle_custom_msg({"type": kind, **content}, [])
        return list(sent)

    return drive


@pytest.fixture
def keep() -> Iterator[Callable[[Any], Any]]:
    """``keep(view)`` -> the view, closed when the test ends."""
    from crmkit.ui.widgets.base import close_tree

    kept: list[Any] = []

    def keep(view: Any) -> Any:
        kept.append(view)
        return view

    yield keep
    for view in kept:
        close_tree(view)
