"""What a user remembers about a workspace, in an own file that nobody else can write: trust on first use.

An age file does not say who wrote it. So each user pins what was seen once, and refuses a keyring or an audit log
that has gone back behind it. The same file remembers which code of a workspace folder the user trusts.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from crmkit.durable import open_file, replace_file
from crmkit.errors import Damaged
from crmkit.vault.identity import PRIVATE_FILE, config_folder, unusable
from crmkit.vault.keyring import Keyring

FORMAT = 1


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The last line of an audit log.

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
                    f"(epoch {keyring.epoch} after {known['epoch']}){self._advice()}"
                )
            keys = known.setdefault("keys", {})
            for id, pin in keys.items():
                self._check_key(keyring, int(id), pin)
            for key in keyring.keys.values():
                keys[str(key.id)] = {"purpose": key.purpose, "fingerprint": key.fingerprint}
            known["epoch"] = keyring.epoch

    def audit_head(self) -> AuditHead | None:
        """Return the last head of the audit log that this user saw."""
        head = self._known(self._read()).get("audit_head")
        return AuditHead(**head) if head else None

    def pin_audit_head(self, head: AuditHead) -> None:
        """Remember a head of the audit log, unless a later one is known."""
        with self._change() as known:
            if head.seq > known.get("audit_head", {"seq": 0})["seq"]:
                known["audit_head"] = asdict(head)

    def trusted_code(self) -> dict[str, str]:
        """Return the files of the workspace folder that this user trusts: SHA-256 by relative path."""
        return dict(self._known(self._read()).get("trusted_code", {}))

    def trust_code(self, files: Mapping[str, str]) -> None:
        """Trust exactly these files of the workspace folder from now on: SHA-256 by relative path."""
        with self._change() as known:
            known["trusted_code"] = dict(files)

    def _check_key(self, keyring: Keyring, id: int, pin: Mapping[str, str]) -> None:
        key = keyring.keys.get(id)
        if key is None and pin["purpose"] == "audit":
            raise Damaged(f"the keyring of workspace {self._workspace_id} lacks audit key {id}{self._advice()}")
        if key is not None and key.fingerprint != pin["fingerprint"]:
            raise Damaged(
                f"key {id} in the keyring of workspace {self._workspace_id} is not the one that you opened before"
                f"{self._advice()}"
            )

    def _advice(self) -> str:
        return f"; if an older copy was put back on purpose, remove the workspace from {self._path}"

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
