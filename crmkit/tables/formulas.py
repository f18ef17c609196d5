"""Keeps spreadsheets from taking a text for a formula: a customer may have written it."""

from __future__ import annotations

import re

_STARTS = tuple("=+-@\t\r\n＝＋－＠")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*")  # an amount below zero, a phone number: neither calls anything


def guarded(text: str) -> str:
    """Return a text with an apostrophe in front where a spreadsheet would run it."""
    runs = text.lstrip("' ").startswith(_STARTS) and not _NUMBER.fullmatch(text)
    return f"'{text}" if runs else text


def unguarded(text: str) -> str:
    """Return the text that `guarded` made this one of."""
    bare = text[1:]
    return bare if text.startswith("'") and guarded(bare) == text else text
