"""Run the tests marked `proof` with larger counts, and write what was seen to docs/proofs.json.

CRMKIT_TEST_SCALE sets how much larger (20 unless it is set); CRMKIT_TEST_SEED the seed of Hypothesis (drawn, and
written down, unless it is set). Other chance in the tests has a seed in the test, or is the hour of a kill.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sqlite3
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "proofs.json"
PACKAGES = ("cryptography", "hypothesis", "orjson", "pluggy", "pydantic", "pyrage", "pytest", "tinydb")


class Recorder:
    """A pytest plugin that keeps the outcome of each test and the numbers that it recorded about itself."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep one phase of one test: the outcome that matters most wins."""
        test = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        test["seconds"] = round(test["seconds"] + report.duration, 2)
        test.update(dict(report.user_properties))
        if report.outcome != "passed":
            test["outcome"] = report.outcome


def main(paths: list[str]) -> int:
    """Run the proofs, all of them or those of some folders, and write the results; return pytest's exit code."""
    scale = os.environ.setdefault("CRMKIT_TEST_SCALE", "20")
    seed = os.environ.setdefault("CRMKIT_TEST_SEED", str(random.SystemRandom().randrange(2**31)))
    recorder = Recorder()
    where = [str(ROOT / path) for path in paths or ["tests"]]
    code = int(pytest.main(["-m", "proof", "-q", f"--hypothesis-seed={seed}", *where], [recorder]))
    run = {"run_at": datetime.now(UTC).isoformat(timespec="seconds"), "scale": float(scale), "seed": int(seed)}
    tests = {name: test | run for name, test in recorder.tests.items()}
    if paths:  # what was not run now keeps its result, with the scale, seed and time of its own run
        tests = json.loads(TARGET.read_text("utf-8"))["tests"] | tests
    outcomes = [test["outcome"] for test in tests.values()]
    results = {
        "counts": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "versions": {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
        | {name: version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} processors",
        "tests": dict(sorted(tests.items())),
    }
    TARGET.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}: {results['counts']}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
