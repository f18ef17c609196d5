"""Rights: one gate for what not everybody may do, fed by the roles of the profile and by plugins.

It is cooperative: the interface and the audit log honour it. Whoever holds the keys and writes Python is not stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crmkit.contributions import Decision
from crmkit.errors import Invalid, Refused
from crmkit.profile import action_problem
from crmkit.schema import info

if TYPE_CHECKING:
    from crmkit.profile import Profile
    from crmkit.records import Record
    from crmkit.registry import Registry

HOOK = "crm_authorize"
WORDS = {"bulk": "changing many records at once", "settings": "changing settings"}  # what the others say by themselves
Note = Callable[[str, "Record | None"], None]
"""Writes down that an action was refused, and for which record."""

COOPERATIVE = (
    "Roles and visibility are cooperative: crmkit and its audit log honour them, own code need not. "
    "Who can read the workspace at all is cryptographic: its members."
)


class Explanation(str):
    """Lines for a person, which show as they are as the last expression of a cell."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Rights:
    """Decides who may do what in one CRM.

    Args:
        crm: What plugins are passed.
        registry: The plugins that are asked.
        profile: Whose roles have to be honoured.
        note: Writes down what was refused.
    """

    def __init__(self, crm: Any, registry: Registry, profile: Profile, note: Note) -> None:
        self._crm = crm
        self._registry = registry
        self._profile = profile
        self._note = note

    def decide(self, actor: str, action: str, record: Record | None) -> Decision:
        """Return what the first plugin says that has something to say.

        Raises:
            Invalid: There is no such action, or a plugin's answer is no `Decision`.
        """
        if problem := action_problem(action):
            raise Invalid({"action": problem})
        asked = {"crm": self._crm, "actor": actor, "action": action, "record": record}
        for plugin, call in self._registry.chain(HOOK, **asked):
            answer = call()
            if isinstance(answer, Decision):
                return answer if answer.rule else replace(answer, rule=plugin)
            if answer is not None:
                raise Invalid({HOOK: f"{plugin} must return a Decision, or None"})
        if self._profile.roles:
            reason = "crmkit.toml has roles, and no plugin answers for them: governance.roles is disabled or failed"
            return Decision(False, reason, "crmkit")
        return Decision(True, "crmkit.toml has no roles: everybody may do everything", "crmkit")

    def guard(self, actor: str, action: str, record: Record | None) -> None:
        """Let pass what is allowed; what is not is written to the audit log.

        Raises:
            Refused: The actor may not do this; says who may.
        """
        decision = self.decide(actor, action, record)
        if not decision:
            self._note(action, record)
            raise Refused(f"{WORDS.get(action, action)} is refused to {actor}: {decision.reason}")

    def explain(self, actor: str, action: str, record: Record | None) -> Explanation:
        """Return who asks for what, what the answer is and why, in lines for a person."""
        decision = self.decide(actor, action, record)
        roles = ", ".join(name for name, role in self._profile.roles.items() if actor in role.members) or "none"
        about = f" for {info(type(record)).type} {record.id}" if record is not None else ""
        answer = "yes" if decision else "no"
        lines = (
            f"{actor} (roles: {roles}) asks for {action}{about}",
            f"{answer}: {decision.reason} (says {decision.rule})",
            COOPERATIVE,
        )
        return Explanation("\n".join(lines))
