"""Sealing and opening fields against bare AES-GCM calls, 100,000 customers with their keys, and what a save pays.

A customer is opened as the store opens one: with a key that has to be unwrapped first, and all six fields at once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from ulid import ULID

from benchmarks._scratch import scratch
from benchmarks._sizes import scaled
from benchmarks._timing import mean_cpu, once

CUSTOMERS = scaled(100_000)
BATCHES = 20  # in which customers are opened, in turn with bare calls
FIELDS = {
    "name": "Ada Lovelace",
    "email": "ada.lovelace@example.org",
    "phone": "+442079460958",
    "street": "12 St James's Square",
    "postcode": "SW1Y 4JH",
    "city": "London",
}
PERSONAL, PLAIN = ("street", "postcode", "city"), ("region", "source", "language")
SPEED = ("openssl", "speed", "-mr", "-seconds", "1", "-bytes", "64", "-evp", "aes-256-gcm")


def run() -> dict[str, Any]:
    """Measure in a folder and with an identity of its own; times are minima, in the unit that the key names."""
    with scratch() as folder:
        results = _measure(folder / "keys") | _saves(folder / "crm") | _against_openssl()
    return {name: round(value, 3) for name, value in results.items()}


def _measure(folder: Path) -> dict[str, float]:
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
    opening = partial(_open, fresh, iter(zip(ids, rows, strict=True)))
    bare = partial(_open_bare, len(FIELDS))
    size = CUSTOMERS // BATCHES
    batches = [(once(partial(opening, size)), once(partial(bare, size))) for _ in range(BATCHES)]
    results["open_100k_customers_6_fields_s"] = min(ours for ours, _ in batches) * BATCHES
    results["open_customer_to_bare_aesgcm"] = min(ours for ours, _ in batches) / min(theirs for _, theirs in batches)
    results["rewrap_100k_keys_s"] = once(fresh.rotate_wrap)
    return results


def _open(vault: Any, customers: Any, number: int) -> None:
    for _ in range(number):
        id, sealed = next(customers)
        vault.open_all("customer", id, id, sealed)


def _open_bare(fields: int, number: int) -> None:
    """Do what is left when everything but AES-GCM is taken away: a new key and so many fields for each customer."""
    secret, nonce, place = os.urandom(32), os.urandom(12), bytes(110)
    closed = AESGCM(secret).encrypt(nonce, bytes(32), place)
    for _ in range(number):
        key = AESGCM(secret)
        for _ in range(fields + 1):  # the wrapped key is one more
            key.decrypt(nonce, closed, place)


def _one_field(vault: Any) -> dict[str, float]:
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
        "seal_to_bare_aesgcm": seal / bare_seal,
        "open_us": opened,
        "open_to_bare_aesgcm": opened / bare_open,
        "blind_tag_us": tag,
    }


def _saves(folder: Path) -> dict[str, float]:
    """Compare the CPU time of saving three personal fields and three plain ones, in turn and without the disk."""
    import crmkit

    with mock.patch.object(os, "fdatasync", return_value=None), crmkit.create(folder) as crm:
        id = crm.customers.add(name="Ada Lovelace", **dict.fromkeys((*PERSONAL, *PLAIN), "Town 0")).id
        numbers = count(1)

        def save(fields: tuple[str, ...]) -> None:
            crm.customers.update(id, **dict.fromkeys(fields, f"Town {next(numbers)}"))

        best = [min(times) for times in zip(*(_both(save) for _ in range(20)), strict=True)]
    return {"sealed_write_us_a_field": (best[0] - best[1]) * 1e6 / len(PERSONAL)}


def _both(save: Callable[[tuple[str, ...]], None]) -> tuple[float, float]:
    return mean_cpu(lambda: save(PERSONAL), 50), mean_cpu(lambda: save(PLAIN), 50)


def _against_openssl() -> dict[str, float]:
    """Compare bare calls from Python with what the command `openssl speed` says of the same cipher, if it is there."""
    if shutil.which("openssl") is None:
        return {}
    key, nonce, data = AESGCM(os.urandom(32)), os.urandom(12), bytes(64)
    ours, theirs = float("inf"), 0.0
    for _ in range(3):
        said = subprocess.run(SPEED, check=True, capture_output=True, text=True).stdout
        theirs = max(theirs, *map(float, re.findall(r"^\+F:.*:([\d.]+)$", said, re.MULTILINE)), 0.0)  # bytes a second
        ours = min(ours, _interleaved(lambda: key.encrypt(nonce, data, None), lambda: None)[0])
    return {"aesgcm_as_part_of_openssl": 64 / (ours * 1e-6) / theirs} if theirs else {}


def _interleaved(one: Callable[[], object], two: Callable[[], object]) -> tuple[float, float]:
    """Return the best of 40 short batches of each, in microseconds a call, taken in turn on the same machine."""
    best = [float("inf"), float("inf")]
    for _ in range(40):
        for which, call in enumerate((one, two)):
            started = time.perf_counter()
            for _ in range(1_000):
                call()
            best[which] = min(best[which], (time.perf_counter() - started) * 1_000)
    return best[0], best[1]
