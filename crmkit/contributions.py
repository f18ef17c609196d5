"""What plugins return from hooks and get passed to them: frozen descriptions, no widgets.

The screens (`crmkit.ui`) and the command line turn descriptions into what people see; a plugin never does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from crmkit.query import Condition, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from crmkit.records import Record

# --------------------------------------------------------------------------- descriptions of screens


@dataclass(frozen=True)
class Table:
    """A live grid of one record type.

    Attributes:
        type: The record type, ``"purchase"``.
        where: Which records; None for all.
        order: A field name, with a minus sign in front for descending.
        columns: Field names; empty for the type's first few.
    """

    type: str
    where: Condition | None = None
    order: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """Everything that happened with one customer, newest first."""

    record: Record


@dataclass(frozen=True)
class Chart:
    """A Plotly figure, made when it is looked at."""

    title: str
    figure: Callable[[], Figure]
    text: str = ""


@dataclass(frozen=True)
class Text:
    """A heading with lines of plain text below it."""

    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """A small table of texts that are no records: states, counts, what a report found.

    Attributes:
        title: The heading.
        columns: The headings of the columns.
        rows: A text for each column.
        text: A sentence below the heading.
        empty: What stands where there are no rows.
        commands: The columns that hold something to be typed elsewhere.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: str = ""
    empty: str = "None."
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stack:
    """Several descriptions, one under the other."""

    parts: tuple[Description, ...]


Description = Table | Timeline | Chart | Text | Rows | Stack

# --------------------------------------------------------------------------- contributions


@dataclass(frozen=True)
class Page:
    """One entry of the app's navigation.

    Attributes:
        name: Its name, unique among pages.
        title: What people read.
        build: Makes the description when the page is opened; gets the CRM.
        provider: The plugin that contributed it; filled in by the registry.
    """

    name: str
    title: str
    build: Callable[[Any], Description]
    provider: str = ""


@dataclass(frozen=True)
class Panel:
    """One tab of a record's card.

    Attributes:
        name: Its name, unique among panels.
        title: What people read.
        build: Makes the description when the tab is opened; gets the CRM and the record.
        on: The record type whose cards show it.
        provider: The plugin that contributed it; filled in by the registry.
    """

    name: str
    title: str
    build: Callable[[Any, Any], Description]
    on: str = "customer"
    provider: str = ""


View = Page | Panel


@dataclass(frozen=True)
class Measurement:
    """The numbers of an analysis.

    Attributes:
        table: Rows; each a mapping from column name to a plain value (money in minor units).
        metrics: Single figures by name.
        text: What they mean, in one or two sentences for a person.
    """

    table: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any]
    text: str


@dataclass(frozen=True)
class Analysis:
    """A question put to the records, in two pure steps.

    Attributes:
        name: Its name, as in ``crm.analyse("revenue")``.
        title: What people read.
        measure: Gets the CRM, ``as_of`` and its own keyword parameters; returns the numbers.
        figure: Draws the numbers.
        provider: The plugin that contributed it; filled in by the registry.
    """

    name: str
    title: str
    measure: Callable[..., Measurement]
    figure: Callable[[Measurement], Figure]
    provider: str = ""


@dataclass(frozen=True)
class Result:
    """An analysis that was run: numbers, a figure, an explanation. As the last line of a cell it shows itself."""

    analysis: Analysis
    as_of: date
    measurement: Measurement
    show: Callable[[Result], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def table(self) -> Sequence[Mapping[str, Any]]:
        """The rows behind the figure; money in minor units, such as cents."""
        return self.measurement.table

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Single figures by name."""
        return self.measurement.metrics

    def figure(self) -> Figure:
        """Return the Plotly figure."""
        return self.analysis.figure(self.measurement)

    def explain(self) -> str:
        """Return what the numbers mean, in words."""
        return self.measurement.text

    def _repr_mimebundle_(self, **_: Any) -> Any:
        return shown(self, self.show and partial(self.show, self))

    def __repr__(self) -> str:
        rows = f"{len(self.table):,} row{'' if len(self.table) == 1 else 's'}"
        return f"<Result of {self.analysis.name} as of {self.as_of}: {rows}>"


# --------------------------------------------------------------------------- what hooks pass around


@dataclass(frozen=True)
class Decision:
    """Whether somebody may do something. It is true where they may.

    Attributes:
        allowed: Whether they may.
        reason: Why, or why not and who may: one line for a person.
        rule: What decided: a plugin, or ``"crmkit"``; filled in where a plugin leaves it empty.
    """

    allowed: bool
    reason: str
    rule: str = ""

    def __bool__(self) -> bool:
        return self.allowed


Action = Literal["add", "update", "remove", "restore"]


@dataclass(frozen=True)
class Entry:
    """One line of a customer's timeline.

    Attributes:
        at: When it happened (UTC).
        kind: A word for its icon and for filtering: ``"call"``, ``"purchase"``…
        title: One line.
        text: The rest, or empty.
        record: The id of the record it stands for.
        actor: The colleague, where known.
        provider: The plugin that told it; filled in by the registry.
        all_day: Only the day is known: the day in the workspace's time zone that `at` falls on.
    """

    at: datetime
    kind: str
    title: str
    text: str = ""
    record: str = ""
    actor: str = ""
    provider: str = ""
    all_day: bool = False


@dataclass(frozen=True)
class Change:
    """What is about to happen to one record.

    Attributes:
        type: The record type.
        id: The record's id.
        action: add, update, remove or restore.
        before: The record as it is now; None where it is new.
        fields: The new values of the fields that change, checked.
    """

    type: str
    id: str
    action: Action
    before: Record | None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def set(self, **fields: Any) -> Change:
        """Return the change with further or other field values, which will be checked again."""
        return replace(self, fields={**self.fields, **fields})


@dataclass(frozen=True)
class Failure:
    """Something went wrong inside a plugin; holds no value of any field.

    Attributes:
        plugin: The plugin's name.
        hook: The hook, or ``"load"``.
        error: The type of the error.
        place: File and line.
        at: When (UTC).
    """

    plugin: str
    hook: str
    error: str
    place: str
    at: datetime
