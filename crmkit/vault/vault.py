"""The vault of a workspace: data keys, sealed fields, exact search on them, and the audit log."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from crmkit.durable import explained, left_over, make_folder, replace_file
from crmkit.errors import Damaged, Invalid, NotFound, Refused
from crmkit.vault import envelope
from crmkit.vault.audit import AuditLog
from crmkit.vault.blind_index import BlindIndex
from crmkit.vault.erasures import Erasures
from crmkit.vault.guarded import leave_no_core
from crmkit.vault.identity import ensure_identity, load_identity
from crmkit.vault.keyring import SEALS, Keyring
from crmkit.vault.keyring_file import KeyringFile
from crmkit.vault.layout import id_bytes, name_bytes, prefixed
from crmkit.vault.sealed_files import seal_stream
from crmkit.vault.secret_settings import SecretSettings
from crmkit.vault.subjects import SubjectKeys
from crmkit.vault.trust import Trust
from crmkit.vault.upkeep import Upkeep
from crmkit.vault.values import ALLOWED

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

KEYRING_FILE = "keyring.age"
SUBJECTS_FILE = "subjects.bin"
AUDIT_FILE = "audit.jsonl"
ERASURES_FILE = "erasures.jsonl"
SECRETS_FILE = "secrets.json"
SUPPRESSION_BYTES = 16  # of a tag: too long for two addresses to share one


class Vault(Upkeep):
    """The open vault of one workspace; `create` and `unlock` make one.

    It knows entities, fields and ids as plain texts, and nothing of records, stores or plugins.

    Attributes:
        workspace_id: The workspace, a ULID as text.
        audit: The audit log.
        erasures: The ledger of erasures.
        secret_settings: The secrets of plugins.
    """

    def __init__(self, folder: Path, identity: Identity, *, accept: bool = False) -> None:
        self._open(folder, identity, accept=accept)

    def _open(self, folder: Path, identity: Identity, *, accept: bool = False) -> None:
        leave_no_core()
        keyring = KeyringFile(folder / KEYRING_FILE, identity, accept=accept)
        self.workspace_id = keyring.workspace_id
        self._trust = Trust(self.workspace_id)
        erasures = Erasures(folder / ERASURES_FILE, keyring, self._trust, accept=accept)
        super().__init__(keyring, SubjectKeys(folder / SUBJECTS_FILE, keyring, erasures), erasures)
        self._folder = folder
        self._workspace = id_bytes(self.workspace_id)
        self._index = BlindIndex(keyring)
        self._audit = AuditLog(folder / AUDIT_FILE, keyring, self._trust)
        self.secret_settings = SecretSettings(folder / SECRETS_FILE, self)
        if not accept and not self._trust.heads("audit"):
            self._audit.verify()  # pins its head: a copy that goes on from there will be a branch, and not in its way

    @classmethod
    def create(cls, folder: Path, workspace_id: str, *, seal: str = "personal") -> Vault:
        """Make the keys of a new workspace, for this user; make an identity if the user has none. Never prompts.

        Args:
            folder: Where the keys go, ``keys/`` of the workspace.
            workspace_id: The id of the workspace, a ULID as text.
            seal: The lowest class of fields that is sealed: ``personal`` or ``sensitive``.

        Raises:
            Invalid: The id is no ULID, or there is no such level.
            Refused: There is a keyring already.
            Locked: The user's identity cannot be read.
        """
        id_bytes(workspace_id)  # what is no id is refused before anything is made
        if seal not in SEALS:
            raise Invalid({"seal": f"must be one of {', '.join(SEALS)}"})
        if (folder / KEYRING_FILE).exists():
            raise Refused(f"there is a keyring already: {folder / KEYRING_FILE}")
        identity = ensure_identity()
        make_folder(folder)
        for name in (SUBJECTS_FILE, AUDIT_FILE, ERASURES_FILE):
            replace_file(folder / name, b"")
        keyring = Keyring.create(workspace_id, identity, seal)
        keyring.write(folder / KEYRING_FILE)  # last: a folder with a keyring is complete
        return cls(folder, identity)

    @classmethod
    def unlock(cls, folder: Path, *, accept: bool = False) -> Vault:
        """Open the keys of a workspace with the user's identity.

        Args:
            folder: Where the keys are.
            accept: Take keys that were put back on purpose, though they are older than what this user saw.

        Raises:
            NotFound: There is no keyring.
            Locked: The user has no identity that can be read, or is not a member.
            Damaged: A key file is not as crmkit wrote it, or an older or foreign one was put in its place.
        """
        path = folder / KEYRING_FILE
        try:
            if not path.exists():  # said first: who has no workspace need not make an identity
                raise NotFound(f"there is no keyring {path}")
        except OSError as error:
            raise explained(error, folder) from error
        return cls(folder, load_identity(), accept=accept)

    @property
    def audit(self) -> AuditLog:
        """The audit log."""
        self._check_open()
        return self._audit

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the keys, the audit log and the ledger of erasures, as far as they are there."""
        always = [self._folder / name for name in (KEYRING_FILE, SUBJECTS_FILE, AUDIT_FILE)]
        others = [self._folder / name for name in (ERASURES_FILE, SECRETS_FILE)]
        return (*always, *(path for path in others if path.exists()))

    @property
    def left_over(self) -> list[Path]:
        """The files of keys that writers at work have not finished, and killed ones never will: see `sweep`."""
        return left_over(self._folder)

    def seal_stream(self, chunks: Iterable[bytes], file: BinaryIO) -> str:
        """Write bytes into a new age file for every member, and return the SHA-256 of that file."""
        self._check_open()
        return seal_stream(chunks, file, self.members())

    def seal(self, entity: str, field: str, record: str, subject: str, value: object) -> str:
        """Return a value sealed for one field of one record.

        Args:
            entity: The record type.
            field: The name of the field.
            record: The id of the record.
            subject: The id of the subject, which has a data key; the record itself where it is its own subject.
            value: None, str, int, Decimal, bytes, bool, date, an aware datetime, or what JSON can say.

        Raises:
            Invalid: The value cannot be sealed.
            NotFound: The subject has no data key.
            Erased: It had, and was erased.
        """
        self._check_open()
        generation, key = self._subjects.newest(subject)
        place = envelope.associated_data(self._workspace, entity, field, record, subject)
        try:
            return envelope.seal(key, generation, place, value)
        except (TypeError, ValueError, RecursionError):
            problem = f"cannot be sealed; allowed is {ALLOWED}"
        # raised out here, so that the error carries no other one with it, which might hold the value
        raise Invalid({field: problem}, f"{entity} {record}")

    def open(self, entity: str, field: str, record: str, subject: str, sealed: str) -> Any:
        """Return the value that was sealed for this field of this record.

        Raises:
            Damaged: It cannot be opened: it was changed or moved, or its key is not there.
            Erased: The subject was erased, and its key destroyed.
        """
        return self.open_all(entity, record, subject, {field: sealed})[field]

    def open_all(self, entity: str, record: str, subject: str, sealed: Mapping[str, str]) -> dict[str, Any]:
        """Return the values of several fields of one record by field, in less time than one by one.

        Raises:
            Damaged: One cannot be opened.
            Erased: The subject was erased, and its key destroyed.
        """
        self._check_open()
        whose, last = envelope.record_data(record, subject), -1
        opened = {}
        for field, text in sealed.items():
            try:
                blob = envelope.from_text(text)
                if (generation := envelope.generation_of(blob)) != last:  # the fields of a record mostly share one
                    key, last = self._subjects.get(subject, generation), generation
                opened[field] = envelope.open(key, blob, envelope.field_data(self._workspace, entity, field) + whose)
                continue
            except Damaged as problem:
                message = f"{entity} {record}: field {field} cannot be opened: {problem}"
            raise Damaged(message)
        return opened

    def blind_tag(self, entity: str, field: str, normalised: str) -> str:
        """Return the tag to store for exact search on a sealed field; equal values have equal tags."""
        self._check_open()
        return self._index.tag(entity, field, normalised)

    def is_current_tag(self, tag: str) -> bool:
        """Return whether a tag was made by the key that makes them now."""
        self._check_open()
        return self._index.is_current(tag)

    def blind_tags(self, entity: str, field: str, normalised: str) -> list[str]:
        """Return every tag that a record with this value may carry; open and compare what is found by them."""
        self._check_open()
        return self._index.tags(entity, field, normalised)

    def suppression_tags(self, kind: str, normalised: str) -> list[str]:
        """Return what the ledger of erasures keeps of an address, one for each key, the one to record first.

        Args:
            kind: What it is, for example ``email``.
            normalised: The address, in one form for all ways to write it.
        """
        self._check_open()
        value = name_bytes(kind) + prefixed(normalised.encode())
        digests = [(key.id, hmac.digest(key.secret, value, "sha256")) for key in self._keyring.readable("suppress")]
        self._keyring.check_open()  # else another thread may have overwritten them meanwhile
        return [f"s1.{id:08x}.{digest[:SUPPRESSION_BYTES].hex()}" for id, digest in digests]

    def begin_branch(self, actor: str, action: str, reason: str, *, is_copy: bool = True) -> str:
        """Take both logs as they are, though they may lack lines that this user saw, and note in the audit log that.

        The caller holds the lock of the workspace.

        Args:
            actor: Who takes it.
            action: What was done, for example ``restore``.
            reason: Why; sealed in the log.
            is_copy: The logs that they were copied from may be in use, too; else only those are taken that lack lines.

        Returns:
            What is noted: where the log ends, and up to where this user saw it.

        Raises:
            Damaged: A log is not sound in itself.
        """
        seen = max((head.seq for head in self._trust.heads("audit")), default=0)
        for log in (self._erasures, self._audit):
            if is_copy or log.verify():
                log.accept()
        noted = f"{reason}; the audit log ends at line {self.audit.head().seq:,}, {seen:,} were seen"
        self.note(actor, action, noted)
        return noted

    def note(
        self,
        actor: str,
        action: str,
        reason: str | None = None,
        *,
        entity: str = "workspace",
        record: str | None = None,
        subject: str | None = None,
        fields: Collection[str] = (),
        plugin: str | None = None,
    ) -> None:
        """Write into the audit log what is done; it is on disk when this returns. The caller holds the lock.

        Args:
            actor: Who acts.
            action: What is done.
            reason: Why, in clear; it is sealed here.
            entity: The record type.
            record: The id of the record; the workspace, when left out.
            subject: Under whose key the reason is sealed; the workspace's, when left out.
            fields: The names of the fields.
            plugin: The plugin that asks, if one does.

        Raises:
            Damaged: The log is not sound.
            CrmError: The system cannot write it; nothing that was to be noted is done.
            Erased: The subject was erased.
        """
        record, subject, sealed = record or self.workspace_id, subject or self.workspace_id, None
        try:
            if reason is not None:
                self.ensure_subjects({subject})
                sealed = self.seal("audit", "reason", record, subject, reason)
            self.audit.append(
                actor=actor,
                action=action,
                entity=entity,
                record=record,
                subject=subject,
                fields=fields,
                reason=sealed,
                plugin=plugin,
            )
        except OSError as error:
            raise explained(error, self._folder) from error

    def trusted_code(self) -> dict[str, str]:
        """Return the code of the workspace folder that this user trusts: SHA-256 by relative path."""
        return self._trust.trusted_code()

    def trust_code(self, files: Mapping[str, str]) -> None:
        """Trust exactly this code of the workspace folder from now on: SHA-256 by relative path."""
        self._trust.trust_code(files)

    def lock(self, wake: Callable[[], None]) -> None:
        """Drop every key until `reopen`.

        Args:
            wake: Called when somebody needs a key meanwhile; reopens the vault, or raises `Locked`.
        """
        self.close()
        self._wake = wake

    def reopen(self) -> None:
        """Open the keys again after `lock`, with the user's identity.

        Raises:
            Locked: The user has no identity that can be read, or is no member any more.
            Damaged: A key file is not as crmkit wrote it, or an older or foreign one was put in its place.
        """
        workspace = self.workspace_id
        self._open(self._folder, load_identity())
        if self.workspace_id != workspace:
            self.close()
            raise Damaged(f"{self._folder} holds the keys of another workspace than before")

    def close(self) -> None:
        """Drop every key; nothing can be sealed or opened any more."""
        self._closed = True
        self._keyring.wipe()  # first: from here on nothing is derived that would be left
        self._subjects.forget()
        self._index.forget()

    def __repr__(self) -> str:
        return f"<Vault of {self.workspace_id}>"
