"""`demo` builds a workspace of invented customers and opens it."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmkit.cli.shared import AsJson, say, say_json, screens
from crmkit.cli.workspaces import run_lab

if TYPE_CHECKING:
    from crmkit import CRM

SECONDS = 120  # for a cell of the home notebook
YEARS = range(2000, 2101)  # the demo's purchases are of the two years before


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(demo)


def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demo is kept; it is made.")] = Path(".demo"),
    headless: Annotated[bool, typer.Option("--headless", help="Run the home notebook and print its figures.")] = False,
    as_of: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The day that the demo is looked at from.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the demo workspace, and open it.

    Its keys are kept in the same folder, so that removing the folder leaves nothing behind.
    """
    if as_of and as_of.year not in YEARS:
        raise typer.BadParameter(f"the year must be {YEARS[0]} to {YEARS[-1]}", param_hint="--as-of")
    os.environ["CRMKIT_CONFIG"] = str(folder.resolve() / "config")
    os.environ.pop("CRMKIT_IDENTITY", None)
    day = {"as_of": as_of.date()} if as_of else {}
    place = _build(folder, quiet=as_json, **day)
    if not headless:
        run_lab(place, browser=True)
        return
    from crmkit.demo import figures

    _run_home(place)
    with _open(place) as crm:
        shown = figures(crm, **day)
    if as_json:
        say_json(shown)
    else:
        _tell(shown)


def _build(folder: Path, *, quiet: bool, **day: Any) -> Path:
    """Return the demo workspace; it gets its name when it is complete, so that a half-built one is not taken for it."""
    from crmkit import Invalid
    from crmkit.demo import build
    from crmkit.workspace import locate

    place = folder.resolve() / "workspace"
    if place.exists():
        return locate(place).folder
    if folder.exists() and not folder.is_dir():
        raise Invalid({"folder": f"{folder} is a file; choose a folder"})
    unfinished = place.with_name(".unfinished-demo")
    _remove(unfinished)
    build(unfinished, progress=None if quiet else say, **day).close()
    unfinished.rename(place)
    if not quiet:
        say(f"the demo workspace is {place}; its keys: CRMKIT_CONFIG={os.environ['CRMKIT_CONFIG']}")
    return place


def _remove(folder: Path) -> None:
    import shutil

    if folder.exists():
        shutil.rmtree(folder)


def _open(place: Path) -> CRM:
    import crmkit

    return crmkit.open(place)


def _run_home(place: Path) -> None:
    """Run the home notebook as `crmkit lab` would; an error in it is an error here."""
    import tempfile

    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from traitlets.config import Config

    from crmkit import Unsupported

    screens().place_notebooks(place)
    home = place / "notebooks" / "home.ipynb"
    book = nbformat.read(home, as_version=4)  # type: ignore[no-untyped-call]
    os.environ["CRMKIT_WORKSPACE"] = str(place)
    with tempfile.TemporaryDirectory() as private:  # the kernel listens on sockets there, not on ports
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{private}/kernel"}})
        where = {"metadata": {"path": str(home.parent)}}
        try:
            NotebookClient(book, timeout=SECONDS, resources=where, config=sockets).execute()
        except CellExecutionError as error:
            raise Unsupported(f"{home}: a cell failed: {error.ename}: {error.evalue}") from None


def _tell(shown: dict[str, Any]) -> None:
    say(f"customers: {shown['customers']:,}\npurchases: {shown['purchases']:,}\nrevenue by month:")
    say("\n".join(f"  {month}  {amount:>18}" for month, amount in shown["revenue"].items()))
    if not set("123456789") & set("".join(shown["revenue"].values())):
        say("  nothing was sold in these months; the demo was built for another day")
    say("sample: " + ", ".join(f"{name} {value}" for name, value in shown["sample"].items()))
    say("plugins: " + ", ".join(f"{name} ({state})" for name, state in shown["plugins"].items()))
