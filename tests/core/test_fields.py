"""Field classes, secrets and masks."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from typing import Annotated

import pytest
from pydantic import BaseModel

from crmkit.errors import Refused
from crmkit.fields import MASK, Personal, Reference, Secret, Sensitive, field_class, marks, mask
from crmkit.records import Customer, Record
from crmkit.schema import info
from crmkit.values import Email, Iban

IBAN = "GB33BUKB20201555555555"


class Nested(BaseModel):
    value: Personal[str]


class Deep(BaseModel):
    rows: tuple[Nested, ...]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str, "plain"),
        (str | None, "plain"),
        (Personal[str], "personal"),
        (Personal[str] | None, "personal"),
        (Personal[Email] | None, "personal"),
        (tuple[Personal[str], ...], "personal"),
        (tuple[Nested, ...] | None, "personal"),
        (tuple[Deep, ...], "personal"),
        (dict[str, Personal[str]], "personal"),
        (Sensitive[Iban] | None, "sensitive"),
        (tuple[Sensitive[str], ...], "sensitive"),
        (Annotated[Personal[str] | Sensitive[str], "x"], "sensitive"),
        (Reference[Customer], "plain"),
        (Reference[Customer] | None, "plain"),
    ],
)
def test_the_class_of_a_field_is_found_anywhere_in_its_type(annotation: object, expected: str) -> None:
    assert field_class(list(marks(annotation))) == expected


def test_the_customer_has_the_classes_of_the_design() -> None:
    by_class: dict[str, set[str]] = {}
    for spec in info(Customer).fields.values():
        by_class.setdefault(spec.klass, set()).add(spec.name)
    reachable = {"email", "phone", "website", "contacts", "street", "postcode", "city"}
    assert by_class["personal"] == {"name", "birthday", "job_title", "notes", *reachable}
    assert by_class["sensitive"] == {"iban", "card", "tax_id"}
    searchable = {spec.name for spec in info(Customer).fields.values() if spec.searchable}
    assert searchable == {"iban", "tax_id"}


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("iban", IBAN, "GB•• •••• 5555"),
        ("card", "4242424242424242", "•••• •••• •••• 4242"),
        ("tax_id", "DE123456789", "••••••89"),
        ("tax_id", "1234", "••••••"),
        ("", "anything", "••••••"),
    ],
)
def test_masks(kind: str, value: str, shown: str) -> None:
    assert mask(kind, value) == shown


def renderings(value: object) -> list[str]:
    """Every way in which a value is likely to reach a screen, a file or a log."""
    logger, lines = logging.getLogger("renderings"), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.warning("value %s %r", value, value)
    logger.removeHandler(handler)
    try:
        raise RuntimeError(value)
    except RuntimeError as error:
        lines += traceback.format_exception(error)
    bundle = getattr(value, "_repr_mimebundle_", dict)()
    return [
        *lines,
        str(value),
        repr(value),
        f"{value}",
        f"{value:>30}",
        f"{[value]} {({'x': value},)}",
        "%s" % value,  # noqa: UP031  # this way of formatting too
        json.dumps([value], default=str),
        pickle.dumps(value).decode("latin-1"),
        repr(pickle.loads(pickle.dumps(value))),
        repr(copy.copy(value)),
        repr(copy.deepcopy(value)),
        json.dumps(bundle),
    ]


def test_no_rendering_of_a_secret_shows_its_value() -> None:
    secret = Secret(mask("iban", IBAN), IBAN, ("customer", "x", "iban"))
    assert secret.value == IBAN
    for text in renderings(secret):
        assert "BUKB" not in text
    assert any("BUKB" in text for text in renderings(IBAN)), "the control, a plain text, must leak"


def test_a_stored_secret_has_no_value_to_give() -> None:
    stored: Secret[str] = Secret("GB•• •••• 5555", place=("customer", "x", "iban"))
    with pytest.raises(Refused, match=r"crm\.reveal"):
        _ = stored.value
    with pytest.raises(Refused):
        _ = pickle.loads(pickle.dumps(Secret("m", IBAN))).value


def test_records_render_without_any_field_value() -> None:
    ada = Customer(name="Ada Lovelace", email="ada@example.org", iban=IBAN, notes="likes engines")  # type: ignore[arg-type]
    for text in (repr(ada), str(ada), f"{ada}", repr([ada]), "".join(map(str, ada.__repr_args__()))):
        assert not any(value in text for value in ("Ada", "ada@", "BUKB", "engines"))
    assert MASK in ada.model_dump_json()
    assert "BUKB" not in ada.model_dump_json()


def test_errors_of_pydantic_do_not_carry_the_input() -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        Customer(name="x", iban="GB00 SECRET", email="very private")  # type: ignore[arg-type]
    assert "SECRET" not in str(caught.value)
    assert "very private" not in str(caught.value)


def test_sealed_fields_of_a_type_are_known_through_its_nested_rows() -> None:
    class Visit(Record, type="visit"):
        rows: tuple[Nested, ...] = ()
        deep: Deep | None = None
        plain: str = ""

    classes = {spec.name: spec.klass for spec in info(Visit).fields.values()}
    own = {name: classes[name] for name in ("rows", "deep", "plain")}
    assert own == {"rows": "personal", "deep": "personal", "plain": "plain"}
