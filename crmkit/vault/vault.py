"""The vault of a workspace: data keys, sealed fields, exact search on them, and the audit log."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from crmkit.durable import explained, make_folder, replace_file
from crmkit.errors import Damaged, Invalid, Locked, NotFound, Refused
from crmkit.vault import envelope
from crmkit.vault.audit import AuditLog
from crmkit.vault.blind_index import BlindIndex
from crmkit.vault.guarded import Guarded
from crmkit.vault.identity import ensure_identity, load_identity
from crmkit.vault.keyring import Keyring
from crmkit.vault.layout import id_bytes
from crmkit.vault.sealed_files import seal_stream
from crmkit.vault.subjects import SubjectKeys
from crmkit.vault.trust import Trust
from crmkit.vault.values import ALLOWED

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEYRING_FILE = "keyring.age"
SUBJECTS_FILE = "subjects.bin"
AUDIT_FILE = "audit.jsonl"


class Vault(Guarded):
    """The open vault of one workspace; `create` and `unlock` make one.

    It knows entities, fields and ids as plain texts, and nothing of records, stores or plugins.

    Attributes:
        workspace_id: The workspace, a ULID as text.
        audit: The audit log.
    """

    def __init__(self, folder: Path, keyring: Keyring, *, accept: bool = False) -> None:
        self.workspace_id = keyring.workspace_id
        self._trust = Trust(self.workspace_id)
        (self._trust.accept_keyring if accept else self._trust.check_keyring)(keyring)
        self._folder = folder
        self._keyring = keyring
        self._workspace = id_bytes(self.workspace_id)
        self._subjects = SubjectKeys(folder / SUBJECTS_FILE, keyring)
        self._index = BlindIndex(keyring)
        self._audit = AuditLog(folder / AUDIT_FILE, keyring, self._trust)
        self._closed = False
        if not accept and not self._trust.audit_heads():
            self._audit.verify()  # pins its head: a copy that goes on from there will be a branch, and not in its way

    @classmethod
    def create(cls, folder: Path, workspace_id: str) -> Vault:
        """Make the keys of a new workspace, for this user; make an identity if the user has none. Never prompts.

        Args:
            folder: Where the keys go, ``keys/`` of the workspace.
            workspace_id: The id of the workspace, a ULID as text.

        Raises:
            Invalid: The id is no ULID.
            Refused: There is a keyring already.
            Locked: The user's identity cannot be read.
        """
        id_bytes(workspace_id)  # what is no id is refused before anything is made
        if (folder / KEYRING_FILE).exists():
            raise Refused(f"there is a keyring already: {folder / KEYRING_FILE}")
        keyring = Keyring.create(workspace_id, ensure_identity())
        make_folder(folder)
        replace_file(folder / SUBJECTS_FILE, b"")
        replace_file(folder / AUDIT_FILE, b"")
        keyring.write(folder / KEYRING_FILE)  # last: a folder with a keyring is complete
        return cls(folder, keyring)

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
        return cls(folder, Keyring.read(path, load_identity()), accept=accept)

    @property
    def audit(self) -> AuditLog:
        """The audit log."""
        self._check_open()
        return self._audit

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the keys and the audit log."""
        return tuple(self._folder / name for name in (KEYRING_FILE, SUBJECTS_FILE, AUDIT_FILE))

    def seal_stream(self, chunks: Iterable[bytes], file: BinaryIO) -> str:
        """Write bytes into a new age file for every member, and return the SHA-256 of that file."""
        self._check_open()
        return seal_stream(chunks, file, self._keyring.members)

    def ensure_subjects(self, subjects: Collection[str]) -> None:
        """Make a data key for every subject that has none, in one append that is on disk when this returns.

        The caller holds the lock of the workspace.
        """
        self._check_open()
        self._subjects.ensure(subjects)

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
        """
        return self.open_all(entity, record, subject, {field: sealed})[field]

    def open_all(self, entity: str, record: str, subject: str, sealed: Mapping[str, str]) -> dict[str, Any]:
        """Return the values of several fields of one record by field, in less time than one by one.

        Raises:
            Damaged: One cannot be opened.
        """
        self._check_open()
        keys: dict[int, AESGCM] = {}
        opened = {}
        for field, text in sealed.items():
            try:
                blob = envelope.from_text(text)
                generation = envelope.generation_of(blob)
                key = keys.get(generation) or keys.setdefault(generation, self._subjects.get(subject, generation))
                place = envelope.associated_data(self._workspace, entity, field, record, subject)
                opened[field] = envelope.open(key, blob, place)
                continue
            except Damaged as problem:
                message = f"{entity} {record}: field {field} cannot be opened: {problem}"
            raise Damaged(message)
        return opened

    def blind_tag(self, entity: str, field: str, normalised: str) -> str:
        """Return the tag to store for exact search on a sealed field; equal values have equal tags."""
        self._check_open()
        return self._index.tag(entity, field, normalised)

    def blind_tags(self, entity: str, field: str, normalised: str) -> list[str]:
        """Return every tag that a record with this value may carry; open and compare what is found by them."""
        self._check_open()
        return self._index.tags(entity, field, normalised)

    def begin_branch(self, actor: str, action: str, reason: str) -> str:
        """Take the audit log as it is, though it may lack lines that this user saw, and note in it that it was taken.

        The caller holds the lock of the workspace.

        Args:
            actor: Who takes it.
            action: What was done, for example ``restore``.
            reason: Why; sealed in the log.

        Returns:
            What is noted: where the log ends, and up to where this user saw it.

        Raises:
            Damaged: The log is not sound in itself.
        """
        seen = max((head.seq for head in self._trust.audit_heads()), default=0)
        noted = f"{reason}; the audit log ends at line {self.audit.accept().seq:,}, {seen:,} were seen"
        id = self.workspace_id
        self.ensure_subjects({id})
        sealed = self.seal("audit", "reason", id, id, noted)
        self.audit.append(actor=actor, action=action, entity="workspace", record=id, subject=id, reason=sealed)
        return noted

    def trusted_code(self) -> dict[str, str]:
        """Return the code of the workspace folder that this user trusts: SHA-256 by relative path."""
        return self._trust.trusted_code()

    def trust_code(self, files: Mapping[str, str]) -> None:
        """Trust exactly this code of the workspace folder from now on: SHA-256 by relative path."""
        self._trust.trust_code(files)

    def close(self) -> None:
        """Drop every key; nothing can be sealed or opened any more."""
        self._closed = True
        self._subjects.forget()
        self._index.forget()
        self._keyring.wipe()

    def _check_open(self) -> None:
        if self._closed:
            raise Locked("the vault is closed")

    def __repr__(self) -> str:
        return f"<Vault of {self.workspace_id}>"
