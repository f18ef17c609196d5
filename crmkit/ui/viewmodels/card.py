"""CardModel: how one record presents itself; its head, and the tabs below."""

from __future__ import annotations

from typing import Any, Literal

from crmkit.errors import CrmError, Erased
from crmkit.records import Record
from crmkit.schema import info
from crmkit.ui.viewmodels.text import present, title

CHIPS = ("visible_to", "kind", "stage", "roles", "tags")
FACTS = ("email", "phone", "city", "country", "owner")


class CardModel:
    """The state of a card."""

    def __init__(self, crm: Any, record: Record) -> None:
        self.crm = crm
        self.record = record

    def head(self) -> dict[str, Any]:
        """Return the identity of the record as plain data for the view."""
        called = title(self.record)
        return {
            "title": called,
            "initials": initials(called),
            "subtitle": self._subtitle(),
            "chips": [text for name in CHIPS for text in self._words(name)],
            "facts": [(label, text) for label, text in map(self._fact, FACTS) if text],
        }

    def panels(self) -> list[Any]:
        """Return the panels that plugins contribute for records of this type."""
        wanted = info(type(self.record)).type
        return [view for view in self.crm.views if getattr(view, "on", None) == wanted]

    def secrets(self) -> list[str]:
        """Return the names of the sensitive fields."""
        return [name for name, spec in info(type(self.record)).fields.items() if spec.klass == "sensitive"]

    def refresh(self) -> bool:
        """Take over what was saved meanwhile; return whether anything changed."""
        fresh = self.crm.collection(type(self.record)).get(self.record.id)
        if fresh is None or fresh.rev == self.record.rev:
            return False
        self.record = fresh
        return True

    def fate(self) -> Literal["", "erased", "removed"]:
        """Return what became of a record that is no longer there; empty while it is."""
        if self.crm.collection(type(self.record)).get(self.record.id) is not None:
            return ""
        try:
            self.crm.history(self.record, limit=1)
        except Erased:
            return "erased"
        except CrmError:  # it was there, and is hidden now
            pass
        return "removed"

    def _subtitle(self) -> str:
        number = getattr(self.record, "number", None)
        kind = info(type(self.record)).title
        return f"{kind} {number}" if number and number != title(self.record) else kind

    def _words(self, name: str) -> list[str]:
        spec = info(type(self.record)).fields.get(name)
        if spec is None:
            return []
        text = present(spec, getattr(self.record, name), zone=self.crm.zone)
        return text.split(", ") if text and spec.kind in ("choices", "texts") else [text] if text else []

    def _fact(self, name: str) -> tuple[str, str]:
        spec = info(type(self.record)).fields.get(name)
        return (spec.label, present(spec, getattr(self.record, name))) if spec else ("", "")


def initials(name: str) -> str:
    """Return one or two letters for the round mark beside a name."""
    parts = [part for part in name.split() if part[:1].isalpha()]
    letters = [parts[0][0], parts[-1][0]] if len(parts) > 1 else [part[0] for part in parts]
    return "".join(letters).upper() or "#"
