"""`doctor` looks after a workspace and saves what a damaged one still holds; `backup`, `restore` and `export`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crmkit.cli.shared import AsJson, Workspace, open_crm, progress_bar, say, say_json, size

if TYPE_CHECKING:
    from crmkit.safekeeping.doctor import Health, Saved
    from crmkit.workspace import Workspace as Place

NAMED = 20  # losses that are printed; --json prints all


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(doctor)
    app.command()(backup)
    app.command()(restore)
    app.command()(export)


def doctor(
    workspace: Workspace = None,
    salvage: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Make a new workspace of what a damaged one still holds.")
    ] = None,
    accept_restored: Annotated[
        bool, typer.Option("--accept-restored", help="Accept that somebody restored a backup: an older audit log.")
    ] = False,
    security: Annotated[
        bool, typer.Option("--security", help="Say what is sealed, who can open it, and what is overdue.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything that is stored; say what is wrong, and what to do.

    Exits with 1 when something is wrong or was lost.
    """
    from crmkit.identities import ask_shipped_plugins

    if security:
        _security(workspace, as_json)
        return
    ask_shipped_plugins()
    place = _place(workspace)
    if salvage:
        _salvage(place, salvage, as_json)
        return
    if accept_restored:
        _accept(place)
    name, health = _examined(place)
    if as_json:
        say_json({"workspace": str(place.folder), "name": name, **asdict(health)})
    else:
        say(f"{name} in {place.folder}")
        _tell(health)
    if health.problems:
        raise typer.Exit(1)


def _security(workspace: Path | None, as_json: bool) -> None:
    with open_crm(workspace) as crm:
        report = crm.security.report()
        stray = crm.security.payment_data()
    if as_json:
        say_json({**report.to_dict(), "payment_data": len(stray)})
        return
    say(str(report))
    if stray:
        say(f"mind: in texts there stand {stray.counted()}: crm.security.payment_data() says where")


def _place(workspace: Path | None) -> Place:
    """Return the workspace, also one that lacks its settings: nobody needs a doctor more."""
    from crmkit import NotFound
    from crmkit.workspace import Workspace as Place
    from crmkit.workspace import locate

    try:
        return locate(workspace)
    except NotFound:
        folder = (workspace or Path.cwd()).expanduser().resolve()
        if not (folder / "data").is_dir():
            raise
        return Place(folder)


def _accept(place: Place) -> None:
    from crmkit.safekeeping.backup import accept_restored
    from crmkit.vault import user_name

    if noted := accept_restored(place, user_name()):
        print(f"{noted}; the audit log keeps that", file=sys.stderr)


def _examined(place: Place) -> tuple[str, Health]:
    """Return the name and the state of a workspace, also of one that cannot be opened."""
    from crmkit import Damaged, Invalid, NotFound
    from crmkit.safekeeping.doctor import examine_closed

    try:
        crm = open_crm(place.folder)
    except (Damaged, Invalid, NotFound) as error:
        return place.folder.name, examine_closed(place, error)
    with crm:
        return crm.profile.name, crm.examine()


def _tell(health: Health) -> None:
    say("records: " + (", ".join(f"{name} {count:,}" for name, count in health.records.items()) or "none"))
    say("on disk: " + ", ".join(f"{part} {size(count)}" for part, count in health.bytes.items()))
    if health.generation:
        say(f"history: {health.commits:,} commits; generation {health.generation}, format {health.format}")
    for kind, lines in (("wrong", health.problems), ("mind", health.warnings), ("to do", health.advice)):
        for line in lines:
            say(f"{kind}: {line}")
    if not health.problems:
        result = "nothing is wrong" if health.warnings else "all is well"
        say(f"checked: every frame of the store, the key files, the audit log; {result}")


def _salvage(place: Place, folder: Path, as_json: bool) -> None:
    from crmkit.safekeeping.doctor import salvage_workspace

    saved = salvage_workspace(place, folder)
    if as_json:
        say_json(asdict(saved))
    else:
        _tell_saved(saved)
    if saved.losses:
        raise typer.Exit(1)


def _tell_saved(saved: Saved) -> None:
    say(f"saved into {saved.folder}: " + ", ".join(f"{name} {count:,}" for name, count in saved.records.items()))
    for line in saved.mended:
        say(f"mended: {line}")
    for loss in saved.losses[:NAMED]:
        say(f"lost: {loss}")
    if len(saved.losses) > NAMED:
        say(f"lost: ... and {len(saved.losses) - NAMED:,} more; --json names all")
    say("the old workspace is as it was" + ("" if saved.losses else "; nothing was lost"))


def backup(
    folder: Annotated[Path, typer.Argument(help="Where the backups are kept; outside of the workspace, it is made.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Save a workspace: one file with the data, one with the keys.

    Others may go on writing. Both files open with your identity; keep a copy of it elsewhere.
    """
    from crmkit.vault.identity import identity_place

    with open_crm(workspace) as crm, progress_bar() as progress:
        made = crm.backup(folder, progress=progress)
    if as_json:
        say_json(asdict(made))
        return
    for what, path in (("data", made.data), ("keys", made.keys)):
        say(f"{what}: {path}  {size(path.stat().st_size)}")
    for name in made.left_out:
        say(f"left out, no plain file: {name}")
    for warning in made.warnings:
        say(f"mind: {warning}")
    say(f"saved up to commit {made.seq:,}; both open with {identity_place()}: keep a copy of that elsewhere")


def restore(
    backup: Annotated[Path, typer.Argument(help="A file *.data.zip.age, or the folder of backups: then the newest.")],
    folder: Annotated[Path, typer.Argument(help="The workspace to make; a new folder.")],
    keys: Annotated[Path | None, typer.Option(help="The file *.keys.zip.age, where it is not beside the data.")] = None,
) -> None:
    """Make a workspace from a backup, every file of it checked."""
    from crmkit.identities import ask_shipped_plugins
    from crmkit.safekeeping.backup import restore_backup
    from crmkit.vault import user_name

    ask_shipped_plugins()
    with progress_bar() as progress:
        made = restore_backup(backup, folder, user_name(), keys, progress)
    with open_crm(made.workspace.folder) as crm:
        counts = ", ".join(f"{name} {count:,}" for name, count in crm.examine().records.items())
        say(f"from {made.data}")
        say(f"restored {crm.profile.name} into {crm.workspace.folder}, up to commit {crm.seq():,}: {counts}")


def export(
    what: Annotated[str, typer.Argument(metavar="TYPE | FOLDER", help="A record type; with --all, the new folder.")],
    file: Annotated[Path | None, typer.Argument(help="A new file, *.csv or *.jsonl.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All types, the history and the files.")] = False,
    reveal: Annotated[
        str | None, typer.Option(metavar="REASON", help="Leave sensitive fields in the clear; the reason is audited.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Write records out in open formats.

    Personal fields are in the clear, sensitive ones masked, and only you can read the files.
    """
    if everything is bool(file):
        raise typer.BadParameter("give a record type and a file, or --all and a folder")
    with open_crm(workspace) as crm, progress_bar() as progress:
        if file:
            made = crm.export(what, file, reveal=reveal, progress=progress)
        else:
            made = crm.export_all(what, reveal=reveal, progress=progress)
    if as_json:
        say_json(asdict(made))
        return
    counts = ", ".join(_with_removed(name, count, made.removed.get(name, 0)) for name, count in made.records.items())
    say(f"written to {made.path}, as of commit {made.seq:,}: {counts}")
    if made.left_out:
        say(f"left out, because you may not see them: {made.left_out:,} records")
    if everything:
        empty = made.seq - made.commits
        why = "changed nothing, or nothing that you may see" if made.left_out else "changed nothing"
        say(f"history: {made.commits:,} commits" + (f", and {empty:,} left out that {why}" if empty else ""))
        say(f"files, notebooks and plugins: {made.files:,}; read again, and as many as are stored")
    say("sensitive fields are " + ("in the clear, but for card numbers" if made.revealed else "masked"))


def _with_removed(name: str, count: int, removed: int) -> str:
    return f"{name} {count - removed:,}" + (f" and {removed:,} removed" if removed else "")
