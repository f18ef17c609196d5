"""``crm.security``: the report, and card numbers that stand in texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crmkit.detector import Found, find_payment_data
from crmkit.errors import Refused
from crmkit.payment import TEXTS, WORDS, moves, place_of
from crmkit.records import Record, check_record
from crmkit.schema import info
from crmkit.security.report import Report

if TYPE_CHECKING:
    from crmkit.collection import Collection

NOUNS = {"card": "card number", "iban": "IBAN"}


@dataclass(frozen=True)
class PaymentText:
    """A stored text that holds a card number or an IBAN.

    Attributes:
        record: The record.
        field: Its field; ``contacts.0.value`` in a nested row.
        found: Where in the text, and what; never the number.
    """

    record: Record
    field: str
    found: Found

    def __str__(self) -> str:
        return f"{self.record!r} {self.field}: {WORDS[self.found.kind]}, {self.found.mask}"


class PaymentTexts(list[PaymentText]):
    """What was found in texts; it shows as one line for each."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "no card number or IBAN stands in a text"

    def counted(self) -> str:
        """Return how many numbers there are, for a person: ``"1 card number, 2 IBANs"``."""
        counts = Counter(each.found.kind for each in self)
        return ", ".join(
            f"{count:,} {NOUNS[kind]}{'' if count == 1 else 's'}" for kind, count in sorted(counts.items())
        )


class Security:
    """Looks after what is sensitive in an open workspace.

    Args:
        collections: Every collection, by the name of its record type.
        report: Makes the report.
    """

    def __init__(self, collections: Mapping[str, Collection[Any]], report: Callable[[], Report]) -> None:
        self._collections = collections
        self._report = report

    def report(self) -> Report:
        """Return what is plain, sealed and sensitive here, who can open it, and what is overdue; print it.

        Raises:
            Damaged: The audit log is not sound.
        """
        return self._report()

    def payment_data(self) -> PaymentTexts:
        """Return every card number and IBAN that stands in a text of a stored record instead of a sealed field."""
        return PaymentTexts(self._payment_data())

    def _payment_data(self) -> Iterator[PaymentText]:
        for collection in self._collections.values():
            fields = [spec for spec in collection.info.fields.values() if spec.klass != "sensitive"]
            for record in collection:
                for spec in fields:
                    for path, text in _texts(spec.name, spec.kind, getattr(record, spec.name)):
                        for found in find_payment_data(text):
                            yield PaymentText(record, path, found)

    def move(self, record: Record, field: str) -> Any:
        """Move card numbers and IBANs out of a text, into the sensitive fields that are for them, in one commit.

        The former text stays in the history, sealed as all text of a person is, until the person is erased.

        Args:
            record: The record, as it was read.
            field: The field with the text.

        Returns:
            The record as it is now.

        Raises:
            Refused: There is nothing in the text that can be moved, or what it would go to is filled already.
            Conflict: Somebody saved the record since it was read.
        """
        check_record(record)
        collection = self._collections[info(type(record)).type]
        spec = collection.info.fields.get(field)
        text = getattr(record, field) if spec is not None and spec.kind in TEXTS else None
        changes = moves(collection.info, dict(record), field) if isinstance(text, str) else {}
        if changes:
            return collection.update(record, **changes)
        found = find_payment_data(text) if isinstance(text, str) else ()
        places = {place.label for each in found if (place := place_of(collection.info, each))}
        if places:
            raise Refused(f"{field}: {' and '.join(sorted(places))} is filled already; compare, and edit the text")
        raise Refused(f"{field}: no card number or IBAN that has a field of its own in {collection.info.type}")

    def __repr__(self) -> str:
        return "<security: report(), payment_data(), move(record, field)>"


def _texts(path: str, kind: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts in the value of a field, with where they are."""
    if isinstance(value, str) and kind in (*TEXTS, "texts", "other"):
        yield path, value
    elif isinstance(value, tuple):
        for place, item in enumerate(value):
            yield from _texts(f"{path}.{place}", kind, item)
    elif hasattr(value, "model_fields_set"):
        for name, part in value:
            yield from _texts(f"{path}.{name}", "text", part)
