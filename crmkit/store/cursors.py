"""Cursors: a place between two documents of an order, as opaque text."""

from __future__ import annotations

import base64
import json
from itertools import chain
from typing import Any, NamedTuple

from crmkit.errors import Invalid
from crmkit.query import Find, Order
from crmkit.store.evaluate import MISSING, NUMERIC, number, rank
from crmkit.store.ordered import Key


class Gap(NamedTuple):
    """A place between two documents of an order, told by one of them: it is before that one, or behind it."""

    key: Key
    is_behind: bool


def gap_of(find: Find) -> Gap | None:
    """Return where the page that is asked for begins, or ends; None for the first page.

    Raises:
        Invalid: The cursor is none of this order, or there are two.
    """
    if find.after is not None and find.before is not None:
        raise Invalid({"before": "cannot be given together with after; a page lies on one side of one place"})
    if find.before is not None:
        return _decoded("before", find.before, find.order)
    return None if find.after is None else _decoded("after", find.after, find.order)


def encode_cursor(gap: Gap, order: tuple[Order, ...]) -> str:
    """Return a place in an order as opaque text."""
    text = json.dumps([_signature(order), gap.key, gap.is_behind], default=str)  # a Decimal goes as text
    return base64.urlsafe_b64encode(text.encode()).decode()


def _decoded(name: str, cursor: str, order: tuple[Order, ...]) -> Gap:
    try:
        signature, parts, is_behind = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        ranks, id = parts[:-1:2], parts[-1]
        values = [_value(kind, value) for kind, value in zip(ranks, parts[1:-1:2])]
        is_typed = all(value == 0 if kind == MISSING else rank(value) == kind for kind, value in zip(ranks, values))
        is_sound = is_typed and len(ranks) == len(values) == len(order) and isinstance(id, str)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        is_sound = False
    if not is_sound or type(is_behind) is not bool or signature != _signature(order):
        page = "Page.next" if name == "after" else "Page.previous"
        raise Invalid({name: f"is not a cursor of this order; give {page} of the page beside it"})
    return Gap((*chain.from_iterable(zip(ranks, values)), id), is_behind)


def _value(kind: object, value: Any) -> Any:
    return number(value) if kind == NUMERIC and isinstance(value, str) else value


def _signature(order: tuple[Order, ...]) -> list[str]:
    return ["-" * key.descending + key.path for key in order]
