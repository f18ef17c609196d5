"""Joins records, store and vault: which fields are sealed, and the documents that records become.

A document has two forms. In memory, personal fields are open and sensitive ones sealed. On disk both are
sealed; personal ones only where that is the workspace's level. A record made from a document shows a sensitive field
as a masked `Secret`.

Of somebody who was erased nothing is opened or kept any more. A text that has to be there is `ERASED` instead, in the
clear; a document that still has more is an orphan, and `crmkit.privacy` finishes what was begun. A field whose key is
gone otherwise stays as it is on disk, `Dark`, until a newer commit brings it back or somebody reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from crmkit.errors import Conflict, Damaged, Erased, NotFound, Refused
from crmkit.fields import MASK, Secret, mask
from crmkit.records import Record
from crmkit.schema import RecordInfo, info
from crmkit.store.base import Doc, Step, Store
from crmkit.vault import Vault

REMOVED = ".removed"  # the collection of removed records stands beside its own, under this ending
SEALED = "c1."  # how the text of an envelope begins
MASKS = 8_192  # how many masks of sensitive values are remembered, in memory only
TAGS = "_bi"  # blind index tags of a document, by field
TEXTS = ("text", "long_text", "code", "email", "phone")  # the kinds of a field that can hold the next
ERASED = "(erased)"  # stands for a text that was somebody's who was erased, and that a record cannot do without


class Dark(str):
    """An envelope that no key opens any more, in the place of the value."""

    __slots__ = ()


class RecordCodec:
    """Seals and opens documents for the store, by what is known of each record type.

    Attributes:
        orphans: The subjects whose erasure is not finished, by collection and id of what was met of them in the store.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._known: dict[str, RecordInfo] = {}
        self._sealed: dict[str, tuple[tuple[str, str], ...]] = {}
        self.orphans: dict[tuple[str, str], str] = {}
        self._dark: set[tuple[str, str]] = set()  # where something dark was met; it may have been healed since
        self._mask = lru_cache(maxsize=MASKS)(self._mask_of)  # a mask takes an opened value, and a page shows fifty

    def know(self, known: RecordInfo) -> None:
        """Learn which fields of a collection, and of its removed records, are sealed."""
        sealed = tuple((spec.name, spec.klass) for spec in known.fields.values() if spec.klass != "plain")
        for collection in (known.plural, known.plural + REMOVED):
            self._known[collection] = known
            self._sealed[collection] = sealed

    def subject(self, collection: str, doc: Mapping[str, Any]) -> str:
        """Return the id whose data key seals a document: its customer; or itself, also where it has several."""
        named = self._known[collection].subject
        return str((doc.get(named) if named else None) or doc["id"])

    def is_erased(self, collection: str, doc: Mapping[str, Any]) -> bool:
        """Return whether a document belongs to somebody who was erased."""
        return self._vault.erasures.at(self.subject(collection, doc)) is not None

    def about(self, collection: str, doc: Mapping[str, Any]) -> str:
        """Return the id of whom a document tells: its customer, or itself where it has sealed fields; else empty."""
        subject = self.subject(collection, doc)
        tells = any(doc.get(name) is not None for name, _ in self._sealed[collection])
        return subject if tells or subject != doc["id"] else ""

    # ------------------------------------------------------------------ what the store asks for

    def prepare(self, puts: Sequence[tuple[str, Doc]]) -> None:
        """Make the data keys of new subjects durable; the store calls this under its lock.

        Raises:
            Erased: Something would be kept of somebody who was erased.
        """
        self._vault.refresh()  # under the newest keys: another process may have changed them
        wanted = set()
        for collection, doc in puts:
            if any(doc.get(name, ERASED) != ERASED for name, _ in self._sealed.get(collection, ())):
                wanted.add(self.subject(collection, doc))
        if wanted:
            self._vault.ensure_subjects(wanted)

    def seal(self, collection: str, doc: Doc, names: Collection[str] | None = None) -> Doc:
        """Return fields of a document as they go to disk, with the tags of those that exact matches are kept for."""
        sealed = self._sealed.get(collection)
        out = dict(doc) if names is None else {name: doc[name] for name in names if name in doc}
        if not sealed:
            return out
        known, subject, record = self._known[collection], self.subject(collection, doc), doc["id"]
        if self._vault.erasures.at(subject):  # what was before; `prepare` lets nothing new pass
            return self._without(sealed, out)
        fresh: dict[str, str] = {}
        for name, klass in sealed:
            value = out.get(name)
            if klass == "sensitive" and isinstance(value, Secret):
                out[name] = self._vault.seal(known.type, name, record, subject, value.value)
                if known.fields[name].searchable:
                    fresh[name] = self._vault.blind_tag(known.type, name, str(value.value))
            elif klass == "personal" and value not in (None, []) and not isinstance(value, Dark):
                if self._vault.seal_level == "personal" or _looks_sealed(value):
                    out[name] = self._vault.seal(known.type, name, record, subject, value)
            elif klass == "sensitive" and value is not None and not _looks_sealed(value):
                raise Refused(f"{known.type} {record}: {name} is sensitive and not sealed; nothing was written")
        if names is None or any(name in names for name, klass in sealed if klass == "sensitive"):
            self._tag(collection, out, doc, fresh)
        return out

    def renewed(self, collection: str, old: Doc, new: Doc) -> Doc:
        """Return what is to replace a document, with no field in it that was sealed before the newest keys were.

        Raises:
            Conflict: It was read before the key of such a field was destroyed.
        """
        sealed = [name for name, klass in self._sealed.get(collection, ()) if klass == "sensitive"]
        fresh = [name for name in sealed if _looks_sealed(new.get(name)) and new[name] != old.get(name)]
        if not fresh or self._vault.erasures.at(self.subject(collection, new)):
            return new
        subject = self.subject(collection, new)
        stale = [name for name in fresh if not self._vault.is_newest(subject, new[name])]
        try:
            return {**new, **{name: Secret("", self.opened(collection, new, name)) for name in stale}}
        except Erased:
            raise Conflict(collection, str(new["id"]), tuple(stale)) from None

    def reseal(self, collection: str, doc: Doc) -> Doc:
        """Return the sealed fields of a document in memory form, sealed anew for disk under the newest key.

        Those that do not open stay as they are.
        """
        secrets = self._secrets(collection, doc)
        opened = {name: secret for name, secret in secrets.items() if secret is not None}
        shut = {*self.dark(collection, doc), *(secrets.keys() - opened.keys())}
        sealed = [name for name, _ in self._sealed.get(collection, ()) if doc.get(name) is not None]
        present = [name for name in sealed if name not in shut]
        return self.seal(collection, {**doc, **opened}, present) if present else {}

    def unopened(self, collection: str, doc: Mapping[str, Any]) -> list[str]:
        """Return the sensitive fields of a document that do not open: they were changed, or their key is gone."""
        return [name for name, secret in self._secrets(collection, doc).items() if secret is None]

    def _secrets(self, collection: str, doc: Mapping[str, Any]) -> dict[str, Secret[Any] | None]:
        """Return the sensitive fields that a document has, opened; None for one that does not open."""
        secrets: dict[str, Secret[Any] | None] = {}
        for name, klass in self._sealed.get(collection, ()):
            if klass == "sensitive" and doc.get(name) is not None:
                try:
                    secrets[name] = Secret("", self.opened(collection, doc, name))
                except (Damaged, Erased, NotFound):
                    secrets[name] = None
        return secrets

    def gone(self, collection: str, doc: Mapping[str, Any]) -> list[str]:
        """Return the sensitive fields whose key went with somebody whom a record about several people was about."""
        return self.unopened(collection, doc) if self._vault.erasures.is_renewed(doc["id"]) else []

    # ------------------------------------------------------------------ what a rewriting of the history asks for

    @property
    def collections(self) -> Collection[str]:
        """The collections whose types are known."""
        return self._known.keys()

    def subject_field(self, collection: str) -> str | None:
        """Return the field that names the subject; None where a document is its own."""
        return self._known[collection].subject

    def sealed_fields(self, collection: str) -> list[str]:
        """Return the names of the fields that are personal or sensitive."""
        return [name for name, _ in self._sealed[collection]]

    def envelopes(self, collection: str, fields: Mapping[str, Any]) -> dict[str, str]:
        """Return the sealed ones among fields that are sealed on disk."""
        return {name: fields[name] for name, _ in self._sealed[collection] if _looks_sealed(fields.get(name))}

    def resealed(self, collection: str, name: str, record: str, subject: str, sealed: str) -> str:
        """Return an envelope sealed anew, under the newest key of its subject."""
        known = self._known[collection].type
        return self._vault.seal(known, name, record, subject, self._vault.open(known, name, record, subject, sealed))

    def sealed_past(self, collection: str, fields: Mapping[str, Any], record: str, subject: str) -> dict[str, str]:
        """Return the personal fields of a before-image that lie there in the clear, sealed."""
        known = self._known[collection].type
        personal = [name for name, klass in self._sealed[collection] if klass == "personal"]
        return {
            name: self._vault.seal(known, name, record, subject, fields[name])
            for name in personal
            if fields.get(name, ERASED) not in (None, ERASED) and not _looks_sealed(fields[name])
        }

    # ------------------------------------------------------------------ what the store asks for when it reads

    def open(self, collection: str, fields: Doc, doc: Doc) -> Doc:
        """Return fields of a document as they are kept in memory."""
        sealed = self._sealed.get(collection)
        if not sealed:
            return fields
        subject = self.subject(collection, doc)
        if self._vault.erasures.at(subject):
            return self._orphaned(collection, sealed, fields, doc["id"], subject)
        personal = self._personal(sealed, fields)
        if not personal:
            return fields
        try:
            opened = self._vault.open_all(self._known[collection].type, doc["id"], subject, personal)
        except Erased:
            if self._vault.erasures.at(subject):  # by another process, just now
                return self._orphaned(collection, sealed, fields, doc["id"], subject)
            opened = self._opened_or_dark(collection, personal, doc["id"], subject)
        except Damaged:  # or another process has just begun to keep personal values in the clear
            if self._vault.may_be_plain or not (self._vault.refresh() and self._vault.may_be_plain):
                raise
            return self.open(collection, fields, doc)
        return {**fields, **opened}

    def open_past(self, collection: str, fields: Doc, doc: Doc) -> Doc:
        """Return fields of a before-image as `open` does; of what was erased, or whose key is gone, nothing is told."""
        sealed = self._sealed.get(collection)
        if not sealed:
            return fields
        subject = self.subject(collection, doc)
        if self._vault.erasures.at(subject):
            return self._without(sealed, fields)
        try:
            personal = self._personal(sealed, fields)
            return {**fields, **self._vault.open_all(self._known[collection].type, doc["id"], subject, personal)}
        except Erased:
            return self._without(sealed, fields)

    def completed(self, collection: str, doc: Doc) -> Doc:
        """Return a document of the past with `ERASED` for each text that its record cannot do without."""
        known = self._known.get(collection)
        specs = [known.fields[name] for name, _ in self._sealed[collection]] if known else []
        lacking = [spec.name for spec in specs if spec.required and spec.kind in TEXTS and doc.get(spec.name) is None]
        return {**doc, **dict.fromkeys(lacking, ERASED)} if lacking else doc

    def _opened_or_dark(
        self, collection: str, personal: Mapping[str, str], record: str, subject: str
    ) -> dict[str, Any]:
        """Return fields one by one; those whose key is gone as `Dark`."""
        opened: dict[str, Any] = {}
        for name, text in personal.items():
            try:
                opened[name] = self._vault.open(self._known[collection].type, name, record, subject, text)
            except Erased:
                opened[name] = Dark(text)
                self._dark.add((collection, record))
        return opened

    def dark(self, collection: str, doc: Mapping[str, Any]) -> list[str]:
        """Return the names of the fields of a document in memory that no key opens any more."""
        if (collection, doc["id"]) not in self._dark:
            return []
        return [name for name, _ in self._sealed[collection] if isinstance(doc.get(name), Dark)]

    @property
    def dark_ones(self) -> frozenset[tuple[str, str]]:
        """Collection and id of documents in which something dark was met; they may have been healed since."""
        return frozenset(self._dark)

    def _personal(self, sealed: Sequence[tuple[str, str]], fields: Doc) -> dict[str, str]:
        """Return the personal fields to open: all of them, unless the workspace keeps, or kept, some in the clear."""
        names = [name for name, klass in sealed if klass == "personal"]
        personal = {name: value for name in names if (value := fields.get(name)) and value != ERASED}
        if not self._vault.may_be_plain:
            return personal
        return {name: value for name, value in personal.items() if _looks_sealed(value)}

    def _orphaned(
        self, collection: str, sealed: Sequence[tuple[str, str]], fields: Doc, record: str, subject: str
    ) -> Doc:
        """Return fields of somebody who was erased, and remember where there was more."""
        if any(fields.get(name, ERASED) != ERASED for name, _ in sealed):
            self.orphans[collection, record] = subject
        else:
            self.orphans.pop((collection, record), None)
        return self._without(sealed, fields)

    def _without(self, sealed: Sequence[tuple[str, str]], fields: Doc) -> Doc:
        """Return fields without what is sealed, and without what is derived from it."""
        gone = {TAGS, *(name for name, _ in sealed if fields.get(name) != ERASED)}
        return {name: value for name, value in fields.items() if name not in gone}

    def bound(self, collection: str, old: Doc, new: Doc) -> Collection[str]:
        """Return the sealed fields, where a document gets another subject: none of them may stay under the old key.

        Of somebody who was erased it returns all that there may be on disk, for in memory nothing is left of them; of a
        record that got a new key with such an erasure, all that it has.
        """
        sealed = self._sealed.get(collection, ())
        if sealed and self._vault.erasures.at(self.subject(collection, new)):
            return [TAGS, *(name for name, _ in sealed)]
        is_rekeyed = sealed and self._vault.erasures.is_renewed(new["id"])
        if sealed and (is_rekeyed or self.subject(collection, old) != self.subject(collection, new)):
            return [name for name, _ in sealed if name in new or name in old]
        return ()

    def _tag(self, collection: str, out: Doc, doc: Doc, fresh: Mapping[str, str]) -> None:
        """Put the tags of the whole document among the fields: those that it has, and fresh ones."""
        tags = {**{name: tag for name, tag in doc.get(TAGS, {}).items() if name in doc}, **fresh}
        for name, tag in tags.items():
            if not self._vault.is_current_tag(tag):  # an undo puts back what may be older than the key
                value = str(self.opened(collection, doc, name))
                tags[name] = self._vault.blind_tag(self._known[collection].type, name, value)
        out.pop(TAGS, None)
        if tags:
            out[TAGS] = tags

    # ------------------------------------------------------------------ what collections ask for

    def opened(self, collection: str, doc: Mapping[str, Any], name: str) -> Any:
        """Return the plain value of a sensitive field. Whoever calls this has audited it or shows only a mask."""
        known, value = self._known[collection], doc[name]
        if isinstance(value, Secret):  # in a draft that waits for its transaction
            return value.value
        return self._vault.open(known.type, name, doc["id"], self.subject(collection, doc), value)

    def secret(self, collection: str, doc: Mapping[str, Any], name: str) -> Secret[Any]:
        """Return a sensitive field as a masked, unopened `Secret`."""
        known, value = self._known[collection], doc[name]
        fresh = isinstance(value, Secret)
        shown = str(value) if fresh else self._mask(collection, name, doc["id"], self.subject(collection, doc), value)
        return Secret(shown, place=(known.type, doc["id"], name), sealed="" if fresh else value)

    def _mask_of(self, collection: str, name: str, record: str, subject: str, sealed: str) -> str:
        known = self._known[collection]
        try:
            return mask(known.fields[name].kind, self._vault.open(known.type, name, record, subject, sealed))
        except Erased:  # in the history of somebody who was
            return MASK * 6

    def forget(self) -> None:
        """Drop what is remembered of opened values."""
        self._mask.cache_clear()

    def record(self, record_type: type[Record], collection: str, doc: Mapping[str, Any]) -> Any:
        """Return the record that a document holds; fields that its type does not know stay behind."""
        values = {name: doc[name] for name in record_type.model_fields if name in doc}
        if dark := self.dark(collection, doc):
            raise key_is_gone(info(record_type).type, doc["id"], dark)
        for name, klass in self._sealed.get(collection, ()):
            if klass == "sensitive" and name in doc:
                values[name] = self.secret(collection, doc, name)
        try:
            return record_type.model_validate(values, context={"trusted": True})
        except ValidationError as error:
            fields = ", ".join(sorted({".".join(str(part) for part in each["loc"]) for each in error.errors()}))
        # raised out here, so that the error does not carry pydantic's, which holds the values
        raise Damaged(f"{info(record_type).type} {doc['id']}: what is stored does not fit its type: {fields}")

    def document(self, record: Record) -> Doc:
        """Return the document of a record; sensitive values stay `Secret` objects until they are sealed."""
        known = info(type(record))
        doc: Doc = record.model_dump(mode="json", exclude_none=True)
        for name, klass in self._sealed.get(known.plural, ()):
            if klass == "sensitive" and name in doc:
                doc[name] = getattr(record, name)
        return doc


class FormerSubjects:
    """Tells whose key sealed what was there before a step; it has to be asked of every step, newest first.

    Args:
        store: Where documents are as they are now.
        codec: Knows which field names the subject.
    """

    def __init__(self, store: Store, codec: RecordCodec) -> None:
        self._store = store
        self._codec = codec
        self._subjects: dict[tuple[str, str], str] = {}  # of each document, as the step before left it

    def before(self, step: Step) -> str:
        """Return the subject of a document, of a known type, before a step."""
        key = (step.collection.removesuffix(REMOVED), step.id)
        named = self._codec.subject_field(step.collection)
        if step.action == "delete" or (named and named in step.changed):
            self._subjects[key] = self._codec.subject(step.collection, {"id": step.id, **step.before})
        elif key not in self._subjects:
            doc = self._store.get(step.to, step.id) or {"id": step.id}
            self._subjects[key] = self._codec.subject(step.collection, doc)
        return self._subjects[key]


def key_is_gone(type: str, id: str, fields: Sequence[str]) -> Damaged:
    """Return the error for fields that no key opens any more."""
    what = f"{type} {id}: the key of {', '.join(fields)} is gone"
    return Damaged(f"{what}: data and keys are not of one day; put back both from one backup")


def _looks_sealed(value: Any) -> bool:
    """Return whether a stored value is an envelope, or a text that has to be sealed because it looks like one."""
    return isinstance(value, str) and value.startswith(SEALED)
