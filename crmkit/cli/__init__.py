"""The command line. Each command is a module, or a small family of them; heavy packages are imported inside."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

import crmkit
from crmkit.cli import (
    access,
    audit,
    data,
    demo,
    erase,
    history,
    imports,
    keys,
    members,
    plugins,
    safekeeping,
    workspaces,
)
from crmkit.cli.shared import say_no_more

__all__ = ["app", "main"]

app = typer.Typer(
    name="crmkit",
    help="The CRM you can import: customer records with sealed fields, plugins, screens in a notebook.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # help without rich, which takes longer to import than the rest
    pretty_exceptions_enable=False,
)
for module in (workspaces, imports, data, history, safekeeping, access, erase, audit, members, keys, plugins, demo):
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
    """Run the command line: what crmkit refuses is one line on stderr and exit code 1, our own mistakes 70."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a sign gets its number
            stream.reconfigure(errors="backslashreplace")
    try:
        _run()
    except Exception as error:  # nobody is shown a traceback who did not ask for it
        if os.environ.get("CRMKIT_DEBUG"):
            raise
        text, code = _complaint(error)
        print(f"crmkit: {' '.join(text.split())}", file=sys.stderr)
        sys.exit(code)


def _run() -> None:
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            say_no_more()


def _complaint(error: Exception) -> tuple[str, int]:
    """Return what to say about an error, and the exit code."""
    if isinstance(error, FileNotFoundError) and not error.filename:  # only the system's "where am I" names no file
        return "the folder that you are in was removed; change to another one", 1
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", 1
    if isinstance(error, crmkit.CrmError | OSError):
        return str(error), 1
    name = type(error).__name__
    return f"this is a mistake in crmkit or in a plugin: {name}; CRMKIT_DEBUG=1 shows where", os.EX_SOFTWARE
