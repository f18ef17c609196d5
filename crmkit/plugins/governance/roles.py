"""Roles: who may reveal, export, erase, change in bulk and change settings, as ``[roles]`` of crmkit.toml say."""

from __future__ import annotations

from crmkit import CRM, Decision, hookimpl


@hookimpl
def crm_authorize(crm: CRM, actor: str, action: str) -> Decision | None:
    """Answer by the roles of the actor; where the profile has no roles, leave it to others."""
    roles = crm.profile.roles
    if not roles:
        return None
    own = [name for name, role in roles.items() if actor in role.members]
    granting = [name for name, role in roles.items() if action in role.may]
    held = next((name for name in own if name in granting), None)
    if held is not None:
        return Decision(True, f"{actor} has the role {held}, which may {action}")
    has = f"has only the role {', '.join(own)}" if own else "has no role in crmkit.toml"
    allowed = "; ".join(f"{name} ({', '.join(roles[name].members) or 'nobody'})" for name in granting)
    return Decision(False, f"{actor} {has}; {action} is for {allowed or 'no role at all'}")
