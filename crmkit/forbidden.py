"""What must not be stored, not even sealed: card security codes, PINs and the data of a card's magnetic stripe.

Nobody needs them once a payment was authorised, and whoever has them can pay with the card. They are known by the name
of a field or column, and by their looks: track data wherever it stands, a security code behind a word for one, and
beside a card number a PIN too, or what else may be called a code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from crmkit.detector import find_payment_data, is_card_number
from crmkit.errors import Invalid

REASON = "must not be stored after authorization, not even encrypted: card security codes, PINs and magnetic track data"

FORBIDDEN_NAME = re.compile(
    r"(?:.*_)?(?:i?cvv2?|cvc2?|cvn2|cav2|magstripe|(?:mag|magnetic)_?stripe|track_?[12]|track_?data)(?:_.*)?"
    r"|(?:card_)?(?:cid|csc|cvn|cvd|cav|pin_?(?:number|block)?|pin_code)"
    r"|(?:.*_)?card_(?:security|verification)(?:_.*)?"
)
INNOCENT = {"cid": "number", "pin": "postcode", "pincode": "postcode"}  # what else a column of that name may be

MANY_DIGITS = re.compile(r"\d(?:[ \u00a0\u202f-]?\d){12}")
TRACK_1 = re.compile(r"%?B(\d{13,19})\^[^\^\r\n]{0,40}\^\d{4}")
TRACK_2 = re.compile(r"(?<!\d)(\d{13,19})[=D]\d{7}", re.ASCII)
CODE_WORD = (
    r"(?<![A-Za-z])(?:cvv2?|cvc2?|cvn2?|cav2?|cid|csc|pin|card security code|security code|verification code"
    r"|pr(?:ü|ue)fziffer|pr(?:ü|ue)fnummer|cryptogramme|c[oó]digo de seguridad)"
)
MENTIONED = re.compile(CODE_WORD, re.IGNORECASE)
DIGITS = r"(?:[ :=#.-]|code|number|no|is|ist|est|es){0,6}\d{3,4}(?!\d)"
CODE = re.compile(CODE_WORD + DIGITS, re.IGNORECASE)
NAMED_CODE = re.compile(  # of a card, whatever stands around it; a PIN may be that of a gate
    rf"(?<![A-Za-z])(?:cvv2?|cvc2?|csc|security code|kartenpr(?:ü|ue)fnummer){DIGITS}", re.IGNORECASE
)
THREE_DIGITS = re.compile(r"\d{3}")
NEAR = 100  # signs between a card number and a code that belongs to it, at most


def is_forbidden_name(name: str) -> bool:
    """Return whether a field or column of this name would hold what must not be stored; ``pincode`` is a postcode."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).strip("_").lower()
    return FORBIDDEN_NAME.fullmatch(words) is not None


def is_forbidden_column(column: str, field: str) -> bool:
    """Return whether a column must not go to a field; ``PIN code`` may be one of postcodes, ``CID`` one of numbers."""
    letters = "".join(re.findall("[a-z0-9]+", column.lower()))
    return is_forbidden_name(column) and INNOCENT.get(letters) != field


def has_forbidden(value: Any) -> bool:
    """Return whether a raw value holds track data or a security code of a card in any text of it."""
    if isinstance(value, str):
        return THREE_DIGITS.search(value) is not None and _is_forbidden(value)
    if isinstance(value, Mapping):
        return any(map(has_forbidden, value.values()))
    if isinstance(value, BaseModel):
        return has_forbidden(dict(value))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(has_forbidden, value))
    return False


def check_reason(given: object, name: str = "reason") -> None:
    """Refuse a reason that says nothing, or that holds what must not be stored.

    Args:
        given: The reason.
        name: What the argument is called.

    Raises:
        Invalid: It is such a one.
    """
    if not isinstance(given, str) or not given.strip():
        raise Invalid({name: "say why; it is kept in the audit log"})
    if has_forbidden(given):
        raise Invalid({name: REASON})


def _is_forbidden(text: str) -> bool:
    if NAMED_CODE.search(text):
        return True
    if not MANY_DIGITS.search(text):
        return False
    for pattern in (TRACK_1, TRACK_2):
        if any(is_card_number(track[1]) for track in pattern.finditer(text)):
            return True
    if not MENTIONED.search(text):  # most numbers stand alone
        return False
    cards = (found for found in find_payment_data(text) if found.kind == "card")
    return any(CODE.search(text, max(0, card.start - NEAR), card.end + NEAR) for card in cards)
