"""`history` tells what happened to a record, `batches` what was done together, `undo` takes it back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmkit.cli.shared import AsJson, Workspace, open_crm, say, say_json, say_table

if TYPE_CHECKING:
    from crmkit import CRM, HistoryEntry, Record

NAMED = 10  # so many records are named in a line


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(history)
    app.command()(batches)
    app.command()(undo)


Limit = Annotated[int, typer.Option(min=1, max=10_000, help="The most lines.")]


def history(
    id: Annotated[str, typer.Argument(help="The id of a record, of a removed one too; or its number.")],
    limit: Limit = 20,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Tell what happened to a record, newest first."""
    with open_crm(workspace) as crm:
        page = crm.history(record_id(crm, id, crm.types), limit=limit)
        if as_json:
            say_json([vars(entry) for entry in page])
            return
        rows = [
            (_time(crm, each.at), each.actor, each.action, _changed(each), each.reason, each.cause) for each in page
        ]
        say_table(("at", "who", "what", "changed", "why", "batch"), rows)
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
        say_table(("at", "who", "what", "records", "why", "", "batch"), rows)


def undo(
    id: Annotated[str, typer.Argument(help="The id of a batch, as batches and history show it.")],
    skip_changed: Annotated[bool, typer.Option("--skip-changed", help="Leave out what was changed since.")] = False,
    workspace: Workspace = None,
) -> None:
    """Take back what was done together; an undo can be undone too."""
    from crmkit import ChangedSince, NotFound, Refused

    with open_crm(workspace) as crm:
        try:
            commit = crm.undo(id, skip_changed=skip_changed)
        except ChangedSince as error:
            raise Refused(f"{error.told}; --skip-changed leaves out what this is about") from None
        except NotFound:
            raise NotFound("nothing was done under the id that was given; crmkit batches lists what was") from None
        records = "1 record" if commit.count == 1 else f"{commit.count:,} records"
        say(f"Took back {records}{_left_out(commit.left_out)}; crmkit undo {commit.id} brings this back.")


def record_id(crm: CRM, given: str, types: Iterable[type[Record]]) -> str:
    """Return the id of a record that is named by it, or by its number or another value that no two may share."""
    from crmkit import F, Invalid, NotFound
    from crmkit.fields import ID_FORM

    if ID_FORM.fullmatch(given):
        return given
    found = []
    for collection in map(crm.collection, types):
        for name in (name for name, spec in collection.info.fields.items() if spec.unique):
            with contextlib.suppress(Invalid):  # a text that this field cannot hold
                found += [record.id for record in collection.find(F[name] == given)]
    if len(found) != 1:
        raise NotFound("that is neither the id of a record nor the number of exactly one; crmkit find shows ids")
    return found[0]


def _left_out(records: Sequence[tuple[str, str]]) -> str:
    """Return which records an undo left out, for a person."""
    named = ", ".join(f"{type} {id}" for type, id in records[:NAMED])
    more = f" and {len(records) - NAMED:,} more" if len(records) > NAMED else ""
    return f"; left out {len(records):,}: {named}{more}" if records else ""


def _time(crm: CRM, at: datetime) -> str:
    return at.astimezone(crm.zone).strftime("%Y-%m-%d %H:%M:%S")


def _changed(entry: HistoryEntry) -> str:
    """Return the fields that changed with their values; an entry of a new record names the fields only."""
    if entry.merged_into:
        return f"merged into {entry.merged_into}"
    if not entry.before and entry.action == "add":
        return ", ".join(entry.fields)
    others = [f"merged with {' '.join(entry.merged_from)}"] if entry.merged_from else []
    values = (f"{name}: {_word(entry.before, name)} → {_word(entry.after, name)}" for name in entry.fields)
    return ", ".join([*others, *values])


def _word(values: Any, name: str) -> str:
    value = values.get(name)
    if isinstance(value, tuple):
        return " ".join(each if isinstance(each, str) else "…" for each in value) or "–"
    return "–" if value is None else str(value)


def _counts(crm: CRM, types: Any) -> str:
    known = {each.type: each for each in (crm.collection(record_type).info for record_type in crm.types)}
    return ", ".join(
        known[name].counted(count) if name in known else f"{count:,} {name}" for name, count in types.items()
    )


def _state(batch: Any) -> str:
    return "undone" if batch.undone else ""
