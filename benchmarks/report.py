"""Write docs/performance.md: the page beside this file, with the figures of results.json put in.

In the page ``{store.get_us_10k:us}`` is the figure ``get_us_10k`` of the benchmark ``store``, in microseconds, and
``{store.get_vs_tinydb_10k:>=2000}`` says whether a goal is held.

``python -m benchmarks.report``; with ``--check`` it only says whether the document is current.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE / "performance.md"
RESULTS = HERE / "results.json"
TARGET = HERE.parent / "docs" / "performance.md"
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


class Figure(float):
    """A number that shows itself as the page asks.

    ``us``, ``ms`` and ``s`` say which unit of time it is in, ``x`` adds a times sign, ``>=2`` and ``<=2`` say whether a
    goal is held; nothing at all is the plain number.
    """

    def __format__(self, spec: str) -> str:
        if spec[:2] in (">=", "<="):
            goal = float(spec[2:])
            return "yes" if (self >= goal if spec[0] == ">" else self <= goal) else "**no**"
        if spec in _SECONDS:
            return _time(float(self) * _SECONDS[spec])
        return _short(float(self)) + ("×" if spec == "x" else "")


class Figures:
    """The figures of one benchmark; what it did not measure says so.

    Args:
        figures: By name.
    """

    def __init__(self, figures: Mapping[str, Any]) -> None:
        self._figures = figures

    def __getattr__(self, name: str) -> Any:
        value = self._figures.get(name, Unknown())
        return Figure(value) if isinstance(value, int | float) else value


class Unknown:
    """A figure that is not there."""

    def __format__(self, spec: str) -> str:
        return "not measured"


def render(page: str, results: Mapping[str, Any]) -> str:
    """Return the document.

    Args:
        page: Its text, with names of figures.
        results: What `python -m benchmarks` wrote.
    """
    days = sorted({each["run_at"][:10] for each in results.values()})
    words: defaultdict[str, Any] = defaultdict(lambda: Figures({}))
    words |= {name: Figures(each["figures"]) for name, each in results.items()}
    words["day"] = " to ".join(dict.fromkeys((days[0], days[-1])))
    words["system"] = "; ".join(sorted({each["system"] for each in results.values()}))
    words["load"] = Figure(max(each.get("load_before", 0) for each in results.values()))
    return page.format_map(words)


def _time(seconds: float) -> str:
    for unit, sign in (("s", "s"), ("ms", "ms")):
        if seconds >= _SECONDS[unit]:
            return f"{_short(seconds / _SECONDS[unit])} {sign}"
    return f"{_short(seconds / _SECONDS['us'])} µs"


def _short(number: float) -> str:
    """Return a number as it is spoken: three digits that count."""
    if number >= 100 or number == int(number):
        return f"{round(number):,}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def main(arguments: list[str]) -> int:
    """Write the document, or check it; return the exit code."""
    wanted = render(PAGE.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8")))
    if arguments == ["--check"]:
        if TARGET.exists() and TARGET.read_text("utf-8") == wanted:
            return 0
        print("docs/performance.md is not what was measured; run: python -m benchmarks.report", file=sys.stderr)
        return 1
    TARGET.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
