"""How records and values read on a screen, always as plain text; sensitive fields give their mask at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, tzinfo
from functools import cache
from typing import Any

from crmkit.fields import Secret
from crmkit.records import Record
from crmkit.schema import FieldSpec, RecordInfo, info
from crmkit.values import Money, country_names

TITLES = ("name", "title", "subject", "number")  # the first of these that a record has is what people call it
DETAILS = ("number", "sku", "email", "city", "country")  # what tells two of the same name apart
LookUp = Callable[[str, str], str]  # (type, id) -> title of the record

country = cache(country_names)


def title(record: Record) -> str:
    """Return what people call a record."""
    for name in TITLES:
        if value := getattr(record, name, None):
            return str(value)
    return f"{info(type(record)).title} {record.id[-6:]}"


def detail(record: Record) -> str:
    """Return the short line that tells a record from others of the same name."""
    specs = info(type(record)).fields
    called = title(record)
    shown = (present(specs[name], getattr(record, name)) for name in DETAILS if name in specs)
    return " · ".join(text for text in shown if text and text != called)


def words(name: str) -> str:
    """Return a stored word as people read it: ``"at_risk"`` is "At risk"."""
    return name.replace("_", " ").capitalize()


def counted(count: int, record_info: RecordInfo) -> str:
    """Return a count with its noun: "2,013 customers", "1 customer"."""
    noun = record_info.type if count == 1 else record_info.plural
    return f"{count:,} {noun.replace('_', ' ')}"


def present(spec: FieldSpec, value: Any, look_up: LookUp | None = None, zone: tzinfo = UTC) -> str:
    """Return the text of one value for a cell or a line; empty where there is none.

    Args:
        spec: The field.
        value: Its value.
        look_up: Returns the name of the record that a reference names.
        zone: The time zone that instants are shown in.
    """
    if value is None or value == "":
        return ""
    if isinstance(value, Secret) or spec.klass == "sensitive":
        return str(value) if isinstance(value, Secret) else "••••••"
    match spec.kind:
        case "country":
            return country().get(value, str(value))
        case "phone":
            return phone(value)
        case "choice":
            return words(str(value))
        case "reference":
            return look_up(spec.target, value) if look_up and spec.target else str(value)
        case "instant":
            return str(value.astimezone(zone).strftime("%Y-%m-%d %H:%M"))
        case "boolean":
            return "Yes" if value else "No"
        case "choices":
            return ", ".join(words(str(part)) for part in value)
        case "texts":
            return ", ".join(value)
        case "parts":
            return f"{len(value)}" if value else ""
        case _:
            return str(value)


def phone(value: str) -> str:
    """Return a phone number in groups, as it is dialled from abroad; it is stored without blanks."""
    import phonenumbers  # heavy, and needed only where a number is shown

    try:
        number = phonenumbers.parse(value)
    except phonenumbers.NumberParseException:
        return value
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL))


def typed(spec: FieldSpec, value: Any) -> Any:
    """Return a stored value as it stands in an input: text, True or False, a list of texts or of rows."""
    match spec.kind:
        case "boolean":
            return bool(value)
        case "choices" | "texts" | "references":
            return [str(part) for part in value or ()]
        case "parts":
            return [{part.name: typed(part, getattr(row, part.name)) for part in spec.parts} for row in value or ()]
        case "money":
            return f"{value.amount} {value.currency}" if isinstance(value, Money) else ""
        case "instant":
            return value.isoformat().replace("+00:00", "Z") if value else ""
        case _:
            return "" if value is None else str(value)


def untyped(spec: FieldSpec, raw: Any) -> Any:
    """Return what an input holds as a raw value for a collection to check; nothing typed is None."""
    if spec.kind == "boolean":
        return bool(raw)
    if spec.kind in ("choices", "texts", "references"):
        return tuple(str(part).strip() for part in _items(raw) if str(part).strip())
    if spec.kind == "parts":
        return tuple(row for row in (_row(spec, part) for part in _items(raw)) if row)
    text = str(raw) if raw is not None else ""
    return text.strip() or None


def _items(raw: Any) -> Iterable[Any]:
    return raw if isinstance(raw, list | tuple) else ()


def _row(spec: FieldSpec, raw: Any) -> dict[str, Any]:
    """Return one nested row without its empty cells."""
    cells = {part.name: untyped(part, raw.get(part.name)) for part in spec.parts} if isinstance(raw, dict) else {}
    return {name: value for name, value in cells.items() if value not in (None, "", ())}
