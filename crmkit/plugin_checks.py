"""What can be a plugin, and what it can contribute: checked as it is registered."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

from crmkit import hooks
from crmkit.contributions import Analysis, Page, Panel
from crmkit.errors import Invalid
from crmkit.schema import info
from crmkit.type_checks import refuse_bad_type

CONTRIBUTIONS: dict[str, tuple[type[Any], ...]] = {
    "crm_record_types": (type,),
    "crm_views": (Page, Panel),
    "crm_analyses": (Analysis,),
}


def check_hooks(plugin: object, name: str) -> None:
    """Refuse what pluggy would accept and fail on later."""
    if isinstance(plugin, type):
        raise Invalid({name: "is a class; register an instance of it"})
    known = {spec for spec in vars(hooks) if spec.startswith("crm_")}
    found = {member for member in dir(plugin) if member.startswith("crm_") and callable(getattr(plugin, member))}
    if not found:
        raise Invalid({name: "implements no hook; mark functions named crm_… with @hookimpl"})
    for member in sorted(found - known):
        raise Invalid({name: f"{member} is not a hook; hooks are {', '.join(sorted(known))}"})
    for member in sorted(found):
        function = getattr(plugin, member)
        options = getattr(function, f"{hooks.PROJECT}_impl", None)
        if options is None:
            raise Invalid({name: f"{member} is not marked with @hookimpl"})
        if options["wrapper"] or options["hookwrapper"]:
            raise Invalid({name: f"{member} is a wrapper; hooks here take plain implementations"})
        allowed = set(inspect.signature(getattr(hooks, member)).parameters)
        for argument, parameter in inspect.signature(function).parameters.items():
            if argument not in allowed or parameter.default is not parameter.empty:
                raise Invalid({name: f"{member} takes {', '.join(sorted(allowed)) or 'no arguments'}, no defaults"})


def check_contributions(hook: str, items: Sequence[Any], name: str, reserved: Collection[str]) -> None:
    """Refuse contributions that are none.

    Args:
        hook: The hook that returned them.
        items: What it returned.
        name: The plugin.
        reserved: Names that no collection may have.

    Raises:
        Invalid: One of them is of another kind, or a record type that cannot be kept.
    """
    kinds = CONTRIBUTIONS[hook]
    for item in items:
        if hook == "crm_record_types":
            refuse_bad_type(item, reserved)
        elif not isinstance(item, kinds):
            words = " and ".join(kind.__name__ for kind in kinds)
            raise Invalid({hook: f"must return {words} objects, not {type(item).__name__}"}, name)


def labels(item: Any) -> tuple[tuple[str, str], ...]:
    """Return what must be unique about a contribution, by kind; its name first."""
    if isinstance(item, type):
        known = info(item)
        return ("record type", known.type), ("collection", known.plural)
    return ((type(item).__name__.lower(), item.name),)
