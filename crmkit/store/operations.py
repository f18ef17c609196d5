"""From what a commit does to documents to the operations of its frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from crmkit.store.base import Codec, Delete, Doc, Put, Reseal
from crmkit.store.checks import Turn
from crmkit.store.frames import Operation


def operations(turns: Sequence[Turn], codec: Codec) -> list[Operation]:
    """Return operations with everything sealed that has to be; neighbouring new documents share one."""
    codec.prepare([(turn.to, turn.new) for turn in turns if turn.new is not None])
    made: list[Operation] = []
    for collection, run in groupby(turns, key=lambda turn: turn.to if turn.old is None else None):
        if collection is None:
            made += [_change(turn, codec) for turn in run]
            continue
        docs = [codec.seal(collection, turn.new) for turn in run if turn.new is not None]
        made.append(["b", collection, docs] if len(docs) > 1 else ["p", collection, docs[0]["id"], docs[0]])
    return made


def _change(turn: Turn, codec: Codec) -> Operation:
    old, new = turn.old, turn.new
    assert old is not None
    if isinstance(turn.write, Reseal):
        return ["s", turn.collection, old["id"], codec.reseal(turn.collection, old)]
    if new is None:
        forgets = isinstance(turn.write, Delete) and turn.write.forget
        kept = {"id": old["id"], "rev": old["rev"]} if forgets else codec.seal(turn.collection, old)
        return ["d", turn.collection, old["id"], kept]
    new = codec.renewed(turn.to, old, new)
    names = list(dict.fromkeys((*_differing(old, new), *codec.bound(turn.to, old, new))))
    after = codec.seal(turn.to, new, names)
    if isinstance(turn.write, Put) and turn.write.forget:
        before = {**{name: None for name in names if name not in after}, "rev": old["rev"]}
    else:
        before = codec.seal(turn.collection, old, names)
    if turn.to == turn.collection:
        return ["u", turn.to, new["id"], after, before]
    return ["v", turn.collection, turn.to, new["id"], after, before]


def _differing(old: Doc, new: Doc) -> Iterator[str]:
    """Yield the names of the fields that differ; True is not 1, and 1 is not 1.0."""
    yield from (name for name in old if name not in new)
    for name, value in new.items():
        if name not in old:
            yield name
            continue
        former = old[name]
        if former is value:
            continue
        is_same = type(former) is type(value) and former == value
        if not is_same or (isinstance(value, dict | list) and repr(former) != repr(value)):
            yield name
