"""Suppression: addresses of people who were erased are known again by a keyed hash, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from crmkit.errors import Invalid
from crmkit.records import Customer
from crmkit.schema import adapter

if TYPE_CHECKING:
    from crmkit.schema import RecordInfo
    from crmkit.vault import Vault

ADDRESSES = ("email", "phone")
CONTACTS = "contacts"
PROBLEM = "belongs to somebody whose data was erased; if they came back: crmkit allow-again, or crm.allow_again(…)"

Address = tuple[str, str]
"""A kind, mail or phone, and its normalised value."""


class Suppression:
    """The list of addresses that must not come back unnoticed.

    Args:
        vault: Keeps the list.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def problems(self, known: RecordInfo, doc: Callable[[], Mapping[str, Any]]) -> dict[str, str]:
        """Return what is wrong, by field, with a document that holds a suppressed address."""
        self._vault.erasures.refresh()  # another process may have erased somebody just now
        if not self._vault.erasures.has_suppressed():
            return {}
        return {name: PROBLEM for name, address in addresses(known, doc()) if self.is_suppressed(address)}

    def is_suppressed(self, address: Address) -> bool:
        """Return whether an address is on the list."""
        return self._vault.erasures.is_suppressed(self._vault.suppression_tags(*_folded(address)))

    def tags(self, found: Iterator[tuple[str, Address]]) -> list[str]:
        """Return what is kept of addresses."""
        return list(dict.fromkeys(self._vault.suppression_tags(*_folded(address))[0] for _, address in found))

    def allow(self, address: Address) -> None:
        """Take an address off the list; the caller holds the lock of the workspace."""
        for tag in self._vault.suppression_tags(*_folded(address)):
            self._vault.erasures.allow(tag)


def addresses(known: RecordInfo, doc: Mapping[str, Any]) -> Iterator[tuple[str, Address]]:
    """Yield (field, address) for each mail address and phone number of a document in memory form."""
    for spec in known.fields.values():
        value = doc.get(spec.name)
        if spec.kind in ADDRESSES and spec.klass != "sensitive" and isinstance(value, str):
            yield spec.name, (spec.kind, value)
    for number, row in enumerate(doc.get(CONTACTS) or (), 1):
        if isinstance(row, Mapping) and row.get("kind") in ADDRESSES:
            yield f"{CONTACTS}.{number}.value", (row["kind"], row["value"])


def address(text: str, context: Mapping[str, Any]) -> Address:
    """Return the mail address or phone number that is meant by a text.

    Raises:
        Invalid: It is neither.
    """
    kind = "email" if "@" in str(text) else "phone"
    try:
        return kind, str(adapter(Customer, kind).validate_python(text, context=dict(context)))
    except ValidationError:
        problem = Invalid({"address": "is neither a mail address nor a phone number"})
    raise problem


def _folded(address: Address) -> Address:
    return address[0], address[1].casefold()
