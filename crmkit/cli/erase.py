"""`erase` takes somebody out for good, `erasures` lists the certificates, `allow-again` lets an address come back."""

from __future__ import annotations

from typing import Annotated

import typer

from crmkit.cli.history import record_id
from crmkit.cli.shared import AsJson, Workspace, open_crm, say, say_json, say_table

Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit log: a number, rather than a name.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(erase)
    app.command()(erasures)
    app.command("allow-again")(allow_again)


def erase(
    id: Annotated[str, typer.Argument(help="The id of the customer, as crmkit find shows it; or the number.")],
    reason: Reason,
    workspace: Workspace = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a customer for good: the data key is destroyed, so that history and backups go dark too."""
    if as_json and not (yes or dry_run):
        raise typer.BadParameter("needs --yes or --dry-run", param_hint="--json")
    from crmkit import Customer

    with open_crm(workspace) as crm:
        id = record_id(crm, id, [Customer])
        if dry_run or not yes:
            plan = crm.erase(id, reason=reason, dry_run=True)
            if dry_run and as_json:
                say_json(plan.to_dict())
                return
            say(str(plan))
            if dry_run:
                return
            typer.confirm("This cannot be undone. Erase?", abort=True, err=True)
        certificate = crm.erase(id, reason=reason)
        if as_json:
            say_json(certificate.to_dict())
        else:
            say(str(certificate))


def erasures(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List the certificates of erasures, newest first."""
    with open_crm(workspace) as crm:
        certificates = crm.erasures()
    if as_json:
        say_json([certificate.to_dict() for certificate in certificates])
        return
    rows = [(f"{each.at:%Y-%m-%d %H:%M}", each.type, each.record, each.actor, each.reason) for each in certificates]
    say_table(("at (UTC)", "type", "id", "by", "reason"), rows)


def allow_again(
    address: Annotated[str, typer.Argument(help="The mail address or phone number.")],
    reason: Reason,
    workspace: Workspace = None,
) -> None:
    """Let the address of somebody who was erased be kept again, because they came back."""
    with open_crm(workspace) as crm:
        crm.allow_again(address, reason=reason)
    say("the address may be kept again")
