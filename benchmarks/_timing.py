"""Clocks that the benchmarks share; all times in seconds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from functools import partial

Clock = Callable[[], float]


def once(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Return how long one call takes."""
    started = clock()
    work()
    return clock() - started


def median(times: int, work: Callable[[int], object]) -> float:
    """Return the median wall time of work that is given 0, then 1, and so on."""
    return statistics.median(once(partial(work, number)) for number in range(times))


def best(work: Callable[[], object], times: int = 300) -> float:
    """Return the least wall time of one call, which other load disturbs least."""
    return min(once(work) for _ in range(times))


def mean_cpu(work: Callable[[], object], times: int = 300) -> float:
    """Return the mean CPU time of one call of this process, the system's part included."""
    gc.collect()  # what was loaded before is looked through once, at a time that is not the work's
    return once(lambda: [work() for _ in range(times)], time.process_time) / times


def percentile(times: list[float], percent: int) -> float:
    """Return the time that so many percent of all stay below."""
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]
