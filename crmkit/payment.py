"""Moves card numbers and IBANs out of a text field, into the sensitive field of the same record that is for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from crmkit.detector import Found, find_payment_data
from crmkit.fields import Secret
from crmkit.schema import FieldSpec, RecordInfo

TEXTS = ("text", "long_text")
WORDS = {"card": "a card number", "iban": "an IBAN"}
MOVED = {"card": "(card moved)", "iban": "(IBAN moved)"}  # stands in the place of a number, and is never longer


def text_fields(known: RecordInfo) -> list[str]:
    """Return the fields of a record type in which people may have typed such a number."""
    return [spec.name for spec in known.fields.values() if spec.kind in TEXTS and spec.klass != "sensitive"]


def place_of(known: RecordInfo, found: Found) -> FieldSpec | None:
    """Return the field that a number belongs into; None where the record type has none."""
    fields = known.fields.values()
    return next((spec for spec in fields if spec.klass == "sensitive" and spec.kind == found.kind), None)


def movable(known: RecordInfo, text: str, filled: Collection[str]) -> Iterator[tuple[Found, FieldSpec]]:
    """Yield the numbers of a text that can be moved, with the fields they go to; one for each field that is empty.

    Args:
        known: The record type.
        text: What stands in one of its text fields.
        filled: The sensitive fields that have a value.
    """
    used = set(filled)
    for found in find_payment_data(text):
        place = place_of(known, found)
        if place is not None and place.name not in used:
            used.add(place.name)
            yield found, place


def moves(known: RecordInfo, values: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Return the changes that move what can be moved out of one field; empty where nothing can.

    A mark stays where a number was; where the text was nothing else, nothing stays.

    Args:
        known: The record type.
        values: The values of the record by field.
        field: The text field.
    """
    text = values.get(field) or ""
    filled = [name for name, value in values.items() if value is not None]
    found = list(movable(known, text, filled))
    changes: dict[str, Any] = {place.name: Secret(number.mask, number.value(text)) for number, place in found}
    marked, rest = text, text
    for number, _ in reversed(found):  # from behind: the places of the others stay right
        marked, rest = number.replaced(marked, MOVED[number.kind]), number.replaced(rest, "")
    is_more = any(map(str.isalnum, rest))
    return {**changes, field: marked if is_more else None} if changes else {}
