"""A collection: the records of one type. Add, get, find, search, update, remove, restore."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crmkit.binding import Binder
from crmkit.codec import REMOVED
from crmkit.commits import Commit, Committer, conflict
from crmkit.drafts import Draft, Drafter
from crmkit.errors import Invalid, Locked, NotFound, Refused
from crmkit.fields import ID_FORM
from crmkit.finder import Finder
from crmkit.merge import MERGED, Merger
from crmkit.query import ALL, Condition, Find, In, Order, Page, check_limit, shown
from crmkit.records import Record, id_of
from crmkit.schema import KEPT_BY_CRMKIT, RecordInfo, info
from crmkit.store.documents import nothing_is_garbage

if TYPE_CHECKING:
    from crmkit.codec import RecordCodec
    from crmkit.visibility import Visible

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Removed(Generic[R]):
    """A record that was removed.

    Attributes:
        record: The record, as it was then.
        merged_into: The id of the record that it became part of, where it was merged; else None.
    """

    record: R
    merged_into: str | None = None


class Collection(Generic[R]):
    """The records of one type; ``crm.customers`` is the customers.

    Args:
        record_type: The type.
        store: Where they are kept.
        codec: Makes records of documents.
        committer: Writes drafts.
        drafter: Checks values.
        binder: Checks conditions.
        merger: Merges records.
        grid: Makes a live grid: of a type, of those that meet a condition, in an order.
    """

    def __init__(
        self,
        record_type: type[R],
        store: Visible,
        codec: RecordCodec,
        committer: Committer,
        drafter: Drafter,
        binder: Binder,
        merger: Merger,
        grid: Callable[..., Any],
    ) -> None:
        self.type = record_type
        self._info = info(record_type)
        self._store = store
        self._codec = codec
        self._committer = committer
        self._drafter = drafter
        self._finder = Finder(self._info.plural, store, codec, binder)
        self._merger = merger
        self._grid = grid

    @property
    def info(self) -> RecordInfo:
        """What is known of the record type."""
        return self._info

    def __repr__(self) -> str:
        try:
            count = len(self)
        except Locked:
            return f"<{self._info.plural}: locked>"
        return f"<{self._info.plural}: {count:,} record{'' if count == 1 else 's'}>"

    def _repr_mimebundle_(self, **_: Any) -> Any:
        return shown(self, lambda: self._grid(self._info.type))

    # ------------------------------------------------------------------ reading

    def __len__(self) -> int:
        return self._store.count(self._info.plural)

    def __iter__(self) -> Iterator[R]:
        """Yield every record, in the order of their ids."""
        after: str | None = None
        while True:
            page = self.find(limit=1000, after=after)
            yield from page
            if page.next is None:
                return
            after = page.next

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._doc_or_winner(id) is not None

    def __getitem__(self, id: str) -> R:
        record = self.get(id)
        if record is None:
            raise self._not_found(id)
        return record

    def _ipython_key_completions_(self) -> list[str]:
        return [record.id for record in self.find(limit=20)]

    def get(self, id: str) -> R | None:
        """Return the record with this id, or None; inside a transaction, as it will be saved.

        The id of one that was merged into another leads to that other one.
        """
        doc = self._doc_or_winner(id) if isinstance(id, str) else None
        return None if doc is None else self._record(doc)

    def get_many(self, ids: Sequence[str]) -> list[R]:
        """Return the records with these ids, in that order, leaving out those that are gone."""
        return [self._record(doc) for doc in (self._store.get(self._info.plural, id) for id in ids) if doc is not None]

    def find(
        self,
        where: Condition | None = None,
        *,
        order: str | Sequence[str] | None = None,
        limit: int = 50,
        after: str | None = None,
        before: str | None = None,
    ) -> Page[R]:
        """Return one page of the records that meet a condition.

        Args:
            where: Made with `F`; None for all.
            order: A field name, or several; a minus sign in front means descending. The id always comes last.
            limit: The most records to return.
            after: `Page.next` of the page before this one.
            before: `Page.previous` of the page behind this one.

        Raises:
            Invalid: A field is unknown, a value does not fit it, the limit or the cursor is wrong.
        """
        page = self._finder.page(where, order, limit, after, before)
        first = order if isinstance(order, str) else next(iter(order or ()), None)
        ids = In("id", tuple(doc["id"] for doc in page))
        return Page(
            [self._record(doc) for doc in page],
            page.next,
            page.previous,
            grid=lambda: self._grid(self._info.type, ids, order=first),
        )

    def search(self, text: str, limit: int = 20) -> list[R]:
        """Return the records that match what is being typed: a name, number, mail, phone or id, best first.

        A whole IBAN finds who has it. Where none does, those are returned that have words spelt nearly as what is being
        typed.

        Raises:
            Invalid: The text is no text, or the limit is wrong.
        """
        return [self._record(doc) for doc in self._finder.search(text, limit)]

    def count(self, where: Condition | None = None, *, text: str = "") -> int:
        """Return how many records meet a condition, and match a text being typed."""
        return self._finder.count(where, text)

    def removed(self, limit: int = 50, after: str | None = None) -> Page[Removed[R]]:
        """Return one page of the removed records, those removed last first, to be read; `restore` brings one back.

        Args:
            limit: The most records.
            after: `Page.next` of the page before.

        Raises:
            Invalid: The limit or the cursor is wrong.
        """
        check_limit(limit)
        order = (Order("updated_at", descending=True),)
        page = self._store.find(Find(self._info.plural + REMOVED, None, order, limit, after))
        return Page([Removed(self._record(doc), doc.get(MERGED)) for doc in page], page.next, page.previous)

    def window(
        self,
        start: int,
        count: int,
        where: Condition | None = None,
        *,
        order: str | Sequence[str] | None = None,
        text: str = "",
    ) -> list[R]:
        """Return the records from position `start` on, for a grid that is scrolled to any place.

        Raises:
            Invalid: The condition, the order or the text is wrong, or a position is no whole number from 0.
        """
        if not all(type(number) is int and number >= 0 for number in (start, count)):
            raise Invalid({"window": "start and count must be whole numbers from 0"})
        return self.get_many(self._finder.window(where, order, text)[start : start + count])

    def keys(self, field: str) -> dict[Any, str]:
        """Return the id of each record by its stored value of one plain field, for imports."""
        return self._finder.keys(field)

    def columns(self, *fields: str, since: int | None = None) -> dict[str, list[Any]]:
        """Return stored values by field, one list each, in the same order of records, for analyses.

        Args:
            fields: Names of plain or personal fields, or dotted paths into them. Money is ``total.minor`` and
                ``total.currency``; ``total`` alone means its minor units. Dates and instants are ISO text, decimals
                text. A path into rows, ``lines.product``, gives a list for each record: one value for each row.
            since: Only records that were written after this commit, a number that `CRM.seq` returned; None for all.

        Raises:
            Invalid: There is no such field, or it is sensitive.
        """
        return self._finder.columns(fields, since)

    def to_frame(self, where: Condition | None = None) -> Any:
        """Return the records as a pandas DataFrame; sensitive fields are masked. What is done with it is yours."""
        import pandas as pd

        rows = [dict(record) for record in self.find(where, limit=ALL)]
        return pd.DataFrame(rows, columns=[*KEPT_BY_CRMKIT, *self._info.fields])

    # ------------------------------------------------------------------ writing

    def add(self, **fields: Any) -> R:
        """Save a new record and return it.

        Raises:
            Invalid: With all problems, by field.
        """
        draft = self._drafter.add(fields)
        self._committer.write([draft])
        return self._saved(draft)

    def validate(self, **fields: Any) -> R:
        """Return a new record without saving it.

        Raises:
            Invalid: With all problems, by field.
        """
        record: R = self._drafter.validate(fields)
        return record

    def check(self, record: R | str | None = None, /, **fields: Any) -> dict[str, str]:
        """Return what is wrong with values being typed, by field; empty means that they can be saved."""
        doc = None if record is None else self._doc(id_of(record))
        return self._drafter.problems(fields, doc)

    def add_many(
        self,
        records: Iterable[R | Mapping[str, Any]],
        *,
        reason: str | None = None,
        batch: int = 1000,
        atomic: bool = False,
        progress: Callable[[int], None] | None = None,
        part_of: Commit | None = None,
    ) -> Commit:
        """Save many new records under one cause: all are checked first, then written in batches.

        Args:
            records: Records, or mappings of their fields.
            reason: Why, for the history.
            batch: How many go into one write.
            atomic: Write all at once or nothing.
            progress: Called with the number of records written so far.
            part_of: An earlier commit whose cause these records share, so that both are undone together.

        Raises:
            Invalid: Nothing is written then.
        """
        if batch < 1:
            raise Invalid({"batch": "must be 1 or more"})
        with nothing_is_garbage():
            drafts = [self._drafter.add(record) for record in records]
            step = len(drafts) or 1 if atomic else batch
            return self._committer.write_many(drafts, step, reason=reason, progress=progress, part_of=part_of)

    def update(self, record: R | str, /, **changes: Any) -> R:
        """Save changed fields of a record and return it as it is now.

        Args:
            record: The record as it was read; it must be the newest. An id means whatever is stored now.
            changes: The fields to change; None or empty text clears one.

        Raises:
            Conflict: Somebody saved it since it was read.
            Invalid: With all problems, by field.
        """
        doc = self._existing(id_of(record))
        if isinstance(record, Record) and record.rev != doc["rev"]:
            raise conflict(record, self._record(doc), changes)
        draft = self._drafter.update(doc, changes)
        if draft is None:
            return self._record(doc)
        self._committer.write([draft])
        return self._saved(draft)

    def remove(self, record: R | str, /) -> None:
        """Take a record away; references to it stay, and `restore` brings it back.

        Raises:
            NotFound: It is not there.
            Conflict: Somebody saved it since it was read.
        """
        doc = self._existing(id_of(record))
        if isinstance(record, Record) and record.rev != doc["rev"]:
            raise conflict(record, self._record(doc), {})
        self._committer.write([self._drafter.move("remove", doc)])

    def restore(self, record: R | str, /) -> R:
        """Bring a removed record back and return it; `removed` lists them.

        Args:
            record: The record, as it was read before or after it was removed, or its id.

        Raises:
            NotFound: No removed record has this id.
            Invalid: Another record has taken a value that must be unique.
            Refused: It was merged into another record.
        """
        id = id_of(record)
        doc = self._committer.removed(self._info.plural, id)
        if doc is None:
            raise self._not_found(id, "removed ")
        if MERGED in doc:
            raise Refused(f"{self._info.type} {id} was merged into {doc[MERGED]}; undo the merge to bring it back")
        draft = self._drafter.move("restore", doc)
        self._committer.write([draft])
        return self._saved(draft)

    def merge(self, winner: R | str, losers: Iterable[R | str], *, reason: str | None = None) -> Commit:
        """Make one record of several that are the same, in one commit.

        The winner keeps what it has; what it lacks is filled from the losers, and lists are united. Everything that
        refers to a loser refers to the winner afterwards, in records of every loaded type. The losers lie among the
        removed records, and their ids lead to the winner. `CRM.undo` brings all of it back.

        Args:
            winner: The record that stays, as it was read, or its id.
            losers: Those that become part of it.
            reason: Why, for the history.

        Raises:
            Invalid: Winner and losers are not different records of this type, or the outcome is not allowed.
            NotFound: One of them is not there.
            Conflict: Somebody saved one of them since it was read, or just came to refer to a loser.
            Refused: A transaction is open, or a plugin says no.
        """
        return self._merger.merge(self._drafter, winner, losers, reason)

    # ------------------------------------------------------------------ parts

    def _doc(self, id: str) -> Mapping[str, Any] | None:
        return self._committer.document(self._info.plural, id)

    def _doc_or_winner(self, id: str) -> Mapping[str, Any] | None:
        """Return the document with this id, or that of the record which it was merged into."""
        doc = self._doc(id)
        if doc is None:
            removed = self._committer.removed(self._info.plural, id)
            if removed is not None and MERGED in removed:
                return self._doc_or_winner(removed[MERGED])
        return doc

    def _existing(self, id: str) -> Mapping[str, Any]:
        doc = self._doc(id)
        if doc is not None:
            return doc
        gone = self._committer.removed(self._info.plural, id)
        if gone is None:
            raise self._not_found(id)
        what = f"was merged into {gone[MERGED]}" if MERGED in gone else "was removed; restore() brings it back"
        raise NotFound(f"{self._info.type} {id} {what}")

    def _record(self, doc: Mapping[str, Any]) -> R:
        record: R = self._codec.record(self.type, self._info.plural, doc)
        return record

    def _saved(self, draft: Draft) -> R:
        """Return the record as it was saved; as it will be, inside a transaction."""
        try:
            doc = self._committer.written(*draft.key)
            return self._record(self._existing(draft.doc["id"]) if doc is None else doc)
        except Locked:  # by another thread, just now: it is saved all the same
            if not isinstance(draft.record, self.type):
                raise
            return draft.record.model_copy(update={"rev": draft.doc["rev"]})

    def _not_found(self, id: object, which: str = "") -> NotFound:
        """Return the error for an id that is not there; it repeats no name or mail that was given for one."""
        nothing = f"no {which}{self._info.type} has the id"
        if isinstance(id, str) and ID_FORM.fullmatch(id):
            return NotFound(f"{nothing} {id}")
        return NotFound(f"{nothing} that was given; find() and search() look for other things")
