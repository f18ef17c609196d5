"""How far an erasure reaches: into the history where that lies in the clear, and what it leaves to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crmkit.codec import REMOVED
from crmkit.privacy.plan import Part
from crmkit.store.base import Step

Forgotten = dict[str, dict[str, list[str]]]
"""What the history must not tell, by plural: the ids of records, and the names of fields."""


def forgotten(parts: Iterable[Part]) -> Forgotten:
    """Return what the history must not tell; it is kept, for whoever finishes may not know the type."""
    found: Forgotten = {}
    for part in parts:
        if part.fate != "unlinked" or part.is_rekeyed:
            of_type = found.setdefault(part.collection.removesuffix(REMOVED), {"ids": [], "fields": part.sealed()})
            of_type["ids"].append(part.doc["id"])
    return found


def redacted(step: Step, ids: frozenset[str], fields: Mapping[str, list[str]]) -> Mapping[str, Any]:
    """Return what may stay of a before-image.

    Args:
        step: The step.
        ids: The records that the history must not tell of.
        fields: The names of what it must not tell, by plural.
    """
    names = fields.get(step.collection.removesuffix(REMOVED), [])
    if step.id not in ids or step.before.keys().isdisjoint(names):
        return step.before
    return {name: None if name in names else value for name, value in step.before.items()}


def notes(
    parts: Iterable[Part], audit: Iterable[Mapping[str, Any]], absent: Iterable[str], *, may_be_plain: bool
) -> Iterator[str]:
    """Yield what an erasure does not reach, as far as that is known.

    Args:
        parts: What it changes.
        audit: The audit log.
        absent: Collections whose type is not known here.
        may_be_plain: Whether personal values may lie in the clear.
    """
    done = Counter(entry["action"] for entry in audit)
    saved = done["backup"] - done["backup_failed"]
    if saved > 0:
        yield "make a new backup: the file of keys of the last one still opens what was saved before"
    if saved > 0 and may_be_plain:
        yield "older backups hold personal values in the clear, for every member: delete them"
    if done["export"]:
        yield "files were exported in the clear before now: crmkit audit --action export lists them"
    if unknown := ", ".join(sorted(absent)):
        yield f"records of plugins that are not here were not looked through: {unknown}"
    if any(part.is_rekeyed for part in parts):
        yield "what people wrote into records about several people stays; look through those yourself"
    yield "copies of the whole folder hold the keys of their day; notes of other records are not searched"
