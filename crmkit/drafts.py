"""Drafts: what will be written for one record, checked, before anything is locked or saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from pydantic import ValidationError

from crmkit.codec import REMOVED, RecordCodec
from crmkit.contributions import Action, Change
from crmkit.errors import Invalid
from crmkit.fields import Secret
from crmkit.forbidden import REASON, has_forbidden
from crmkit.links import redirected
from crmkit.records import Record, has_bad_text, now
from crmkit.schema import KEPT_BY_CRMKIT, RecordInfo, adapter, info, invalid, is_frozen
from crmkit.store.base import NEW, Doc, Move, Put, Write
from crmkit.values import instant_text, is_number


@dataclass(frozen=True)
class Draft:
    """One record as it will be.

    Attributes:
        record_type: Its type.
        action: add, update, remove or restore.
        doc: Its new document, in memory form.
        expect: The revision that must still be stored.
        before: Its document as it was read; None where it is new.
        was: The record of that document, where it was made already.
        record: The record as it will be; None where it is removed or restored.
        changed: The names of the fields that change.
        is_removed: Whether it is a change of a record that lies among the removed ones, and stays there.
    """

    record_type: type[Record]
    action: Action
    doc: Doc
    expect: int
    before: Mapping[str, Any] | None
    was: Record | None = None
    record: Record | None = None
    changed: tuple[str, ...] = ()
    is_removed: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """The collection and id that it is about."""
        return info(self.record_type).plural, self.doc["id"]

    def writes(self) -> Iterator[Write]:
        """Yield what the store has to write."""
        plural, _ = self.key
        match self.action:
            case "remove":
                yield Move(plural, plural + REMOVED, self.doc, self.expect)
            case "restore":
                yield Move(plural + REMOVED, plural, self.doc, self.expect)
            case _:
                yield Put(plural + REMOVED if self.is_removed else plural, self.doc, self.expect)

    def change(self, codec: RecordCodec) -> Change:
        """Return what plugins are shown of it."""
        plural, id = self.key
        before = self.was
        if before is None and self.before is not None:
            before = codec.record(self.record_type, plural, self.before)
        return Change(info(self.record_type).type, id, self.action, before, self._fields())

    def _fields(self) -> dict[str, Any]:
        """Return the new values of the changed fields; a secret that waits to be sealed is in the document only."""
        if self.record is None:
            return {}
        waiting = {name: value for name in self.changed if isinstance(value := self.doc.get(name), Secret)}
        return {name: getattr(self.record, name) for name in self.changed} | waiting


class Drafter:
    """Makes the drafts of one record type.

    Args:
        record_type: The type.
        codec: Turns records into documents.
        context: Returns the validation context for raw values, given the document they will be part of.
        suppressed: Returns what is wrong, by field, with addresses in a document of the type.

    Attributes:
        info: What is known of the type.
    """

    def __init__(
        self,
        record_type: type[Record],
        codec: RecordCodec,
        context: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]],
        suppressed: Callable[[RecordInfo, Callable[[], Mapping[str, Any]]], dict[str, str]],
    ) -> None:
        self._type = record_type
        self.info = info(record_type)
        self._codec = codec
        self._context = context
        self._suppressed = suppressed
        self._checked: WeakValueDictionary[int, Record] = WeakValueDictionary()  # by identity

    def validate(self, raw: Mapping[str, Any]) -> Any:
        """Return a new record of raw values.

        Raises:
            Invalid: With all problems, by field.
        """
        raw = {name: value for name, value in raw.items() if not self._says_nothing(name, value)}
        problems = self._refusals(raw, own=None)
        context = self._context(raw, {})
        try:
            record = self._validated({name: value for name, value in raw.items() if name not in problems}, context)
        except Invalid as error:
            problems = error.problems | problems
        problems = problems or self._suppressed(self.info, lambda: self._codec.document(record))
        if problems:
            raise Invalid(problems, self.info.type)
        if owner := self._missing_owner(dict(record), context):
            record = record.model_copy(update={"owner": owner})
        if is_frozen(self._type):  # then it is still what was checked when it is given to be added
            self._checked[id(record)] = record
        return record

    def add(self, given: Record | Mapping[str, Any]) -> Draft:
        """Draft a new record; one that `validate` did not return is checked as its fields would be."""
        if isinstance(given, self._type):
            fields = {name: getattr(given, name, None) for name in ("id", "created_at", *self.info.fields)}
            record = given if self._checked.get(id(given)) is given else self.validate(fields)
        elif isinstance(given, Mapping):
            record = self.validate(dict(given))
        else:
            raise Invalid({"record": f"must be a {self.info.type}, or a mapping of its fields"}, self.info.type)
        doc = self._codec.document(record)
        doc["rev"] = 1
        if problems := self._suppressed(self.info, lambda: doc):  # somebody may have been erased since it was checked
            raise Invalid(problems, self.info.type)
        changed = tuple(name for name in self.info.fields if name in doc)
        return Draft(self._type, "add", doc, NEW, None, None, record, changed)

    def update(self, doc: Mapping[str, Any], changes: Mapping[str, Any]) -> Draft | None:
        """Draft changes of a stored document; None where nothing would change. Unknown fields of it survive."""
        values = self._changed_values(doc, changes)
        if not values:
            return None
        current = self._codec.record(self._type, self.info.plural, doc)
        merged = {**{name: getattr(current, name) for name in self._type.model_fields}, **values}
        context = self._context(changes, doc)
        if owner := self._missing_owner(merged, context):
            merged["owner"] = values["owner"] = owner
        context |= {"trusted": True, "changed": frozenset(values)}
        record = self._validated(merged, context)
        new = self._patched(doc, record, values)
        changed = tuple(name for name in self.info.fields if new.get(name) != doc.get(name))
        if not changed:
            return None
        problems = self._suppressed(self.info, lambda: {name: new[name] for name in changed if name in new})
        if problems:
            raise Invalid(problems, self.info.type)
        if self.info.subject in changed:
            self._move_secrets(doc, new)
        new["rev"], new["updated_at"] = doc["rev"] + 1, instant_text(now())
        return Draft(self._type, "update", new, doc["rev"], doc, current, record, changed)

    def move(self, action: Action, doc: Mapping[str, Any]) -> Draft:
        """Draft the removal or the return of a record."""
        new = {**doc, "rev": doc["rev"] + 1, "updated_at": instant_text(now())}
        return Draft(self._type, action, new, doc["rev"], doc)

    def value(self, name: str, stored: Any) -> Any:
        """Return the value of a field that is stored as `stored`."""
        return adapter(self._type, name).validate_python(stored, context={"trusted": True})

    def touch(self, doc: Mapping[str, Any]) -> Draft:
        """Draft a change of nothing but the revision, so that a history tells of what was done around a record."""
        return self._rewritten(doc, doc)

    def redirect(self, doc: Mapping[str, Any], to: Mapping[str, str], *, is_removed: bool) -> Draft:
        """Draft a document in which every reference to some ids leads to another one: `to`, by the old id."""
        new = dict(doc)
        for spec in self.info.fields.values():
            if spec.name in doc:
                new[spec.name] = redirected(spec, doc[spec.name], to)
        if self.info.subject and new.get(self.info.subject) != doc.get(self.info.subject):
            self._move_secrets(doc, new)
        return self._rewritten(doc, new, is_removed=is_removed)

    def revert(self, doc: Mapping[str, Any], was: Mapping[str, Any], *, removed: bool, to_removed: bool) -> Draft:
        """Draft the return of a document to how it was, exactly; what is checked is only what the store checks.

        Args:
            doc: The document as it is stored.
            was: The document as it was.
            removed: Whether it lies among the removed ones now.
            to_removed: Whether it lay there then.
        """
        if removed == to_removed:
            return self._rewritten(doc, was, is_removed=removed)
        return self._rewritten(doc, was, "remove" if to_removed else "restore")

    def _rewritten(
        self, doc: Mapping[str, Any], new: Mapping[str, Any], action: Action = "update", *, is_removed: bool = False
    ) -> Draft:
        """Draft a document that takes the place of another one without being validated."""
        changed = tuple(name for name in self.info.fields if new.get(name) != doc.get(name))
        fresh = {**new, "rev": doc["rev"] + 1, "updated_at": instant_text(now())}
        is_shown = action == "update" or (action == "restore" and changed)
        record = self._codec.record(self._type, self.info.plural, fresh) if is_shown else None
        return Draft(self._type, action, fresh, doc["rev"], doc, None, record, changed, is_removed)

    def problems(self, raw: Mapping[str, Any], doc: Mapping[str, Any] | None) -> dict[str, str]:
        """Return what is wrong with raw values, by field, without drafting anything."""
        try:
            if doc is None:
                self.validate(raw)
            else:
                self.update(doc, raw)
        except Invalid as error:
            return error.problems
        return {}

    # ------------------------------------------------------------------ parts

    def _missing_owner(self, values: Mapping[str, Any], context: Mapping[str, Any]) -> str | None:
        """Return who acts, where a record that is not for everybody is nobody's yet.

        Raises:
            Invalid: The type has a field `owner` that names no colleague.
        """
        if not values["visible_to"]:
            return None
        if self.info.fields["owner"].kind != "text":
            raise Invalid(
                {"visible_to": f"cannot be set: the owner of a {self.info.type} is no colleague"}, self.info.type
            )
        return None if values["owner"] else str(context["actor"])

    def _validated(self, values: Mapping[str, Any], context: dict[str, Any]) -> Any:
        try:
            return self._type.model_validate(values, context=context)
        except ValidationError as error:
            problem = invalid(error, self._type)
        raise problem  # out here, so that it does not carry pydantic's error, which holds the values

    def _changed_values(self, doc: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        context, values = self._context(changes, doc), {}
        problems = self._refusals(changes, own=doc["id"])
        for name, value in changes.items():
            spec = self.info.fields.get(name)
            if name in problems:
                continue
            if spec is None:
                problems[name] = self._not_a_field(name)
            elif isinstance(value, Secret) and value.place is not None:
                if not self._is_stored(doc, name, value):
                    problems[name] = "is no longer the secret that is stored; give the value, or undo its change"
            elif self._says_nothing(name, value):
                if spec.required:
                    problems[name] = "is required"
                values[name] = self._type.model_fields[name].get_default(call_default_factory=True)
            else:
                self._check_value(name, value, context, values, problems)
        if problems:
            raise Invalid(problems, self.info.type)
        return values

    def _is_stored(self, doc: Mapping[str, Any], name: str, secret: Secret[Any]) -> bool:
        """Return whether a record's own secret, revealed or not, is the one that is stored: it is left as it is."""
        if name not in doc:
            return False
        stored = self._codec.secret(self.info.plural, doc, name)
        return secret == stored or secret == stored.opened(self._codec.opened(self.info.plural, doc, name))

    def _check_value(
        self, name: str, value: Any, context: dict[str, Any], values: dict[str, Any], problems: dict[str, str]
    ) -> None:
        try:
            values[name] = adapter(self._type, name).validate_python(value, context=context)
        except ValidationError as error:
            for path, problem in invalid(error, self._type).problems.items():
                problems[name if path == self.info.type else f"{name}.{path}"] = problem

    def _patched(self, doc: Mapping[str, Any], record: Record, values: Mapping[str, Any]) -> Doc:
        """Return the document with the known fields of the record put in; sealed ones that did not change stay."""
        fresh = self._codec.document(record)
        new = dict(doc)
        for spec in self.info.fields.values():
            if spec.klass == "sensitive" and spec.name not in values:
                continue
            if spec.name in fresh:
                new[spec.name] = fresh[spec.name]
            else:
                new.pop(spec.name, None)
        return new

    def _move_secrets(self, doc: Mapping[str, Any], new: Doc) -> None:
        """Open what was sealed under the former subject's key, so that it is sealed under the new one's."""
        for spec in self.info.fields.values():
            if spec.klass == "sensitive" and isinstance(new.get(spec.name), str):
                new[spec.name] = Secret("", self._codec.opened(self.info.plural, doc, spec.name))

    def _says_nothing(self, name: str, value: Any) -> bool:
        """Return whether a raw value means that there is none."""
        if value is None or (isinstance(value, str) and not value):
            return True
        spec = self.info.fields.get(name)
        return spec is not None and spec.kind == "country" and str(value).casefold() in ("unspecified", "unknown")

    def _refusals(self, raw: Mapping[str, Any], own: str | None) -> dict[str, str]:
        """Return what is wrong, by field, with raw values that pydantic would take."""
        problems = {}
        for name, value in raw.items():
            spec = self.info.fields.get(name)
            if isinstance(value, Secret) and value.place not in (None, (self.info.type, own, name)):
                problems[name] = "is the secret of another record or field; reveal it and give the value"
            elif has_bad_text(value):
                problems[name] = "holds a character that not every store can keep (U+0000, or half of a surrogate pair)"
            elif has_forbidden(value):
                problems[name] = REASON
            elif spec is not None and spec.kind in ("date", "instant") and is_number(value):
                problems[name] = "is a number; write a date as 2026-11-22"
            elif name in ("rev", "updated_at"):
                problems[name] = self._not_a_field(name)
        return problems

    def _not_a_field(self, name: str) -> str:
        if name in KEPT_BY_CRMKIT:
            return "is kept by crmkit and cannot be set"
        return f"is not a field of {self.info.type}{self.info.nearest(name)}"
