"""`init` makes a workspace, `lab` opens one in the browser."""

from __future__ import annotations

import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crmkit.cli.shared import Workspace, open_crm, say, screens

if TYPE_CHECKING:
    from crmkit import CRM


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(init)
    app.command()(lab)


def init(
    folder: Annotated[Path, typer.Argument(help="Where; it is made.")],
    currency: Annotated[str, typer.Option(help="ISO 4217 code of amounts that name none.")] = "EUR",
    country: Annotated[str | None, typer.Option(help="ISO 3166 code; the region of national phone numbers.")] = None,
    name: Annotated[str | None, typer.Option(help="What people call it; the folder's name when left out.")] = None,
    time_zone: Annotated[str, typer.Option(help="IANA name of the zone in which days begin.")] = "UTC",
    seal: Annotated[
        Literal["personal", "sensitive"],
        typer.Option(help="What is encrypted: names too, or numbers only."),
    ] = "personal",
) -> None:
    """Make a workspace, and a recovery key that opens it when your identity is lost.

    Your identity opens every workspace of yours; the first time one is made, and a passphrase for it is asked for.
    """
    import crmkit
    from crmkit.cli.access import no_passphrase
    from crmkit.vault.identity import has_identity

    is_first = not has_identity()
    _make_identity()
    country = country.upper() if country else None  # codes, typed as people do
    with crmkit.create(
        folder, currency=currency.upper(), country=country, name=name, time_zone=time_zone, seal=seal
    ) as crm:
        recovery = _make_recovery_key(crm)
        say(f"made {crm.profile.name} in {crm.workspace.folder}; open it with: crmkit lab -w {folder}")
        say(f"a recovery key is in {recovery}; keep it elsewhere: it opens the workspace when your identity is lost")
    if is_first and (mind := no_passphrase()):
        say(mind)


def _make_recovery_key(crm: CRM) -> Path:
    """Write the recovery key of a new workspace into the user's config folder."""
    from crmkit.durable import make_folder
    from crmkit.vault.identity import PRIVATE_FOLDER, config_folder

    name = f"{crm.workspace.folder.name}-{crm.id[:8]}.txt"
    path = config_folder() / "recovery" / name
    make_folder(path.parent, PRIVATE_FOLDER)
    return crm.keys.recovery(path)


def _make_identity() -> None:
    """Ask on a terminal for the passphrase of the first identity; elsewhere it is made without one."""
    from crmkit.cli.access import WITHOUT, new_passphrase, unlocked
    from crmkit.vault.identity import ensure_identity, has_identity, identity_place
    from crmkit.vault.unlocking import LASTS

    if has_identity() or not sys.stdin.isatty():
        return
    say(f"your identity will be {identity_place()}; {WITHOUT}")
    passphrase = new_passphrase()
    ensure_identity(passphrase)
    if passphrase is not None:
        say(unlocked(datetime.now(UTC) + LASTS))


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
