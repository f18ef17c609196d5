"""Card numbers and IBANs in text are found; what must not be stored at all is refused, by the name of the field."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit import CRM, Customer, ImportProblem, Invalid, Part, Personal, Record, Reference, find_payment_data, hookimpl
from crmkit.detector import CARD, IBAN_START, is_card_number
from crmkit.forbidden import (
    CODE,
    FORBIDDEN_NAME,
    MANY_DIGITS,
    NAMED_CODE,
    TRACK_1,
    TRACK_2,
    has_forbidden,
    is_forbidden_column,
    is_forbidden_name,
)

CARD_NUMBER = "4111111111111111"
TRACK = ("%B4111111111111111^DOE/JOHN^27121010000000000000?", ";4111111111111111=27121010000000000000?")
BESIDE = ("4111 1111 1111 1111 pin 123", "code: cvn2 999, 5555-5555-5555-4444", "378282246310005\nPrüfziffer 1234")
ALONE = ("cvc 123", "CVC: 123", "CVV2 123", "her card security code 123", "Kartenprüfnummer: 999", "CSC=1234", "cvv123")


def with_check_digit(digits: str) -> str:
    """Return digits with the one behind them that makes the Luhn sum fit."""
    return next(digits + last for last in "0123456789" if _luhn(digits + last))


def _luhn(digits: str) -> bool:
    total = 0
    for position, sign in enumerate(reversed(digits)):
        value = int(sign) * (1 + position % 2)
        total += value // 10 + value % 10
    return total % 10 == 0


# --------------------------------------------------------------------------- what is found


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("please charge 4111 1111 1111 1111, thanks", "card", CARD_NUMBER),
        ("4111-1111-1111-1111 12/27", "card", CARD_NUMBER),
        ("1234 4111 1111 1111 1111", "card", CARD_NUMBER),
        ("Amex 3782 822463 10005.", "card", "378282246310005"),
        ("diners:3056 930902 5904", "card", "30569309025904"),
        ("\u00a05555555555554444\u00a0", "card", "5555555555554444"),
        ("2223003122003222", "card", "2223003122003222"),
        ("６０１１１１１１１１１１１１１７", "card", "6011111111111117"),
        ("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", "iban", "DE89370400440532013000"),
        ("gb33bukb20201555555555", "iban", "GB33BUKB20201555555555"),
        ("MT84 MALT 0110 0001 2345 MTLC AST0 01S!", "iban", "MT84MALT011000012345MTLCAST001S"),
        ("(NO93-8601-1117-947)", "iban", "NO9386011117947"),
    ],
)
def test_numbers_in_text_are_found_and_shown_masked(text: str, kind: str, value: str) -> None:
    (found,) = find_payment_data(text)
    assert (found.kind, found.value(text)) == (kind, value)
    assert found.mask.endswith(value[-4:])
    assert value[:-4] not in repr(found).replace(" ", "")
    assert not find_payment_data(found.replaced(text, "(moved)"))


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # the check digit is wrong
        "9999999999999995",  # the check digit fits; nobody issues these
        "+49 1512 3456789012",  # a phone number
        "4006381333931",  # an article number
        "41111111111111111111",  # too long
        "0.4111111111111111",
        "x4111111111111111",
        "4111111111111111_2",
        "DE89 3704 0044 0532 0130 01",
        "DE8937040044053201300",
        "xDE89370400440532013000",
        "XX89370400440532013000",
        "2026-11-22T09:30:00.123456Z",
        "01KAN3S7ZJ4111111111111111",
    ],
)
def test_what_only_resembles_one_is_not_found(text: str) -> None:
    assert find_payment_data(text) == ()


def test_several_are_found_in_their_order() -> None:
    text = f"DE89370400440532013000 or {CARD_NUMBER}, once GB33BUKB20201555555555"
    assert [found.kind for found in find_payment_data(text)] == ["iban", "card", "iban"]


def test_what_is_left_of_a_text_stays_readable() -> None:
    text = f"Card {CARD_NUMBER} until May. Likes tea."
    assert find_payment_data(text)[0].replaced(text, "(moved)") == "Card (moved) until May. Likes tea."


def test_every_number_with_fitting_check_digits_is_found(scale: Callable[[int], int]) -> None:
    from stdnum import iban

    chance = random.Random(4)
    for _ in range(scale(300)):
        card = with_check_digit((chance.choice(["4", "51", "2300", "6011", "3530"]) + _digits(chance, 14))[:15])
        for separator in ("", " ", "-"):
            text = f"pay {separator.join(card[at : at + 4] for at in range(0, 16, 4))} now"
            assert [found.value(text) for found in find_payment_data(text)] == [card]
        bban = _digits(chance, 18)
        account = f"DE{iban.calc_check_digits(f'DE00{bban}')}{bban}"
        text = f"to {iban.format(account)}."
        assert [found.value(text) for found in find_payment_data(text)] == [account]


def _digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choices("0123456789", k=count))


def test_few_innocent_numbers_are_taken_for_payment_data(
    scale: Callable[[int], int], record_property: Callable[[str, object], None]
) -> None:
    """Of numbers that people type: the share that looks like a card number or IBAN all the same."""
    chance = random.Random(7)
    made: dict[str, tuple[Callable[[], str], float]] = {
        "order numbers of 6 to 12 digits": (lambda: _digits(chance, chance.randint(6, 12)), 0),
        "phone numbers": (lambda: f"+{chance.randint(1, 99)} {_digits(chance, 4)} {_digits(chance, 6)}", 0),
        "phone numbers without a plus": (lambda: f"00{chance.randint(1, 99)} {_digits(chance, 10)}", 0),
        "timestamps": (lambda: f"20{_digits(chance, 2)}1122{_digits(chance, 6)}", 0),
        "milliseconds since 1970": (lambda: f"17{_digits(chance, 11)}", 0),
        "ULIDs": (lambda: crmkit.records.new_id(), 0),
        "amounts": (lambda: f"{chance.randint(1, 10**12):,}.{_digits(chance, 2)}", 0),
        "article numbers (EAN-13)": (lambda: _ean(_digits(chance, 12)), 0),
        "random numbers of 16 digits": (lambda: _digits(chance, 16), 0.04),
        "letters and digits": (lambda: "".join(chance.choices("ABCDEFGHDE0123456789", k=22)), 0),
    }
    for name, (make, allowed) in made.items():
        count = max(2_000, scale(2_000))
        rate = sum(bool(find_payment_data(f"see {make()} there")) for _ in range(count)) / count
        record_property(f"taken for payment data: {name}", rate)
        assert rate <= allowed, name


def _ean(digits: str) -> str:
    return digits + str(-sum(int(sign) * (1 + 2 * (at % 2)) for at, sign in enumerate(digits)) % 10)


def test_only_what_is_issued_under_its_first_digits_is_a_card_number() -> None:
    assert is_card_number(CARD_NUMBER)
    assert not is_card_number(with_check_digit("99" + "1" * 13))
    assert not is_card_number(with_check_digit("34" + "0" * 13))  # American Express has 15 digits


HOSTILE = {
    "digits": "4" * 65_536,
    "digits and blanks": "4 " * 32_768,
    "groups": "4111 " * 13_107,
    "nearly IBANs": "DE89 3704 0044 0532 0130 0 " * 2_427,
    "beginnings of IBANs": "DE89 " * 13_107,
    "nearly cards": "4111111111111112 " * 3_855,
    "cards and codes": "cvv 123 4111111111111112 " * 2_621,
    "codes": "cvv 123 " * 8_192,
    "nearly codes": "cvv 12 security code is 12345 " * 2_184,
    "blanks behind a code": "pin" + " " * 65_533,
    "beginnings of tracks": "B4111111111111111^" * 3_640,
    "carets": "^" * 65_536,
    "words of names": "card_" * 13_107,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_takes_linear_time(text: str) -> None:
    whole, half = _seconds(text), _seconds(text[: len(text) // 2])
    assert whole < 1
    assert whole < 4 * half + 0.02


def _seconds(text: str) -> float:
    return min(_once(text) for _ in range(3))


def _once(text: str) -> float:
    began = time.perf_counter()
    find_payment_data(text)
    has_forbidden(text)
    return time.perf_counter() - began


@pytest.mark.parametrize("pattern", [CARD, IBAN_START, MANY_DIGITS, TRACK_1, TRACK_2, CODE, NAMED_CODE, FORBIDDEN_NAME])
def test_each_pattern_is_quick_on_hostile_text(pattern: Any) -> None:
    for name, text in HOSTILE.items():
        began = time.perf_counter()
        for _ in pattern.finditer(text) if pattern is not FORBIDDEN_NAME else [pattern.fullmatch(text[:2_000])]:
            pass
        assert time.perf_counter() - began < 0.25, name


# --------------------------------------------------------------------------- what must not be stored


@pytest.mark.parametrize(
    "name",
    [
        "cvv",
        "CVV2",
        "cvc",
        "cvc2",
        "Cid",
        "csc",
        "pin",
        "pin_code",
        "PIN-Code",
        "card_pin",
        "card_cvv",
        "cvvCode",
        "cardCvv",
        "CVV/CVC",
        "card_verification_value",
        "card_security_code",
        "track1",
        "Track_2",
        "track_data",
        "mag_stripe",
        "magstripe",
        "magnetic_stripe_data",
    ],
)
def test_names_of_what_must_not_be_stored(name: str) -> None:
    assert is_forbidden_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "pincode",
        "pinned",
        "spinner",
        "customer_id",
        "tracking",
        "track_10",
        "soundtrack",
        "security_code",
        "verification_code",
        "card",
        "card_number",
        "discovery",
        "pinterest",
        "acid",
        "stripe",
    ],
)
def test_names_that_only_resemble_them(name: str) -> None:
    assert not is_forbidden_name(name)


def test_a_column_of_a_forbidden_name_may_be_what_else_the_name_means() -> None:
    assert is_forbidden_column("CID", "notes")
    assert not is_forbidden_column("CID", "number")
    assert is_forbidden_column("PIN code", "notes")
    assert not is_forbidden_column("PIN code", "postcode")
    assert is_forbidden_column("CVV", "number")


def test_a_record_type_with_a_field_for_them_is_refused(crm: CRM) -> None:
    class Slot(Part):
        cvc: str

    class Payment(Record, type="payment", subject="customer"):
        customer: Reference[Customer]
        cvv: Personal[str] | None = None
        slots: tuple[Slot, ...] = ()

    class Plugin:
        @hookimpl
        def crm_record_types(self) -> list[type[Record]]:
            return [Payment]

    with pytest.raises(Invalid) as caught:
        crm.register(Plugin())
    assert set(caught.value.problems) == {"cvv", "slots"}
    assert all(
        "must not be stored after authorization, not even encrypted" in text for text in caught.value.problems.values()
    )


@pytest.mark.parametrize("text", [*TRACK, *BESIDE, *ALONE])
@pytest.mark.parametrize("field", ["notes", "name", "street", "tags", "contacts", "source"])
def test_track_data_and_security_codes_are_refused_in_every_text(crm: CRM, field: str, text: str) -> None:
    rows: dict[str, Any] = {"tags": (text,), "contacts": ({"kind": "address", "value": text},)}
    given = {"name": "Ada", field: rows.get(field, text)}
    with pytest.raises(Invalid) as caught:
        crm.customers.add(**given)
    assert field in caught.value.problems
    assert "must not be stored" in str(caught.value)
    assert not any(part in str(caught.value) for part in ("4111", "5555", "3782", "123", "999"))
    ada = crm.customers.add(name="Ada")
    with pytest.raises(Invalid):
        crm.customers.update(ada, **{field: given[field]})
    assert field in crm.customers.check(ada, **{field: given[field]})


@pytest.mark.parametrize(
    "text",
    [
        "the PIN of the gate is 1234",
        "PIN 1234" + " " * 150 + CARD_NUMBER,  # far from each other
        "4111 1111 1111 1112 PIN 123",  # no card number
        "CVV 12345",  # too many digits
        "the security code of the gate is 1234",
        "asked for the cvc, was not given it; order 123",
        ";1234567890123456=27121010000?",
        "card 4111 1111 1111 1111 until 12/27",
    ],
)
def test_what_only_resembles_them_is_kept(crm: CRM, text: str) -> None:
    assert crm.customers.add(name="Ada", notes=text).notes == text


def test_a_column_of_them_cannot_be_imported(crm: CRM, tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_text("name,CVV,PIN code\nAda,123,560001\n")
    with pytest.raises(ImportProblem, match=r"column 'CVV' must not be stored .* leave it out"):
        crm.import_file(path, as_="customer", map={"CVV": "notes"})
    plan = crm.import_file(path, as_="customer", map={"PIN code": "postcode"})
    assert plan.unmapped == ("CVV",)
    assert getattr(plan.records[0], "postcode", "") == "560001"
    path.write_text(f"name,notes\nAda,{BESIDE[0]}\nBob,\n")
    (bad,) = crm.import_file(path, as_="customer").bad
    assert (bad.line, bad.field) == (2, "notes")
    assert "must not be stored" in bad.reason
