"""What a user remembers about a workspace, in an own file that nobody else can write: trust on first use.

An age file does not say who wrote it. So each user pins what was seen once, and refuses a keyring, an audit log or a
list of erasures that has gone back behind it. The same file remembers who was erased, and which code of a workspace
folder the user trusts.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from crmkit.durable import open_file, replace_file
from crmkit.errors import Damaged
from crmkit.vault.identity import PRIVATE_FILE, config_folder, unusable
from crmkit.vault.keyring import Keyring

FORMAT = 1
ADVICE = "; if a backup was restored on purpose, accept it with: crmkit doctor --accept-restored"


@dataclass(frozen=True, slots=True)
class Head:
    """The last line of a log whose lines are chained.

    Attributes:
        seq: Its number; 0 before the first line.
        hash: The SHA-256 of the line, in hex.
    """

    seq: int
    hash: str


class Trust:
    """What this user remembers about one workspace; every call reads ``trust.json`` anew.

    Args:
        workspace_id: The workspace, as text.
    """

    def __init__(self, workspace_id: str) -> None:
        self._workspace_id = workspace_id
        self._path = config_folder() / "trust.json"

    def check_keyring(self, keyring: Keyring) -> None:
        """Compare a keyring with what was seen before, and remember what is new in it.

        Raises:
            Damaged: Its epoch is lower, a known key has other bytes, or a known audit key is missing.
        """
        with self._change() as known:
            if keyring.epoch < known.get("epoch", 0):
                raise Damaged(
                    f"the keyring of workspace {self._workspace_id} is older than the one that you opened before "
                    f"(epoch {keyring.epoch} after {known['epoch']}){ADVICE}"
                )
            for id in _lacking(known, keyring):
                raise Damaged(f"the keyring of workspace {self._workspace_id} lacks audit key {id}{ADVICE}")
            self._remember(known, keyring)

    def accept_keyring(self, keyring: Keyring) -> None:
        """Remember a keyring that was put back on purpose and may be older than the one that was seen before.

        Raises:
            Damaged: A known key has other bytes: this keyring never was one of the workspace.
        """
        with self._change() as known:
            self._remember(known, keyring)
            known["keys"] = {id: pin for id, pin in known["keys"].items() if id not in _lacking(known, keyring)}

    def heads(self, log: str) -> list[Head]:
        """Return the heads of a log that this user holds: one, and one more for each restored backup."""
        return _heads(self._known(self._read()), log)

    def pin_head(self, log: str, head: Head, instead_of: Head | None) -> None:
        """Remember a head of a log.

        Args:
            log: Which log, ``audit`` or ``erasures``.
            head: The head.
            instead_of: The head that it goes on from; None for the first one. Where another process has moved on from
                it meanwhile, nothing is changed.
        """
        with self._change() as known:
            heads = _heads(known, log)
            if instead_of in heads:
                heads[heads.index(instead_of)] = head
            elif not heads:
                heads = [head]
            self._pin(known, log, heads)

    def accept_head(self, log: str, head: Head) -> None:
        """Remember the head of a log that was put back on purpose, beside those that are known.

        The log that it was copied from may still be in use and must stay as well guarded as it was, so a head that is
        known is remembered twice: each of the two goes on from one of them.
        """
        with self._change() as known:
            self._pin(known, log, [*_heads(known, log), head])

    def erased(self) -> dict[str, str]:
        """Return the subjects that this user knows to be erased, and when they were: keys that come back are old."""
        return dict(self._known(self._read()).get("erased", {}))

    def suppressed(self) -> frozenset[str]:
        """Return the tags of addresses that this user knows must not be written to."""
        return frozenset(self._known(self._read()).get("suppressed", ()))

    def remember_erased(
        self, erased: Mapping[str, str], suppressed: Collection[str] = (), allowed: Collection[str] = ()
    ) -> None:
        """Remember what the ledger of erasures says, whatever file of keys is put back later.

        Args:
            erased: Subjects that were erased, and when.
            suppressed: The tags of addresses that must not be written to.
            allowed: Those of addresses that may be written to again.
        """
        if erased or suppressed or allowed:
            with self._change() as known:
                known["erased"] = {**known.get("erased", {}), **erased}
                known["suppressed"] = sorted({*known.get("suppressed", ()), *suppressed}.difference(allowed))

    def trusted_code(self) -> dict[str, str]:
        """Return the files of the workspace folder that this user trusts: SHA-256 by relative path."""
        return dict(self._known(self._read()).get("trusted_code", {}))

    def trust_code(self, files: Mapping[str, str]) -> None:
        """Trust exactly these files of the workspace folder from now on: SHA-256 by relative path."""
        with self._change() as known:
            known["trusted_code"] = dict(files)

    def _remember(self, known: dict[str, Any], keyring: Keyring) -> None:
        """Pin every key of a keyring, unless one that is known has other bytes."""
        keys = known.setdefault("keys", {})
        for key in keyring.keys.values():
            if key.is_destroyed:
                continue  # its pin stays: other bytes under its id are never accepted
            pin = keys.setdefault(str(key.id), {"purpose": key.purpose, "fingerprint": key.fingerprint})
            if pin["fingerprint"] != key.fingerprint:
                raise Damaged(
                    f"key {key.id} in the keyring of workspace {self._workspace_id} is not the one that you opened "
                    "before; it never was one of this workspace: put back a copy of the right one"
                )
        known["epoch"] = keyring.epoch

    def _pin(self, known: dict[str, Any], log: str, heads: list[Head]) -> None:
        known.pop(f"{log}_head", None)  # as the first version wrote it
        known[f"{log}_heads"] = [asdict(head) for head in heads]

    @contextmanager
    def _change(self) -> Iterator[dict[str, Any]]:
        """Hold the file while the entry of the workspace is changed, then save it if it was."""
        try:
            fd = open_file(self._path.with_name("trust.lock"), mode=PRIVATE_FILE)
        except OSError as error:
            raise unusable(self._path, error) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            content = self._read()
            before = json.dumps(content)
            yield self._known(content)
            if json.dumps(content) != before:
                replace_file(self._path, json.dumps(content, indent=1).encode(), PRIVATE_FILE)
        finally:
            os.close(fd)

    def _known(self, content: dict[str, Any]) -> dict[str, Any]:
        known: dict[str, Any] = content["workspaces"].setdefault(self._workspace_id, {})
        return known

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._path.read_bytes())
            if content["format"] == FORMAT and isinstance(self._known(content), dict):
                return content
        except FileNotFoundError:
            return {"format": FORMAT, "workspaces": {}}
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            pass
        raise Damaged(f"{self._path} cannot be read, or is not as crmkit writes it; put back a copy of it")


def _heads(known: Mapping[str, Any], log: str) -> list[Head]:
    pinned = [known[f"{log}_head"]] if f"{log}_head" in known else known.get(f"{log}_heads", [])
    return [Head(**head) for head in pinned]


def _lacking(known: Mapping[str, Any], keyring: Keyring) -> list[str]:
    """Return the audit keys that are known and that a keyring does not have; those are never destroyed."""
    there = {str(key.id) for key in keyring.keys.values() if not key.is_destroyed}
    return [id for id, pin in known.get("keys", {}).items() if pin["purpose"] == "audit" and id not in there]
