"""The hook by which plugins open identities; the shipped user of it has tests of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pyrage.x25519 import Identity

from crmkit import Locked, hookimpl
from crmkit.identities import ask_plugins
from crmkit.registry import Registry
from crmkit.vault.identity import load_identity, open_uris_with


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    open_uris_with(None)


class Answers:
    """A plugin that answers what it is told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def crm_unlock_identity(self, uri: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_hook_crm_unlock_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Identity.generate(), Identity.generate()
    registry = Registry()
    for name, answer in (("first", None), ("second", str(one)), ("third", str(other))):
        registry.register(Answers(answer), name)
    ask_plugins(registry)
    monkeypatch.setenv("CRMKIT_IDENTITY", "safe:drawer")
    assert str(load_identity()) == str(one), "the first answer wins"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ValueError("CANARY"), r"plugin broken failed to open the safe: identity \(ValueError\)"),
        (7, "plugin broken opened the safe: identity as something that is no text"),
        (Locked("the drawer is stuck"), "the drawer is stuck"),
        (None, "no plugin opens safe: identities"),
    ],
)
def test_a_plugin_that_fails_leaves_it_locked(monkeypatch: pytest.MonkeyPatch, answer: Any, message: str) -> None:
    registry = Registry()
    registry.register(Answers(answer), "broken")
    ask_plugins(registry)
    monkeypatch.setenv("CRMKIT_IDENTITY", "safe:drawer/CANARY")
    with pytest.raises(Locked, match=message) as refused:
        load_identity()
    assert "CANARY" not in str(refused.value)
    assert refused.value.__context__ is None
