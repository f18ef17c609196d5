"""Run every benchmark: each module of this folder that has a `run()`, into results.json and docs/performance.md.

`run()` returns plain data, ratios within the same run before absolute times. `python -m benchmarks store imports`
runs only those modules, and keeps what the file says of the others. With CRMKIT_BENCH_SCALE=0.05 all of it is seen to
run in a minute, on so much less; nothing is kept then.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks._sizes import SCALE

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all, and write their results; return the exit code."""
    known = [module.name for module in pkgutil.iter_modules([str(HERE)]) if not module.name.startswith("_")]
    if unknown := sorted(set(names) - set(known)):
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    for name in names or known:
        run = getattr(importlib.import_module(f"benchmarks.{name}"), "run", None)
        if run is None:
            continue
        print(f"{name} …", end=" ", flush=True)
        started, load = time.perf_counter(), os.getloadavg()[0]
        results[name] = {
            "run_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "system": _system(),
            "load_before": round(load, 1),
            "figures": run(),
        }
        print(f"{time.perf_counter() - started:.1f} s")
        if SCALE == 1:
            RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", "utf-8")
        else:
            print(json.dumps(results[name]["figures"], indent=2))
    return 0 if SCALE != 1 else report.main([])


def _system() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
