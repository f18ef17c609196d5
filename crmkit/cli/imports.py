"""`import` takes a table into a workspace."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmkit.cli.shared import AsJson, Workspace, open_crm, progress_bar, say, say_json

if TYPE_CHECKING:
    from crmkit import CRM
    from crmkit.transfer import ImportPlan


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("import")(import_)


def import_(
    file: Annotated[Path, typer.Argument(help="A CSV, gzipped CSV or XLSX file.")],
    as_: Annotated[str, typer.Option("--as", metavar="TYPE", help="The record type, for example customer.")],
    map: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COLUMN=FIELD", help="The field of a column; many times. No field: left out."),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Rows with one value here make one record.")
    ] = None,
    keep_good: Annotated[bool, typer.Option("--keep-good", help="Write the good rows though others are bad.")] = False,
    all_or_nothing: Annotated[bool, typer.Option("--all-or-nothing", help="Write one commit, or nothing.")] = False,
    move_sensitive: Annotated[
        bool,
        typer.Option("--move-sensitive", help="Move card numbers and IBANs out of texts, into the fields for them."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    encoding: Annotated[str | None, typer.Option(help="The encoding of a text that is not UTF-8, as cp1252.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="The sign between two fields.")] = None,
    sheet: Annotated[str | None, typer.Option(help="The sheet of a workbook; the first when left out.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Take a CSV or XLSX file into a workspace.

    Columns are guessed by their names, or mapped. Bad rows go to FILE.errors.csv with their reasons.
    """
    from crmkit import ImportProblem

    if keep_good and all_or_nothing:
        raise typer.BadParameter("--keep-good and --all-or-nothing exclude each other")
    how: Any = {"group_by": group_by, "encoding": encoding, "delimiter": delimiter, "sheet": sheet}
    with open_crm(workspace) as crm, _told_of_ctrl_c(crm, as_), progress_bar() as progress:
        plan = crm.import_file(file, as_=as_, map=_mapping(map or ()), progress=progress, **how)
        moved = plan.move_sensitive() if move_sensitive else 0
        errors = None if dry_run else plan.write_errors()
        if not as_json:
            say(plan.summary() + (f"\n  all bad rows with their reasons: {errors}" if errors else ""))
            _tell_payment(plan, moved, move_sensitive)
        problem = _problem(plan, keep_good or dry_run)
        commit = None
        if not dry_run and not problem:
            commit = plan.apply(keep_good=keep_good, all_or_nothing=all_or_nothing, progress=progress)
    if as_json:
        written = {"moved": moved, "written": commit.count if commit else 0, "commit": commit.id if commit else None}
        say_json({**plan.to_dict(), "errors_file": errors, **written})
    if problem:
        raise ImportProblem(problem)
    if not as_json:
        told = f"written: {plan.counted()}; crmkit undo {commit.id} takes it back" if commit else ""
        say(told or "nothing was written (dry run)")


def _tell_payment(plan: ImportPlan, moved: int, asked: bool) -> None:
    if moved:
        say(f"  card numbers and IBANs were moved out of {moved:,} {'text' if moved == 1 else 'texts'}")
    if plan.payment and not asked:
        print("crmkit: card numbers or IBANs stay in texts; --move-sensitive moves them", file=sys.stderr)
    elif plan.payment:
        texts = f"{len(plan.payment):,} {'text' if len(plan.payment) == 1 else 'texts'}"
        why = "the field for them is filled already, or there is none"
        print(f"crmkit: card numbers or IBANs stay in {texts}: {why}", file=sys.stderr)


def _mapping(pairs: Sequence[str]) -> dict[str, str]:
    """Return the field by column; a column may hold an equals sign, a field does not."""
    for pair in pairs:
        if "=" not in pair:
            raise typer.BadParameter(f"'{pair}' is not COLUMN=FIELD", param_hint="--map")
    return {column.strip(): field.strip() for column, _, field in (pair.rpartition("=") for pair in pairs)}


def _problem(plan: ImportPlan, keep_good: bool) -> str:
    """Return why nothing can be written; empty where something can."""
    if not plan.records:
        return f"nothing was written: no row of {plan.rows:,} can be imported"
    if plan.bad and not keep_good:
        return f"nothing was written: {plan.bad_rows:,} of {plan.rows:,} rows are bad; --keep-good writes the good ones"
    return ""


@contextlib.contextmanager
def _told_of_ctrl_c(crm: CRM, type: str) -> Iterator[None]:
    """Say how many records an interrupted import has written; each batch is whole and stays."""
    collection: Any = crm.collection(type)
    before = len(collection)
    try:
        yield
    except KeyboardInterrupt:
        written = len(collection) - before
        again = "; to go on, run it again with --keep-good; crmkit batches says how to undo it" if written else ""
        stay = f"{collection.info.counted(written)} {'was' if written == 1 else 'were'} written and stay"
        said = f"crmkit: interrupted: {stay}{'s' if written == 1 else ''}{again}"
        print(said, file=sys.stderr)
        raise typer.Exit(130) from None
