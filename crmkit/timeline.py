"""The timeline: what plugins tell of a customer, merged into pages, newest first."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from crmkit.contributions import Entry
from crmkit.errors import Invalid
from crmkit.query import Page, check_limit
from crmkit.values import instant_text


def newest_first(entries: Iterable[Entry], kinds: Iterable[str] | None, limit: int, after: str | None) -> Page[Entry]:
    """Return one page of entries.

    Args:
        entries: All that plugins told, in any order.
        kinds: Only these kinds; None for all.
        limit: The most entries.
        after: `Page.next` of the page before.

    Raises:
        Invalid: The limit, the kinds or the cursor is wrong.
    """
    check_limit(limit)
    if isinstance(kinds, str):
        raise Invalid({"kinds": "must be a list of kinds, for example ['call']"})
    if after is not None and not _is_place(after):
        raise Invalid({"after": "is not a cursor of a timeline; give Page.next of the page before"})
    wanted = None if kinds is None else set(kinds)
    placed = list(_placed(entry for entry in entries if wanted is None or entry.kind in wanted))
    rest = [each for each in placed if after is None or each[0] < after]
    newest = heapq.nlargest(limit, rest, key=lambda each: each[0])
    return Page([entry for _, entry in newest], newest[-1][0] if len(rest) > limit else None)


def _placed(entries: Iterable[Entry]) -> Iterator[tuple[str, Entry]]:
    """Yield each entry behind a text that sorts as the timeline does, and that no other entry has."""
    told: Counter[str] = Counter()
    for entry in entries:
        place = f"{instant_text(entry.at)}|{entry.record}|{entry.kind}"
        told[place] += 1
        yield f"{place}|{told[place]:06}", entry


def told_by(plugin: str, answer: Iterable[Entry] | None) -> list[Entry]:
    """Return the entries that a plugin told, with its name.

    Raises:
        TypeError: They are no entries, or do not say when in an aware time.
    """
    entries = list(answer or ())
    for entry in entries:
        if not isinstance(entry, Entry) or not isinstance(entry.at, datetime) or entry.at.tzinfo is None:
            raise TypeError("crm_timeline yields Entry objects with an aware time")
    return [replace(entry, at=entry.at.astimezone(UTC), provider=plugin) for entry in entries]


def _is_place(text: object) -> bool:
    """Return whether text is what `_placed` makes."""
    at, *rest = text.split("|") if isinstance(text, str) else ("",)
    try:
        return len(rest) >= 2 and instant_text(datetime.fromisoformat(at)) == at
    except ValueError:
        return False
