"""`find` looks for records, `py` evaluates an expression on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmkit.cli.shared import AsJson, Workspace, open_crm, printable, say, say_json, say_table

if TYPE_CHECKING:
    from crmkit.schema import RecordInfo

CUSTOMER_COLUMNS = ("number", "name", "email", "phone", "city", "country")
NO_COLUMN = ("parts", "references", "reference", "long_text", "other")  # kinds that say little in a narrow column


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(find)
    app.command()(py)


def find(
    text: Annotated[str, typer.Argument(help="The name, number, mail or phone, as far as you know it.")],
    type: Annotated[str, typer.Option(help="The record type.")] = "customer",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most records.")] = 20,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Find records by a name, number, mail or phone, or by a whole IBAN."""
    with open_crm(workspace) as crm:
        collection: Any = crm.collection(type)
        found = collection.search(text, limit=limit + 1)
        more, found = len(found) > limit, found[:limit]
        if as_json:
            say_json([record.model_dump(mode="json", exclude_none=True) for record in found])
            return
        columns = _columns(collection.info)
        if found:
            say_table(("id", *columns), ([record.id, *(getattr(record, name) for name in columns)] for record in found))
        of = f" of {collection.count(text=text):,}; --limit shows more" if more else ""
        say(f"{collection.info.counted(len(found))} found{of}")


def _columns(info: RecordInfo) -> tuple[str, ...]:
    if info.type == "customer":
        return CUSTOMER_COLUMNS
    return tuple(name for name, spec in info.fields.items() if spec.kind not in NO_COLUMN)[:6]


def py(
    expression: Annotated[str, typer.Argument(help="For example: len(crm.customers)")], workspace: Workspace = None
) -> None:
    """Evaluate a Python expression; crm, crmkit and F are there."""
    import crmkit

    with open_crm(workspace) as crm:
        try:
            value = eval(expression, {"crm": crm, "crmkit": crmkit, "F": crmkit.F})  # noqa: S307  # that is the command
        except crmkit.CrmError:
            raise
        except Exception as error:  # the user's own expression; its traceback would show our frames only
            name = error.__class__.__name__
            raise crmkit.Invalid({"expression": printable(f"{name}: {error}")}) from error
        if value is not None:
            say(value if isinstance(value, str) else repr(value))
