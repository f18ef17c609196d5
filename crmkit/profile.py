"""The client's tailoring: what `crmkit.toml` says, checked.

People write that file; crmkit writes it once, when the workspace is made.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from crmkit.durable import replace_file
from crmkit.errors import Invalid
from crmkit.values import country_names, currency_digits

ACTIONS = ("reveal", "export", "erase", "bulk", "settings")
"""What roles guard; plugins may have actions of their own, with a dot in the name: "billing.refund"."""

_OF_A_PLUGIN = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


def action_problem(action: object) -> str:
    """Return what is wrong with the name of an action; empty where it is one of crmkit's, or may be a plugin's."""
    if isinstance(action, str) and (action in ACTIONS or _OF_A_PLUGIN.fullmatch(action)):
        return ""
    meant = _meant(str(action), (*ACTIONS, "a plugin's own, which has a dot: billing.refund"))
    return f"{action!r} is not an action; {meant}"


class Role(BaseModel):
    """What some people may do.

    Attributes:
        members: Their names, as ``crm.actor`` has them.
        may: The actions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    members: tuple[str, ...] = ()
    may: tuple[str, ...] = ()

    @field_validator("may")
    @classmethod
    def _known_actions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for action in value:
            if problem := action_problem(action):
                raise ValueError(problem)
        return value


class Profile(BaseModel):
    """The settings of a workspace.

    Attributes:
        name: What people call this CRM.
        currency: ISO 4217 code of amounts that name none.
        country: ISO 3166 code; the region of phone numbers that have no country code.
        time_zone: IANA name; the zone in which days begin.
        language: Of screens and words.
        seal: The lowest class of fields that is sealed on disk: ``personal``, or ``sensitive`` only. `Keys.seal`
            carries a change out.
        plugins: Installed plugins to load, ``"webhooks"`` or ``"webhooks==1.2"``.
        roles: Who may do what, by role; where there are none, everybody may do everything.
        teams: Who works together, by team; they share what is visible to the team of its owner.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    name: str
    currency: str = "EUR"
    country: str | None = None
    time_zone: str = "UTC"
    language: str = "en"
    seal: Literal["personal", "sensitive"] = "personal"
    plugins: tuple[str, ...] = ()
    roles: Mapping[str, Role] = Field(default_factory=dict)
    teams: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)

    def mates(self, actor: str) -> frozenset[str]:
        """Return everybody who shares a team with somebody, that person included."""
        return frozenset({actor}.union(*(team for team in self.teams.values() if actor in team)))

    @field_validator("currency")
    @classmethod
    def _known_currency(cls, value: str) -> str:
        try:
            currency_digits(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a currency; give an ISO 4217 code such as EUR") from None
        return value

    @field_validator("name")
    @classmethod
    def _printable_name(cls, value: str) -> str:
        if not value.isprintable() or not value.strip():
            raise ValueError("must be one line of printable text")
        return value

    @field_validator("country")
    @classmethod
    def _known_country(cls, value: str | None) -> str | None:
        if value is not None and value not in country_names():
            raise ValueError("is not an ISO 3166 code of two capital letters, such as DE")
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("is not an IANA time zone such as Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _everybody_has_a_role(self) -> Profile:
        with_role = {member for role in self.roles.values() for member in role.members}
        for team, members in self.teams.items() if self.roles else ():
            for member in members:
                if member not in with_role:
                    roles = ", ".join(f"[roles.{name}]" for name in self.roles)
                    raise ValueError(f"{member!r} of the team {team!r} is in no role; add the name to one of {roles}")
        return self


def read_profile(path: Path) -> Profile:
    """Read a ``crmkit.toml``.

    Raises:
        Invalid: It cannot be read, or a key or value is not allowed; names the file, the key and what is allowed.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid({str(path): f"cannot be read: {error.strerror}"}) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid({str(path): f"cannot be read as TOML: {error}"}) from None
    try:
        return Profile.model_validate(given)
    except ValidationError as error:
        raise Invalid(problems(error), str(path)) from None


def write_profile(path: Path, profile: Profile) -> None:
    """Write the first ``crmkit.toml`` of a workspace, with a word on each key."""
    country = f'country = "{profile.country}"' if profile.country else '# country = "DE"'
    replace_file(
        path,
        f"""# The tailoring of this workspace. crmkit reads this file and never writes it again.
name = {_quoted(profile.name)}
currency = "{profile.currency}"   # of amounts that name none (ISO 4217)
{country}   # region of phone numbers without a country code (ISO 3166)
time_zone = "{profile.time_zone}"
language = "{profile.language}"
seal = "{profile.seal}"   # the lowest class that is encrypted on disk: personal, or sensitive only
plugins = []   # installed plugins to load, for example "webhooks==1.2"

# Who may do what. Without a role in this file, everybody may do everything. Actions: {", ".join(ACTIONS)};
# plugins may have their own, with a dot. Names are those of the system users.
# [roles.manager]
# members = ["ann"]
# may = ["reveal", "export", "erase", "bulk", "settings"]
# [roles.sales]
# members = ["bob"]
# may = ["reveal"]

# Who works together. A record that is visible to the team is seen by everybody who shares one with its owner.
# [teams]
# sales = ["ann", "bob"]
""".encode(),
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


def problems(error: ValidationError) -> dict[str, str]:
    """Return what is wrong with settings, by key."""
    found = {}
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        place = [str(part) for part in problem["loc"]]
        text = "is required" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = Role if place[0] == "roles" else Profile
            text = f"is not a key; {_meant(place[-1], known.model_fields)}"
        elif problem["type"] == "tuple_type":
            text = 'must be a list, such as ["ann", "bob"]'
        elif problem["type"] in ("dict_type", "mapping_type", "model_type"):
            text = "must be a table, such as [roles.manager] or [teams]"
        found[".".join(place) or "teams"] = text
    return found


def _meant(word: str, known: Iterable[str]) -> str:
    """Return what is allowed in place of a word that is not: the nearest, or all."""
    allowed = list(known)
    near = difflib.get_close_matches(word, allowed, n=1)
    return f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(allowed)}"
