"""The certificates of a workspace: kept as documents beside the records, where the commit of an erasure puts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crmkit.privacy.certificate import Certificate
from crmkit.query import ALL, Find, Order
from crmkit.store.base import ANY, NEW, Put

if TYPE_CHECKING:
    from crmkit.store.base import Doc, Store
    from crmkit.vault import Vault

ERASURES = ".erasures"  # the collection; a leading dot keeps it out of the feed
KIND = "erase"  # what a history calls the commit


class Register:
    """The certificates of one workspace.

    Args:
        store: Where they are.
        vault: Opens the reasons.
    """

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def docs(self) -> list[Mapping[str, Any]]:
        """Return every certificate as it is kept, newest first."""
        return list(self._store.find(Find(ERASURES, None, (Order("at", descending=True),), ALL)))

    def doc(self, made: Certificate) -> Mapping[str, Any]:
        """Return a certificate as it is kept."""
        doc = self._store.get(ERASURES, made.id)
        assert doc is not None
        return doc

    def subjects(self) -> set[str]:
        """Return the ids of all that a certificate was made for."""
        return {id for doc in self.docs() for id in doc["subjects"]}

    def new(self, doc: Doc) -> Put:
        """Return what writes a new certificate."""
        return Put(ERASURES, {**doc, "rev": 1}, NEW)

    def note(self, doc: Mapping[str, Any], actor: str, **changed: Any) -> None:
        """Change what stands beside a certificate."""
        put = Put(ERASURES, {**doc, **changed, "rev": doc["rev"] + 1}, ANY)
        self._store.commit([put], {"actor": actor, "cause": doc["id"], "kind": KIND})

    def sealed_reason(self, reason: str, cause: str) -> str:
        """Return why, sealed under the key of the workspace: the person's own will be gone. The caller has the lock."""
        own = self._vault.workspace_id
        self._vault.ensure_subjects({own})
        return self._vault.seal("commit", "reason", cause, own, reason)

    def certificate(self, doc: Mapping[str, Any]) -> Certificate:
        """Return the certificate that a document keeps."""
        reason = self._vault.open("commit", "reason", doc["id"], self._vault.workspace_id, doc["reason"])
        return Certificate(
            id=doc["id"],
            type=doc["type"],
            record=doc["record"],
            subjects=tuple(doc["subjects"]),
            at=datetime.fromisoformat(doc["at"]),
            actor=doc["actor"],
            reason=str(reason),
            deleted=doc["deleted"],
            redacted=doc["redacted"],
            unlinked=doc["unlinked"],
            addresses=doc["addresses"],
            notes=tuple(doc["notes"]),
            finished=doc["finished"],
        )

    def met_late(self, plurals: Iterable[str]) -> set[str]:
        """Return who was erased while the plugin of a type was absent that is here now."""
        here = set(plurals)
        return {id for doc in self.docs() if not here <= set(doc["types"]) for id in doc["subjects"]}
