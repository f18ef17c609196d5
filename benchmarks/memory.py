"""Memory: of a record, kept open and kept packed, and of 36 kernels that have the demo workspace open.

RSS counts what processes share again in each of them; PSS shares it out, so that a sum of PSS is what they take
together. Baselines tell what the data costs from what Python and its libraries cost.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks._documents import customer, fill_store
from benchmarks._scratch import scratch
from benchmarks._sizes import scaled
from crmkit.store import PlainCodec, TinyStore

KERNELS = scaled(36, 2)
FEW = scaled(6, 2)  # where the memory of one is asked for and not that of all together
PATIENCE = 180  # seconds for a kernel to come up
ROOM_FOR_ONE = 400_000_000  # bytes that must be free for each process that is started

_IDLE = "\nimport sys\nprint('ready', flush=True)\nsys.stdin.read()\n"
_OPEN = "import crmkit\ncrm = crmkit.open({folder!r})\nfound = crm.customers.search('anna')\n"
_APP = "app = crm.app()\n"
_EAGER = """
from crmkit.store.tiny import TinyStore
init, register = TinyStore.__init__, TinyStore.register
TinyStore.__init__ = lambda self, *args, **settings: init(self, *args, **{**settings, "lazy": frozenset()})
TinyStore.register = lambda self, name, **settings: register(self, name, **{**settings, "lazy": False})
"""
_STORE = """
from pathlib import Path
from crmkit.store import PlainCodec, TinyStore
store = TinyStore(Path({folder!r}), PlainCodec(), lazy=frozenset(["customers"] if {lazy} else []))
store.register("customers", lazy={lazy})
"""


def run() -> dict[str, Any]:
    """Measure in a folder and with an identity of its own."""
    with scratch() as folder:
        return {**_of_a_record(folder), **_of_kernels(folder)}


def _of_a_record(folder: Path) -> dict[str, float]:
    """Compare a store of 100,000 documents, open in a process of its own, with an empty one."""
    size = scaled(100_000)
    fill_store(folder / "full", size)
    fill_store(folder / "none", 0)
    store = TinyStore(folder / "full", PlainCodec())
    store.compact()
    store.close()
    text = sum(len(json.dumps(customer(number), separators=(",", ":"))) for number in range(1_000)) / 1_000
    figures: dict[str, float] = {"json_bytes": round(text)}
    for name, lazy in (("record", False), ("lazy_record", True)):
        none, full = (
            _each(_processes, _STORE.format(folder=str(folder / which), lazy=lazy), 1)["private_mb"]
            for which in ("none", "full")
        )
        figures[f"{name}_bytes"] = round((full - none) * 1e6 / size)
        figures[f"{name}_vs_json"] = round((full - none) * 1e6 / size / text, 2)
    return figures


def _of_kernels(folder: Path) -> dict[str, Any]:
    import crmkit
    from crmkit.demo import build

    with build(folder / "demo") as demo:
        figures: dict[str, Any] = {"demo_customers": len(demo.customers), "demo_purchases": len(demo.purchases)}
        figures["demo_interactions"] = len(demo.interactions)
    figures["demo_mb"] = round(sum(file.stat().st_size for file in (folder / "demo" / "data").iterdir()) / 1e6, 1)
    crmkit.create(folder / "empty", currency="EUR").close()
    demo_code, empty_code = (_OPEN.format(folder=str(folder / which)) for which in ("demo", "empty"))
    groups = {
        "python": _each(_processes, "", FEW),
        "empty_workspace": _each(_processes, empty_code, FEW),
        "demo_not_lazy": _each(_processes, _EAGER + demo_code, FEW),
        "demo": _each(_processes, demo_code, KERNELS),
        "bare_kernel": _each(_kernels, "", FEW),
        "demo_app_kernel": _each(_kernels, demo_code + _APP, FEW),
        "demo_kernel": _each(_kernels, demo_code, KERNELS),
    }
    figures |= {f"{group}_{name}": value for group, values in groups.items() for name, value in values.items()}
    alone = {group: values["private_mb"] for group, values in groups.items()}
    figures["demo_data_mb"] = round(alone["demo"] - alone["empty_workspace"], 1)
    figures["demo_data_not_lazy_mb"] = round(alone["demo_not_lazy"] - alone["empty_workspace"], 1)
    return figures


# --------------------------------------------------------------------------- measuring processes


def _each(start: Callable[[str, int], Any], code: str, count: int) -> dict[str, float]:
    """Run code in so many processes at the same time, as far as there is room, and return what they take then."""
    count = min(count, max(1, _free() // ROOM_FOR_ONE))
    with start(code, count) as pids:
        usages = [_usage(pid) for pid in pids]
    return {
        "count": count,
        "rss_mb": _mean(usages, "Rss"),
        "pss_mb": _mean(usages, "Pss"),
        "private_mb": _mean(usages, "Private_Clean", "Private_Dirty"),
        "total_pss_mb": round(sum(usage["Pss"] for usage in usages) / 1e6),
    }


def _mean(usages: list[dict[str, int]], *names: str) -> float:
    return round(sum(usage[name] for usage in usages for name in names) / len(usages) / 1e6, 1)


def _usage(pid: int) -> dict[str, int]:
    """Return what Linux says about the memory of a process, in bytes by name."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}


def _free() -> int:
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


@contextmanager
def _processes(code: str, count: int) -> Iterator[list[int]]:
    """Run code in so many Python processes, which are idle in the block and ended after it."""
    with ExitStack() as stack:
        started = [stack.enter_context(_process(code + _IDLE)) for _ in range(count)]
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError("a process did not come up")
        yield [process.pid for process in started]


@contextmanager
def _process(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def _kernels(code: str, count: int) -> Iterator[list[int]]:
    """Run code in so many IPython kernels, as JupyterLab starts them."""
    with ExitStack() as stack:
        yield [stack.enter_context(_kernel(code)) for _ in range(count)]


@contextmanager
def _kernel(code: str) -> Iterator[int]:
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3", transport="ipc")
    manager.start_kernel(stderr=subprocess.DEVNULL)
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE)
        ask = {"pid": "__import__('os').getpid()"}
        reply = client.execute_interactive(code, timeout=PATIENCE, output_hook=_ignore, user_expressions=ask)["content"]
        if reply["status"] != "ok":
            raise RuntimeError(f"a kernel answered: {reply['evalue']}")
        yield int(reply["user_expressions"]["pid"]["data"]["text/plain"])
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _ignore(message: object) -> None:
    """Leave what a cell shows."""
