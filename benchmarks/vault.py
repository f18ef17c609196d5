"""Sealing and opening fields against bare AES-GCM calls, opening 100,000 customers, and unlocking."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from ulid import ULID

from benchmarks._scratch import scratch
from benchmarks._sizes import scaled
from benchmarks._timing import once

CUSTOMERS = scaled(100_000)
FIELDS = {
    "name": "Ada Lovelace",
    "email": "ada.lovelace@example.org",
    "phone": "+442079460958",
    "street": "12 St James's Square",
    "postcode": "SW1Y 4JH",
    "city": "London",
}


def run() -> dict[str, Any]:
    """Measure in a folder and with an identity of its own; times are minima, in the unit that the key names."""
    with scratch() as folder:
        return _measure(folder / "keys")


def _measure(folder: Path) -> dict[str, Any]:
    from crmkit.vault import Vault

    vault = Vault.create(folder, str(ULID()))
    results = _one_field(vault)
    ids = [str(ULID()) for _ in range(CUSTOMERS)]
    results["new_keys_100k_s"] = once(lambda: vault.ensure_subjects(ids))
    rows: list[dict[str, str]] = []
    results["seal_100k_customers_6_fields_s"] = once(
        lambda: rows.extend({f: vault.seal("customer", f, id, id, v) for f, v in FIELDS.items()} for id in ids)
    )
    results["unlock_with_100k_keys_s"] = once(lambda: Vault.unlock(folder))
    fresh = Vault.unlock(folder)
    results["open_100k_customers_6_fields_s"] = once(
        lambda: [[fresh.open("customer", f, id, id, s) for f, s in row.items()] for id, row in zip(ids, rows)]
    )
    return {name: round(value, 3) for name, value in results.items()}


def _one_field(vault: Any) -> dict[str, Any]:
    id = str(ULID())
    vault.ensure_subjects([id])
    value = FIELDS["email"]
    sealed = vault.seal("customer", "email", id, id, value)
    key, data, place = AESGCM(os.urandom(32)), bytes(32), bytes(110)
    nonce = os.urandom(12)
    closed = key.encrypt(nonce, data, place)
    seal, bare_seal = _interleaved(
        lambda: vault.seal("customer", "email", id, id, value), lambda: key.encrypt(os.urandom(12), data, place)
    )
    opened, bare_open = _interleaved(
        lambda: vault.open("customer", "email", id, id, sealed), lambda: key.decrypt(nonce, closed, place)
    )
    tag, _ = _interleaved(lambda: vault.blind_tag("customer", "iban", value), lambda: None)
    return {
        "seal_us": seal,
        "seal_to_bare_aesgcm": round(seal / bare_seal, 2),
        "open_us": opened,
        "open_to_bare_aesgcm": round(opened / bare_open, 2),
        "blind_tag_us": tag,
    }


def _interleaved(one: Callable[[], object], two: Callable[[], object]) -> tuple[float, float]:
    """Return the best of 40 short batches of each, in microseconds a call, taken in turn on the same machine."""
    best = [float("inf"), float("inf")]
    for _ in range(40):
        for which, call in enumerate((one, two)):
            started = time.perf_counter()
            for _ in range(1_000):
                call()
            best[which] = min(best[which], (time.perf_counter() - started) * 1_000)
    return round(best[0], 2), round(best[1], 2)
