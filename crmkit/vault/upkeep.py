"""What changes the keys of an open vault: members, rotation, new data keys and their destruction.

Whoever calls anything here that changes something holds the lock of the workspace. Every change is one new file in the
place of an old one, or a row of them in an order in which every step leaves keys that open everything: a new primary
``wrap`` key comes first, then the data keys are wrapped by it, and only then the old one is destroyed. A process that
dies in between leaves `unfinished`, and `finish`, or whatever is done next, completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from datetime import UTC, datetime

import pyrage
from pyrage.x25519 import Recipient

from crmkit.errors import Damaged, Invalid, Locked
from crmkit.vault import envelope
from crmkit.vault.erasures import Erasures
from crmkit.vault.guarded import Guarded
from crmkit.vault.keyring import MEMBER_KINDS, SEALS, Key, Member
from crmkit.vault.keyring_file import KeyringFile
from crmkit.vault.subjects import SubjectKeys


class Upkeep(Guarded):
    """The keys of a vault, and what changes them.

    Args:
        keyring: The keyring.
        subjects: The data keys.
        erasures: The ledger of erasures.
    """

    def __init__(self, keyring: KeyringFile, subjects: SubjectKeys, erasures: Erasures) -> None:
        self._keyring = keyring
        self._subjects = subjects
        self._erasures = erasures
        self._closed = False
        self._wake: Callable[[], None] | None = None  # opens what was locked

    def _check_open(self) -> None:
        if self._closed and self._wake is not None:
            self._wake()
        if self._closed:
            raise Locked("the vault is closed")

    def refresh(self) -> bool:
        """Take in what other processes did to the files of keys; return whether they did something.

        Raises:
            Locked: This user is no member any more.
            Damaged: A file of keys is not as crmkit wrote it, or an older or foreign one was put in its place.
        """
        self._check_open()
        changed = [self._keyring.refresh(), self._erasures.refresh(), self._subjects.refresh()]
        return any(changed)

    # ------------------------------------------------------------------ what is there

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key of the keyring, destroyed ones included."""
        self._check_open()
        return tuple(self._keyring.current.keys.values())

    @property
    def public_key(self) -> str:
        """The age recipient of the identity that opened the vault."""
        self._check_open()
        return self._keyring.public_key

    @property
    def seal_level(self) -> str:
        """The lowest class of fields that is sealed: ``personal`` or ``sensitive``."""
        return self._keyring.current.seal

    @property
    def may_be_plain(self) -> bool:
        """Whether personal values may lie unsealed in files of the workspace, newer or older ones."""
        return self._keyring.current.was_plain or self.seal_level != "personal"

    @property
    def erasures(self) -> Erasures:
        """The ledger of erasures."""
        self._check_open()
        return self._erasures

    def wrapped_by(self) -> Mapping[int, int]:
        """Return how many data keys each wrap key wraps, by its id."""
        self._check_open()
        return self._subjects.counts()

    def subjects(self) -> Collection[str]:
        """Return the ids of all that have a data key."""
        self._check_open()
        return self._subjects.subjects

    def newest_generation(self, subject: str) -> int:
        """Return the generation of the data key that seals for a subject.

        Raises:
            NotFound: The subject has no data key.
            Erased: It had, and was erased.
        """
        self._check_open()
        return self._subjects.newest_generation(subject)

    def generations(self) -> Iterator[tuple[str, int]]:
        """Yield every subject with each generation of its data key."""
        self._check_open()
        yield from self._subjects.generations()

    def is_old(self, subject: str, sealed: str) -> bool:
        """Return whether a newer data key of its subject should seal this; not where the key of it is gone.

        Raises:
            Damaged: It is no envelope.
        """
        self._check_open()
        return self._subjects.is_old(subject, envelope.generation_of(envelope.from_text(sealed)))

    def is_newest(self, subject: str, sealed: str) -> bool:
        """Return whether the newest data key of its subject sealed this, or it is no envelope at all."""
        try:
            generation = envelope.generation_of(envelope.from_text(sealed))
        except Damaged:
            return True
        return generation >= self.newest_generation(subject)

    # ------------------------------------------------------------------ data keys

    def ensure_subjects(self, subjects: Collection[str]) -> None:
        """Make a data key for every subject that has none, in one append that is on disk when this returns.

        Raises:
            Erased: One of them was erased; nothing is made.
        """
        self._check_open()
        self._subjects.ensure(subjects)

    def destroy(self, subjects: Iterable[str]) -> None:
        """Take away every data key of these subjects, for good: what they sealed, here and in backups, stays dark."""
        self._check_open()
        self._subjects.destroy(subjects)

    def new_generation(self, subjects: Iterable[str] | None = None) -> int:
        """Give subjects, or all of them, a new data key that seals from now on; return its generation."""
        self._check_open()
        return self._subjects.new_generation(subjects)

    def drop_generations(
        self, before: int, subjects: Iterable[str] | None = None, keep: Container[tuple[str, int]] = ()
    ) -> int:
        """Take away data keys of older generations, for good; the newest of a subject always stays.

        Args:
            before: The first generation that stays.
            subjects: Of whom; all when left out.
            keep: Subjects and generations that are still needed.

        Returns:
            How many keys were taken away.
        """
        self._check_open()
        return self._subjects.drop_generations(before, subjects, keep)

    def sweep(self) -> None:
        """Remove what killed writers left of files of keys; whoever is at work has the lock, so they are all dead."""
        self._check_open()
        self._subjects.sweep()

    # ------------------------------------------------------------------ members

    def members(self) -> tuple[Member, ...]:
        """Return who can open the keyring."""
        self._check_open()
        return self._keyring.current.members

    def add_member(self, name: str, public_key: str, kind: str = "member") -> None:
        """Let one more identity open the keyring.

        Args:
            name: How the member is called.
            public_key: The age recipient of the member's identity.
            kind: ``member`` or ``recovery``.

        Raises:
            Invalid: The name is blank or taken, or the public key is none, or is a member's already.
        """
        self.refresh()
        self._keyring.replace(self._keyring.current.with_member(self.new_member(name, public_key, kind)))

    def remove_member(self, name: str) -> None:
        """Shut a member out, and put new keys in the place of those that the member knows.

        What the member copied stays copied. Removing somebody again completes what was cut short.

        Raises:
            Invalid: Nobody is called so, or nobody else could open the keyring then.
        """
        self.refresh()
        self.check_leaving(name)
        self.finish()
        if name in {member.name for member in self.members()}:
            keyring = self._keyring.current.without_member(name)
            self._keyring.replace(keyring.with_new("wrap", "bidx", "audit"))
            self.finish()

    def check_leaving(self, name: str) -> None:
        """Check that a member can be removed.

        Raises:
            Invalid: Nobody is called so, or nobody else could open the keyring then.
        """
        kinds = {member.name: member.kind for member in self.members()}
        if name not in kinds and not self.unfinished:  # else it may be the one whose removal was cut short
            members = ", ".join(each for each, kind in kinds.items() if kind == "member")
            raise Invalid({"name": f"nobody is called so; the members are {members}"})
        if kinds.pop(name, "") == "recovery":
            raise Invalid({"name": "is the recovery key, which a new one replaces: crmkit keys recovery FILE"})
        if "member" not in kinds.values():
            raise Invalid({"name": "is the last member; add another one first"})

    def replace_recovery_key(self, name: str, public_key: str) -> None:
        """Make a public key the one recovery key; the former one opens nothing from now on.

        Raises:
            Invalid: The name or the public key is a member's already, or no public key.
        """
        self.refresh()
        self.finish()
        new, keyring = self.new_recovery_key(name, public_key), self._keyring.current
        for each in [member for member in self.members() if member.kind == "recovery"]:
            keyring = keyring.without_member(each.name).with_new("wrap", "bidx", "audit")
        self._keyring.replace(keyring.with_member(new))
        self.finish()

    def new_recovery_key(self, name: str, public_key: str) -> Member:
        """Return the entry of a recovery key that replaces the former one.

        Raises:
            Invalid: The name or the public key is a member's already, or no public key.
        """
        return _checked(name, public_key, "recovery", [each for each in self.members() if each.kind != "recovery"])

    def new_member(self, name: str, public_key: str, kind: str = "member") -> Member:
        """Return the entry of somebody who is no member yet.

        Raises:
            Invalid: The name is blank or taken, or the public key is none, or is a member's already.
        """
        return _checked(name, public_key, kind, self.members())

    # ------------------------------------------------------------------ rotation

    @property
    def unfinished(self) -> bool:
        """Whether data keys may still be wrapped by an old key, because something was cut short."""
        self._check_open()
        return len(self._keyring.readable("wrap")) > 1

    def finish(self) -> None:
        """Wrap what is still wrapped by an old key, and destroy that; does nothing where all is done."""
        self.refresh()
        if self.unfinished:
            self._subjects.rewrap()
            self._keyring.replace(self._keyring.current.without_active("wrap"))

    def rotate_wrap(self) -> None:
        """Wrap every data key by a new key, and destroy the old one; or complete what was cut short."""
        self.refresh()
        if not self.unfinished:
            self._keyring.replace(self._keyring.current.with_new("wrap"))
        self.finish()

    def rotate_index(self, bits: int | None = None) -> None:
        """Make a new key for exact search; the ones before find what they tagged until `retire_index`.

        Args:
            bits: How long its tags are, see `blind_index.planned_bits`; as long as before where it is left out.
        """
        self.refresh()
        self._keyring.replace(self._keyring.current.with_new("bidx", bits=bits))

    def retire_index(self) -> None:
        """Destroy the old keys for exact search: nothing carries a tag of theirs any more."""
        self.refresh()
        if len(self._keyring.readable("bidx")) > 1:
            self._keyring.replace(self._keyring.current.without_active("bidx"))

    def set_seal_level(self, level: str) -> None:
        """Choose the lowest class of fields that is sealed, for what is written from now on.

        Raises:
            Invalid: There is no such level.
        """
        if level not in SEALS:
            raise Invalid({"seal": f"must be one of {', '.join(SEALS)}"})
        self.refresh()
        if level != self.seal_level:
            self._keyring.replace(self._keyring.current.with_seal(level))

    def all_is_sealed(self) -> None:
        """Note that no personal value lies in the clear any more: from now on one that does was put there."""
        self.refresh()
        self._keyring.replace(self._keyring.current.without_plain())


def _checked(name: str, public_key: str, kind: str, others: Collection[Member]) -> Member:
    """Return the entry of a new member beside others."""
    problems = {}
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        problems["name"] = "must be text, and not blank"
    elif name in {member.name for member in others}:
        problems["name"] = "somebody is called so already"
    if kind not in MEMBER_KINDS:
        problems["kind"] = f"must be one of {', '.join(MEMBER_KINDS)}"
    if not _is_recipient(public_key):  # not repeated: it may be a secret key, given by mistake
        problems["public_key"] = "must be a whole age public key, which begins with age1"
    elif public_key in {member.public_key for member in others}:
        problems["public_key"] = "is a member's already"
    if problems:
        raise Invalid(problems, "member")
    return Member(name, public_key, kind, datetime.now(UTC).isoformat(timespec="seconds"))


def _is_recipient(public_key: object) -> bool:
    try:
        return isinstance(public_key, str) and str(Recipient.from_str(public_key)) == public_key
    except pyrage.RecipientError:
        return False
