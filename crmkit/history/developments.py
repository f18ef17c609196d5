"""What came of the records since an instant: what entered, left, moved, slipped, grew or shrank, by whom and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from crmkit.history.entries import History, instant
from crmkit.history.past import Past
from crmkit.schema import FieldSpec, RecordInfo

if TYPE_CHECKING:
    from crmkit.store.base import Logged, Step, Store

STEPS_OF_A_LIFE = ("stage", "status", "pipeline")  # fields that a record moves through, also where they are plain text
NUMBERS = ("integer", "number", "decimal")


@dataclass(frozen=True)
class Development:
    """One thing that came of one record. Its text shows no value.

    Attributes:
        what: entered, left, moved (through stages or other choices), slipped (a date went later), grew, shrank, or
            changed.
        type: The record type.
        id: The record.
        field: The field; empty for what entered or left.
        before: Its value then, as the record showed it; None where it was empty.
        after: Its value now.
        at: When it was done last (UTC).
        actor: By whom.
        reason: Why, or empty.
    """

    what: str
    type: str
    id: str
    field: str
    before: Any = dataclasses.field(repr=False)
    after: Any = dataclasses.field(repr=False)
    at: datetime
    actor: str
    reason: str = dataclasses.field(repr=False)


@dataclass(frozen=True)
class Developments:
    """What came of the records since an instant.

    Attributes:
        since: The instant.
        rows: What happened, in the order of the records' ids.
        types: What is known of the record types that were looked at, by name.
    """

    since: datetime
    rows: tuple[Development, ...]
    types: Mapping[str, RecordInfo]

    @property
    def table(self) -> list[dict[str, Any]]:
        """The rows as plain mappings, for a DataFrame."""
        return [dict(vars(row)) for row in self.rows]

    def __iter__(self) -> Iterator[Development]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        counts = Counter((type, what) for type, what, _ in {(row.type, row.what, row.id) for row in self.rows})
        told = ", ".join(f"{self.types[type].counted(count)} {what}" for (type, what), count in sorted(counts.items()))
        return f"<Since {self.since.isoformat()}: {told or 'nothing changed'}>"


class Comparison:
    """Compares the records of an instant with those of now.

    Args:
        past: The instant.
        store: The records as they are now.
        history: Shows values and reasons.
        known: The record types to look at, by their plural.
    """

    def __init__(self, past: Past, store: Store, history: History, known: Mapping[str, RecordInfo]) -> None:
        self._past = past
        self._store = store
        self._history = history
        self._known = known

    def developments(self) -> Developments:
        """Return what came of the records, in the order of their ids."""
        with self._store.reading():  # then and now are compared while nothing changes
            touched = self._past.touched(self._known)
            rows = [row for (plural, id), steps in touched for row in self._of_record(self._known[plural], id, steps)]
        return Developments(self._past.at, tuple(rows), {known.type: known for known in self._known.values()})

    def _of_record(self, known: RecordInfo, id: str, steps: list[tuple[Logged, Step]]) -> Iterator[Development]:
        then, now = self._past.document(known.plural, id), self._store.get(known.plural, id)
        if then is None and now is None:
            return
        if then is None or now is None:
            crossed = next(logged for logged, step in steps if _crosses(step, known.plural, inwards=then is None))
            yield self._development("entered" if then is None else "left", known, id, "", (None, None), crossed)
            return
        for spec in known.fields.values():
            if self._history.differ((known.plural, then), (known.plural, now), spec.name):
                newest = self._newest(steps, spec.name)
                shown = self._shown(known, then, spec), self._shown(known, now, spec)
                what = _what(spec, then.get(spec.name), now.get(spec.name))
                yield self._development(what, known, id, spec.name, shown, newest)

    def _newest(self, steps: list[tuple[Logged, Step]], name: str) -> Logged:
        """Return the commit that changed a field last; one that only sealed it anew does not count."""
        found = [logged for logged, step in steps if name in step.changed]
        if len(found) > 1:
            for logged, step, doc, was in self._past.versions(steps):
                if doc and was and name in step.changed and self._history.differ(was, (step.to, doc), name):
                    return logged
        return found[0] if found else steps[0][0]

    def _shown(self, known: RecordInfo, doc: Mapping[str, Any], spec: FieldSpec) -> Any:
        return self._history.shown(known.plural, doc, (spec.name,)).get(spec.name)

    def _development(
        self, what: str, known: RecordInfo, id: str, field: str, values: tuple[Any, Any], logged: Logged
    ) -> Development:
        meta = logged.meta
        reason = self._history.reason(meta)
        return Development(what, known.type, id, field, *values, instant(meta), str(meta.get("actor", "")), reason)


def _crosses(step: Step, plural: str, *, inwards: bool) -> bool:
    """Return whether a step brought a record into a collection or, if not inwards, took it away."""
    was_there, is_there = step.action != "add" and step.collection == plural, step.to == plural
    return is_there == inwards and was_there != inwards


def _what(spec: FieldSpec, before: Any, after: Any) -> str:
    """Return what became of the stored value of a field."""
    if spec.kind in ("choice", "choices") or spec.name in STEPS_OF_A_LIFE:
        return "moved"
    if before is None or after is None:
        return "changed"
    if spec.kind in ("date", "instant"):
        return "slipped" if after > before else "changed"
    if spec.kind == "money" and before["currency"] == after["currency"]:
        return "grew" if after["minor"] > before["minor"] else "shrank"
    if spec.kind in NUMBERS:
        return "grew" if Decimal(after) > Decimal(before) else "shrank"
    return "changed"
