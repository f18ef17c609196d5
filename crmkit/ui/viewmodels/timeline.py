"""TimelineModel: what happened with one customer, newest first, a page at a time."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from crmkit.contributions import Entry
from crmkit.records import Record
from crmkit.ui.viewmodels.text import words

PAGE = 30
ICONS = {
    "call": "☎",
    "mail": "✉",
    "email": "✉",
    "meeting": "⚇",
    "note": "✎",
    "purchase": "€",
    "return": "↩",
    "deal": "◆",
    "case": "⚑",
}


class TimelineModel:
    """The state of a timeline: how far it was read."""

    def __init__(self, crm: Any, record: Record) -> None:
        self.crm = crm
        self.record = record

    def page(self, after: str | None = None) -> dict[str, Any]:
        """Return one page as plain data, and the cursor of the next (None at the end)."""
        page = self.crm.timeline(self.record, limit=PAGE, after=after)
        return {"entries": [entry(each, self.crm.zone) for each in page], "next": page.next}


def entry(each: Entry, zone: tzinfo) -> dict[str, Any]:
    """Return one entry of a timeline as plain data, its day and time as the office's clock had them."""
    at = each.at.astimezone(zone)
    return {
        "day": at.date().isoformat(),
        "time": "" if each.all_day else at.strftime("%H:%M"),
        "icon": ICONS.get(each.kind, "•"),
        "kind": words(each.kind),
        "title": each.title,
        "text": each.text or "",
        "actor": each.actor or "",
    }
