"""The vault as a whole: files and their modes, nothing of a value anywhere, nothing shown, nothing left when closed."""

from __future__ import annotations

import base64
import copy
import os
import pickle
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ulid import ULID

from crmkit.errors import Invalid, Locked, Refused
from crmkit.vault import Vault, blind_index, chain, subjects
from crmkit.vault.identity import load_identity
from crmkit.vault.keyring import Keyring


def test_create_and_unlock(vault: Vault, keys: Path, ada: str) -> None:
    again = Vault.unlock(keys)
    assert again.workspace_id == vault.workspace_id
    assert again.open("customer", "name", ada, ada, vault.seal("customer", "name", ada, ada, "Ada")) == "Ada"
    again.trust_code({"plugins/hello.py": "00"})
    assert vault.trusted_code() == {"plugins/hello.py": "00"}


def test_create_never_replaces_keys(vault: Vault, keys: Path) -> None:
    before = (keys / "keyring.age").read_bytes()
    with pytest.raises(Refused, match="there is a keyring already"):
        Vault.create(keys, vault.workspace_id)
    assert (keys / "keyring.age").read_bytes() == before


def test_a_workspace_id_that_is_no_ulid_leaves_nothing(keys: Path) -> None:
    with pytest.raises(Invalid, match="must be a ULID"):
        Vault.create(keys, "acme")
    assert not keys.exists()


def test_key_files_are_for_the_group_whatever_the_umask(keys: Path, new_id: Callable[[], str], config: Path) -> None:
    before = os.umask(0o077)
    try:
        vault, id = Vault.create(keys, new_id()), new_id()
        vault.ensure_subjects([id])
        vault.audit.append(actor="ann", action="reveal", entity="customer", record=id, subject=id)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()}
    assert modes == dict.fromkeys(("keyring.age", "subjects.bin", "audit.jsonl", "erasures.jsonl"), 0o660)
    assert stat.S_IMODE(keys.stat().st_mode) == 0o2770
    private = {path.name: stat.S_IMODE(path.stat().st_mode) for path in config.iterdir()}
    assert private == {"identity.txt": 0o600, "trust.json": 0o600, "trust.lock": 0o600}


# ------------------------------------------------------------------------------------------- canaries


def _forms(value: str) -> Iterator[bytes]:
    """Yield what a value looks like in the encodings that could carry it into a file."""
    for raw in (value.encode(), value.encode("utf-16-le")):
        yield raw
        yield raw.hex().encode()
        for offset in range(3):  # base64 of the value in the middle of something: its whole groups
            start = -offset % 3
            yield base64.b64encode(raw[start : start + (len(raw) - start) // 3 * 3])


def _hits(folder: Path, values: list[str]) -> int:
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return sum(form in content for content in contents for value in values for form in _forms(value))


def test_no_file_holds_a_sealed_value(vault: Vault, tmp_path: Path, new_id: Callable[[], str]) -> None:
    ids = [new_id() for _ in range(20)]
    canaries = [f"canary-{id}-{id[::-1]}" for id in ids]
    vault.ensure_subjects(ids)
    for id, canary in zip(ids, canaries, strict=True):
        sealed = vault.seal("customer", "name", id, id, canary)
        with (tmp_path / "journal").open("a", encoding="utf-8") as journal:
            journal.write(sealed + vault.blind_tag("customer", "name", canary))
        reason = vault.seal("audit", "reason", id, id, canary)
        vault.audit.append(actor="a", action="reveal", entity="customer", record=id, subject=id, reason=reason)
    assert _hits(tmp_path, canaries) == 0
    # the control: each form is found where it stands
    for form in _forms(canaries[0]):
        (tmp_path / "leak").write_bytes(b"xx" + form + b"yy")
        assert _hits(tmp_path, canaries) > 0
    for offset in range(3):
        (tmp_path / "leak").write_bytes(base64.b64encode(b"x" * offset + canaries[0].encode() + b"tail"))
        assert _hits(tmp_path, canaries) > 0


def test_no_key_lies_open_in_the_workspace(vault: Vault, keys: Path, ada: str) -> None:
    keyring = Keyring.read(keys / "keyring.age", load_identity())
    for key in keyring.keys.values():
        for path in keys.iterdir():
            assert bytes(key.secret) not in path.read_bytes()
            assert base64.b64encode(key.secret) not in path.read_bytes()


# ------------------------------------------------------------------------------------------- showing and closing


def test_what_holds_keys_shows_nothing(vault: Vault, ada: str) -> None:
    assert repr(vault) == str(vault) == f"<Vault of {vault.workspace_id}>"
    keyring = vault._keyring
    for holder in (vault.audit, vault._subjects, vault._index, keyring, keyring.primary("wrap")):
        assert repr(holder) == f"<{type(holder).__name__}>"


def test_what_holds_keys_is_not_pickled_or_copied(vault: Vault) -> None:
    keyring = vault._keyring
    for holder in (vault, vault.audit, vault._subjects, vault._index, keyring, keyring.primary("wrap")):
        for carry in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="holds keys: it cannot be pickled or copied"):
                carry(holder)


def test_a_closed_vault_is_locked(vault: Vault, ada: str) -> None:
    sealed, keyring = vault.seal("customer", "name", ada, ada, "Ada"), vault._keyring.current
    vault.close()
    vault.close()
    for use in (
        lambda: vault.open("customer", "name", ada, ada, sealed),
        lambda: vault.seal("customer", "name", ada, ada, "Ada"),
        lambda: vault.ensure_subjects([ada]),
        lambda: vault.blind_tag("customer", "iban", "x"),
        lambda: vault.blind_tags("customer", "iban", "x"),
        lambda: vault.audit,
    ):
        with pytest.raises(Locked, match="the vault is closed"):
            use()
    assert {bytes(key.secret) for key in keyring.keys.values()} == {bytes(32)}


# ------------------------------------------------------------------------------------------- exact search


def test_blind_tags_are_equal_for_equal_values_only_in_one_field(vault: Vault, keys: Path) -> None:
    tag = vault.blind_tag("customer", "iban", "GB33BUKB20201555555555")
    assert Vault.unlock(keys).blind_tag("customer", "iban", "GB33BUKB20201555555555") == tag
    assert vault.blind_tags("customer", "iban", "GB33BUKB20201555555555") == [tag]
    values = [f"GB{number:020}" for number in range(64)]
    rows = [
        [vault.blind_tag(entity, field, value)[-3:] for value in values]
        for entity, field in (("customer", "iban"), ("customer", "tax_id"), ("supplier", "iban"))
    ]
    assert len({tuple(row) for row in rows}) == 3


def test_blind_tags_differ_between_workspaces(vault: Vault, tmp_path: Path, new_id: Callable[[], str]) -> None:
    other = Vault.create(tmp_path / "other", new_id())
    values = [f"GB{number:020}" for number in range(16)]
    assert [vault.blind_tag("c", "iban", v) for v in values] != [other.blind_tag("c", "iban", v) for v in values]


def test_a_blind_tag_is_ten_bits_that_spread(vault: Vault) -> None:
    tags = [vault.blind_tag("customer", "iban", f"GB{number:020}") for number in range(8_192)]
    assert all(tag.startswith("b1.00000002.") and len(tag) == 15 for tag in tags)
    counts = [tags.count(tag) for tag in set(tags)]
    assert len(counts) > 1_000  # of 1,024: nearly all are expected, each about 8 times
    assert max(counts) < 32


# ------------------------------------------------------------------------------------------- keys that are overwritten


def test_nothing_is_made_with_a_key_that_is_overwritten_meanwhile(
    keys: Path, vault: Vault, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a thread that locks the workspace: what was made of zeros is thrown away."""
    entry = {"actor": "ann", "action": "reveal", "entity": "customer", "record": ada, "subject": ada}
    vault.audit.append(**entry)
    made: dict[str, tuple[object, str, Callable[[Vault], object]]] = {
        "a line": (chain.hmac, "digest", lambda each: each.audit.append(**entry)),
        "a check": (chain.hmac, "digest", lambda each: each.audit.verify()),
        "a tag": (blind_index, "HKDF", lambda each: each.blind_tag("customer", "iban", "GB33")),
        "a tag of an address": (chain.hmac, "digest", lambda each: each.suppression_tags("email", "ada@example.com")),
        "a data key": (subjects, "AESGCM", lambda each: each.ensure_subjects([str(ULID())])),
    }
    before = {path: path.read_bytes() for path in keys.iterdir()}
    for what, (module, name, make) in made.items():
        each, real = Vault.unlock(keys), getattr(module, name)
        held = each._keyring

        def beside_a_lock(*given: Any, real: Any = real, held: Any = held, **named: Any) -> Any:
            held.wipe()
            return real(*given, **named)

        with monkeypatch.context() as locking, pytest.raises(Locked, match="the vault is closed"):
            locking.setattr(module, name, beside_a_lock)
            make(each)
            pytest.fail(f"{what} was made")
        for use in (held.primary, held.readable, lambda purpose, held=held: held.find(purpose, 3)):
            with pytest.raises(Locked):
                use("audit")
    assert {path: path.read_bytes() for path in keys.iterdir()} == before
    assert vault.audit.verify() == []
