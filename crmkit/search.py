"""Search by what is being typed: the text that a document is found by, and the words that are looked for."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from crmkit.errors import Invalid

SEARCHED = ("name", "title", "number", "sku", "email", "phone", "city", "contacts", "id")


def folded(text: str) -> str:
    """Return text without case and accents, for comparing what people type."""
    if text.isascii():
        return text.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


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
    digits = "".join(c for c in text if c.isdigit())
    typed = text.strip()
    is_phone = all(c in "+-/(). 0123456789" for c in typed) and (" " in typed or typed.startswith(("+", "0", "(")))
    if is_phone and len(digits) >= 5 and digits.strip("0"):  # 2024-00017 is rather a number of ours
        return [digits.lstrip("0")]
    return folded(text).split()
