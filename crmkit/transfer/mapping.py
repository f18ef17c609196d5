"""Which column goes to which field: paths, and the guess by name.

A path is a field (``email``), a field that finds another record (``customer.number``), a field of a nested row
(``lines.quantity``) or a field that finds another record from there (``lines.product.sku``).
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from crmkit.errors import ImportProblem
from crmkit.forbidden import REASON, is_forbidden_column
from crmkit.schema import KEPT_BY_CRMKIT, FieldSpec, RecordInfo

SYNONYMS: dict[str, tuple[str, ...]] = {
    "birthday": ("birth date", "date of birth", "dob"),
    "city": ("town",),
    "email": ("mail", "email address", "mail address"),
    "iban": ("bank account",),
    "job_title": ("position",),
    "name": ("full name",),
    "notes": ("comment", "comments", "remarks"),
    "number": ("id", "no", "nr", "num"),
    "phone": ("tel", "telephone", "telephone number", "phone number", "mobile"),
    "postcode": ("zip", "zip code", "postal code", "plz"),
    "purchased_on": ("date", "invoice date", "order date", "purchase date"),
    "quantity": ("qty", "pieces"),
    "sku": ("stock code", "item code", "article number", "product code"),
    "street": ("address", "street address", "address line 1"),
    "tax_id": ("vat", "vat number", "vat id", "tax number"),
    "unit_price": ("price", "item price"),
    "website": ("url", "homepage"),
}
"""What other systems call our fields."""

NOT_IN_A_COLUMN = ("references", "other")
"""Kinds of field that one cell cannot hold. Nested rows it holds as JSON, as an export writes them."""

TYPE_WORDS: dict[str, tuple[str, ...]] = {"customer": ("client", "account"), "purchase": ("invoice", "order")}
"""What other systems call our record types: their ``Invoice No`` is our ``purchase.number``."""


@dataclass(frozen=True)
class Target:
    """Where the values of a column go.

    Attributes:
        path: The whole path, as people write it.
        spec: The field that takes the value, on the record, its nested row, or the record referred to.
        part: The list field that the nested row belongs to, or empty.
        reference: The reference that the value finds a record for, or empty.
        type: The type of the record that has the field.
    """

    path: str
    spec: FieldSpec
    part: str = ""
    reference: str = ""
    type: str = ""


Mapped = Mapping[str, Target]
"""Targets by the name of their column."""


def targets(info: RecordInfo, infos: Callable[[str], RecordInfo]) -> dict[str, Target]:
    """Return every path that a column can be mapped to, the record's own fields first.

    Args:
        info: The record type that is imported.
        infos: Gives what is known of another record type by its name.
    """
    found = _fields(info.fields.values(), info.type, "", infos)
    for spec in info.fields.values():
        if spec.kind == "parts":
            found |= _fields(spec.parts, info.type, spec.name, infos)
    return found


def mapping(
    columns: tuple[str, ...], info: RecordInfo, infos: Callable[[str], RecordInfo], given: Mapping[str, str]
) -> dict[str, Target]:
    """Return where each column goes: as given, else by its name; columns that go nowhere are not in it.

    Args:
        columns: The names in the header.
        info: The record type that is imported.
        infos: Gives what is known of another record type by its name.
        given: Paths by column; an empty path leaves the column out.

    Raises:
        ImportProblem: A column or a field that is given does not exist, or two columns go to one field.
    """
    possible, left_out = targets(info, infos), KEPT_BY_CRMKIT if is_export(columns) else ()
    chosen: dict[str, Target] = {}
    for column, path in given.items():
        if column not in columns:
            raise ImportProblem(
                f"there is no column '{column}'{nearest(column, columns)}; there are {', '.join(columns)}"
            )
        if path and path not in possible:
            raise ImportProblem(f"column '{column}': {info.type} has no field '{path}'{nearest(path, possible)}")
        if path and (other := _column_of(path, chosen)):
            raise ImportProblem(f"columns '{other}' and '{column}' both go to '{path}'")
        if path:
            chosen[column] = possible[path]
    guesses, exact = _aliases(possible, info), _guessable(possible, with_rows=is_export(columns))
    for guess in (exact.get, lambda column: guesses.get(_plain(column))):  # a field's own name before its synonyms
        for column in columns:
            target = guess(column)
            if target and column not in (*given, *left_out, *chosen) and not _column_of(target.path, chosen):
                chosen[column] = target
    _check(chosen, info, columns)
    return {column: chosen[column] for column in columns if column in chosen}


def is_export(columns: tuple[str, ...]) -> bool:
    """Return whether a header is that of a table which crmkit exported: it has what only crmkit keeps."""
    return set(KEPT_BY_CRMKIT) <= set(columns)


def nearest(name: str, known: Mapping[str, Target] | tuple[str, ...]) -> str:
    """Return a hint at the name that was probably meant, or an empty text."""
    by_fold = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), by_fold, n=1)
    return f", did you mean '{by_fold[close[0]]}'?" if close else ""


def _fields(specs: Iterable[FieldSpec], type: str, part: str, infos: Callable[[str], RecordInfo]) -> dict[str, Target]:
    """Return the targets among some fields, and in the records that they refer to."""
    front = f"{part}." if part else ""
    found: dict[str, Target] = {}
    for spec in specs:
        if spec.kind not in NOT_IN_A_COLUMN and not (part and spec.parts):
            found[f"{front}{spec.name}"] = Target(f"{front}{spec.name}", spec, part, "", type)
        if spec.kind == "reference" and spec.target:
            for field in infos(spec.target).fields.values():
                if field.kind not in (*NOT_IN_A_COLUMN, "parts") and field.klass != "sensitive":
                    path = f"{front}{spec.name}.{field.name}"
                    found[path] = Target(path, field, part, spec.name, spec.target)
    return found


def _column_of(path: str, chosen: Mapped) -> str:
    return next((column for column, target in chosen.items() if target.path == path), "")


def _check(chosen: Mapped, info: RecordInfo, columns: tuple[str, ...]) -> None:
    """Refuse a mapping that can give no record at all, before any row is read."""
    for column, target in chosen.items():
        if is_forbidden_column(column, target.spec.name):
            raise ImportProblem(f"column '{column}' {REASON}; leave it out")
    if not chosen:
        raise ImportProblem(f"no column fits a field of {info.type}; map them: there are {', '.join(columns)}")
    reached = {target.path.partition(".")[0] for target in chosen.values()}
    missing = [spec.name for spec in info.fields.values() if spec.required and spec.name not in reached]
    if missing:
        raise ImportProblem(
            f"no column goes to '{missing[0]}', which every {info.type} needs; there are {', '.join(columns)}"
        )


def _guessable(possible: Mapped, *, with_rows: bool = False) -> dict[str, Target]:
    """Return the targets that may be guessed, by path.

    What only fills a record that would be made (``lines.product.name``) may not: making records is asked for. Nor may
    nested rows as JSON, but where an export has them.
    """
    return {
        path: target
        for path, target in possible.items()
        if (target.spec.unique or not target.reference) and (with_rows or not target.spec.parts)
    }


def _aliases(possible: Mapped, info: RecordInfo) -> dict[str, Target]:
    """Return the targets by every name that a column for them may have; the record's own fields win."""
    found: dict[str, Target] = {}
    for target in _guessable(possible).values():
        names = {target.spec.name, target.spec.label, *SYNONYMS.get(target.spec.name, ())}
        alone = names if target.part or not target.reference else ()
        for name in [*alone, *(f"{word} {name}" for word in _words(target) for name in names)]:
            found.setdefault(_plain(name), target)
    if info.type == "purchase":  # a column ``Invoice`` or ``Order`` holds the number of one
        found |= {word: possible["number"] for word in TYPE_WORDS["purchase"] if "number" in possible}
    return found


def _words(target: Target) -> tuple[str, ...]:
    """Return what may stand in front of a field's name in the header."""
    if target.reference:
        return (target.reference, *TYPE_WORDS.get(target.type, ()))
    return (target.part,) if target.part else (target.type, *TYPE_WORDS.get(target.type, ()))


def _plain(name: str) -> str:
    """Return a name without case, accents, blanks and signs."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", name.casefold()) if sign.isalnum())
