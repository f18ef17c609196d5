"""How many documents a benchmark works on; CRMKIT_BENCH_SCALE makes them fewer, for a look whether it runs."""

from __future__ import annotations

import os

SCALE = float(os.environ.get("CRMKIT_BENCH_SCALE", "1"))


def scaled(count: int, least: int = 60) -> int:
    """Return `count` times the scale, but not less than `least`."""
    return max(least, round(count * SCALE))


SIZES = {"1k": scaled(1_000), "10k": scaled(10_000), "100k": scaled(100_000)}
