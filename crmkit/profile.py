"""The client's tailoring: what `crmkit.toml` says, checked.

People write that file; crmkit writes it once, when the workspace is made.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from crmkit.durable import replace_file
from crmkit.errors import Invalid
from crmkit.values import country_names, currency_digits


class Profile(BaseModel):
    """The settings of a workspace.

    Attributes:
        name: What people call this CRM.
        currency: ISO 4217 code of amounts that name none.
        country: ISO 3166 code; the region of phone numbers that have no country code.
        time_zone: IANA name; the zone in which days begin.
        language: Of screens and words.
        plugins: Installed plugins to load, ``"webhooks"`` or ``"webhooks==1.2"``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    name: str
    currency: str = "EUR"
    country: str | None = None
    time_zone: str = "UTC"
    language: str = "en"
    plugins: tuple[str, ...] = ()

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
plugins = []   # installed plugins to load, for example "webhooks==1.2"
""".encode(),
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


def problems(error: ValidationError) -> dict[str, str]:
    """Return what is wrong with settings, by key."""
    found = {}
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        key = ".".join(str(part) for part in problem["loc"])
        text = "is required" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, list(Profile.model_fields), n=1)
            allowed = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(Profile.model_fields)}"
            text = f"is not a key; {allowed}"
        found[key] = text
    return found
