"""SecretModel: one sensitive field of one record; the mask, revealing for a stated reason, replacing."""

from __future__ import annotations

from typing import Any

from crmkit.errors import Invalid
from crmkit.records import Record

SHOWN_SECONDS = 30


class SecretModel:
    """The state of one sensitive field; it never holds the plain value."""

    def __init__(self, crm: Any, record: Record, field: str) -> None:
        self.crm = crm
        self.field = field
        self._type = type(record)
        self._id = record.id

    @property
    def record(self) -> Record:
        """The record as it is stored now."""
        found: Record = self.crm.collection(self._type)[self._id]
        return found

    def describe(self) -> dict[str, Any]:
        """Return label, help, mask and why this user may not reveal it as plain data for the view."""
        spec = self.crm.collection(self._type).info.fields[self.field]
        record = self.record
        stored = getattr(record, self.field)
        decision = self.crm.can("reveal", record)
        return {
            "label": spec.label,
            "help": spec.help,
            "masked": str(stored) if stored is not None else "",
            "refused": "" if decision else decision.reason,
        }

    def reveal(self, reason: str) -> str:
        """Return the plain value, after the reason has been written into the audit log.

        Raises:
            Invalid: No reason was given.
        """
        if not reason.strip():
            raise Invalid({"reason": "say why you need to see this; it is kept in the audit log"})
        return str(self.crm.reveal(self.record, self.field, reason=reason.strip()).value)

    def replace(self, value: str) -> Record:
        """Store another value; an empty one removes it."""
        updated: Record = self.crm.collection(self._type).update(self.record, **{self.field: value.strip() or None})
        return updated
