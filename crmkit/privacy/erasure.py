"""Erasing: in which order, so that whatever a crash cuts short can be finished, and nothing comes back.

1. The audit log tells that it is asked for.
2. The ledger of erasures, beside the keys, names the subjects and what is kept of their addresses. From here on it is
   decided: whoever opens the workspace, or a backup with these keys, finishes what is not done yet.
3. One commit takes out, redacts and unlinks the records, and leaves the certificate.
4. The data keys are destroyed, so that journal, logs and backups go dark.
5. Where personal fields may lie in the clear, the history is written anew without them.
6. The certificate is marked as finished.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from crmkit.codec import REMOVED, RecordCodec
from crmkit.durable import explained
from crmkit.errors import Erased, Invalid, NotFound, Refused, StoreBusy
from crmkit.merge import MERGED
from crmkit.privacy.certificate import Certificate, ErasurePlan
from crmkit.privacy.plan import Part, Planner, counted
from crmkit.privacy.reach import Redaction, forgotten, notes
from crmkit.privacy.register import KIND, Register
from crmkit.privacy.suppression import Suppression, addresses
from crmkit.records import Record, new_id, now
from crmkit.schema import RecordInfo, info
from crmkit.values import instant_text

if TYPE_CHECKING:
    from crmkit.store.base import Doc
    from crmkit.store.tiny import TinyStore
    from crmkit.vault import Vault

AGAIN = "erased before; finished, or found again in a restored backup"


class Eraser:
    """Erases people from one workspace.

    Args:
        store: Where records are.
        codec: Knows which fields are sealed, and under whose key.
        vault: Has the keys, the ledger and the audit log.
        types: Returns the record types.
        actor: Returns who acts.
    """

    def __init__(
        self,
        store: TinyStore,
        codec: RecordCodec,
        vault: Vault,
        types: Callable[[], Iterable[type[Record]]],
        actor: Callable[[], str],
    ) -> None:
        self._store = store
        self._codec = codec
        self._vault = vault
        self._types = types
        self._actor = actor
        self._suppression = Suppression(vault)
        self._register = Register(store, vault)

    def plan(self, known: RecordInfo, id: str) -> ErasurePlan:
        """Return what erasing a record would do; see `CRM.erase`."""
        with self._store.reading():
            self._check(known, id)
            planner = self._planner()
            subjects = planner.subjects(known.plural, id)
            parts = planner.parts(subjects, type=known.type)
            return ErasurePlan(
                known.type,
                id,
                tuple(subjects),
                counted(parts, "deleted"),
                counted(parts, "redacted"),
                counted(parts, "unlinked"),
                len(self._tags(planner, subjects)),
                self._notes(parts),
            )

    def erase(self, known: RecordInfo, id: str, reason: str) -> Certificate:
        """Erase a record and everything personal that belongs to it; see `CRM.erase`."""
        with self._plainly():
            if self._vault.erasures.at(id) and self._left():  # decided, and cut short
                self._finish_all()
                return next(made for made in self.certificates() if id in made.subjects)
            with self._store.lock():
                self._check(known, id)
                planner = self._planner()
                subjects = planner.subjects(known.plural, id)
                self._audit("erase", known.type, id, reason)
                parts = planner.parts(subjects, type=known.type)
                tags = self._tags(planner, subjects)
                self._vault.erasures.record(subjects, tags, now(), _rekeyed(parts))
                made = self._commit(known.type, id, subjects, parts, reason, len(tags))
                self._destroy_keys(made)
            return self._finish(made)

    def finish(self) -> None:
        """Do what is left of erasures: after a crash, a restored backup, or the return of a plugin."""
        with self._plainly(), suppress(StoreBusy):  # somebody else is at it, or will be
            self._finish_all()

    def certificates(self) -> list[Certificate]:
        """Return the certificates of every erasure, newest first."""
        return [self._register.certificate(doc) for doc in self._register.docs()]

    def allow_again(self, address: tuple[str, str], reason: str) -> None:
        """Take an address off the list of suppressed ones; see `CRM.allow_again`."""
        with self._plainly(), self._store.lock():
            if not self._suppression.is_suppressed(address):
                raise NotFound("this address is not suppressed")
            self._audit("allow_again", "workspace", self._vault.workspace_id, reason)
            self._suppression.allow(address)

    # ------------------------------------------------------------------ parts

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Turn what the system says about a file of keys into an error of ours."""
        try:
            yield
        except OSError as error:
            raise explained(error, self._vault.files[0].parent) from error

    def _planner(self) -> Planner:
        return Planner(self._store, self._codec, list(self._types()))

    def _check(self, known: RecordInfo, id: str) -> None:
        if known.subject or known.subjects:
            whose = known.subject or ", ".join(known.subjects)
            raise Invalid({"record": f"a {known.type} belongs to its {whose}; erase that, or remove the {known.type}"})
        if self._vault.erasures.at(id):
            raise Erased(f"{known.type} {id} was erased already")
        doc = self._store.get(known.plural, id) or self._store.get(known.plural + REMOVED, id)
        if doc is None:
            raise NotFound(f"no {known.type} has this id")
        if MERGED in doc:
            raise Refused(f"{known.type} {id} was merged into {doc[MERGED]}; erase that one, and both are erased")

    def _tags(self, planner: Planner, subjects: Iterable[str]) -> list[str]:
        found = (each for known, _, doc in planner.documents(subjects) for each in addresses(known, doc))
        return self._suppression.tags(found)

    def _commit(
        self, type: str, id: str, subjects: Collection[str], parts: list[Part], reason: str, suppressed: int
    ) -> Certificate:
        """Write everything in one commit, with the certificate."""
        cause, again = new_id(), _rekeyed(parts)
        generation = self._vault.new_generation(again) if again else 0
        sealed = self._register.sealed_reason(reason, cause)
        doc: Doc = {
            "id": cause,
            "at": instant_text(now()),
            "type": type,
            "record": id,
            "subjects": list(subjects),
            "actor": self._actor(),
            "reason": sealed,
            "deleted": counted(parts, "deleted"),
            "redacted": counted(parts, "redacted"),
            "unlinked": counted(parts, "unlinked"),
            "addresses": suppressed,
            "notes": list(self._notes(parts)),
            "types": self._plurals(),
            "rekeyed": {"generation": generation, "ids": again},
            "forgotten": forgotten(parts) if self._vault.may_be_plain else {},
            "finished": False,
        }
        meta = {"actor": self._actor(), "cause": cause, "kind": KIND, "reason": sealed}
        self._store.commit([*(part.write() for part in parts), self._register.new(doc)], meta)
        return self._register.certificate(doc)

    def _finish_all(self) -> None:
        self._decide_again()
        if self._left() or self._register.met_late(self._plurals()) or self._dark():
            with self._store.lock():
                self._erase_again()
        for doc in self._register.docs():
            if not doc["finished"]:
                made = self._register.certificate(doc)
                with self._store.lock():
                    self._destroy_keys(made)
                self._finish(made)

    def _destroy_keys(self, made: Certificate) -> None:
        self._vault.destroy(made.subjects)
        rekeyed = self._register.doc(made)["rekeyed"]
        if rekeyed["ids"]:
            self._vault.drop_generations(rekeyed["generation"], rekeyed["ids"])
        self._codec.forget()
        self._codec.orphans = {at: id for at, id in self._codec.orphans.items() if id not in made.subjects}

    def _finish(self, made: Certificate) -> Certificate:
        """Take out of the history what lies there in the clear, and mark the certificate as finished."""
        doc = self._register.doc(made)
        if self._vault.may_be_plain:
            past = Redaction(self._store, self._codec, made.subjects, doc["forgotten"])
            self._store.rewrite_history(past.redacted)
        self._register.note(doc, self._actor(), finished=True)
        return replace(made, finished=True)

    def _erase_again(self) -> None:
        """Erase once more those whose data is there again; the caller holds the lock."""
        late = self._register.met_late(self._plurals())
        gone = sorted(self._left() | late)
        parts = self._planner().parts(gone, self._dark())
        if renewed := set(_rekeyed(parts)) - self._vault.erasures.renewed:
            self._vault.erasures.record([], [], now(), sorted(renewed))
        if parts:
            self._audit("erase_again", "workspace", self._vault.workspace_id, AGAIN)
            made = self._commit(parts[0].known.type, parts[0].doc["id"], gone, parts, AGAIN, 0)
            self._destroy_keys(made)
        self._vault.destroy(gone)
        self._codec.orphans.clear()
        for doc in self._register.docs() if late else ():
            self._register.note(doc, self._actor(), types=sorted({*doc["types"], *self._plurals()}))

    def _plurals(self) -> list[str]:
        return sorted(info(each).plural for each in self._types())

    def _left(self) -> set[str]:
        """Return who was erased, but has a key still, or records."""
        met = {id for (collection, record), id in self._codec.orphans.items() if self._store.get(collection, record)}
        return met | {id for id in self._vault.erasures.subjects if self._has_key(id)}

    def _dark(self) -> list[str]:
        """Return records about several people of which the key is gone with somebody, and nothing else is."""
        renewed = self._vault.erasures.renewed
        met = [(collection, id) for collection, id in self._codec.dark_ones if id in renewed]
        docs = [(collection, doc) for collection, id in met if (doc := self._store.get(collection, id)) is not None]
        return sorted(str(doc["id"]) for collection, doc in docs if self._codec.dark(collection, doc))

    def _decide_again(self) -> None:
        """Put into the ledger whom certificates name and it does not: somebody took lines, or the file, away."""
        known = self._vault.erasures.subjects
        if missing := self._register.subjects() - known:
            with self._store.lock():
                self._vault.erasures.record(sorted(missing), [], now())

    def _has_key(self, id: str) -> bool:
        try:
            return self._vault.newest_generation(id) > 0
        except (Erased, NotFound):
            return False

    def _audit(self, action: str, type: str, id: str, reason: str) -> None:
        self._vault.note(self._actor(), action, reason, entity=type, record=id)

    def _notes(self, parts: Iterable[Part]) -> tuple[str, ...]:
        here = {plural + ending for plural in self._plurals() for ending in ("", REMOVED)}
        absent = [name for name in self._store.tables() if name not in here and not name.startswith(".")]
        return tuple(notes(parts, self._vault.audit.entries(), absent, may_be_plain=self._vault.may_be_plain))


def _rekeyed(parts: Iterable[Part]) -> list[str]:
    return sorted({part.doc["id"] for part in parts if part.is_rekeyed})
