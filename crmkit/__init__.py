"""crmkit, the CRM you can import.

    import crmkit

    crm = crmkit.open("acme")
    crm.customers.search("ada lov")

Everything that plugins and notebooks need is here; see `docs/guide.md`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crmkit.contributions import (
    Analysis,
    Change,
    Chart,
    Decision,
    Entry,
    Failure,
    Measurement,
    Page,
    Panel,
    Result,
    Rows,
    Stack,
    Table,
    Text,
    Timeline,
)
from crmkit.detector import find_payment_data
from crmkit.errors import (
    ChangedSince,
    Conflict,
    CrmError,
    Damaged,
    Erased,
    ImportProblem,
    Invalid,
    Locked,
    NotFound,
    NotTrusted,
    Refused,
    StoreBusy,
    Unsupported,
)
from crmkit.fields import Personal, Reference, Searchable, Secret, Sensitive, Unique
from crmkit.hooks import hookimpl
from crmkit.query import F
from crmkit.records import Customer, Part, Record
from crmkit.values import CardNumber, Code, Country, Email, Iban, Instant, LongText, Money, Phone, TaxId

if TYPE_CHECKING:
    from crmkit.crm import CRM
    from crmkit.history import Batch, HistoryEntry
    from crmkit.opening import create, open, restore, trust  # noqa: A004  # crmkit.open is the name of the public face

__version__ = "0.1.0.dev0"

__all__ = [
    "CRM",
    "Analysis",
    "Batch",
    "CardNumber",
    "Change",
    "ChangedSince",
    "Chart",
    "Code",
    "Conflict",
    "Country",
    "CrmError",
    "Customer",
    "Damaged",
    "Decision",
    "Email",
    "Entry",
    "Erased",
    "F",
    "Failure",
    "HistoryEntry",
    "Iban",
    "ImportProblem",
    "Instant",
    "Invalid",
    "Locked",
    "LongText",
    "Measurement",
    "Money",
    "NotFound",
    "NotTrusted",
    "Page",
    "Panel",
    "Part",
    "Personal",
    "Phone",
    "Record",
    "Reference",
    "Refused",
    "Result",
    "Rows",
    "Searchable",
    "Secret",
    "Sensitive",
    "Stack",
    "StoreBusy",
    "Table",
    "TaxId",
    "Text",
    "Timeline",
    "Unique",
    "Unsupported",
    "create",
    "find_payment_data",
    "hookimpl",
    "open",
    "restore",
    "trust",
]

_ON_FIRST_USE = {
    "CRM": "crmkit.crm",
    **dict.fromkeys(("Batch", "HistoryEntry"), "crmkit.history"),
    **dict.fromkeys(("create", "open", "restore", "trust"), "crmkit.opening"),
}


def __getattr__(name: str) -> Any:
    """Bring the open handle, with store and vault, when it is first asked for: importing crmkit stays light."""
    if name in _ON_FIRST_USE:
        value = globals()[name] = getattr(import_module(_ON_FIRST_USE[name]), name)
        return value
    raise AttributeError(f"module 'crmkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
