"""The command line. Each command is a module, or a small family of them; heavy packages are imported inside."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import crmkit
from crmkit.cli import data, demo, imports, plugins, workspaces

__all__ = ["app", "main"]

app = typer.Typer(
    name="crmkit",
    help="The CRM you can import: customer records with sealed fields, plugins, screens in a notebook.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # help without rich, which takes longer to import than the rest
    pretty_exceptions_enable=False,
)
for module in (workspaces, imports, data, plugins, demo):
    module.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"crmkit {crmkit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line; what crmkit refuses is one line on stderr and exit code 1."""
    try:
        app()
    except (crmkit.CrmError, OSError) as error:
        if os.environ.get("CRMKIT_DEBUG"):
            raise
        _complain(error)
        sys.exit(1)


def _complain(error: Exception) -> None:
    if isinstance(error, BrokenPipeError):  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    print(f"crmkit: {' '.join(text.split())}", file=sys.stderr)
