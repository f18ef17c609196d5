"""`init` makes a workspace, `doctor` looks after one, `lab` opens one in the browser."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmkit.cli.shared import AsJson, Workspace, open_crm, say, say_json, screens, size

if TYPE_CHECKING:
    from crmkit import CRM


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(init)
    app.command()(lab)
    app.command()(doctor)


def init(
    folder: Annotated[Path, typer.Argument(help="Where; it is made.")],
    currency: Annotated[str, typer.Option(help="ISO 4217 code of amounts that name none.")] = "EUR",
    country: Annotated[str | None, typer.Option(help="ISO 3166 code; the region of national phone numbers.")] = None,
    name: Annotated[str | None, typer.Option(help="What people call it; the folder's name when left out.")] = None,
    time_zone: Annotated[str, typer.Option(help="IANA name of the zone in which days begin.")] = "UTC",
) -> None:
    """Make a workspace."""
    import crmkit

    country = country.upper() if country else None  # codes, typed as people do
    with crmkit.create(folder, currency=currency.upper(), country=country, name=name, time_zone=time_zone) as crm:
        say(f"made {crm.profile.name} in {crm.workspace.folder}; open it with: crmkit lab -w {folder}")


def lab(
    workspace: Workspace = None,
    browser: Annotated[bool, typer.Option(help="Open the browser on it.")] = True,
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="The port on this machine; a free one when left out.")
    ] = None,
) -> None:
    """Open a workspace in JupyterLab; Ctrl-C ends it."""
    with open_crm(workspace) as crm:
        folder = crm.workspace.folder
    run_lab(folder, browser=browser, port=port)


def run_lab(folder: Path, *, browser: bool, port: int | None = None) -> None:
    """Start JupyterLab and return when it has ended."""
    launch = screens().launch
    for asked_to_end in (signal.SIGTERM, signal.SIGHUP):  # the server must not outlive the command that started it
        signal.signal(asked_to_end, _end)
    say(f"starting JupyterLab on {folder}")
    with launch(folder, browser=browser, port=port) as running:
        address = running.url if browser else f"{running.url}&token={running.token}"
        say(f"the app is at {address}\nCtrl-C ends it")
        try:
            running.wait()
        except KeyboardInterrupt:
            say("JupyterLab has ended; everything was saved as you went")


def _end(number: int, frame: FrameType | None) -> None:  # the signature of a signal handler
    raise SystemExit(128 + number)


def doctor(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Check everything that is stored.

    Exits with 1 when something is wrong.
    """
    with open_crm(workspace) as crm:
        report = _examine(crm)
    if as_json:
        say_json(report)
    else:
        _tell(report)
    if report["problems"]:
        raise typer.Exit(1)


def _examine(crm: CRM) -> dict[str, Any]:
    """Return what is stored and what is wrong with it."""
    place = crm.workspace
    failures = [f"plugin {row.name} is {row.state}: {row.reason}" for row in crm.plugins if row.state == "failed"]
    return {
        "workspace": str(place.folder),
        "name": crm.profile.name,
        "records": {each.info.plural: len(each) for each in (crm.collection(type) for type in crm.types)},
        "bytes": {part.name: _bytes_in(part) for part in (place.data, place.keys, place.files)},
        "problems": [*crm.verify(), *failures],
    }


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _tell(report: dict[str, Any]) -> None:
    say(f"{report['name']} in {report['workspace']}")
    say("records: " + ", ".join(f"{plural} {count:,}" for plural, count in report["records"].items()))
    say("on disk: " + ", ".join(f"{part} {size(count)}" for part, count in report["bytes"].items()))
    for problem in report["problems"]:
        say(f"wrong: {problem}")
    if not report["problems"]:
        say("checked: every frame of the journal, the key files, the audit log; all is well")
