"""The contract between crmkit and every plugin: the markers and all hooks, nothing else.

Grammar. Every hook begins with ``crm_``. Contributions are plural nouns (`crm_views`); moments begin with
``crm_before_`` or ``crm_after_``; questions are nouns (`crm_timeline`). Arguments are passed by name, and an
implementation takes only those that it needs. Implementations give no defaults to arguments.

A hook stands here only when a plugin that ships with crmkit uses it. `docs/hooks.md` is made from this file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from crmkit.contributions import Analysis, Change, Decision, Entry, View
    from crmkit.crm import CRM
    from crmkit.records import Customer, Record

PROJECT = "crmkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

# --------------------------------------------------------------------------- contributions


@hookspec
def crm_record_types() -> Iterable[type[Record]]:
    """Contribute record types.

    When: once, as the plugin is registered.

    Returns:
        Classes that derive from `Record`; each gets a collection, ``crm.<plural>``.

    Combined: all. Two plugins that name the same type are not both loaded; the second is refused, naming both.

    Failure: the plugin is not loaded; nobody else suffers.

    Example::

        class Parcel(Record, type="parcel", plural="parcels", subject="customer"):
            customer: Reference[Customer]
            sent_on: date


        @hookimpl
        def crm_record_types():
            return [Parcel]

    Added in 0.1.
    """


@hookspec
def crm_views() -> Iterable[View]:
    """Contribute pages of the app and panels of a record's card, as descriptions.

    When: as the plugin is registered; `Page.build` and `Panel.build` run when somebody looks.

    Returns:
        `Page` and `Panel` objects.

    Combined: all, sorted by name; a name that is taken is refused, naming both plugins.

    Failure: the plugin is not loaded; nobody else suffers. A `build` that fails is recorded in ``crm.failures``, and
    a line in its place says so.

    Example::

        @hookimpl
        def crm_views():
            return [Page("parcels", "Parcels", lambda crm: Table("parcel", order="-sent_on"))]

    Added in 0.1.
    """


@hookspec
def crm_analyses() -> Iterable[Analysis]:
    """Contribute analyses, which ``crm.analyse(name)`` runs.

    When: as the plugin is registered; `Analysis.measure` runs when somebody asks.

    Returns:
        `Analysis` objects. Keep numpy, pandas and plotly inside their functions.

    Combined: all, sorted by name; a name that is taken is refused, naming both plugins.

    Failure: the plugin is not loaded; nobody else suffers. A `measure` that fails is recorded in ``crm.failures``, and
    whoever asked gets the error.

    Example::

        @hookimpl
        def crm_analyses():
            return [Analysis("parcels", "Parcels by month", measure, figure)]

    Added in 0.1.
    """


# --------------------------------------------------------------------------- before a commit


@hookspec
def crm_before_commit(crm: CRM, changes: tuple[Change, ...]) -> Iterable[Change] | None:
    """Adjust, add to, or refuse what is about to be saved.

    When: once for each transaction or batch, before the workspace is locked. Reading through `crm` is fine.

    Args:
        crm: The open CRM.
        changes: Everything that will be saved together, checked.

    Returns:
        Changes to put in place of those with the same type and id, or to add; None to leave all as they are.
        What is returned is checked again.

    Combined: a chain, in the order in which the plugins were registered.

    Failure: propagates, and nothing is saved; raise `Refused` with a reason for a person.

    Example::

        @hookimpl
        def crm_before_commit(changes):
            return [c.set(stage="active") for c in changes if c.type == "customer" and c.action == "add"]

    Added in 0.1.
    """


# --------------------------------------------------------------------------- questions


@hookspec
def crm_timeline(crm: CRM, customer: Customer) -> Iterable[Entry]:
    """Tell what happened with a customer.

    When: a customer's timeline is looked at.

    Args:
        crm: The open CRM.
        customer: Whose timeline it is.

    Returns:
        Entries in any order.

    Combined: all, newest first.

    Failure: isolated, recorded in ``crm.failures`` and shown; the other plugins' entries stay.

    Example::

        @hookimpl
        def crm_timeline(crm, customer):
            for parcel in crm.parcels.find(F.customer == customer, limit=200):
                yield Entry(at=parcel.created_at, kind="parcel", title="Parcel sent", record=parcel.id)

    Added in 0.1.
    """


@hookspec
def crm_unlock_identity(uri: str) -> str | None:
    """Open an identity that is kept outside of files: in the system's keyring, a password manager, a device.

    When: a workspace is opened, or opened again after it was locked, and ``$CRMKIT_IDENTITY`` holds a URI. No
    workspace is open then, so a plugin file of a workspace is not asked: only shipped and installed plugins are.

    Args:
        uri: What the variable holds, for example ``keyring:crmkit/ada``.

    Returns:
        The text of the identity, as it would stand in a file; None for a URI of another plugin.

    Combined: the first answer wins, in the order in which the plugins were registered.

    Failure: the workspace stays locked, and the message names the plugin; raise `Locked` with a reason for a person.
    Never put the identity into a message.

    Example::

        @hookimpl
        def crm_unlock_identity(uri):
            return ask_my_safe(uri) if uri.startswith("safe:") else None

    Added in 0.1.
    """


# --------------------------------------------------------------------------- choices


@hookspec
def crm_authorize(crm: CRM, actor: str, action: str, record: Record | None) -> Decision | None:
    """Decide whether somebody may do something.

    When: before an action that not everybody may do, and when ``crm.can`` or ``crm.explain`` asks.

    Args:
        crm: The open CRM.
        actor: Who wants to.
        action: ``"reveal"``, ``"export"``, ``"erase"``, ``"bulk"``, ``"settings"``, or a plugin's own, which has a
            dot: ``"billing.refund"``.
        record: The record that it is about; None where it is about no single one.

    Returns:
        A `Decision` with its reason in one line, or None to leave it to others.

    Combined: the first answer counts. crmkit's own plugin is asked first; it answers every question where crmkit.toml
    has roles, and none where it has none, so that other plugins decide only there. Where nobody answers, everything is
    allowed if crmkit.toml has no roles, and nothing if it has some.

    Failure: propagates, and nothing is done.

    Example::

        @hookimpl
        def crm_authorize(actor, action, record):
            is_vip = isinstance(record, Customer) and "vip" in record.tags
            if action == "reveal" and is_vip and actor != record.owner:
                return Decision(False, "the secrets of a VIP are for the owner only")

    Added in 0.2.
    """
