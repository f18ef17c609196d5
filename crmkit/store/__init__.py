"""The store: where records are kept.

`Store` is what every store promises; `TinyStore` is the default, a folder on a disk. Stores know documents,
not records: fields, types and sealing belong to others.
"""

from __future__ import annotations

from crmkit.store.base import (
    ANY,
    NEW,
    Change,
    Codec,
    Delete,
    Doc,
    Logged,
    Move,
    PlainCodec,
    Put,
    Requirement,
    Reseal,
    Step,
    Store,
    Write,
)
from crmkit.store.evaluate import predicate, to_tinydb
from crmkit.store.tiny import TinyStore

__all__ = [
    "ANY",
    "NEW",
    "Change",
    "Codec",
    "Delete",
    "Doc",
    "Logged",
    "Move",
    "PlainCodec",
    "Put",
    "Requirement",
    "Reseal",
    "Step",
    "Store",
    "TinyStore",
    "Write",
    "predicate",
    "to_tinydb",
]
