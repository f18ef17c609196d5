"""`history` tells what happened to a record, `batches` what was done together, `undo` takes it back."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmkit.cli.shared import AsJson, Workspace, counted, open_crm, say, say_json, say_table

if TYPE_CHECKING:
    from crmkit import CRM, HistoryEntry


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(history)
    app.command()(batches)
    app.command()(undo)


Limit = Annotated[int, typer.Option(min=1, max=10_000, help="The most lines.")]


def history(
    id: Annotated[str, typer.Argument(help="The id of a record; of a removed one too.")],
    limit: Limit = 20,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Tell what happened to a record, newest first."""
    with open_crm(workspace) as crm:
        page = crm.history(id, limit=limit)
        if as_json:
            say_json([vars(entry) for entry in page])
            return
        rows = [
            (_time(crm, each.at), each.actor, each.action, _changed(each), each.reason, each.cause) for each in page
        ]
        say_table(("at", "who", "what", "changed", "why", "cause"), rows)
        if page.next:
            say("more; --limit shows more")


def batches(limit: Limit = 20, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List what was done together, newest first: edits, imports, merges, undos."""
    with open_crm(workspace) as crm:
        found = crm.batches(limit)
        if as_json:
            say_json([vars(batch) for batch in found])
            return
        rows = [
            (_time(crm, each.at), each.actor, each.kind, _counts(crm, each.types), each.reason, _state(each), each.id)
            for each in found
        ]
        say_table(("at", "who", "what", "records", "why", "", "id"), rows)


def undo(
    id: Annotated[str, typer.Argument(help="The id of what was done, as batches and history show it.")],
    skip_changed: Annotated[bool, typer.Option("--skip-changed", help="Leave out what was changed since.")] = False,
    workspace: Workspace = None,
) -> None:
    """Take back what was done together; an undo can be undone too."""
    with open_crm(workspace) as crm:
        commit = crm.undo(id, skip_changed=skip_changed)
        records = "1 record" if commit.count == 1 else f"{commit.count:,} records"
        say(f"Took back {records}; crmkit undo {commit.id} brings this back.")


def _time(crm: CRM, at: datetime) -> str:
    return at.astimezone(crm.zone).strftime("%Y-%m-%d %H:%M:%S")


def _changed(entry: HistoryEntry) -> str:
    """Return the fields that changed with their values; an entry of a new record names the fields only."""
    if not entry.before and entry.action == "add":
        return ", ".join(entry.fields)
    return ", ".join(f"{name}: {_word(entry.before, name)} → {_word(entry.after, name)}" for name in entry.fields)


def _word(values: Any, name: str) -> str:
    value = values.get(name)
    if isinstance(value, tuple):
        return " ".join(each if isinstance(each, str) else "…" for each in value) or "–"
    return "–" if value is None else str(value)


def _counts(crm: CRM, types: Any) -> str:
    known = {each.type: each for each in (crm.collection(record_type).info for record_type in crm.types)}
    return ", ".join(
        counted(count, known[name]) if name in known else f"{count:,} {name}" for name, count in types.items()
    )


def _state(batch: Any) -> str:
    return "undone" if batch.undone else ""
