"""Protection: the page "Security": what is due, what is sealed, who can open it, who was erased, who looked at what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from crmkit import CRM, Page, Rows, Stack, Text, hookimpl

NEWEST = 20  # lines of the audit log
HOW = ("sealed, shown for a reason", "sealed", "not sealed")  # how fields are kept
KINDS = {"member": "member", "recovery": "recovery key"}


@hookimpl
def crm_views() -> Iterable[Page]:
    """Contribute the page."""
    return [Page("security", "Security", _page)]


def _page(crm: CRM) -> Stack:
    report = crm.security.report()
    fields = ((each.type, each.field, each.klass, each.sealed) for each in report.fields)
    members = tuple((name, KINDS.get(kind, kind)) for name, kind in report.members)
    plugins = tuple((each.name, each.source, f"{each.reveals:,}") for each in report.plugins)
    tags = tuple(
        (_label(crm, each.type, each.field), f"{each.records:,}", f"{each.bits}", f"{each.candidates:.1f}")
        for each in report.indexes
    )
    return Stack(
        (
            _due(report.overdue),
            _fields(crm, fields, report.may_be_plain),
            Rows("Who can open this workspace", ("Name", "Kind"), members),
            Rows(
                "Plugins",
                ("Plugin", "From", "Values shown in 180 days"),
                plugins,
                "They run in your process, and may read whatever you can read. What they reveal is logged.",
            ),
            Rows(
                "Exact search of sealed fields",
                ("Field", "Records", "Bits of a tag", "Records to a tag"),
                tags,
                "Equal values have equal tags. Below two records to a tag, a tag tells who is who.",
                "No sealed field is kept for exact search.",
            ),
            Text("Readable without a key", tuple(map(_sentence, report.readable))),
            _erasures(crm),
            _audit(crm),
        )
    )


def _due(overdue: Iterable[str]) -> Text | Rows:
    """Return what is due, each with the command that the report names last."""
    rows = tuple((_sentence(what), command) for what, _, command in (line.rpartition(": ") for line in overdue))
    if not rows:
        return Text("Nothing is due", ("Recovery key, backup, keys and files are as they should be.",))
    return Rows("What is due", ("What", "Command"), rows, commands=("Command",))


def _fields(crm: CRM, fields: Iterable[tuple[str, str, str, bool]], may_be_plain: bool) -> Rows:
    kept: dict[tuple[str, str], list[str]] = {}
    for type, field, klass, sealed in fields:
        known = crm.collection(type).info
        how = HOW[0] if klass == "sensitive" else HOW[1] if sealed else HOW[2]
        kept.setdefault((known.title, how), []).append(known.fields[field].label)
    types = dict.fromkeys(title for title, _ in kept)
    order = [(title, how) for title in types for how in HOW if (title, how) in kept]
    rows = tuple((title, how, ", ".join(kept[title, how])) for title, how in order)
    warning = "Older files may hold personal values unsealed; crmkit keys rotate --scope data seals them anew."
    return Rows("What is sealed", ("Records", "Kept", "Fields"), rows, warning if may_be_plain else "")


def _erasures(crm: CRM) -> Rows:
    rows = tuple(
        (
            _time(crm, each.at),
            each.actor,
            each.type,
            _counts(crm, each.deleted),
            _counts(crm, each.redacted),
            "yes" if each.finished else "no: open the workspace again",
            each.id,
        )
        for each in crm.erasures()
    )
    columns = ("When", "By", "Who", "Deleted", "Kept", "Finished", "Certificate")
    kept = "What is kept, is without the person." if rows else ""
    return Rows("Erasures", columns, rows, kept, "Nobody was erased.", commands=("Certificate",))


def _audit(crm: CRM) -> Rows:
    rows = tuple(
        (
            _time(crm, each.at),
            each.actor,
            each.action.replace("_", " "),
            each.entity,
            ", ".join(each.fields),
            each.plugin or "",
        )
        for each in crm.audit.entries(limit=NEWEST)
    )
    columns = ("When", "Who", "Did", "To", "Fields", "Plugin")
    return Rows("Newest lines of the audit log", columns, rows, "crmkit audit lists all, with their reasons.")


def _label(crm: CRM, type: str, field: str) -> str:
    known = crm.collection(type).info
    return f"{known.title}: {known.fields[field].label}"


def _counts(crm: CRM, of: Mapping[str, int]) -> str:
    """Return counted records; a plugin that is gone has left only the name of its type."""
    known = {crm.collection(each).info.type: crm.collection(each).info for each in crm.types}
    return ", ".join(known[type].counted(n) if type in known else f"{n:,} {type}" for type, n in of.items())


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _time(crm: CRM, at: datetime) -> str:
    return f"{at.astimezone(crm.zone):%Y-%m-%d %H:%M}"
