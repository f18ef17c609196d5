"""`unlock`, `lock` and `identity`: the passphrase of the user's identity, asked for on the terminal only."""

from __future__ import annotations

import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crmkit.cli.shared import Workspace, say

if TYPE_CHECKING:
    from crmkit.vault.identity import Found

IDENTITY = typer.Typer(no_args_is_help=True, help="Protect your identity with a passphrase, or no longer.")
WITHOUT = "without a passphrase, whoever gets this account's files can open every workspace of yours"
TRIES = 3  # of a new passphrase
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?:in)?)?")


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(unlock)
    app.command()(lock)
    IDENTITY.command()(protect)
    IDENTITY.command()(unprotect)
    app.add_typer(IDENTITY, name="identity")


def unlock(
    workspace: Workspace = None,
    lasts: Annotated[str, typer.Option("--for", metavar="8h", help="How long: 2h, 30m, 1h30m; at most 24h.")] = "8h",
    remember: Annotated[
        str | None, typer.Option(metavar="keyring:SERVICE/NAME", help="Put the identity into the system's keyring.")
    ] = None,
) -> None:
    """Ask for your passphrase, and keep your identity open for kernels and commands.

    With a passphrase: the audit log of the workspace notes it, and counts anew how many values you may be shown.
    """
    from crmkit.identities import ask_shipped_plugins
    from crmkit.vault.identity import find_identity, load_identity, unlock_identity

    ask_shipped_plugins()
    duration = _duration(lasts)
    found = find_identity()
    if found.is_protected:
        until = unlock_identity(found, asked(f"Passphrase of {found.place}: "), duration)
        say(unlocked(until))
        _note(workspace)
    else:
        say(f"your identity {found.place} has no passphrase: {WITHOUT}")
        say("so there was nothing to unlock, and the count of values that you were shown goes on")
    if remember:
        from crmkit.plugins.governance.os_keyring import remember as put

        put(remember, str(load_identity()))
        say(f"the system's keyring has it; use it with: export CRMKIT_IDENTITY={remember}")


def _note(workspace: Path | None) -> None:
    """Note in the audit log of the workspace, where there is one, that it was unlocked; say whose count begins anew."""
    from crmkit import NotFound
    from crmkit.audit import note_unlock
    from crmkit.workspace import locate

    try:
        place = locate(workspace)
    except NotFound:
        if workspace is not None:
            raise
        say("this is no workspace: how many values you were shown is counted on; crmkit unlock -w FOLDER begins anew")
        return
    note_unlock(place)
    say(f"how many values you were shown is counted anew in {place.folder}")


def unlocked(until: datetime) -> str:
    """Return what to say of an identity that is kept open, and how long."""
    return f"unlocked until {until.astimezone():%H:%M}; crmkit lock ends it"


def no_passphrase() -> str:
    """Return what to say of an identity that was just made; nothing where it is protected."""
    from crmkit.vault.identity import find_identity

    made = find_identity()
    return "" if made.is_protected else f"your new identity {made.place} has no passphrase: crmkit identity protect"


def lock() -> None:
    """Forget at once what was unlocked; kernels that are running lock themselves when they are idle."""
    from crmkit.vault.unlocking import forget

    say("locked" if forget() else "nothing was unlocked")


def protect() -> None:
    """Give your identity file a passphrase, or another one."""
    from crmkit.vault.identity import change_passphrase, find_identity

    found = find_identity()
    old = _old(found) if found.is_protected else None
    new = new_passphrase()
    if new is None:
        say("nothing was changed")
        return
    path = change_passphrase(old, new)
    say(f"{path} is protected; open it with: crmkit unlock")


def unprotect() -> None:
    """Take the passphrase off your identity file."""
    from crmkit.vault.identity import change_passphrase, find_identity

    found = find_identity()
    if not found.is_protected:
        say(f"your identity {found.place} has no passphrase")
        return
    path = change_passphrase(_old(found), None)
    say(f"{path} is no longer protected: {WITHOUT}")


def _old(found: Found) -> str:
    return asked(f"Passphrase of {found.place}: ")


def new_passphrase() -> str | None:
    """Ask for a new passphrase, twice; None where Enter was pressed. One that is no good is asked for again.

    Raises:
        Invalid: The third one was no good either.
    """
    from crmkit import Invalid

    for _ in range(TRIES - 1):
        try:
            return _new_passphrase()
        except Invalid as problem:
            say(str(problem))
    return _new_passphrase()


def _new_passphrase() -> str | None:
    from crmkit import Invalid
    from crmkit.vault.passphrase import check_passphrase

    new = asked("New passphrase (Enter = none): ")
    if not new:
        return None
    check_passphrase(new)
    if asked("Once more: ") != new:
        raise Invalid({"passphrase": "the two are not the same; nothing was changed"})
    return new


def asked(prompt: str) -> str:
    """Ask for something secret on the terminal; it is not shown, and never taken from an argument.

    Raises:
        Refused: There is no terminal.
    """
    import getpass
    import warnings

    from crmkit import Refused

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # what it would do then is to show what is typed
            return getpass.getpass(prompt)
    except (getpass.GetPassWarning, EOFError):
        raise Refused("a passphrase is asked for on a terminal; without one, give a key in $CRMKIT_IDENTITY") from None
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise typer.Exit(130) from None


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text.strip())
    if not found or not any(found.groups()):
        raise typer.BadParameter("give hours and minutes, as 2h, 30m or 1h30m", param_hint="--for")
    from crmkit.vault.unlocking import LONGEST

    given = timedelta(hours=int(found[1] or 0), minutes=int(found[2] or 0))
    if not timedelta() < given <= LONGEST:
        most = f"{LONGEST // timedelta(hours=1)} hours"
        raise typer.BadParameter(f"give more than nothing and at most {most}", param_hint="--for")
    return given
