"""The published known answers, computed once from the layout alone and once by the vault."""

from __future__ import annotations

import base64
import json
import struct
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from ulid import ULID

from crmkit.vault import envelope, key_records
from crmkit.vault.layout import id_bytes

VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "vault-vectors.json").read_text(encoding="utf-8"))
C1, C2 = VECTORS["c1"], VECTORS["c2"]
READ = {"decimal": Decimal, "bytes": bytes.fromhex, "date": date.fromisoformat, "datetime": datetime.fromisoformat}
READ["int"] = int


def _lp(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _ulid(text: str) -> bytes:
    return ULID.from_str(text).bytes


def _ids(vector: dict[str, Any]) -> str:
    return f"{vector['type']}-{vector['plaintext'][:12]}"


def test_ids_are_the_bytes_of_their_ulid() -> None:
    for text in (C1["workspace"], C1["record"], C1["subject"], "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", str(ULID())):
        assert id_bytes(text) == _ulid(text)


@pytest.mark.parametrize("vector", C1["vectors"], ids=_ids)
def test_c1(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    key, nonce = AESGCM(bytes.fromhex(C1["data_key"])), bytes.fromhex(C1["nonce"])
    head = b"\xc1\x01" + struct.pack(">I", C1["generation"])
    parts = [_ulid(C1["workspace"]), b"core", b"customer", b"name", _ulid(C1["record"]), _ulid(C1["subject"])]
    aad = b"crmkit/field/v1" + b"".join(map(_lp, parts)) + head
    assert aad.hex() == C1["associated_data"]
    blob = head + nonce + key.encrypt(nonce, bytes.fromhex(vector["plaintext"]), aad)
    assert vector["envelope"] == "c1." + base64.urlsafe_b64encode(blob).decode().rstrip("=")

    place = envelope.associated_data(id_bytes(C1["workspace"]), "customer", "name", C1["record"], C1["subject"])
    value = READ.get(vector["type"], lambda value: value)(vector["value"])
    assert envelope.open(key, envelope.from_text(vector["envelope"]), place) == value
    monkeypatch.setattr(envelope.os, "urandom", lambda length: nonce)
    assert envelope.seal(key, C1["generation"], place, value) == vector["envelope"]


def test_c2(monkeypatch: pytest.MonkeyPatch) -> None:
    key, nonce = AESGCM(bytes.fromhex(C2["wrap_key"])), bytes.fromhex(C2["nonce"])
    head = b"\xc2\x01" + struct.pack(">II", C2["wrap_key_id"], C2["generation"])
    aad = b"crmkit/dek/v1" + _lp(_ulid(C2["workspace"])) + _lp(_ulid(C2["subject"])) + _lp(b"core") + head
    assert aad.hex() == C2["associated_data"]
    wrapped = head + nonce + key.encrypt(nonce, bytes.fromhex(C2["data_key"]), aad)
    assert wrapped.hex() == C2["wrapped"]
    assert len(wrapped) == 70

    workspace, subject = id_bytes(C2["workspace"]), id_bytes(C2["subject"])
    data_key = bytes.fromhex(C2["data_key"])
    assert key_records.unwrap(key, workspace, subject, wrapped) == data_key
    monkeypatch.setattr(key_records.os, "urandom", lambda length: nonce)
    made = key_records.wrap(key, C2["wrap_key_id"], workspace, subject, C2["generation"], data_key)
    assert made == wrapped
