"""`members`: whose identity opens a workspace."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from crmkit.cli.shared import AsJson, Workspace, open_crm, say, say_json, say_table

MEMBERS = typer.Typer(no_args_is_help=True, help="List, add and remove who can open a workspace.")
COPIED = "what was copied before, files and values, is not taken back"

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    MEMBERS.command("list")(list_members)
    MEMBERS.command("add")(add_member)
    MEMBERS.command("remove")(remove_member)
    app.add_typer(MEMBERS, name="members")


def list_members(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List who can open a workspace, the recovery key included."""
    with open_crm(workspace) as crm:
        members = [(each, crm.members.is_me(each)) for each in crm.members]
    if as_json:
        say_json([{**asdict(each), "you": is_me} for each, is_me in members])
        return
    rows = [
        (f"{each.name}{' (you)' if is_me else ''}", each.kind, each.added[:10], each.public_key)
        for each, is_me in members
    ]
    say_table(("name", "kind", "added", "public key"), rows, whole=True)  # a key that is cut is of no use


def add_member(
    name: Annotated[str, typer.Argument(help="How the member is called.")],
    public_key: Annotated[str, typer.Argument(help="What `crmkit keys identity` prints for the member.")],
    workspace: Workspace = None,
) -> None:
    """Let one more person open a workspace: everything in it, its past included."""
    with open_crm(workspace) as crm:
        crm.members.add(name, public_key)
        say(
            f"{name} can open {crm.workspace.folder} now, with the identity of that public key; it takes the folder too"
        )


def remove_member(
    name: Annotated[str, typer.Argument(help="Who is shut out.")], workspace: Workspace = None, yes: Yes = False
) -> None:
    """Shut a member out, and put new keys in the place of those that the member knows."""
    with open_crm(workspace) as crm:
        crm.members.check_leaving(name)
        if name in {each.name for each in crm.members if crm.members.is_me(each)}:
            say(f"{name} is you: this identity opens the workspace no more")
        say(f"{name} will open nothing that is written from now on; {COPIED}")
        if not yes and not typer.confirm("Remove?", err=True):
            raise typer.Exit(1)
        crm.members.remove(name)
    say(f"{name} is out, and the keys are new; crmkit keys rotate --scope data seals anew what is there")
