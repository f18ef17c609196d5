"""`audit` shows who did what to sealed fields, `audit verify` whether that can be believed."""

from __future__ import annotations

from datetime import tzinfo
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmkit.cli.shared import AsJson, Workspace, open_crm, say, say_json, say_table

if TYPE_CHECKING:
    from crmkit.audit import AuditEntry

AUDIT = typer.Typer(invoke_without_command=True, help="Show who did what to sealed fields, newest first.")
COLUMNS = ("line", "at", "actor", "action", "of", "fields", "reason", "plugin")


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    AUDIT.callback()(audit)
    AUDIT.command()(verify)
    app.add_typer(AUDIT, name="audit")


def audit(
    context: typer.Context,
    record: Annotated[str | None, typer.Option(metavar="ID", help="Only about this record.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only of this actor.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this: reveal, export, unlock, restore...")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most lines.")] = 50,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Show who did what to sealed fields, newest first."""
    if context.invoked_subcommand:
        return
    from dataclasses import asdict

    with open_crm(workspace) as crm:
        found = crm.audit.entries(record=record, actor=actor, action=action, limit=limit)
        if as_json:
            say_json([asdict(entry) for entry in found])
            return
        zone = crm.zone
        if not found:
            there = sorted({entry.action for entry in crm.audit}) if action else []
            say(f"no such entries{'; actions that were noted: ' + ', '.join(there) if there else ''}")
            return
    say_table(COLUMNS, (_row(entry, zone) for entry in found))


def _row(entry: AuditEntry, zone: tzinfo) -> list[Any]:
    at, of = f"{entry.at.astimezone(zone):%Y-%m-%d %H:%M}", f"{entry.entity} {entry.record}"
    actor = entry.actor if entry.user == entry.actor else f"{entry.actor} (by {entry.user})"
    return [entry.seq, at, actor, entry.action, of, ", ".join(entry.fields), entry.reason, entry.plugin]


def verify(workspace: Workspace = None) -> None:
    """Check every line, against the last one that you saw. Exits with 1 and names the first bad line."""
    from contextlib import closing

    from crmkit.identities import ask_shipped_plugins
    from crmkit.vault import Vault
    from crmkit.workspace import locate

    ask_shipped_plugins()
    with closing(Vault.unlock(locate(workspace).keys)) as vault:
        problems = vault.audit.verify()
        count = 0 if problems else sum(1 for _ in vault.audit.entries())
    for problem in problems:
        say(f"wrong: {problem}")
    if problems:
        raise typer.Exit(1)
    say(f"all is well: {count:,} line{'' if count == 1 else 's'}, none missing up to the last one that you saw")
