"""`keys`: what keys there are, new ones in their place, and the recovery key."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crmkit.cli.members import Yes
from crmkit.cli.shared import AsJson, Workspace, open_crm, progress_bar, say, say_json, say_table

if TYPE_CHECKING:
    from crmkit import CRM

KEYS = typer.Typer(no_args_is_help=True, help="Show and renew the keys of a workspace; make a recovery key.")


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (status, rotate, seal, recovery, recover, identity):
        KEYS.command()(command)
    app.add_typer(KEYS, name="keys")


def status(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List the keys, and how many data keys, values or tags on disk each is used for."""
    with open_crm(workspace) as crm:
        rows, unfinished = crm.keys.status(), crm.keys.unfinished
    if as_json:
        say_json({"keys": [asdict(each) for each in rows], "unfinished": unfinished})
        return
    headings = ("purpose", "key", "status", "created", "uses")
    say_table(headings, [(each.purpose, each.id, each.status, each.created, _count(each.uses)) for each in rows])
    if unfinished:
        say("mind: a rotation was cut short; crmkit keys rotate completes it")


def _count(uses: int | None) -> str:
    return "" if uses is None else f"{uses:,}"


def rotate(
    scope: Annotated[
        Literal["wrap", "data", "index"],
        typer.Option(help="wrap: the key of the data keys, in seconds; data: every value; index: exact search."),
    ] = "wrap",
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="With --scope data: destroy the data keys that a rotation left behind.")
    ] = False,
    workspace: Workspace = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put new keys in the place of those in use. What is cut short goes on when it is started again."""
    if drop_old:
        if scope != "data":
            raise typer.BadParameter("goes with --scope data: only data keys are destroyed", param_hint="--drop-old")
        with open_crm(workspace) as crm:
            _drop_old(crm, yes, as_json)
        return
    with open_crm(workspace) as crm, progress_bar() as progress:
        done = crm.keys.rotate(scope, progress=progress)
    if as_json:
        say_json(asdict(done))
        return
    say(f"rotated: {scope}" + (f"; {done.documents:,} records sealed anew" if scope != "wrap" else ""))
    if scope == "data":
        say(f"history: {done.steps:,} changes sealed anew; older backups still open with the old keys, which stay")
    for name, count in done.left.items():
        say(f"left as they were, their plugin is not there: {name} {count:,}")
    say("make a new backup: the file of keys of the last one holds the old keys")


def seal(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Bring what is stored to the seal level that crmkit.toml names. What is cut short goes on when started again."""
    with open_crm(workspace) as crm, progress_bar() as progress:
        level, done = crm.profile.seal, crm.keys.seal(progress=progress)
    if as_json:
        say_json(asdict(done))
        return
    say(f"seal level: {level}; {done.documents:,} records and {done.steps:,} changes in the history")
    for name in done.left:
        say(f"left as they were, their plugin is not there: {name}")


def _drop_old(crm: CRM, yes: bool, as_json: bool) -> None:
    plan = crm.keys.plan_drop()
    if not as_json:
        say(f"{plan.keys:,} old data keys would be destroyed; {plan.kept:,} stay for reasons in the history")
        known = ", ".join(each[:16].replace("T", " ") for each in plan.backups) or "none that the audit log knows of"
        say(f"backups that go dark (UTC), with every file of keys that is made from now on: {known}")
    if not yes and not typer.confirm("Destroy?", err=True):
        raise typer.Exit(1)
    count = crm.keys.drop_old()
    if as_json:
        say_json({**asdict(plan), "dropped": count})
        return
    say(f"{count:,} old data keys are destroyed")


def recovery(
    file: Annotated[Path | None, typer.Argument(help="A new file, outside of the workspace.")] = None,
    drill: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prove that the recovery key in a file opens the keys.")
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Make a recovery key, which opens the workspace when your identity is lost; or prove that one does."""
    if (file is None) is (drill is None):
        raise typer.BadParameter("give a new file, or --drill and the file of a recovery key")
    with open_crm(workspace) as crm:
        if drill:
            proved = crm.keys.drill(drill)
            say(f"{proved.path} opens the keys of {crm.profile.name}: {proved.keys} keys, those in use")
            return
        assert file is not None
        made = crm.keys.recovery(file)
        say(f"the recovery key is in {made}: keep it where nobody gets it, and not only on this machine")
        say("a former one opens nothing from now on; make a new backup, which this key opens as well")


def recover(
    file: Annotated[Path, typer.Argument(help="The file of the recovery key.")], workspace: Workspace = None
) -> None:
    """Become a member again with a recovery key, when your own identity is lost."""
    from crmkit.keys import recover as become_member
    from crmkit.workspace import locate

    place = locate(workspace)
    _replace_lost_identity()
    name = become_member(place, file)
    say(f"you are a member of {place.folder} now, called {name}; crmkit members remove shuts out your lost identity")


def _replace_lost_identity() -> None:
    """Ask for a new identity in the place of one whose passphrase nobody knows any more."""
    from crmkit import Locked
    from crmkit.cli.access import new_passphrase
    from crmkit.vault.identity import ensure_identity, find_identity, has_identity, load_identity, put_aside

    if not has_identity():
        return
    try:
        load_identity()
    except Locked:
        found = find_identity()
        if not found.is_protected:
            raise
        say(f"your identity {found.place} is protected, and not unlocked")
        if not typer.confirm("Is its passphrase lost? Then it is put aside, and a new one is made", err=True):
            raise
        new = new_passphrase()
        say(f"the old one is in {put_aside()} now")
        ensure_identity(new)


def identity() -> None:
    """Print your public key, for a member who adds you. Makes you an identity where you have none."""
    from crmkit.cli.access import no_passphrase
    from crmkit.identities import ask_shipped_plugins
    from crmkit.vault.identity import ensure_identity, has_identity

    ask_shipped_plugins()
    is_first = not has_identity()
    say(str(ensure_identity().to_public()))  # alone on the output, to be put into a file or a message
    if is_first and (mind := no_passphrase()):
        typer.echo(mind, err=True)
