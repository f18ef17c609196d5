"""How long it takes to start: `import crmkit`, `crmkit --help`, and building the demo."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS = 9


def run() -> dict[str, Any]:
    """Return the best times in milliseconds, less what an empty Python takes, and the demo's seconds."""
    empty = best_ms("-c", "pass")
    return {
        "empty_python_ms": round(empty),
        "import_crmkit_ms": round(best_ms("-c", "import crmkit") - empty),
        "crmkit_help_ms": round(best_ms("-m", "crmkit", "--help")),
        "build_demo_s": round(build_demo_s(), 1),
        "hold": {"import_crmkit_ms": 250, "crmkit_help_ms": 400, "build_demo_s": 20},
    }


def best_ms(*arguments: str) -> float:
    """Return the shortest wall time of a Python command, which other load disturbs least.

    Args:
        arguments: What stands behind `python`.
    """
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, env=usual, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return min(times) * 1000


def build_demo_s() -> float:
    """Return how long the demo workspace takes, in a folder and with an identity of its own."""
    from crmkit.demo import build

    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("CRMKIT_CONFIG")
        os.environ["CRMKIT_CONFIG"] = str(Path(folder) / "config")
        try:
            started = time.perf_counter()
            build(Path(folder) / "demo").close()
            return time.perf_counter() - started
        finally:
            os.environ.pop("CRMKIT_CONFIG")
            if before is not None:
                os.environ["CRMKIT_CONFIG"] = before
