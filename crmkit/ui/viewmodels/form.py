"""FormModel: the fields of one record being edited, with problems, drafts and conflicts by field.

A draft is what was typed and not saved. Whoever else saves the record meanwhile changes the fields that have
no draft; a field that both changed becomes a conflict, to be kept or taken. Nothing typed is ever dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crmkit.errors import Conflict, Invalid
from crmkit.fields import Reference, Secret
from crmkit.payment import WORDS, movable, moves, text_fields
from crmkit.records import Record
from crmkit.schema import FieldSpec
from crmkit.ui.viewmodels.text import country, detail, title, typed, untyped, words

SUGGESTIONS = 8


class FormModel:
    """The state of a form for one record, or for a new one."""

    def __init__(
        self, crm: Any, type: str, record: Record | None = None, defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.crm = crm
        self.collection = crm.collection(type)
        self.record = record
        self.drafts: dict[str, Any] = dict(defaults or {})
        self.problems: dict[str, str] = {}
        self.conflicts: dict[str, Any] = {}
        self.moved: dict[str, Secret[Any]] = {}
        self.note = ""

    @property
    def specs(self) -> dict[str, FieldSpec]:
        """The fields that the form edits: for a stored record, sensitive ones have their own view."""
        fields = self.collection.info.fields
        return {name: spec for name, spec in fields.items() if self.record is None or spec.klass != "sensitive"}

    @property
    def dirty(self) -> list[str]:
        """The fields that were changed and not saved."""
        return [*(name for name in self.drafts if name in self.specs), *self.moved]

    # ------------------------------------------------------------- what the view shows

    def describe(self) -> dict[str, Any]:
        """Return the structure of the form, as plain data for the view."""
        sections: dict[str, list[dict[str, Any]]] = {}
        for spec in self.specs.values():
            sections.setdefault(spec.section or "Details", []).append(self._field(spec))
        return {
            "label": f"{self.collection.info.title} form",
            "sections": [
                {"title": heading, "fields": sorted(fields, key=_is_wide)} for heading, fields in sections.items()
            ],
            "create": self.record is None,
        }

    def state(self) -> dict[str, Any]:
        """Return what changes while somebody types: problems, conflicts, what is not saved."""
        return {
            "problems": self.problems,
            "conflicts": {name: self._shown(name, value) for name, value in self.conflicts.items()},
            "dirty": self.dirty,
            "found": self.found(),
            "moved": {name: str(secret) for name, secret in self.moved.items()},
            "note": self.note,
        }

    def values(self) -> dict[str, Any]:
        """Return what each input holds: the draft, else the stored value; never a sensitive value."""
        return {name: self.value(name) for name, spec in self.specs.items() if spec.klass != "sensitive"}

    def value(self, name: str) -> Any:
        """Return what one input holds."""
        if name in self.drafts:
            return self.drafts[name]
        return typed(self.specs[name], getattr(self.record, name, None))

    def labels(self) -> dict[str, str]:
        """Return the titles, by id, of the records that the inputs name at present."""
        return {id: self._title(spec, id) for spec, id in self._references() if id}

    def found(self) -> dict[str, dict[str, str]]:
        """Return what looks like a card number or an IBAN in a text, by field, and what can be done about it."""
        shown: dict[str, dict[str, str]] = {}
        for name in text_fields(self.collection.info):
            for number, place in movable(self.collection.info, str(self.value(name)), self._filled()):
                words = f"This looks like {WORDS[number.kind]}: {number.mask}. In its own field it is shown masked."
                shown.setdefault(name, {"words": words, "move": f"Move to {place.label}"})
        return shown

    # ------------------------------------------------------------- what a person does

    def set(self, name: str, raw: Any) -> None:
        """Take what was typed into one field, and check it."""
        if name not in self.specs:
            return
        self.note = ""
        if raw == typed(self.specs[name], getattr(self.record, name, None)):
            self.drafts.pop(name, None)
            self.conflicts.pop(name, None)
        else:
            self.drafts[name] = raw
        self.check()

    def check(self) -> None:
        """Find the problems of what was changed, without writing anything."""
        self.problems = self._known(self.collection.check(self.record, **self._changes())) if self.drafts else {}
        if self.record is None:  # a field that nobody came to yet is no mistake before Save
            self.problems = {name: text for name, text in self.problems.items() if self._top(name) in self.drafts}

    def move(self, name: str, filled: Iterable[str] = ()) -> None:
        """Take a card number or an IBAN out of a text; it is saved in the sensitive field that is for it.

        Args:
            name: The text field.
            filled: The sensitive fields that something was typed into, which only the page knows.
        """
        if name in text_fields(self.collection.info):
            taken = dict.fromkeys((*self._filled(), *filled), True)
            changes = moves(self.collection.info, {**taken, name: self.value(name)}, name)
            if changes:
                self.set(name, changes.pop(name) or "")
                self.moved |= changes

    def revert(self) -> None:
        """Forget the drafts."""
        self.drafts, self.problems, self.conflicts, self.moved, self.note = {}, {}, {}, {}, ""

    def keep(self, name: str) -> None:
        """Settle a conflict with what was typed here."""
        self.note = ""
        self.conflicts.pop(name, None)

    def take(self, name: str) -> None:
        """Settle a conflict with what the others saved."""
        self.note = ""
        if name in self.conflicts:
            del self.conflicts[name]
            self.drafts.pop(name, None)
            self.check()

    def suggest(self, name: str, text: str) -> list[dict[str, str]]:
        """Return the records that a reference may mean; one in a nested row is named ``"lines.product"``."""
        spec = self._spec(name)
        if spec is None or not spec.target or not text.strip():
            return []
        found = self.crm.collection(spec.target).search(text, limit=SUGGESTIONS)
        return [{"id": record.id, "label": title(record), "detail": detail(record)} for record in found]

    def save(self, secrets: Mapping[str, str] | None = None) -> Record | None:
        """Write the changes; None means that problems or conflicts stand in the way and are shown.

        Args:
            secrets: Sensitive values of a new record; they are not kept as drafts.
        """
        if self.conflicts:
            self.note = "Somebody else changed this too. Choose what to keep in each marked field, then save."
            return None
        for _ in range(3):  # the others may save again between our reading and our writing
            if taken := self._stored_secrets() & self.moved.keys():
                self.note = f"Somebody else filled {self._labels(taken)} meanwhile. Revert brings back what you moved."
                return None
            try:
                saved = self._write({name: value for name, value in (secrets or {}).items() if value})
            except Invalid as error:
                self.problems = self._known(error.problems)
                self.note = "Please look at the marked fields."
                return None
            except Conflict:
                self.refresh()
                if self.conflicts:
                    self.note = "Somebody else saved first. Choose what to keep in each marked field, then save."
                    return None
            else:
                self.revert()
                self.record = saved
                return saved
        self.note = "Others are saving this very often; please try again."
        return None

    def refresh(self) -> bool:
        """Take over what others saved; return whether anything changed here."""
        if self.record is None:
            return False
        fresh = self.collection.get(self.record.id)
        if fresh is None or fresh.rev == self.record.rev:
            return False
        for name in self._typed():
            theirs = getattr(fresh, name)
            if theirs != getattr(self.record, name):
                self._meet(name, theirs)
        self.record = fresh
        return True

    # ------------------------------------------------------------- details

    def _meet(self, name: str, theirs: Any) -> None:
        """Note that others changed a field that has a draft, unless both mean the same."""
        if typed(self.specs[name], theirs) == self.drafts[name]:
            self.drafts.pop(name)
        else:
            self.conflicts[name] = theirs

    def _typed(self) -> list[str]:
        return [name for name in self.drafts if name in self.specs]

    def _changes(self) -> dict[str, Any]:
        return {name: untyped(self.specs[name], self.drafts[name]) for name in self._typed()} | self.moved

    def _stored_secrets(self) -> frozenset[str]:
        """Return the sensitive fields that the stored record has a value in."""
        fields = self.collection.info.fields.values()
        secrets = (spec.name for spec in fields if spec.klass == "sensitive")
        return frozenset(name for name in secrets if getattr(self.record, name, None) is not None)

    def _filled(self) -> frozenset[str]:
        return self._stored_secrets() | self.moved.keys()

    def _labels(self, names: Iterable[str]) -> str:
        return " and ".join(sorted(self.collection.info.fields[name].label for name in names))

    def _write(self, secrets: Mapping[str, str]) -> Record:
        if self.record is None:
            given = {name: value for name, value in self._changes().items() if value is not None}
            added: Record = self.collection.add(**given, **secrets)
            return added
        if not self.dirty:
            return self.record
        updated: Record = self.collection.update(self.record, **self._changes())
        return updated

    def _known(self, problems: Mapping[str, str]) -> dict[str, str]:
        """Return problems by field of the form; one of a nested row names its row."""
        known: dict[str, str] = {}
        for path, text in problems.items():
            name, *rest = path.split(".")
            if rest and name in self.specs:
                row = f"row {int(rest[0]) + 1}" if rest[0].isdigit() else rest[0]
                text = f"{', '.join([row, *rest[1:]])} {text}"
            known.setdefault(name, text)
        return known

    def _top(self, path: str) -> str:
        return path.split(".", maxsplit=1)[0]

    def _spec(self, path: str) -> FieldSpec | None:
        """Return the field of a name, or that of a nested row for a dotted name."""
        name, _, part = path.partition(".")
        spec = self.specs.get(name)
        if spec is None or not part:
            return spec
        return next((each for each in spec.parts if each.name == part), None)

    def _references(self) -> Iterator[tuple[FieldSpec, str]]:
        """Yield each reference field, also of nested rows, with the id that it holds."""
        for name, spec in self.specs.items():
            if spec.kind == "reference":
                yield spec, str(self.value(name))
            elif spec.kind == "parts":
                inner = [part for part in spec.parts if part.kind == "reference"]
                yield from ((part, str(row.get(part.name, ""))) for row in self.value(name) for part in inner)

    def _shown(self, name: str, theirs: Any) -> str:
        spec = self.specs[name]
        shown = self._title(spec, str(theirs)) if isinstance(theirs, Reference) else typed(spec, theirs)
        return ", ".join(map(str, shown)) if isinstance(shown, list) else str(shown)

    def _title(self, spec: FieldSpec, id: str) -> str:
        found = self.crm.collection(spec.target).get(id) if spec.target else None
        return title(found) if found is not None else "(no longer there)"

    def _field(self, spec: FieldSpec) -> dict[str, Any]:
        return {
            "name": spec.name,
            "label": spec.label,
            "help": spec.help,
            "input": "secret" if spec.klass == "sensitive" else spec.kind,
            "required": spec.required,
            "choices": choices(spec),
            "parts": [self._field(part) for part in spec.parts],
        }


def _is_wide(field: Mapping[str, Any]) -> bool:
    """Return whether a field takes a whole line; those stand last in their section."""
    return field["input"] in ("long_text", "parts")


def choices(spec: FieldSpec) -> list[tuple[str, str]]:
    """Return the words of a choice, or the countries, each with what people read."""
    if spec.kind == "country":
        return sorted(country().items(), key=lambda pair: pair[1])
    return [(word, words(word)) for word in spec.choices]
