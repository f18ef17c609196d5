"""EraseModel: erasing one person from a card; the plan in plain words, the deed, the certificate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crmkit.errors import Invalid
from crmkit.records import Record
from crmkit.schema import info


class EraseModel:
    """The state of an erasure; it holds nothing of the person but the id.

    Attributes:
        certificate: The text of the certificate, when it is done.
    """

    def __init__(self, crm: Any, record: Record) -> None:
        self.crm = crm
        self.certificate = ""
        self._type = type(record)
        self._id = record.id

    def describe(self) -> dict[str, Any]:
        """Return what people call such a record, and why this user may not erase it; empty where they may."""
        decision = self.crm.can("erase", self._record())
        return {"noun": self._noun, "refused": "" if decision else decision.reason}

    def plan(self) -> dict[str, Any]:
        """Return what would be done, in sentences, and what would not be reached."""
        plan = self.crm.erase(self._record(), reason="plan", dry_run=True)
        lines = [
            f"{what}: {self._counted(of)}."
            for what, of in (
                ("Deleted for good", plan.deleted),
                ("Kept for statistics, without the person", plan.redacted),
                ("Kept, and no longer linked to the person", plan.unlinked),
            )
            if of
        ]
        lines.append("The keys are destroyed: what history and backups hold of the person goes dark.")
        if plan.addresses:
            what = "1 address" if plan.addresses == 1 else f"{plan.addresses:,} addresses"
            lines.append(f"{what} will be known again, and not come back by an import or a form unnoticed.")
        return {"lines": lines, "notes": [f"{note[:1].upper()}{note[1:]}." for note in plan.notes]}

    def erase(self, reason: str, understood: bool) -> None:
        """Erase; nobody can undo this.

        Raises:
            Invalid: No reason was given, or it was not said that this cannot be undone.
        """
        if not reason.strip():
            raise Invalid({"reason": "say why; it is kept in the audit log and on the certificate"})
        if not understood:
            raise Invalid({"understood": "tick that nobody can undo this"})
        self.certificate = str(self.crm.erase(self._record(), reason=reason.strip()))

    @property
    def _noun(self) -> str:
        return info(self._type).type.replace("_", " ")

    def _record(self) -> Record:
        found: Record = self.crm.collection(self._type)[self._id]
        return found

    def _counted(self, of: Mapping[str, int]) -> str:
        return ", ".join(self.crm.collection(type).info.counted(count) for type, count in of.items())


def can_be_erased(record_type: type[Record]) -> bool:
    """Return whether records of a type stand for people: they belong to nobody else, and have something to protect."""
    known = info(record_type)
    return not (known.subject or known.subjects) and any(spec.klass != "plain" for spec in known.fields.values())
