"""The data keys, one per subject, wrapped by the keyring in ``keys/subjects.bin``; `key_records` has its bytes.

A new key is on disk before the first commit that uses it. Keys are taken away, or wrapped anew, by putting a whole new
file in the place of the old one; other processes notice that the last record that they read is no longer where it was,
and read everything again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crmkit.durable import left_over, open_file, replace_file, write_at
from crmkit.errors import Damaged, Erased, NotFound
from crmkit.vault import key_records
from crmkit.vault.erasures import Erasures
from crmkit.vault.guarded import Guarded
from crmkit.vault.key_records import RECORD_LENGTH, packed, unwrap, wrap, wrap_id
from crmkit.vault.keyring import KEY_LENGTH
from crmkit.vault.keyring_file import KeyringFile
from crmkit.vault.layout import Mark, id_bytes, id_text, mark_of

FIRST_GENERATION = 1
OPEN_KEYS = 8_192  # how many opened data keys are kept; each takes about 2.5 kB


class SubjectKeys(Guarded):
    """The data keys of all subjects of a workspace.

    Args:
        path: The file of wrapped keys.
        keyring: What wraps them.
        erasures: Whose keys are gone for good.

    Attributes:
        get: Returns one generation of a subject's data key, by subject and generation; `Damaged` where there is no
            such key, or it does not open, `Erased` where the subject was erased, or a newer key took its place.
    """

    def __init__(self, path: Path, keyring: KeyringFile, erasures: Erasures) -> None:
        self._path = path
        self._keyring = keyring
        self._erasures = erasures
        self._workspace = id_bytes(keyring.workspace_id)
        self._mark: Mark | None = None
        self._reading = Lock()  # threads that look for a key read the file one after the other
        self.get = lru_cache(maxsize=OPEN_KEYS)(self._get)  # opening a data key costs more than opening a field
        self._start_again()
        self.refresh()

    def newest(self, subject: str) -> tuple[int, AESGCM]:
        """Return the data key that seals for this subject, and its generation.

        Raises:
            NotFound: The subject has no data key.
            Erased: It had, and was erased.
        """
        generation = self.newest_generation(subject)
        return generation, self.get(subject, generation)

    def newest_generation(self, subject: str) -> int:
        """Return the generation of the data key that seals for this subject.

        Raises:
            NotFound: The subject has no data key.
            Erased: It had, and was erased.
        """
        id = id_bytes(subject)
        if id not in self._newest:
            self._look_again()
        try:
            return self._newest[id]
        except KeyError:
            raise self._erased(subject) or NotFound(f"there is no data key for {subject}") from None

    def generations(self) -> list[tuple[str, int]]:
        """Return every subject with each generation of its data key."""
        return [(id_text(id), generation) for id, generation in self._wrapped]

    def is_old(self, subject: str, generation: int) -> bool:
        """Return whether a subject has this generation of its data key, and a newer one."""
        id = id_bytes(subject)
        return (id, generation) in self._wrapped and generation < self._newest[id]

    @property
    def subjects(self) -> list[str]:
        """The ids of all that have a key."""
        return [id_text(id) for id in self._newest]

    def counts(self) -> Counter[int]:
        """Return how many data keys each wrap key wraps, by its id."""
        return Counter(wrap_id(wrapped) for wrapped in self._wrapped.values())

    # ------------------------------------------------------------------ the caller holds the lock of the workspace

    def ensure(self, subjects: Collection[str]) -> None:
        """Make a data key for every subject that has none; they are on disk when this returns.

        Raises:
            Erased: One of them was erased; nothing is made.
        """
        wanted = {id_bytes(subject): subject for subject in subjects}
        self.refresh()
        missing = [id for id in wanted if id not in self._newest]
        if missing:
            self._look_again()  # a key that is wrapped by a destroyed one would be lost
        for subject in wanted.values():
            if at := self._erasures.at(subject):  # its key may be there yet, where the erasure was cut short
                raise _was_erased(subject, at)
        if not missing:
            return
        generation = max(self._newest.values(), default=FIRST_GENERATION)  # what is new needs no rotation
        self._append([self._new_record(id, generation) for id in missing])

    def new_generation(self, subjects: Iterable[str] | None = None) -> int:
        """Give subjects, or all of them, a new data key that seals from now on; return its generation."""
        self._look_again()
        ids = list(self._newest) if subjects is None else [id_bytes(subject) for subject in subjects]
        generation = max(self._newest.values(), default=0) + 1
        if ids:
            self._append([self._new_record(id, generation) for id in ids])
        return generation

    def destroy(self, subjects: Iterable[str]) -> None:
        """Take away every key of these subjects, for good; subjects without one are passed over."""
        self.refresh()
        gone = {id_bytes(subject) for subject in subjects} & self._newest.keys()
        if gone:
            self._rewrite({place: wrapped for place, wrapped in self._wrapped.items() if place[0] not in gone})
        self.sweep()

    def drop_generations(
        self, before: int, subjects: Iterable[str] | None = None, keep: Container[tuple[str, int]] = ()
    ) -> int:
        """Take away the keys of older generations, for good; the newest of a subject always stays.

        Args:
            before: The first generation that stays.
            subjects: Of whom; all when left out.
            keep: Subjects and generations that are still needed.

        Returns:
            How many keys were taken away.
        """
        self.refresh()
        whose = self._newest.keys() if subjects is None else {id_bytes(subject) for subject in subjects}
        old = {(id, generation) for id, generation in self._wrapped if generation < before and id in whose}
        gone = {
            (id, generation)
            for id, generation in old
            if generation != self._newest[id] and (id_text(id), generation) not in keep
        }
        if gone:
            self._rewrite({place: wrapped for place, wrapped in self._wrapped.items() if place not in gone})
        self.sweep()
        return len(gone)

    def sweep(self) -> None:
        """Remove what killed writers left in the folder of keys: there may be keys in it that are destroyed now."""
        for path in left_over(self._path.parent):
            path.unlink(missing_ok=True)

    def rewrap(self) -> int:
        """Wrap every data key by the primary wrap key; return how many were wrapped by another one."""
        self._look_again()
        key_id = self._keyring.primary("wrap").id
        old = {place: wrapped for place, wrapped in self._wrapped.items() if wrap_id(wrapped) != key_id}
        if old:
            key = self._wrap_key(key_id)
            fresh = {
                (id, generation): wrap(key, key_id, self._workspace, id, generation, self._unwrap(id, wrapped))
                for (id, generation), wrapped in old.items()
            }
            self._rewrite({**self._wrapped, **fresh})
        return len(old)

    # ------------------------------------------------------------------ reading

    def refresh(self) -> bool:
        """Take in what other processes appended or replaced; return whether there was anything.

        Raises:
            Damaged: The file cannot be read, or a record of it is damaged.
        """
        with self._reading:
            try:
                mark = mark_of(self._path)
                if mark == self._mark and mark is not None:
                    return False
                with self._path.open("rb") as file:
                    if not self._goes_on_in(file):
                        self._start_again()
                    file.seek(self._end)
                    self._take(file.read())
            except OSError as error:
                raise Damaged(f"the data keys {self._path} cannot be read: {error.strerror}") from None
            self._mark = mark
            return True

    def forget(self) -> None:
        """Drop every opened key."""
        self._start_again()
        self._mark = None

    def _start_again(self) -> None:
        """Know nothing, as before the file was read."""
        self._wrapped: dict[tuple[bytes, int], bytes] = {}
        self._newest: dict[bytes, int] = {}
        self._wrapping: dict[int, AESGCM] = {}
        self._end = 0  # of the sound records that were read
        self._last = b""  # the last of them
        self._mark = None
        self.get.cache_clear()

    def _goes_on_in(self, file: BinaryIO) -> bool:
        """Return whether what was read is still there: a new file moves or remakes every record behind a change."""
        file.seek(self._end - len(self._last))
        return file.read(len(self._last)) == self._last

    def _look_again(self) -> None:
        """Take in what other processes did to any file of keys."""
        self._keyring.refresh()
        self._erasures.refresh()
        self.refresh()

    def _get(self, subject: str, generation: int) -> AESGCM:
        id = id_bytes(subject)
        with suppress(Damaged):
            return self._opened(id, generation)
        self._look_again()
        try:
            return self._opened(id, generation)
        except Damaged as problem:
            raise self._erased(subject) or self._dropped(id, generation) or problem from None

    def _opened(self, id: bytes, generation: int) -> AESGCM:
        wrapped = self._wrapped.get((id, generation))
        if wrapped is None:
            raise Damaged(f"data key {generation} of its subject is not in {self._path.name}")
        return AESGCM(self._unwrap(id, wrapped))

    def _unwrap(self, id: bytes, wrapped: bytes) -> bytes:
        return unwrap(self._wrap_key_of(wrapped), self._workspace, id, wrapped)

    def _erased(self, subject: str) -> Erased | None:
        """Return the error for a subject whose keys are gone because it was erased."""
        at = self._erasures.at(subject)
        if at is None or id_bytes(subject) in self._newest:
            return None
        return _was_erased(subject, at)

    def _dropped(self, id: bytes, generation: int) -> Erased | None:
        """Return the error for a key that is gone because a newer one took its place."""
        if (id, generation) in self._wrapped or generation >= self._newest.get(id, FIRST_GENERATION):
            return None
        return Erased(f"data key {generation} of {id_text(id)} was destroyed when a newer one took its place")

    def _wrap_key_of(self, wrapped: bytes) -> AESGCM:
        if wrapped[:2] != key_records.FORMAT_AND_ALGORITHM:
            raise Damaged("the format or algorithm of its data key is not known to this version")
        return self._wrap_key(wrap_id(wrapped))

    def _wrap_key(self, id: int) -> AESGCM:
        if id not in self._wrapping:
            key = AESGCM(self._keyring.find("wrap", id).secret)
            self._keyring.check_open()  # else it may be one of zeros
            self._wrapping[id] = key
        return self._wrapping[id]

    # ------------------------------------------------------------------ writing

    def _new_record(self, id: bytes, generation: int) -> bytes:
        return packed(id + self._wrap(id, generation, os.urandom(KEY_LENGTH)))

    def _wrap(self, id: bytes, generation: int, data_key: bytes) -> bytes:
        key_id = self._keyring.primary("wrap").id
        return wrap(self._wrap_key(key_id), key_id, self._workspace, id, generation, data_key)

    def _append(self, records: list[bytes]) -> None:
        start = self._end
        heading = key_records.heading(len(records)) if len(records) > 1 else b""
        body = b"".join(records)
        fd = open_file(self._path)
        try:
            os.ftruncate(fd, start)  # a torn end was never acknowledged; nobody uses its keys
            if heading:
                write_at(fd, heading, start)
            write_at(fd, body, start + len(heading))
        finally:
            os.close(fd)
        with self._reading:
            self._take(heading + body)

    def _rewrite(self, keys: Mapping[tuple[bytes, int], bytes]) -> None:
        """Put a new file in the place of the old one, without headings: it is whole, or not there at all."""
        replace_file(self._path, b"".join(packed(id + wrapped) for (id, _), wrapped in keys.items()))
        self.refresh()

    def _take(self, data: bytes) -> None:
        """Take in what stands behind the records that were read."""
        start, whole = self._end, len(data) - len(data) % RECORD_LENGTH
        bodies = [key_records.checked(body, crc) for body, crc in key_records.RECORD.iter_unpack(data[:whole])]
        taken = 0
        while taken < len(bodies):
            length = key_records.length_of_append(bodies[taken])
            append = bodies[taken : taken + length]
            if len(append) < length or None in append:
                torn = data[taken * RECORD_LENGTH : whole]
                if any(bodies[taken + length :]) or key_records.has_wrong_bit(
                    torn
                ):  # an append is on disk before the next one
                    raise Damaged(f"{self._path}: record {start // RECORD_LENGTH + bodies.index(None) + 1} is damaged")
                break
            for body in filter(None, append[1:] or append):
                self._take_key(body)
            taken += length
        if taken:
            self._end = start + taken * RECORD_LENGTH
            self._last = data[(taken - 1) * RECORD_LENGTH : taken * RECORD_LENGTH]

    def _take_key(self, body: bytes) -> None:
        id, wrapped = body[:16], body[16:]
        generation = int.from_bytes(wrapped[6:10], "big")
        self._wrapped[id, generation] = wrapped
        self._newest[id] = max(generation, self._newest.get(id, FIRST_GENERATION))


def _was_erased(subject: str, at: str) -> Erased:
    return Erased(f"{subject} was erased on {at[:10]}; nothing can be kept under it any more")
