"""What people do with what is protected: rights, sensitive fields, the audit log, erasing, keys and the lock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from crmkit.audit import Audit, check_reveals
from crmkit.contributions import Decision
from crmkit.errors import Invalid, NotFound
from crmkit.fields import Secret
from crmkit.forbidden import check_reason
from crmkit.handle import Handle, screens
from crmkit.privacy.suppression import address as meant
from crmkit.query import shown
from crmkit.records import Customer, Record, check_record, id_of
from crmkit.registry import asking_plugin

if TYPE_CHECKING:
    from crmkit.keys import Keys, Members, Secrets
    from crmkit.keys.deeds import Deeds
    from crmkit.privacy import Certificate, ErasurePlan


class Protected(Handle):
    """An open workspace, with what is done to protect the people in it; `CRM` is the whole."""

    # ------------------------------------------------------------------ rights

    def can(self, action: str, record: Record | None = None) -> Decision:
        """Return whether the actor may do something; true where they may, with the reason in one line.

        Args:
            action: ``"reveal"``, ``"export"``, ``"erase"``, ``"bulk"`` (import, merge, undo and adding of more than one
                record), ``"settings"`` (members, keys, trust), or a plugin's own, which has a dot.
            record: The record that it is about, where it is about one.

        Raises:
            Invalid: There is no such action.
        """
        if record is not None:
            self._refuse_hidden(record)
        return self._rights.decide(self.actor, action, record)

    def explain(self, action: str, record: Record | None = None, actor: str | None = None) -> str:
        """Return why somebody may do something or not, in lines for a person: roles, rule, and what it is worth.

        Args:
            action: As `can` takes it.
            record: The record that it is about, where it is about one.
            actor: Who wants to; who acts now, when left out.

        Raises:
            Invalid: There is no such action.
        """
        if record is not None:
            self._refuse_hidden(record)
        return self._rights.explain(actor or self.actor, action, record)

    def _refuse_hidden(self, record: Record) -> None:
        """Raise `NotFound` where somebody holds a record that the actor does not see, as if it were not there."""
        check_record(record)
        known = self.collection(type(record)).info
        if self._visible.hides(known.plural, record.id):
            raise NotFound(f"no {known.type} has the id {record.id}")

    # ------------------------------------------------------------------ sensitive fields

    def reveal(self, record: Record, field: str, *, reason: str) -> Secret[Any]:
        """Open a sensitive field; the audit log has it on disk before this returns.

        Args:
            record: Whose field.
            field: Its name.
            reason: Why, for the audit log.

        Returns:
            An opened `Secret`: ``.value`` is the plain value, every rendering stays masked.

        Raises:
            Invalid: The field is not a sensitive one, is empty, or no reason is given; or an id is, and no record.
            Refused: This actor was shown many values just now; it works again after a while, or `crmkit unlock`.
        """
        check_record(record)
        collection = self.collection(type(record))
        spec = collection.info.fields.get(field)
        if spec is None:
            nearest = collection.info.nearest(str(field))
            raise Invalid({field: f"is not a field of {collection.info.type}{nearest}"})
        if spec.klass != "sensitive":
            raise Invalid({field: "is not a sensitive field; read it as an attribute"})
        check_reason(reason)
        self._refuse_hidden(record)
        self._guard("reveal", record)
        with self._store.lock():
            doc = self._committer.document(collection.info.plural, record.id)
            if doc is None:
                raise NotFound(f"no {collection.info.type} has the id {record.id}")
            if field not in doc:
                raise Invalid({field: "is empty"})
            subject = self._codec.subject(collection.info.plural, doc)
            check_reveals(self._vault, self.actor, self.workspace.folder)
            self._vault.note(
                self.actor,
                "reveal",
                reason,
                entity=collection.info.type,
                record=record.id,
                subject=subject,
                fields=(field,),
                plugin=asking_plugin(),
            )
            masked = self._codec.secret(collection.info.plural, doc, field)
            opened = self._codec.opened(collection.info.plural, doc, field)
            return masked.opened(opened, lambda secret: shown(secret, lambda: screens().secret(self, secret)))

    @property
    def audit(self) -> Audit:
        """The audit log: who did what to sealed fields, and why."""
        self._locking.use()
        return Audit(lambda: self._vault, self._visible.hides_any)

    # ------------------------------------------------------------------ erasing people

    @overload
    def erase(self, record: Record | str, *, reason: str, dry_run: Literal[False] = False) -> Certificate: ...

    @overload
    def erase(self, record: Record | str, *, reason: str, dry_run: Literal[True]) -> ErasurePlan: ...

    def erase(self, record: Record | str, *, reason: str, dry_run: bool = False) -> Certificate | ErasurePlan:
        """Erase somebody for good, everywhere; nobody can take it back.

        The data key is destroyed, so that the history and the backups that crmkit made go dark. Records of the person
        stay for statistics, without what is personal or sensitive. Mail addresses and phone numbers are suppressed: an
        import or a form cannot bring them back unnoticed. What was merged into the record is erased with it.

        Args:
            record: A customer, or another record that belongs to nobody else; removed or not; or the id of a customer.
            reason: Why, for the audit log and the certificate; best the number of the request.
            dry_run: Only return the plan.

        Returns:
            The certificate, which stays in the workspace; with `dry_run` the plan.

        Raises:
            NotFound: There is no such record.
            Erased: It was erased already.
            Invalid: It belongs to somebody else, or no reason is given.
            Refused: The actor may not, or a transaction is open.
        """
        known = self.collection(type(record) if isinstance(record, Record) else Customer).info
        check_reason(reason)
        if self._visible.hides(known.plural, id_of(record)):
            raise NotFound(f"no {known.type} has the id that was given")
        self._guard("erase", record if isinstance(record, Record) else None)
        self._committer.refuse_inside("an erasure")
        eraser = self._eraser.plan if dry_run else partial(self._eraser.erase, reason=reason)
        return eraser(known, id_of(record))

    def erasures(self) -> list[Certificate]:
        """Return the certificates of every erasure, newest first."""
        return self._eraser.certificates()

    def allow_again(self, address: str, *, reason: str) -> None:
        """Let the mail address or phone number of somebody who was erased be kept again, because they came back.

        Raises:
            NotFound: It is not suppressed.
            Invalid: It is no address, or no reason is given.
            Refused: The actor may not.
        """
        check_reason(reason)
        self._guard("erase")
        self._eraser.allow_again(meant(address, self._context({}, {})), reason)

    # ------------------------------------------------------------------ keys

    @property
    def keys(self) -> Keys:
        """The keys of the workspace: what there are, rotation, the recovery key."""
        from crmkit.keys import Keys

        return Keys(self._deeds)

    @property
    def members(self) -> Members:
        """Whose identity opens the workspace: iterable, ``.add(name, public_key)``, ``.remove(name)``."""
        from crmkit.keys import Members

        return Members(self._deeds)

    @property
    def secrets(self) -> Secrets:
        """Passwords and tokens of plugins, sealed: ``crm.secrets["mail"]["password"].value``."""
        from crmkit.keys import Secrets

        return Secrets(self._deeds)

    @property
    def _deeds(self) -> Deeds:
        from crmkit.keys.deeds import Deeds

        self._locking.use()
        parts = self.workspace, self._store, self._codec, self._vault
        return Deeds(*parts, lambda: self.actor, self._guard, self._locking.busy)
