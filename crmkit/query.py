"""The one query language: `F`, conditions, `Find` and `Page`.

Conditions are frozen data, so that every store can compile them. They are written by comparing fields::

    (F.city == "London") & F.tags.has("vip") & ~F.email.exists()

Rules that hold on every store: a value of another type than the one asked for counts as missing, and so does an
empty list; a missing value sorts first ascending and last descending; the id is always the last sort key; text is
compared by code point. A comparison inside nested rows is true where it is true of any row, so ``F.lines.product !=
tea`` asks for some other product, and ``~(F.lines.product == tea)`` for no row of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from crmkit.errors import Invalid, Locked, Unsupported

T = TypeVar("T")
ALL = 2**31  # the largest page that can be asked for; no store holds as many records
Operator = Literal["==", "!=", "<", "<=", ">", ">=", "startswith", "contains"]


class Condition:
    """Something that is true or false of a record; combine with ``&``, ``|`` and ``~``."""

    def __and__(self, other: Condition) -> Condition:
        return And((self, other))

    def __or__(self, other: Condition) -> Condition:
        return Or((self, other))

    def __invert__(self) -> Condition:
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError("a condition has no truth value; combine conditions with & | ~ and put each in brackets")


@dataclass(frozen=True)
class Compare(Condition):
    """One field against one value."""

    path: str
    operator: Operator
    value: Any


@dataclass(frozen=True)
class In(Condition):
    """The field's value is one of these."""

    path: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Has(Condition):
    """The field is a list that holds this value."""

    path: str
    value: Any


@dataclass(frozen=True)
class Exists(Condition):
    """The field has a value."""

    path: str


@dataclass(frozen=True)
class AnyRow(Condition):
    """The field is a list of rows, and the condition is true of at least one; its paths begin in the row."""

    path: str
    condition: Condition


@dataclass(frozen=True)
class And(Condition):
    """All of the parts are true."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Or(Condition):
    """At least one of the parts is true."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Not(Condition):
    """The part is not true (a missing value makes a comparison untrue, and so its `Not` true)."""

    part: Condition


@dataclass(frozen=True, eq=False)
class FieldRef:
    """A field, to be compared; made by `F`."""

    path: str

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]  # builds a condition, as in every query language
        return Compare(self.path, "==", value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]  # as above
        return Compare(self.path, "!=", value)

    __hash__ = None  # type: ignore[assignment]  # a field that compares to conditions cannot be a key

    def __lt__(self, value: Any) -> Condition:
        return Compare(self.path, "<", value)

    def __le__(self, value: Any) -> Condition:
        return Compare(self.path, "<=", value)

    def __gt__(self, value: Any) -> Condition:
        return Compare(self.path, ">", value)

    def __ge__(self, value: Any) -> Condition:
        return Compare(self.path, ">=", value)

    def __getattr__(self, name: str) -> FieldRef:
        if name.startswith("__"):
            raise AttributeError(name)
        return FieldRef(f"{self.path}.{name}")

    def startswith(self, prefix: str) -> Condition:
        """Return the condition that the text begins with `prefix` (case matters)."""
        return Compare(self.path, "startswith", prefix)

    def contains(self, part: str) -> Condition:
        """Return the condition that the text holds `part` (case matters)."""
        return Compare(self.path, "contains", part)

    def isin(self, values: Iterable[Any]) -> Condition:
        """Return the condition that the value is one of `values`."""
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise Invalid({self.path: f"isin takes a list of values; for a single one ask F.{self.path} == value"})
        return In(self.path, tuple(values))

    def has(self, value: Any) -> Condition:
        """Return the condition that the list holds `value`."""
        return Has(self.path, value)

    def exists(self) -> Condition:
        """Return the condition that there is a value; an empty list is none."""
        return Exists(self.path)

    def any(self, condition: Condition) -> Condition:
        """Return the condition that one and the same row of the list meets a condition on its fields."""
        return AnyRow(self.path, condition)


class _Fields:
    """``F.city`` is the field city; ``F["x.acme.tier"]`` the same for names that are no identifiers."""

    def __getattr__(self, name: str) -> FieldRef:
        if name.startswith("__"):
            raise AttributeError(name)
        return FieldRef(name)

    def __getitem__(self, path: str) -> FieldRef:
        return FieldRef(path)


F = _Fields()


@dataclass(frozen=True)
class Order:
    """One sort key."""

    path: str
    descending: bool = False


@dataclass(frozen=True)
class Find:
    """What a store is asked: a collection, a condition, an order, a page size and where to go on.

    Attributes:
        after: Where the page begins: `Page.next` of the one before it; opaque text made by the store.
        before: Where the page ends: `Page.previous` of the one behind it.
    """

    collection: str
    where: Condition | None = None
    order: tuple[Order, ...] = ()
    limit: int = 50
    after: str | None = None
    before: str | None = None


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some records, and the cursors of the pages beside them. As the last line of a cell it is a live grid.

    Attributes:
        next: What `after` takes to get the next page; None at the end.
        previous: What `before` takes to get the previous page; None at the start.
        grid: Makes that grid; None where there is none.
    """

    records: Sequence[T]
    next: str | None = None
    previous: str | None = None
    grid: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    def show(self) -> Any:
        """Return the live grid of these records, to be the last expression of a cell.

        Raises:
            Unsupported: There is none: only pages that `Collection.find` returned have one.
        """
        if self.grid is None:
            raise Unsupported("only pages of records have a grid; read the entries of this one with a loop")
        return self.grid()

    def __iter__(self) -> Iterator[T]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def _repr_mimebundle_(self, **_: Any) -> Any:
        return shown(self, self.grid)

    def __repr__(self) -> str:
        more = ", more follow" if self.next else ""
        return f"<Page of {len(self.records)} record{'' if len(self.records) == 1 else 's'}{more}>"


def shown(value: object, show: Callable[[], Any] | None) -> Any:
    """Return what a notebook displays of a value: its screen, beside a text that names nobody.

    Args:
        value: What is displayed; its repr is the text.
        show: Makes the screen, a widget; None where there is none.
    """
    text = {"text/plain": repr(value)}
    try:
        screen = show() if show else None
    except (ImportError, Locked):  # the screens were left out of this installation; or the text says that it is locked
        screen = None
    bundle = {} if screen is None else screen._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle  # some widgets have metadata to go with it
    return {**data, **text}


def split_path(path: str) -> list[str]:
    """Return the names that a dotted path leads through; ``x.<owner>.<field>`` is one name, that of an added field."""
    parts, names = path.split("."), []
    while parts:
        size = 3 if parts[0] == "x" and len(parts) > 2 else 1
        names.append(".".join(parts[:size]))
        parts = parts[size:]
    return names


def parse_order(order: str | Sequence[str] | None) -> tuple[Order, ...]:
    """Return sort keys for ``"-created_at"`` or ``("country", "-name")``; a minus sign means descending."""
    if order is None or isinstance(order, str):
        order = (order,) if order else ()
    if not isinstance(order, Sequence) or not all(isinstance(name, str) and name.lstrip("-") for name in order):
        raise Invalid({"order": "give field names, each with a minus sign in front for descending order"})
    return tuple(Order(name.removeprefix("-"), name.startswith("-")) for name in order)


def check_limit(limit: object) -> None:
    """Refuse a page size that is none.

    Raises:
        Invalid: It is not a whole number from 1 to `ALL`.
    """
    if type(limit) is not int or not 1 <= limit <= ALL:
        raise Invalid({"limit": f"must be a whole number from 1 to {ALL:,}"})
