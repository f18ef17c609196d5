"""An opened `Secret` shows its mask however it is rendered, copied, logged, serialised or caught in a traceback.

Each way is tried with any text; the control, a plain text in its place, must be seen by the very same way.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import io
import json
import logging
import pickle
import pprint
import reprlib
import string
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crmkit
from crmkit import Refused
from crmkit.fields import Secret

MASK = "GB•• •••• 5555"


@dataclasses.dataclass
class Held:
    """Something of the user's that holds a value."""

    value: Any


def _logged(value: Any) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s %(about)s"))
    log = logging.Logger("test")  # noqa: LOG001  # of this test only
    log.addHandler(handler)
    log.info("value %s and %r and %s", value, value, [value], extra={"about": value})
    return stream.getvalue()


def _failed(value: Any) -> BaseException:
    try:
        raise ValueError("wrong", value)
    except ValueError as error:
        return error


def _traceback(value: Any) -> str:
    return "".join(traceback.TracebackException.from_exception(_failed(value), capture_locals=True).format())


def _rich_traceback(value: Any) -> str:
    from rich.console import Console
    from rich.traceback import Traceback

    error, out = _failed(value), io.StringIO()
    found = Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True, width=200)
    Console(file=out, width=200).print(found)
    return out.getvalue()


def _cgitb(value: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cgitb = importlib.import_module("cgitb")
    error = _failed(value)
    return str(cgitb.text((type(error), error, error.__traceback__)))


def _pytest(value: Any) -> str:
    from _pytest._io.saferepr import saferepr

    expected: Any = None
    with pytest.raises(AssertionError) as caught:
        assert value == expected
    with pytest.raises(AssertionError) as nested:
        assert [value] == [expected]
    return str(caught.value) + str(nested.value) + saferepr(value)


def _ipython(value: Any) -> str:
    from IPython.core.formatters import DisplayFormatter
    from IPython.lib.pretty import pretty

    return repr(DisplayFormatter().format(value)) + pretty([value])


def _frame(value: Any) -> str:
    import pandas as pd

    frame = pd.DataFrame({"iban": [value, value]})
    return f"{frame!r} {frame.to_string()} {frame.to_html()} {frame.to_csv()} {frame['iban'].tolist()}"


def _state(value: Any) -> str:
    return repr(value.__getstate__()) + repr(value.__reduce_ex__(4)) + repr(value.__reduce_ex__(2)) + repr(value)


def _attributes(value: Any) -> str:
    attributes = getattr(value, "__dict__", {})
    return repr(attributes) + repr(dir(value)) + repr(value)


WAYS: dict[str, Callable[[Any], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "format": lambda v: format(v) + f"{v}" + f"{v!s:>30}" + f"{v!r:>20}" + f"{v!a}" + "{:<40}".format(v),  # noqa: UP032
    "percent": lambda v: "%s %r %-40s" % (v, v, v),  # noqa: UP031
    "template": lambda v: string.Template("$v").substitute(v=v),
    "in containers": lambda v: f"{[v]} { {'a': v} } {(v,)} { {v} }",
    "reprlib": reprlib.repr,
    "pprint": lambda v: pprint.pformat({"deep": [v]}) + pprint.saferepr(v),
    "print": lambda v: (out := io.StringIO(), print(v, [v], file=out), out.getvalue())[2],
    "dataclass": lambda v: f"{Held(v)} {dataclasses.asdict(Held(v))} {dataclasses.astuple(Held(v))}",
    "copies": lambda v: f"{copy.copy(v)} {copy.deepcopy([v])}",
    "pickle": lambda v: "".join(pickle.dumps(v, n).decode("latin-1") for n in range(6)),
    "pickle and back": lambda v: repr(pickle.loads(pickle.dumps([v]))),
    "state": _state,
    "json with default": lambda v: json.dumps([v], default=str) + orjson.dumps([v], default=str).decode(),
    "logging": _logged,
    "an exception": lambda v: str(_failed(v)) + repr(_failed(v)),
    "traceback with locals": _traceback,
    "rich's traceback with locals": _rich_traceback,
    "cgitb": _cgitb,
    "pytest's assertion": _pytest,
    "IPython": _ipython,
    "pandas": _frame,
    "attributes": _attributes,
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_shows_the_value(way: str) -> None:
    value = "canary7canary"
    assert "canary7" not in WAYS[way](Secret(MASK, value, ("customer", "x", "iban")))
    assert "canary7" in WAYS[way](value), "the control, a plain text, must be seen"


QUICK = [way for way in WAYS if way not in {"pandas", "rich's traceback with locals", "cgitb", "IPython"}]


@pytest.mark.proof
@given(value=st.text("0123456789ABCDEFGHKLMNXYZ", min_size=12, max_size=40))
@settings(max_examples=25, deadline=None)
def test_no_way_shows_any_value(value: str) -> None:
    secret = Secret("•" * 6, value)
    assert not [way for way in QUICK if value in WAYS[way](secret)]


def test_json_refuses_and_tells_nothing() -> None:
    secret = Secret(MASK, "canary7canary")
    for dump in (json.dumps, orjson.dumps):
        with pytest.raises(TypeError) as refused:
            dump({"iban": secret})  # type: ignore[operator]
        assert "canary7" not in str(refused.value)


def test_models_serialise_the_mask(crm: crmkit.CRM) -> None:
    ada = crmkit.Customer(name="Ada", iban="GB33BUKB20201555555555")  # type: ignore[arg-type]
    for text in (ada.model_dump_json(), str(ada.model_dump(mode="json")), repr(ada.model_dump())):
        assert "BUKB" not in text
        assert "5555" in text


def test_there_is_nothing_to_take_it_apart_by() -> None:
    secret = Secret(MASK, "canary7canary")
    with pytest.raises(TypeError):
        vars(secret)
    for attempt in (len, list, bytes, int, float, "".join, sorted):
        with pytest.raises(TypeError) as refused:
            attempt(secret)  # type: ignore[operator]
        assert "canary7" not in str(refused.value)
    for attempt in (lambda: secret + "", lambda: "" + secret, lambda: secret[0], lambda: secret < secret):  # type: ignore[operator, index]
        with pytest.raises(TypeError) as refused:
            attempt()
        assert "canary7" not in str(refused.value)


def test_a_covered_secret_has_no_value_any_more() -> None:
    secret = Secret(MASK, "canary7canary")
    assert secret.value == "canary7canary"
    alias = copy.deepcopy(secret)  # the same object: a copy would outlive the covering
    secret.cover()
    for each in (secret, alias):
        with pytest.raises(Refused, match="not opened, or no longer"):
            _ = each.value


def test_a_failing_reveal_shows_no_value_in_its_traceback(crm: crmkit.CRM, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = crm.customers.add(name="Ada", iban="GB33BUKB20201555555555")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("os.fdatasync", full)
        try:
            crm.reveal(ada, "iban", reason="refund 812")
        except (OSError, crmkit.CrmError) as error:
            shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "BUKB" not in shown
    assert "20201555555555" not in shown


def test_it_needs_no_widgets_to_be_displayed(monkeypatch: pytest.MonkeyPatch, crm: crmkit.CRM) -> None:
    ada = crm.customers.add(name="Ada", iban="GB33BUKB20201555555555")
    secret = crm.reveal(ada, "iban", reason="refund 812")
    monkeypatch.setitem(sys.modules, "crmkit.ui", None)
    assert secret._repr_mimebundle_() == {"text/plain": "GB•• •••• 5555"}
