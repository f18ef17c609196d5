"""What the commands share: the workspace option, opening, and printing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from crmkit import CRM

Workspace = Annotated[
    Path | None,
    typer.Option(
        "-w", "--workspace", metavar="FOLDER", help="The workspace; else looked for upward, then $CRMKIT_WORKSPACE."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_crm(workspace: Path | None) -> CRM:
    """Return the open workspace that a command is about."""
    import crmkit

    return crmkit.open(workspace)


def say(text: str) -> None:
    """Print lines for a person."""
    print("\n".join(printable(line) for line in text.splitlines()))


def say_json(value: Any) -> None:
    """Print a value as JSON; what JSON has no word for is printed as text."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def say_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print aligned columns, cut to the width of the terminal where there is one."""
    texts = [[printable("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(headings, *texts, strict=True)]
    for row in (headings, *texts):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(line[: shutil.get_terminal_size().columns] if sys.stdout.isatty() else line)


def printable(text: str) -> str:
    """Return text in which data cannot steer the terminal or turn the direction of what follows."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def size(count: int) -> str:
    """Return a number of bytes for a person."""
    return f"{count / 1_000_000:,.1f} MB" if count >= 100_000 else f"{count / 1_000:,.1f} kB"
