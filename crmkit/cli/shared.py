"""What the commands share: the workspace option, opening, and printing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
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
    """Return the open workspace that a command is about; what its plugins print meanwhile goes to stderr."""
    import crmkit

    with contextlib.redirect_stdout(sys.stderr):
        return crmkit.open(workspace)


def screens() -> Any:
    """Return the module that starts JupyterLab.

    Raises:
        Unsupported: The screens are not installed.
    """
    import crmkit

    try:
        from crmkit.ui import lab
    except ImportError as error:
        raise crmkit.Unsupported(f"the screens of crmkit are not installed: {error.name or error} is missing") from None
    return lab


def say(text: str) -> None:
    """Print lines for a person."""
    _print("\n".join(printable(line) for line in text.splitlines()))


def say_json(value: Any) -> None:
    """Print a value as JSON; a time is UTC and ends in Z, what else JSON has no word for is printed as text."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    _print(json.dumps(value, indent=2, ensure_ascii=not unicode, default=_json))


def _json(value: Any) -> str:
    from crmkit.values import instant_text

    return instant_text(value) if isinstance(value, datetime) and value.tzinfo else str(value)


def say_no_more() -> None:
    """Let the output go nowhere: its reader, `head` perhaps, has seen enough. The work goes on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(text: str) -> None:
    try:
        print(text)
    except BrokenPipeError:
        say_no_more()


def say_table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, whole: bool = False) -> None:
    """Print aligned columns, cut to the width of the terminal where there is one, unless they have to be whole."""
    texts = [[printable("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(headings, *texts, strict=True)]
    for row in (headings, *texts):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        most = shutil.get_terminal_size().columns
        is_cut = len(line) > most and sys.stdout.isatty() and not whole
        _print(f"{line[: most - 1]}…" if is_cut else line)


def printable(text: str) -> str:
    """Return text in which data cannot steer the terminal or turn the direction of what follows."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def size(count: int) -> str:
    """Return a number of bytes for a person."""
    return f"{count / 1_000_000:,.1f} MB" if count >= 100_000 else f"{count / 1_000:,.1f} kB"


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None] | None]:
    """Show a bar on a terminal; yield what moves it, or None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        steps: dict[str, Any] = {}

        def move(step: str, part: float) -> None:
            if step not in steps:
                steps[step] = bar.add_task(step, total=1.0)
            bar.update(steps[step], completed=part)

        yield move
