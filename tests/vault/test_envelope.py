"""C1: every type comes back, lengths are hidden in buckets, and nothing opens that was moved or changed."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crmkit.errors import Damaged, Invalid
from crmkit.vault import Vault, envelope
from crmkit.vault.layout import id_bytes

SCALE = float(os.environ.get("CRMKIT_TEST_SCALE", "1"))
SEED = 20261122
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
values = st.one_of(
    st.none(),
    text,
    st.integers(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.lists(json_values, max_size=3),
    st.dictionaries(text, json_values, max_size=3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(max_size=600),
    st.booleans(),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
)


@given(value=values)
@settings(
    max_examples=int(300 * max(SCALE, 1)), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_every_value_comes_back_equal_and_of_its_type(vault: Vault, ada: str, value: object) -> None:
    opened = vault.open("customer", "field", ada, ada, vault.seal("customer", "field", ada, ada, value))
    assert opened == value
    assert type(opened) is type(value)
    assert str(opened) == str(value)  # Decimal("1.20") is not Decimal("1.2"), and -0.0 is not 0.0


class _Stage(StrEnum):
    LEAD = "lead"


class _Rank(IntEnum):
    FIRST = 1


def test_subclasses_are_sealed_as_their_base(vault: Vault, ada: str) -> None:
    for value, base in ((_Stage.LEAD, "lead"), (_Rank.FIRST, 1)):
        opened = vault.open("customer", "stage", ada, ada, vault.seal("customer", "stage", ada, ada, value))
        assert opened == base
        assert type(opened) is type(base)


def test_instants_are_kept_in_utc(vault: Vault, ada: str) -> None:
    noon = datetime(2026, 11, 1, 12, tzinfo=timezone(timedelta(hours=1)))
    opened = vault.open("customer", "at", ada, ada, vault.seal("customer", "at", ada, ada, noon))
    assert opened == noon
    assert opened.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, (1, 2), math.nan, math.inf, Decimal("NaN"), datetime(2026, 11, 1), "\ud800", {"k": object()}],
    ids=["object", "set", "tuple", "nan", "infinity", "decimal nan", "naive instant", "surrogate", "object inside"],
)
def test_what_has_no_exact_form_is_refused(vault: Vault, ada: str, value: object) -> None:
    with pytest.raises(Invalid, match="note: cannot be sealed; allowed is None, str") as caught:
        vault.seal("customer", "note", ada, ada, value)
    assert list(caught.value.problems) == ["note"]
    assert caught.value.__context__ is None


def test_a_lying_length_or_type_inside_is_damage() -> None:
    key, place = AESGCM(bytes(32)), b"place"
    plains = [
        b"\x01\xff\xff\xff\xff" + bytes(11),
        b"\x01\x00\x00\x00\x01" + b"ab" + bytes(9),
        b"\x01\x00\x00\x00\x01a" + bytes(26),
        b"\x09" + bytes(15),
        b"\x00\x00\x00\x00\x01a" + bytes(10),
        b"\x02\x00\x00\x00\x01x" + bytes(10),
        b"\x06\x00\x00\x00\x01\x02" + bytes(10),
        b"\x07\x00\x00\x00\x01x" + bytes(10),
        b"\x03\x00\x00\x00\x01x" + bytes(10),
        b"\x04\x00\x00\x00\x01{" + bytes(10),
        b"\x01\x00\x00\x00\x01\xff" + bytes(10),
        b"",
    ]
    for plain in plains:
        head = envelope.header(1)
        blob = head + bytes(12) + key.encrypt(bytes(12), plain, place + head)
        with pytest.raises(Damaged):
            envelope.open(key, blob, place)


def test_lengths_are_padded_to_buckets() -> None:
    for length in (1, 15, 16):
        assert envelope.padded_length(length) == 16
    for length, bucket in ((17, 32), (33, 64), (65, 128), (129, 256), (256, 256), (257, 512), (512, 512), (513, 768)):
        assert envelope.padded_length(length) == bucket
    key = AESGCM(bytes(32))
    sizes = {n: len(envelope.from_text(envelope.seal(key, 1, b"", "x" * n))) for n in range(700)}
    assert all(size == 34 + envelope.padded_length(5 + n) for n, size in sizes.items())
    assert len(set(sizes.values())) == 7


# ---------------------------------------------------------------------------------------------- moved and changed


def _moves(rng: random.Random, place: tuple[bytes, str, str, str, str], others: list[str]) -> Iterator[tuple[Any, ...]]:
    """Yield places that differ from `place` in one part."""
    while True:
        part = rng.randrange(5)
        other = rng.choice(others)
        replaced = [id_bytes(other), "deal", rng.choice(["mail", "namex", "Name", "nam"]), other, other][part]
        yield (*place[:part], replaced, *place[part + 1 :])


def _accepted_moves(rounds: int, new_id: Callable[[], str]) -> int:
    rng = random.Random(SEED)
    key, record = AESGCM(rng.randbytes(32)), new_id()
    place = (id_bytes(new_id()), "customer", "name", record, record)
    others = [new_id() for _ in range(20)]
    blob = envelope.from_text(envelope.seal(key, 1, envelope.associated_data(*place), "Ada Lovelace"))
    assert envelope.open(key, blob, envelope.associated_data(*place)) == "Ada Lovelace"
    accepted = 0
    for _, moved in zip(range(rounds), _moves(rng, place, others), strict=False):
        try:
            envelope.open(key, blob, envelope.associated_data(*moved))
            accepted += 1
        except Damaged:
            pass
    return accepted


@pytest.mark.proof
def test_a_moved_envelope_never_opens(new_id: Callable[[], str]) -> None:
    assert _accepted_moves(int(5_000 * SCALE), new_id) == 0


def test_control_without_associated_data_every_move_is_accepted(
    new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "associated_data", lambda *place: b"")
    assert _accepted_moves(200, new_id) == 200


def _changed(rng: random.Random, sealed: str) -> str:
    """Return the envelope with one thing changed: a bit, a character, the end, the header."""
    blob = bytearray(envelope.from_text(sealed))
    kind = rng.randrange(5)
    if kind == 0:
        blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del blob[rng.randrange(len(blob)) :]
    elif kind == 2:
        blob[:6] = rng.choice([b"\xc1\x02", b"\xc2\x01", b"\x80\x01", b"\xc1\x01"]) + rng.randbytes(4)
    elif kind == 3:
        blob += rng.randbytes(rng.randrange(1, 32))
    else:  # one character of the text, spare bits of the last one included
        at = rng.randrange(3, len(sealed))
        return sealed[:at] + rng.choice(ALPHABET.replace(sealed[at], "") + "=\n +/é") + sealed[at + 1 :]
    return envelope.to_text(bytes(blob))


def _accepted_changes(key: AESGCM, rounds: int) -> int:
    rng = random.Random(SEED)
    accepted = 0
    for _ in range(rounds):
        sealed = envelope.seal(key, 1, b"place", "Ada Lovelace, " * rng.randrange(4))
        try:
            envelope.open(key, envelope.from_text(_changed(rng, sealed)), b"place")
            accepted += 1
        except Damaged:
            pass
    return accepted


@pytest.mark.proof
def test_a_changed_envelope_never_opens() -> None:
    assert _accepted_changes(AESGCM(bytes(range(32))), int(10_000 * SCALE)) == 0


class _NoTag:
    """AES in counter mode and a tag that nobody checks: the shape of AESGCM without its promise."""

    def encrypt(self, nonce: bytes, data: bytes, _: bytes) -> bytes:
        return self._mask(nonce, data) + bytes(16)

    def decrypt(self, nonce: bytes, data: bytes, _: bytes) -> bytes:
        return self._mask(nonce, data[:-16])

    def _mask(self, nonce: bytes, data: bytes) -> bytes:
        return Cipher(AES(bytes(32)), CTR(nonce + bytes(4))).encryptor().update(data)


def test_control_without_a_tag_changes_are_accepted() -> None:
    assert _accepted_changes(_NoTag(), 1_000) > 50  # type: ignore[arg-type]


def test_every_spare_bit_of_the_text_is_refused() -> None:
    sealed = envelope.seal(AESGCM(bytes(32)), 1, b"", "Ada")
    blob = envelope.from_text(sealed)
    variants = [sealed[:-1] + character for character in ALPHABET if character != sealed[-1]]
    same = [v for v in variants if envelope.a2b_base64(v[3:].replace("-", "+").replace("_", "/") + "==") == blob]
    assert same  # a decoder that is content with the bytes takes these for the same envelope
    for variant in variants:
        with pytest.raises(Damaged):
            envelope.open(AESGCM(bytes(32)), envelope.from_text(variant), b"")


@pytest.mark.parametrize("sealed", [None, 7, "", "c1.", "c1.AA", "c2.wQEA", "Ada Lovelace", "c1.é", date(2026, 1, 1)])
def test_what_is_no_envelope_is_damage(vault: Vault, ada: str, sealed: Any) -> None:
    with pytest.raises(Damaged, match=f"^customer {ada}: field name cannot be opened: it is no envelope|not known"):
        vault.open("customer", "name", ada, ada, sealed)


def test_an_envelope_of_another_record_or_subject_is_damage(vault: Vault, ada: str, new_id: Callable[[], str]) -> None:
    other = new_id()
    vault.ensure_subjects([other])
    sealed = vault.seal("customer", "name", ada, ada, "Ada Lovelace")
    for place in (("customer", "name", other, ada), ("customer", "name", ada, other), ("deal", "name", ada, ada)):
        with pytest.raises(Damaged, match="cannot be opened") as caught:
            vault.open(*place, sealed)
        assert "Ada" not in str(caught.value)
        assert caught.value.__context__ is None
