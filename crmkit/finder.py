"""Answers questions about the records of one type with their documents: pages, typed search, windows, columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from crmkit.binding import Binder, Sealed
from crmkit.errors import Invalid
from crmkit.query import ALL, And, Condition, Find, In, Order, Page, check_limit, parse_order, split_path
from crmkit.search import search_words

if TYPE_CHECKING:
    from crmkit.codec import RecordCodec
    from crmkit.visibility import Visible

Doc = Mapping[str, Any]
Names = str | Sequence[str] | None


class Finder:
    """Asks the store about one collection.

    Args:
        collection: Its name.
        store: Where the documents are.
        codec: Opens what is sealed.
        binder: Checks conditions.
    """

    def __init__(self, collection: str, store: Visible, codec: RecordCodec, binder: Binder) -> None:
        self._collection = collection
        self._store = store
        self._codec = codec
        self._binder = binder
        self._window: tuple[Any, list[str]] | None = None

    def page(
        self, where: Condition | None, order: Names, limit: int, after: str | None = None, before: str | None = None
    ) -> Page[Doc]:
        """Return one page; see `Collection.find`."""
        check_limit(limit)
        order_by = self._order(order)
        return self._store.find(Find(self._collection, self._condition(where), order_by, limit, after, before))

    def search(self, text: str, limit: int) -> Sequence[Doc]:
        """Return what matches a text being typed, best first, or what is spelt nearly so."""
        words = search_words(text)
        check_limit(limit)
        if not words:
            return self.page(None, None, limit).records
        if (account := self._binder.account(text)) is not None:
            return self.page(account, None, limit).records
        return self._store.match(self._collection, words, limit, near=True)

    def count(self, where: Condition | None, text: str) -> int:
        """Return how many documents meet a condition, and match a text being typed."""
        if search_words(text):
            return len(self.window(where, None, text))
        return self._store.count(self._collection, self._condition(where))

    def window(self, where: Condition | None, order: Names, text: str) -> list[str]:
        """Return the ids that a grid shows, in order; kept until the store or the question changes."""
        words = search_words(text)
        if (account := self._binder.account(text)) is not None:
            where, words = account if where is None else And((where, account)), []
        condition, order_by = self._condition(where), self._order(order)
        key = (repr(condition), order_by, words, self._store.seq(), self._store.view())
        if self._window is None or self._window[0] != key:
            matching = self._matching(words) if words else None
            if matching is not None and not order_by and condition is None:
                ids = matching
            else:
                found = self._store.find(Find(self._collection, condition, order_by, ALL))
                wanted = None if matching is None else set(matching)
                ids = [doc["id"] for doc in found if wanted is None or doc["id"] in wanted]
            self._window = (key, ids)
        return self._window[1]

    def keys(self, field: str) -> dict[Any, str]:
        """Return the id of each document by its stored value of one plain field."""
        path, many = self._binder.column(field)
        if many or path != field:
            raise Invalid({field: "cannot be a key; only a field of one value can, and no amount"})
        docs = self._store.scan(self._collection, ("id", field))
        return {doc[field]: doc["id"] for doc in docs if doc.get(field) is not None}

    def columns(self, fields: Sequence[str], since: int | None) -> dict[str, list[Any]]:
        """Return stored values by field, one list each, in the same order of documents."""
        found = [self._binder.column(field) for field in fields]
        paths = [split_path(path) for path, _ in found]
        names = ["id", *(path[0] for path in paths)]
        docs = list(self._store.scan(self._collection, names) if since is None else self._written_after(since))
        columns = [_column(docs, path) for path in paths]
        own = [_copied(column) if many else column for column, (_, many) in zip(columns, found, strict=True)]
        return dict(zip(fields, own, strict=True))  # lists and rows are copies: what lies in the store stays as it is

    def _matching(self, words: list[str]) -> list[str]:
        """Return the ids of what holds all words or, where nothing does, words that are spelt nearly so."""
        return [doc["id"] for doc in self._store.match(self._collection, words, ALL, near=True)]

    def _order(self, order: Names) -> tuple[Order, ...]:
        return self._binder.order(parse_order(order))

    def _condition(self, where: Condition | None) -> Condition | None:
        """Return a condition for the store; candidates of a blind index are opened to see which really match."""
        bound, sealed = self._binder.condition(where)
        if not sealed:
            return bound
        candidates = self._store.find(Find(self._collection, bound, (), ALL))
        return In("id", tuple(doc["id"] for doc in candidates if self._matches(doc, sealed)))

    def _matches(self, doc: Doc, sealed: Iterable[Sealed]) -> bool:
        opened = self._codec.opened
        return all(str(opened(self._collection, doc, match.field)) in match.values for match in sealed)

    def _written_after(self, seq: int) -> Iterator[Doc]:
        changes = self._store.changes(seq)
        ids = dict.fromkeys(change.id for change in changes if change.collection == self._collection)
        return (doc for id in ids if (doc := self._store.get(self._collection, id)) is not None)


def _column(docs: Sequence[Doc], path: Sequence[str]) -> list[Any]:
    """Return what each document has at a path."""
    if len(path) == 1:  # by far the most; one lookup each, so that a column costs what the store costs
        name = path[0]
        return [doc.get(name) for doc in docs]
    return [_at(doc, path) for doc in docs]


def _copied(column: list[Any]) -> list[Any]:
    """Return a deep copy; through JSON it takes a tenth of the time."""
    copied: list[Any] = orjson.loads(orjson.dumps(column))
    return copied


def _at(found: Any, path: Sequence[str]) -> Any:
    """Return what is at a path; of a list of rows on the way, one value for each row."""
    for place, name in enumerate(path):
        if isinstance(found, list):
            return [_at(row, path[place:]) for row in found]
        found = found.get(name) if isinstance(found, dict) else None
    return found
