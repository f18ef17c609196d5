"""`plugins` lists them with their states, `plugins trust` lets the code of a workspace run for this user."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from crmkit.cli.shared import AsJson, Workspace, open_crm, say, say_json, say_table

if TYPE_CHECKING:
    from crmkit import Failure


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    family = typer.Typer(rich_markup_mode=None)
    family.callback(invoke_without_command=True)(plugins)
    family.command()(trust)
    app.add_typer(family, name="plugins")


def plugins(context: typer.Context, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List the plugins and their states."""
    if context.invoked_subcommand:
        context.obj = workspace
        return
    with open_crm(workspace) as crm:
        rows = list(crm.plugins)
        failures = crm.failures
    if as_json:
        say_json(
            [{**asdict(row), "failures": [_told(each) for each in failures if each.plugin == row.name]} for row in rows]
        )
        return
    say_table(
        ("plugin", "state", "from", "version", "why"), [(r.name, r.state, r.source, r.version, r.reason) for r in rows]
    )
    for failure in failures:
        say(f"{failure.plugin} failed in {_told(failure)}")


def _told(failure: Failure) -> str:
    return f"{failure.hook}: {failure.error}{f' at {failure.place}' if failure.place else ''}"


def trust(
    context: typer.Context,
    workspace: Workspace = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Trust the code in the workspace's plugins folder, as it is now; it runs with your rights."""
    import crmkit

    folder = workspace or context.obj
    with open_crm(folder) as crm:
        files = crm.workspace.plugin_files()
        place = crm.workspace.folder
    if not files:
        say(f"{place} has no plugins of its own; nothing to trust")
        return
    for path in files:
        say(f"{path}  {path.stat().st_size:,} bytes")
    if not yes and not _asked(len(files)):
        raise crmkit.Refused("nothing was trusted; look at the files, then answer yes or give --yes")
    trusted = crmkit.trust(place)
    say(f"trusted, as they are now: {', '.join(trusted)}")


def _asked(count: int) -> bool:
    """Ask on a terminal; anything else has to say --yes."""
    return sys.stdin.isatty() and typer.confirm(f"Let this code ({count}) run with your rights?")
