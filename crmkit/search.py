"""Search by what is being typed: the text that a document is found by, and the words that are looked for."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from crmkit.errors import Invalid

SEARCHED = ("name", "title", "number", "sku", "email", "phone", "city", "contacts", "id")
_SAME = str.maketrans(
    {"ı": "i", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "æ": "ae", "œ": "oe", "þ": "th", "’": "'"}
)
"""Letters that Unicode does not take apart, and what people without them on the keyboard type."""

_SIGNS_OF_PHONES = "+-‐–/(). "


def folded(text: str) -> str:
    """Return text without case and accents, for comparing what people type."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text).casefold().translate(_SAME)
    return "".join(c for c in plain if not unicodedata.combining(c))


def search_text(doc: Mapping[str, Any]) -> str:
    """Return what a document is searched by, name first; kept in memory only."""
    parts: list[str] = []
    for name in SEARCHED:
        value = doc.get(name)
        if isinstance(value, str):
            parts.append(value)
        elif value:
            parts.extend(row["value"] for row in value if isinstance(row, Mapping) and "value" in row)
    return folded(" ".join(parts))


def search_words(text: str) -> list[str]:
    """Return the words to look for; a phone number in any spacing is one word without its leading zeros.

    Raises:
        Invalid: It is not text.
    """
    if not isinstance(text, str):
        raise Invalid({"text": "must be text: the name, number, mail, phone or id that is being typed"})
    typed = folded(text).strip()
    is_phone = " " in typed or typed.startswith(("+", "0", "("))  # 2024-00017 is rather a number of ours
    if is_phone and all(c in _SIGNS_OF_PHONES or c in "0123456789" for c in typed):
        international = typed.replace("(0)", "") if typed.startswith(("+", "00")) else typed
        digits = "".join(c for c in international if c.isdigit())
        if len(digits) >= 5 and digits.strip("0"):
            return [digits.lstrip("0")]
    return typed.split()
