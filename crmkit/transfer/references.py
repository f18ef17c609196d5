"""Records that a row refers to by a number of its own: found, or made where the row says enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crmkit.errors import ImportProblem, Invalid
from crmkit.records import Record, new_id
from crmkit.transfer.mapping import Target

if TYPE_CHECKING:
    from crmkit.collection import Collection


@dataclass(slots=True)
class _Made:
    """A record that will be made if a good row refers to it."""

    id: str
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)  # where each value is from: the first of the file counts
    used: bool = False


class Finder:
    """Finds the records that one reference names by a unique field.

    Where only that field is mapped, an unknown value is a mistake. Where another field of the record is mapped as
    well (``lines.product.sku`` and ``lines.product.name``), records that are missing are made.
    """

    def __init__(self, collection: Collection[Any], targets: Sequence[Target]) -> None:
        keys = [target for target in targets if target.spec.unique]
        if len(keys) != 1:
            unique = [spec.name for spec in collection.info.fields.values() if spec.unique]
            raise ImportProblem(_no_key(collection.info.type, targets, unique))
        self.collection = collection
        self.key = keys[0]
        self._others = [target for target in targets if target is not self.key]
        self._known: Mapping[Any, str] = collection.keys(self.key.spec.name)
        self._made: dict[str, _Made] = {}
        self._pending: list[_Made] = []

    def find(self, values: Mapping[str, str], line: int) -> str | None:
        """Return the id of the record that one row names; None where it names none.

        Args:
            values: The row's values by path.
            line: Where the row is.

        Raises:
            LookupError: There is no such record; the text says so.
        """
        text = values.get(self.key.path)
        if not text or text in self._known:
            return self._known[text] if text else None
        if not self._others:
            # Without the text: a mail may have been typed into the column of numbers.
            raise LookupError(f"no {self.collection.info.type} has this {self.key.spec.name}")
        made = self._made.get(text)
        if made is None:
            made = self._made[text] = _Made(new_id(), {self.key.spec.name: text})
        for target in self._others:
            name, value = target.spec.name, values.get(target.path)
            if value and line < made.lines.get(name, line + 1):
                made.values[name], made.lines[name] = value, line
        self._pending.append(made)
        return made.id

    def settle(self, good: bool) -> None:
        """Say whether the rows since the last call are taken; what only bad rows refer to is not made."""
        for made in self._pending:
            made.used |= good
        self._pending.clear()

    def made(self) -> list[Record]:
        """Return the records to make; one that no row gave a name has its key for a name.

        Raises:
            ImportProblem: One of them is not allowed.
        """
        records = []
        for key, made in self._made.items():
            if made.used:
                missing = {name: key for name, spec in self.collection.info.fields.items() if spec.required}
                try:
                    records.append(self.collection.validate(**{"id": made.id, **missing, **made.values}))
                except Invalid as error:
                    raise ImportProblem(f"a {self.collection.info.type} cannot be made: {error}") from None
        return records


def _no_key(type: str, targets: Sequence[Target], unique: Sequence[str]) -> str:
    """Return why columns do not say which record of a type a row means, and which one would."""
    columns = " and ".join(target.path for target in targets)
    front = targets[0].path.rpartition(".")[0]
    if not unique:
        return f"{columns} cannot identify a {type}: none of its fields is unique; leave the column out"
    return f"{columns} cannot identify a {type}; use {' or '.join(f'{front}.{name}' for name in unique)}"
