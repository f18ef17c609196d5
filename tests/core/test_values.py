"""Value types: what they take, how they normalise it, what they say when they refuse."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from random import Random

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from stdnum import iban

from crmkit.records import Customer
from crmkit.schema import adapter
from crmkit.values import (
    CardNumber,
    Country,
    Email,
    Iban,
    Instant,
    Money,
    Phone,
    TaxId,
    country_names,
    currency_digits,
    instant_text,
)

SIZES = (11, 18, 20)  # of what follows the check digits in Norway, Germany and Sweden

GOOD = [
    (Email, "Ada@EXAMPLE.org", "Ada@example.org"),
    (Email, "  ada@example.org ", "ada@example.org"),
    (Phone, "+44 20 7946 0018", "+442079460018"),
    (Phone, "020 7946 0018", "+442079460018"),
    (Phone, "0049 30 23125 000", None),
    (Country, "United Kingdom", "GB"),
    (Country, "gb", "GB"),
    (Country, "EIRE", "IE"),
    (Country, "RSA", "ZA"),
    (Country, "Channel Islands", "JE"),
    (Iban, "gb33 BUKB 2020 1555 5555 55", "GB33BUKB20201555555555"),
    (CardNumber, "4242 4242-4242 4242", "4242424242424242"),
    (TaxId, "de 123 456 789", "DE123456789"),
]


@pytest.mark.parametrize(("kind", "typed", "kept"), [case for case in GOOD if case[2]])
def test_values_are_normalised(kind: object, typed: str, kept: str) -> None:
    assert TypeAdapter(kind).validate_python(typed, context={"region": "GB"}) == kept


BAD = [
    (Email, "ada", "e-mail"),
    (Email, 5, "text"),
    (Phone, "call me", "phone number"),
    (Phone, "12", "digits"),
    (Country, "Atlantis", "ISO 3166"),
    (Iban, "GB33BUKB20201555555556", "check digits"),
    (CardNumber, "4242424242424241", "12 to 19 digits"),
    (CardNumber, "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", "12 to 19 digits"),
    (TaxId, "x", "4 to 32"),
]


@pytest.mark.parametrize(("kind", "typed", "says"), BAD)
def test_bad_values_are_refused_with_what_is_allowed(kind: object, typed: object, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(typed, context={"region": "GB"})
    message = caught.value.errors(include_input=False)[0]["msg"]
    assert says in message
    assert str(typed) not in message or len(str(typed)) < 3


@given(
    st.one_of(
        st.emails(),
        st.text(st.sampled_from("ab.@-_ +\"\\é'"), max_size=12),
        st.builds(
            "{}@{}".format, st.text(max_size=70), st.sampled_from(["example.org", "MÜNCHEN.example", "x", "a..b"])
        ),
    )
)
def test_mail_addresses_are_what_the_library_says(typed: str) -> None:
    """Checking domains once, and plain names before the @ by a pattern, changes no answer."""

    def by_the_library(text: str) -> str | None:
        try:
            return str(validate_email(text.strip(), check_deliverability=False).normalized)
        except EmailNotValidError:
            return None

    try:
        ours = TypeAdapter(Email).validate_python(typed)
    except ValidationError:
        ours = None
    assert ours == by_the_library(typed)


def test_ibans_are_what_the_library_says() -> None:
    """Working out the form of each country once changes no answer, but for letters in place of the check digits."""
    random = Random(0)

    def checked(text: str) -> str | None:
        try:
            return str(TypeAdapter(Iban).validate_python(text))
        except ValidationError:
            return None

    accepted = 0
    for country in ("GB", "DE", "FR", "NO", "MT", "SE", "XX"):
        for _ in range(100):
            signs = "0123456789" if country in "DENOSE" else "0123456789ABZ"
            bban = "".join(random.choices(signs, k=random.choice(SIZES)))
            right = f"{country}{iban.calc_check_digits(f'{country}00{bban}')}{bban}"
            place = random.randrange(4, len(right))
            wrong = right[:place] + random.choice("0123456789AZ. -ß٣") + right[place + 1 :]
            for text in (right, right.lower(), wrong):
                known = iban.compact(text) if iban.is_valid(text, check_country=False) else None
                assert checked(text) == known, text
                accepted += known is not None
    assert accepted > 50
    assert iban.is_valid("BEA0787327663162", check_country=False)
    assert checked("BEA0787327663162") is None


def test_a_national_phone_number_needs_a_country() -> None:
    with pytest.raises(ValidationError, match="country code"):
        TypeAdapter(Phone).validate_python("020 7946 0018")


def test_trusted_values_are_not_checked_again() -> None:
    assert TypeAdapter(Email).validate_python("as it was stored", context={"trusted": True}) == "as it was stored"


def test_country_names_hold_countries_only() -> None:
    names = country_names()
    assert names["DE"] == "Germany"
    assert not {"EU", "UN", "ZZ"} & set(names)


@pytest.mark.parametrize(
    ("given", "minor", "currency"),
    [
        ("12.30", 1230, "EUR"),
        ("12.30 GBP", 1230, "GBP"),
        (12, 1200, "EUR"),
        (Decimal("0.5"), 50, "EUR"),
        ("-3", -300, "EUR"),
        ("1500 JPY", 1500, "JPY"),
        ("1.234 KWD", 1234, "KWD"),
    ],
)
def test_money(given: object, minor: int, currency: str) -> None:
    assert TypeAdapter(Money).validate_python(given, context={"currency": "EUR"}) == Money(minor, currency)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (1.5, "float"),
        (True, "float"),
        ("12.345", "decimals"),
        ("1.5 JPY", "decimals"),
        ("twelve", "amount"),
        ("12 XXY", "ISO 4217"),
        ("NaN", "finite"),
        ("1e20", "15 digits"),
        ("1E+999999", "15 digits"),
        ({"minor": "x", "currency": "EUR"}, "minor units"),
        ({"minor": 1, "currency": "ZZZ"}, "ISO 4217"),
        (Money(True, "EUR"), "minor units"),
        ([], "text"),
    ],
)
def test_bad_money(given: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(Money).validate_python(given, context={"currency": "EUR"})


def test_money_without_a_currency_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs a currency"):
        TypeAdapter(Money).validate_python("12.30")


@given(st.integers(-(10**14), 10**14), st.sampled_from(["EUR", "JPY", "KWD"]))
def test_money_goes_through_its_text_and_back(minor: int, currency: str) -> None:
    money = Money(minor, currency)
    text = str(money).replace(",", "")
    assert TypeAdapter(Money).validate_python(text) == money
    assert money.amount.as_tuple().exponent == -currency_digits(currency)


def test_money_adds_only_its_own_currency() -> None:
    assert Money(100, "EUR") + Money(50, "EUR") - Money(25, "EUR") == Money(125, "EUR")
    with pytest.raises(ValueError, match="rate"):
        Money(100, "EUR") + Money(100, "GBP")


def test_instants_are_aware_and_kept_in_utc() -> None:
    berlin = timezone(timedelta(hours=1))
    kept = TypeAdapter(Instant).validate_python(datetime(2026, 11, 22, 10, 30, tzinfo=berlin))
    assert kept == datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    assert instant_text(kept) == "2026-11-22T09:30:00.000000Z"
    with pytest.raises(ValidationError, match="time zone"):
        TypeAdapter(Instant).validate_python(datetime(2026, 11, 22))


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_text_order_of_instants_is_time_order(one: datetime, other: datetime) -> None:
    assert (one < other) == (instant_text(one) < instant_text(other))


def test_an_adapter_checks_one_field_alone() -> None:
    assert adapter(Customer, "birthday").validate_python("1815-12-10") == date(1815, 12, 10)
