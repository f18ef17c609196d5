"""Codecs for tests, which show what was sealed when."""

from __future__ import annotations

import re
from collections.abc import Collection

from crmkit.errors import Locked
from crmkit.store import Doc, PlainCodec

SEALED = re.compile(rb"(k\d+)<")  # finds the generation of every sealed name on a disk


class Generations(PlainCodec):
    """Seals the field ``name``: ``"Ada"`` is ``"k1<adA"`` on disk under the first generation of keys. Can be locked.

    Attributes:
        generation: The one that seals now.
        opens: How many names may still be opened; then the keys are locked. None for any number.
    """

    def __init__(self) -> None:
        self.generation = 1
        self.opens: int | None = None

    def seal(self, collection: str, doc: Doc, names: Collection[str] | None = None) -> Doc:
        """Return fields with the name sealed."""
        fields = dict(super().seal(collection, doc, names))
        if "name" in fields:
            fields["name"] = f"k{self.generation}<{fields['name'][::-1]}"
        return fields

    def open(self, collection: str, fields: Doc, doc: Doc) -> Doc:  # the signature of a codec
        """Return fields with the name opened."""
        if "name" not in fields:
            return fields
        if self.opens == 0:
            raise Locked("the keys are locked")
        if self.opens is not None:
            self.opens -= 1
        return {**fields, "name": fields["name"].split("<", 1)[1][::-1]}

    def reseal(self, collection: str, doc: Doc) -> Doc:
        """Return the name, sealed by the generation of today."""
        return self.seal(collection, doc, ["name"])


class Anew(PlainCodec):
    """Seals nothing, but has something to write where a document is sealed anew.

    Args:
        name: The field that stands for those that are sealed.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def reseal(self, collection: str, doc: Doc) -> Doc:
        """Return the field as it is."""
        return {self._name: doc[self._name]} if self._name in doc else {}
