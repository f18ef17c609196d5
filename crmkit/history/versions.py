"""The versions of a record: from how it is now backwards, step by step, through what was done to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from crmkit.codec import REMOVED, RecordCodec

if TYPE_CHECKING:
    from crmkit.store.base import Doc, Logged, Step, Store

Key = tuple[str, str]
"""The plural of a record type, and an id."""

Version = tuple["Logged", "Step", "Doc | None", "tuple[str, Doc] | None"]
"""A step, its commit, the document that it left, and where and how it was before."""


def key(step: Step) -> Key:
    """Return which record a step is about, wherever it lies."""
    return step.collection.removesuffix(REMOVED), step.id


def about(id: str, type: str | None, commits: Iterable[Logged]) -> Iterator[tuple[Logged, Step]]:
    """Yield the steps about one record, newest first; a record of another type may have the same id."""
    for logged in commits:
        for step in reversed(logged.steps):
            type = type or key(step)[0]
            if key(step) == (type, id):
                yield logged, step


def current(store: Store, step: Step) -> Doc | None:
    """Return the document that the newest step about it left, or None where it was deleted for good."""
    doc = store.get(step.to, step.id) if step.to else None
    return None if doc is None else dict(doc)


def backwards(codec: RecordCodec, doc: Doc | None, steps: Iterable[tuple[Logged, Step]]) -> Iterator[Version]:
    """Yield the versions of a record.

    Args:
        codec: Opens personal fields.
        doc: The document that the newest step left, in memory form.
        steps: Every step about it, newest first, with its commit.
    """
    forgotten = False
    for logged, step in steps:
        forgotten = forgotten or is_forgotten(step)
        was = None if forgotten else unwound(codec, step, doc)
        yield logged, step, doc, was
        doc = was[1] if was else None


def is_forgotten(step: Step) -> bool:
    """Return whether a step deleted a document with everything that there was to know of it: an erasure."""
    return step.action == "delete" and step.before.keys() <= {"id", "rev"}


def unwound(codec: RecordCodec, step: Step, doc: Doc | None) -> tuple[str, Doc] | None:
    """Return where a document was before a step, and how; None where there was none.

    Args:
        codec: Opens personal fields.
        step: What was done.
        doc: The document that it left, in memory form.
    """
    if step.action == "add":
        return None
    kept = {name: value for name, value in (doc or {}).items() if name not in step.changed}
    was = {**kept, **step.before}
    opened = codec.open_past(step.collection, dict(step.before), was)
    told = {name: value for name, value in opened.items() if value is not None}  # None where that was taken out of it
    return step.collection, codec.completed(step.collection, {**kept, **told})
