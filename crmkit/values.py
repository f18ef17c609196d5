"""Value types of fields: mail, phone, country, IBAN, card number, tax id, money, instants.

Each checks and normalises what people type. Values that come out of the store were checked when they went in,
so with ``{"trusted": True}`` in the validation context the checks are skipped. Other keys of the context:
``currency`` (ISO 4217, for amounts that name none) and ``region`` (ISO 3166, for national phone numbers).
Libraries with heavy data are imported on first use, to keep ``import crmkit`` light.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, GetCoreSchemaHandler, PlainSerializer, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from crmkit.detector import is_iban
from crmkit.fields import Kind

# Names that people and older systems use and CLDR does not, and what ISO 3166 calls the place.
COUNTRY_ALIASES = {
    "eire": "IE",
    "rsa": "ZA",
    "usa": "US",
    "uk": "GB",
    "great britain": "GB",
    "england": "GB",
    "scotland": "GB",
    "wales": "GB",
    "northern ireland": "GB",
    "uae": "AE",
    "korea": "KR",
    "hong kong": "HK",
    "czech republic": "CZ",
    "holland": "NL",
    "channel islands": "JE",  # Jersey and Guernsey have no code together; the larger one stands for both
}

NO_COUNTRY = {"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"}  # codes of CLDR for groups, tests and the unknown


def from_context(info: ValidationInfo, key: str) -> Any:
    """Return one value of the validation context, or None."""
    return info.context.get(key) if info.context else None


def unless_trusted(check: Callable[[Any, ValidationInfo], Any]) -> Callable[[Any, ValidationInfo], Any]:
    """Skip a check for values that come out of the store."""

    def maybe(value: Any, info: ValidationInfo) -> Any:
        return value if from_context(info, "trusted") else check(value, info)

    return maybe


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, {what}")
    return value.strip()


PLAIN_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")


def _email(value: Any, _: ValidationInfo) -> str:
    text = _text(value, "an e-mail address")
    local, at, domain = text.rpartition("@")
    try:
        if at and len(text) <= 254 and len(local) <= 64 and PLAIN_LOCAL_PART.fullmatch(local):
            return f"{local}@{_mail_domain(domain)}"  # most customers share few domains: those are checked once
        return _checked_mail(text)
    except ValueError:
        raise ValueError("is not an e-mail address; it looks like name@example.org") from None


@lru_cache(maxsize=10_000)
def _mail_domain(domain: str) -> str:
    return _checked_mail(f"x@{domain}").removeprefix("x@")


def _checked_mail(text: str) -> str:
    from email_validator import validate_email

    return str(validate_email(text, check_deliverability=False).normalized)


def _phone(value: Any, info: ValidationInfo) -> str:
    import phonenumbers

    text, region = _text(value, "a phone number"), from_context(info, "region")
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException as error:
        if error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE and region is None:
            raise ValueError("is a national number; give it with its country code (+44 …) or set the country") from None
        raise ValueError("is not a phone number; it looks like +44 20 7946 0018") from None
    if not phonenumbers.is_possible_number(number):
        raise ValueError("has too few or too many digits for a phone number")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


@cache
def _territories() -> dict[str, str]:
    """Return the English name of each country of CLDR by code, without groups of countries and test codes."""
    from babel import Locale

    names = {str(code): str(name) for code, name in Locale("en").territories.items()}
    return {code: name for code, name in names.items() if len(code) == 2 and code.isalpha() and code not in NO_COUNTRY}


@cache
def _countries() -> dict[str, str]:
    """Return the code of each country by its name, alias and code, all in lower case."""
    names = _territories()
    by_name = {name.casefold(): code for code, name in names.items()}
    return {**by_name, **COUNTRY_ALIASES, **{code.lower(): code for code in names}}


def country_names() -> dict[str, str]:
    """Return the English name of each country by its ISO 3166 code."""
    return dict(sorted(_territories().items()))


def _country(value: Any, _: ValidationInfo) -> str:
    text = _text(value, "a country")
    code = _countries().get(text.casefold())
    if code is None:
        raise ValueError("is not a country; give its ISO 3166 code of two letters or its English name")
    return code


def _iban(value: Any, _: ValidationInfo) -> str:
    from stdnum import iban

    compact = str(iban.compact(_text(value, "an IBAN")))
    if not is_iban(compact):
        raise ValueError("is not an IBAN; its check digits, length or country do not fit")
    return compact


def _card(value: Any, _: ValidationInfo) -> str:
    from stdnum import luhn

    digits = _text(value, "a card number").replace(" ", "").replace("-", "")
    if not (digits.isascii() and digits.isdigit() and 12 <= len(digits) <= 19 and luhn.is_valid(digits)):
        raise ValueError("is not a card number; it has 12 to 19 digits, the last of which checks the others")
    return digits


def _tax_id(value: Any, _: ValidationInfo) -> str:
    compact = "".join(_text(value, "a tax id").upper().split())
    if not (4 <= len(compact) <= 32 and compact.isascii() and compact.isprintable()):
        raise ValueError("is not a tax id; it has 4 to 32 letters, digits and separators")
    return compact


def _code(value: Any, _: ValidationInfo) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = _text(value, "a number or code")
    if not text:
        raise ValueError("must not be blank")
    return text


def _instant(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("has no time zone; give an aware time, for example 2026-11-22T09:30:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is too far away") from None


def is_number(value: Any) -> bool:
    """Return whether a value is a number or reads as one, which pydantic would take for seconds since 1970."""
    return isinstance(value, int | float) or (isinstance(value, str) and value.strip().lstrip("+-").isdecimal())


def instant_text(value: datetime) -> str:
    """Return an aware time as it is stored: UTC with microseconds, so that text order is time order."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Email = Annotated[str, Kind("email"), BeforeValidator(unless_trusted(_email))]
Phone = Annotated[str, Kind("phone"), BeforeValidator(unless_trusted(_phone))]
Country = Annotated[str, Kind("country"), BeforeValidator(unless_trusted(_country))]
Iban = Annotated[str, Kind("iban"), BeforeValidator(unless_trusted(_iban))]
CardNumber = Annotated[str, Kind("card"), BeforeValidator(unless_trusted(_card))]
TaxId = Annotated[str, Kind("tax_id"), BeforeValidator(unless_trusted(_tax_id))]
Code = Annotated[str, Kind("code"), BeforeValidator(unless_trusted(_code))]
LongText = Annotated[str, Kind("long_text")]
Instant = Annotated[
    datetime, Kind("instant"), AfterValidator(_instant), PlainSerializer(instant_text, when_used="json")
]


@cache
def currency_digits(currency: str) -> int:
    """Return how many decimals a currency has (Unicode CLDR).

    Raises:
        ValueError: There is no such currency.
    """
    from babel.core import get_global
    from babel.numbers import list_currencies

    if currency not in list_currencies():
        raise ValueError("is not in a known currency; give an ISO 4217 code such as EUR")
    fractions = get_global("currency_fractions")
    return int(fractions.get(currency, fractions["DEFAULT"])[0])


@dataclass(frozen=True, order=True, slots=True)
class Money:
    """An amount of one currency, exact.

    Attributes:
        minor: The amount in the currency's minor unit (cents for EUR, yen for JPY).
        currency: ISO 4217 code.
    """

    minor: int
    currency: str

    @property
    def amount(self) -> Decimal:
        """The amount in whole units, with the currency's decimals."""
        return Decimal(self.minor).scaleb(-currency_digits(self.currency))

    def __str__(self) -> str:
        return f"{self.amount:,} {self.currency}"

    def __neg__(self) -> Money:
        return Money(-self.minor, self.currency)

    def __add__(self, other: Money) -> Money:
        if other.currency != self.currency:
            raise ValueError(f"{self.currency} and {other.currency} cannot be added without a rate")
        return Money(self.minor + other.minor, self.currency)

    def __sub__(self, other: Money) -> Money:
        return self + -other

    @classmethod
    def of(cls, amount: Decimal, currency: str, *, rounded: bool = False) -> Money:
        """Return an amount in whole units as money; `rounded` rounds half-even instead of refusing extra decimals.

        Raises:
            ValueError: The amount has more decimals than the currency, is too large, or no such currency exists.
        """
        digits = currency_digits(currency)
        if not amount.is_finite() or amount.adjusted() > 15:
            raise ValueError("must be a finite amount of 15 digits at most")
        minor = amount.scaleb(digits)
        if rounded:
            minor = minor.quantize(Decimal(1))
        elif minor != minor.to_integral_value():
            raise ValueError(f"has more decimals than {currency} has ({digits})")
        return cls(int(minor), currency).checked()

    def checked(self) -> Money:
        """Return the same money.

        Raises:
            ValueError: It is no amount of a known currency, or is too large.
        """
        if not isinstance(self.minor, int) or isinstance(self.minor, bool) or abs(self.minor) >= 10**18:
            raise ValueError("must be a whole number of minor units, of 18 digits at most")
        currency_digits(self.currency)
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept Money, stored form, text, Decimal and whole numbers; refuse float."""
        return core_schema.with_info_plain_validator_function(
            _money,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda money: {"minor": money.minor, "currency": money.currency}, when_used="json"
            ),
        )


def _money(value: Any, info: ValidationInfo) -> Money:
    if isinstance(value, Mapping) and set(value) == {"minor", "currency"}:
        value = Money(value["minor"], value["currency"])
    if isinstance(value, Money):
        return value if from_context(info, "trusted") else value.checked()
    if isinstance(value, bool | float) or not isinstance(value, str | int | Decimal):
        raise ValueError(
            "must be text, a whole number or a Decimal; binary fractions (float) cannot hold money exactly"
        )
    number, _, currency = str(value).strip().partition(" ")
    currency = currency.strip().upper() or from_context(info, "currency")
    if not currency:
        raise ValueError('needs a currency here; write it behind the amount, "12.30 GBP"')
    try:
        amount = Decimal(number)
    except InvalidOperation:
        raise ValueError('is not an amount; write it as "12.30" or "12.30 GBP"') from None
    return Money.of(amount, currency)
