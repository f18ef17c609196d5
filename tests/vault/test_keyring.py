"""The keyring is a plain age file of the members, and what a user saw of it once cannot be taken back."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest
from pyrage.x25519 import Identity

from crmkit.errors import Damaged, Locked, NotFound
from crmkit.vault import Vault
from crmkit.vault.identity import load_identity
from crmkit.vault.keyring import PURPOSES, Key, Keyring
from crmkit.vault.trust import Head, Trust


def _payload(keys: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(pyrage.decrypt((keys / "keyring.age").read_bytes(), [load_identity()]))
    return content


def _forge(keys: Path, payload: object) -> None:
    """Write a keyring as anybody can who knows the public key of a member."""
    recipient = load_identity().to_public()
    (keys / "keyring.age").write_bytes(pyrage.encrypt(json.dumps(payload).encode(), [recipient]))


def test_the_payload_is_as_documented(vault: Vault, keys: Path) -> None:
    payload = _payload(keys)
    assert list(payload) == ["ws", "compartment", "epoch", "seal", "was_plain", "members", "keys"]
    assert (payload["ws"], payload["compartment"], payload["epoch"]) == (vault.workspace_id, "core", 1)
    assert [member["public_key"] for member in payload["members"]] == [str(load_identity().to_public())]
    assert [key["purpose"] for key in payload["keys"]] == list(PURPOSES)
    assert {key["status"] for key in payload["keys"]} == {"primary"}
    assert len({key["id"] for key in payload["keys"]} | {key["bytes"] for key in payload["keys"]}) == 10


def test_the_stock_age_command_opens_it(vault: Vault, keys: Path, config: Path) -> None:
    age = shutil.which("age")
    if age is None:
        assert not os.environ.get("CI"), "the age command is missing in CI"
        pytest.skip("the age command is not installed")
    command = [age, "-d", "-i", str(config / "identity.txt"), str(keys / "keyring.age")]
    opened = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    assert json.loads(opened) == _payload(keys)


def test_who_is_no_member_is_told_what_to_do(vault: Vault, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = Identity.generate()
    monkeypatch.setenv("CRMKIT_IDENTITY", str(stranger))
    with pytest.raises(
        Locked, match=r"you are not a member of this workspace: .*; let a member run crmkit members add"
    ) as caught:
        Vault.unlock(keys)
    assert str(stranger.to_public()) in str(caught.value)
    assert str(stranger) not in str(caught.value)


def test_no_keyring_is_not_found(tmp_path: Path, config: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no keyring .*nowhere/keyring\.age"):
        Vault.unlock(tmp_path / "nowhere")
    assert not (config / "identity.txt").exists()


def test_a_cut_or_changed_file_is_damage(vault: Vault, keys: Path) -> None:
    whole = (keys / "keyring.age").read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for content in (b"", b"hello", whole[:100], whole[:-1], bytes(flipped), whole + b"x"):
        (keys / "keyring.age").write_bytes(content)
        with pytest.raises(Damaged, match="is no whole age file"):
            Vault.unlock(keys)


@pytest.mark.parametrize(
    "change",
    [
        lambda payload: payload.pop("keys"),
        lambda payload: payload.update(ws="acme"),
        lambda payload: payload.update(ws=None),
        lambda payload: payload.update(compartment="hr"),
        lambda payload: payload.update(epoch="first"),
        lambda payload: payload["keys"][0].update(bytes="AAAA"),
        lambda payload: payload["keys"][0].update(id=0),
        lambda payload: payload["keys"][0].update(id=payload["keys"][1]["id"]),
        lambda payload: payload["keys"][0].update(purpose="other"),
        lambda payload: payload["members"].append("ann"),
    ],
)
def test_a_payload_of_another_shape_is_damage(vault: Vault, keys: Path, change: Callable[[Any], object]) -> None:
    payload = _payload(keys)
    change(payload)
    _forge(keys, payload)
    with pytest.raises(Damaged, match="holds no keyring as crmkit writes it") as caught:
        Vault.unlock(keys)
    assert caught.value.__cause__ is None


# ------------------------------------------------------------------------------------------------------- pins


def _older(payload: dict[str, Any]) -> None:
    payload["epoch"] -= 1


def _foreign_bytes(payload: dict[str, Any]) -> None:
    payload["keys"][0]["bytes"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def _other_purpose(payload: dict[str, Any]) -> None:
    payload["keys"][0]["purpose"] = "files"


def _no_audit_key(payload: dict[str, Any]) -> None:
    payload["keys"] = [key for key in payload["keys"] if key["purpose"] != "audit"]


ATTACKS = [
    (_older, "is older than the one that you opened before"),
    (_foreign_bytes, "is not the one that you opened before"),
    (_other_purpose, "is not the one that you opened before"),
    (_no_audit_key, "lacks audit key 3"),
]


@pytest.mark.parametrize(("attack", "message"), ATTACKS)
def test_a_keyring_behind_what_was_seen_is_refused(
    vault: Vault, keys: Path, attack: Callable[[Any], None], message: str
) -> None:
    payload = _payload(keys)
    payload["epoch"] = 2
    _forge(keys, payload)
    Vault.unlock(keys)  # a rising epoch is what a new member or key brings
    attack(payload)
    _forge(keys, payload)
    with pytest.raises(Damaged, match=message) as caught:
        Vault.unlock(keys)
    assert ("crmkit doctor --accept-restored" in str(caught.value)) == (attack in (_older, _no_audit_key))


@pytest.mark.parametrize(("attack", "message"), ATTACKS)
def test_control_without_pins_it_is_accepted(
    vault: Vault, keys: Path, monkeypatch: pytest.MonkeyPatch, attack: Callable[[Any], None], message: str
) -> None:
    monkeypatch.setattr(Trust, "check_keyring", lambda self, keyring: None)
    payload = _payload(keys)
    attack(payload)
    _forge(keys, payload)
    Vault.unlock(keys)


def test_a_destroyed_wrap_key_may_be_missing(vault: Vault, keys: Path) -> None:
    payload = _payload(keys)
    payload["keys"] = [key for key in payload["keys"] if key["purpose"] != "files"]
    _forge(keys, payload)
    Vault.unlock(keys)


# ------------------------------------------------------------------------------------------------- trust.json


def test_trust_is_kept_by_workspace_and_private(config: Path, new_id: Callable[[], str]) -> None:
    one, two = Trust(new_id()), Trust(new_id())
    one.trust_code({"plugins/a.py": "00"})
    two.trust_code({"plugins/b.py": "11"})
    one.trust_code({"plugins/a.py": "22"})
    assert one.trusted_code() == {"plugins/a.py": "22"}
    assert two.trusted_code() == {"plugins/b.py": "11"}
    assert one.heads("audit") == []
    assert stat.S_IMODE((config / "trust.json").stat().st_mode) == 0o600


def test_the_pinned_head_never_goes_back(new_id: Callable[[], str]) -> None:
    trust = Trust(new_id())
    trust.pin_head("audit", Head(6, "bb"), None)
    trust.pin_head("audit", Head(7, "aa"), Head(6, "bb"))
    trust.pin_head("audit", Head(6, "bb"), None)  # of a process that did not see the other one
    trust.pin_head("audit", Head(7, "cc"), Head(6, "bb"))
    assert trust.heads("audit") == [Head(7, "aa")]


def test_a_trust_file_that_cannot_be_locked_is_locked(vault: Vault, keys: Path, config: Path) -> None:
    (config / "trust.lock").unlink()
    (config / "trust.lock").mkdir()
    with pytest.raises(Locked, match=r"trust\.json cannot be written: Is a directory"):
        Vault.unlock(keys)


def test_opening_again_does_not_write(vault: Vault, keys: Path, config: Path) -> None:
    before = (config / "trust.json").stat()
    Vault.unlock(keys)
    assert (config / "trust.json").stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2, "workspaces": {}}', '{"format": 1, "workspaces": 3}']
)
def test_a_trust_file_of_another_shape_is_damage(vault: Vault, keys: Path, config: Path, content: str) -> None:
    (config / "trust.json").write_text(content, encoding="utf-8")
    with pytest.raises(Damaged, match=r"trust\.json cannot be read, or is not as crmkit writes it"):
        Vault.unlock(keys)
    assert (config / "trust.json").read_text(encoding="utf-8") == content


# ------------------------------------------------------------------------------------------------- several keys


def test_keys_are_found_by_purpose_and_id(new_id: Callable[[], str]) -> None:
    keyring = Keyring.create(new_id(), Identity.generate())
    old = keyring.primary("bidx")
    newer = Key(9, "bidx", "primary", old.created, bytearray(b"n" * 32))
    retired = Key(10, "bidx", "retired", old.created, bytearray(b"r" * 32))
    keys = {**keyring.keys, old.id: dataclasses.replace(old, status="active"), 9: newer, 10: retired}
    keyring = dataclasses.replace(keyring, keys=keys)
    assert keyring.primary("bidx") is newer
    assert [key.id for key in keyring.readable("bidx")] == [9, old.id]
    for purpose, id in (("wrap", 9), ("bidx", 99)):
        with pytest.raises(Damaged, match=f"the keyring has no {purpose} key {id}"):
            keyring.find(purpose, id)


def test_wiping_overwrites_every_key(new_id: Callable[[], str]) -> None:
    keyring = Keyring.create(new_id(), Identity.generate())
    keyring.wipe()
    assert {bytes(key.secret) for key in keyring.keys.values()} == {bytes(32)}


@pytest.mark.parametrize("is_open", [True, False])
def test_a_keyring_that_is_replaced_while_somebody_reads_is_not_older(
    vault: Vault, keys: Path, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process replaces it and pins the new one, between what is read here of the two."""
    other, read, begun = Vault.unlock(keys), Keyring.read.__func__, list[bool]()  # type: ignore[attr-defined]
    other.rotate_wrap()
    first = (keys / "keyring.age").read_bytes()

    def beside_a_writer(_: type[Keyring], path: Path, identity: Identity) -> Keyring:
        found: Keyring = read(Keyring, path, identity)
        if not begun:
            begun.append(True)
            other.rotate_wrap()
        return found

    with monkeypatch.context() as racing:
        racing.setattr(Keyring, "read", classmethod(beside_a_writer))
        vault.refresh() if is_open else Vault.unlock(keys)
    assert begun
    (keys / "keyring.age").write_bytes(first)
    with pytest.raises(Damaged, match="older than the one that you opened before"):
        Vault.unlock(keys)
