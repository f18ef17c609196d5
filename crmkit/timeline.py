"""The timeline: what plugins tell of a customer, merged into pages, newest first."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from crmkit.contributions import Entry
from crmkit.query import Page


def newest_first(entries: Iterable[Entry], kinds: Iterable[str] | None, limit: int, after: str | None) -> Page[Entry]:
    """Return one page of entries.

    Args:
        entries: All that plugins told, in any order.
        kinds: Only these kinds; None for all.
        limit: The most entries.
        after: `Page.next` of the page before.
    """
    wanted = None if kinds is None else set(kinds)
    placed = [(_place(entry), entry) for entry in entries if wanted is None or entry.kind in wanted]
    rest = [each for each in placed if after is None or each[0] < after]
    newest = heapq.nlargest(limit, rest, key=lambda each: each[0])
    return Page([entry for _, entry in newest], newest[-1][0] if len(rest) > limit else None)


def _place(entry: Entry) -> str:
    """Return text that sorts as the timeline does, and tells entries of one instant apart."""
    return f"{entry.at.isoformat()}|{entry.record}|{entry.kind}"
