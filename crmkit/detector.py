"""Finds payment card numbers and IBANs in text that people typed, so that they can be moved into a sealed field.

A card number has 13 to 19 digits, in one piece or in the groups that are printed on cards, the beginning and the
length of a known issuer, and a check digit that fits (Luhn). An IBAN has the length and form of its country and check
digits that fit (mod 97). Three in a hundred random numbers of 16 digits look like a card number all the same.
Every step is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from crmkit.fields import mask

SHORTEST = 13  # digits of a card number; an IBAN has 15 signs at least
GAP = r"[ \u00a0\u202f-]"  # what may stand between two groups of digits

CARD = re.compile(  # looks ahead, because the digits before a card number may look like the beginning of one
    rf"""(?<![\w+])(?<!\d[.,])(?=(
        \d{{13,19}}(?!\w)
      | \d{{4}}{GAP}\d{{4}}{GAP}\d{{4}}{GAP}\d{{1,4}}({GAP}\d{{1,3}})?(?!\w)
      | \d{{4}}{GAP}\d{{6}}{GAP}\d{{4,5}}(?!\w)
    ))\d""",
    re.VERBOSE,
)
ISSUED = re.compile(
    r"""4(\d{12}|\d{15}|\d{18})                                              # Visa
      | 5[1-5]\d{14} | 2(22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}      # Mastercard
      | 3[47]\d{13}                                                          # American Express
      | 3(0[0-5]|[689]\d)\d{11}(\d\d)?                                       # Diners Club
      | 6(0\d|4[4-9]|5\d)\d{13}(\d{3})?                                      # Discover, RuPay
      | (62|81|82)\d{14,17}                                                  # UnionPay
      | 35(2[89]|[3-8]\d)\d{12}(\d{3})?                                       # JCB
      | 220[0-4]\d{12,15} | 9792\d{12}                                       # Mir, Troy
      | (5018|502\d|503[0-8]|5893|6304|6759|676[0-3])\d{9}(\d{3}|\d{6})?     # Maestro
      | 50(6[1-9]|[7-9]\d)\d{12}(\d\d\d?)?                                   # Verve, Elo""",
    re.VERBOSE,
)
DIGITS = re.compile(r"\d\d")
IBAN_START = re.compile(r"(?<![^\W_])[A-Z]{2}\d\d(?=[ \u00a0\u202f-]?[A-Z0-9])", re.ASCII | re.IGNORECASE)
BASE_36 = str.maketrans({letter: str(number) for number, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 10)})
IBAN_PART = re.compile(r"(\d+)!([nac])")
DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # the sum of the digits of twice a digit


@dataclass(frozen=True)
class Found:
    """A number in a text; holds where it is, and no more of it than its mask.

    Attributes:
        kind: ``"card"`` or ``"iban"``.
        start: Where it begins in the text.
        end: Where it ends, first position behind it.
        mask: What may be shown of it.
    """

    kind: Literal["card", "iban"]
    start: int
    end: int
    mask: str

    def value(self, text: str) -> str:
        """Return the number itself, in the form that a sensitive field keeps."""
        return _compact(text[self.start : self.end])

    def replaced(self, text: str, by: str) -> str:
        """Return the text with something else where the number is."""
        return text[: self.start] + by + text[self.end :]


def find_payment_data(text: str) -> tuple[Found, ...]:
    """Return the card numbers and IBANs in a text, in the order in which they stand there."""
    if len(text) < SHORTEST or not DIGITS.search(text):
        return ()
    ibans = list(_ibans(text))
    rest = list(text)
    for found in ibans:  # the digits of an IBAN are no card number
        rest[found.start : found.end] = "_" * (found.end - found.start)
    return tuple(sorted([*ibans, *_cards("".join(rest))], key=lambda found: found.start))


def is_card_number(digits: str) -> bool:
    """Return whether digits without separators can be those of a card."""
    return bool(ISSUED.fullmatch(digits)) and _fits_luhn(digits) and not (len(digits) == SHORTEST and _is_ean(digits))


def is_iban(number: str) -> bool:
    """Return whether a number without separators, in capitals, is an IBAN of its country (ISO 13616)."""
    form = _iban_form(number[:2])
    return bool(form and form.fullmatch(number)) and int((number[4:] + number[:4]).translate(BASE_36)) % 97 == 1


def _cards(text: str) -> Iterator[Found]:
    behind = 0
    for candidate in CARD.finditer(text):
        start = candidate.start()
        if start < behind:
            continue
        for end in (candidate.end(1), candidate.start(2)):  # the last group may be something else, as a date
            if end > start and is_card_number(digits := _compact(text[start:end])):
                yield Found("card", start, end, mask("card", digits))
                behind = end
                break


def _compact(number: str) -> str:
    """Return a number without separators, in capitals; digits of other scripts become 0 to 9."""
    signs = "".join(re.split(GAP, number)).upper()
    return signs if signs.isascii() else "".join(str(int(sign)) if sign.isdecimal() else sign for sign in signs)


def _fits_luhn(digits: str) -> bool:
    return (sum(map(int, digits[::-2])) + sum(map(DOUBLED.__getitem__, map(int, digits[-2::-2])))) % 10 == 0


def _is_ean(digits: str) -> bool:
    """Return whether 13 digits are the number of an article; many of those begin as a Visa number does."""
    return (sum(map(int, digits[::2])) + 3 * sum(map(int, digits[1::2]))) % 10 == 0


def _ibans(text: str) -> Iterator[Found]:
    behind = 0
    for beginning in IBAN_START.finditer(text):
        start, length = beginning.start(), _iban_length(beginning.group()[:2].upper())
        if start < behind or not length:
            continue
        number = _iban_of(length).match(text, start)
        if number and is_iban(compact := _compact(number.group())):
            end = number.end()
            yield Found("iban", start, end, mask("iban", compact))
            behind = end


@cache
def _iban_of(length: int) -> re.Pattern[str]:
    return re.compile(rf"[A-Z0-9](?:{GAP}?[A-Z0-9]){{{length - 1}}}(?![^\W_])", re.ASCII | re.IGNORECASE)


@cache
def _iban_length(country: str) -> int:
    """Return how many signs an IBAN of a country has; 0 where a country has none."""
    return 4 + sum(int(count) for count, _ in parts) if (parts := _iban_parts(country)) else 0


@lru_cache(maxsize=1_000)  # of what is typed for a country
def _iban_form(country: str) -> re.Pattern[str] | None:
    """Return what the IBANs of a country look like; None where it has none."""
    signs = {"n": "[0-9]", "a": "[A-Z]", "c": "[A-Z0-9]"}
    bban = "".join(f"{signs[sign]}{{{count}}}" for count, sign in _iban_parts(country))
    return re.compile(f"[A-Z]{{2}}[0-9]{{2}}{bban}") if bban else None


def _iban_parts(country: str) -> list[tuple[str, str]]:
    """Return how many signs of which kind follow each other behind the check digits; nothing where there are none."""
    from stdnum import numdb

    return [part for _, known in numdb.get("iban").info(country) for part in IBAN_PART.findall(known.get("bban", ""))]
