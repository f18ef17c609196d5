"""Values that occur nowhere else, every form in which they could lie in a file, and the search for all of them."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

from stdnum import iban, luhn

HEAD = 8  # bytes that a place is looked at by; every form has more


@dataclass(frozen=True)
class Person:
    """The values of one customer by field, personal and sensitive ones."""

    personal: dict[str, str]
    sensitive: dict[str, str]

    @property
    def fields(self) -> dict[str, object]:
        """What the customer is made of."""
        given = {name: value for name, value in self.personal.items() if name != "contacts"}
        contacts = [{"kind": "address", "value": self.personal["contacts"]}]
        return {**given, **self.sensitive, "contacts": contacts}


def person(chance: random.Random) -> Person:
    """Return somebody whose values nobody else has."""

    def word(length: int = 14) -> str:
        return "".join(chance.choices(string.ascii_lowercase, k=length))

    def digits(length: int) -> str:
        return "".join(chance.choices(string.digits, k=length))

    bban = digits(18)
    card = f"4{digits(14)}"
    return Person(
        {
            "name": f"{word().title()} Ö{word()}",  # with a letter that JSON may escape
            "email": f"{word()}@{word()}.example.org",
            "phone": f"+4420794{digits(5)}",
            "street": f"{word()} ß{word()}",
            "postcode": word().upper(),
            "city": word(),
            "job_title": word(),
            "website": f"https://{word()}.example.org/?q={word()}",
            "notes": f"{word()}\n{word()} & <{word()}>",
            "contacts": f"{word()}, {word()}",
        },
        {
            "iban": f"DE{iban.calc_check_digits(f'DE00{bban}')}{bban}",
            "card": card + luhn.calc_check_digit(card),
            "tax_id": f"X{digits(13)}",
        },
    )


def needles(values: Iterable[str]) -> set[bytes]:
    """Return every form in which one of these values could lie in a file."""
    return {form for value in values for text in _texts(value) for form in _forms(text) if len(form) > HEAD}


def _texts(value: str) -> Iterator[str]:
    """Yield a value, its long words, and both as search and comparison would write them."""
    for part in (value, *(word for word in value.split() if len(word) > 12)):
        yield from (part, part.casefold(), part.upper())


def _forms(text: str) -> Iterator[bytes]:
    plain = text.encode()
    yield plain
    yield from (text.encode("utf-16-le"), text.encode("utf-16-be"))
    yield from (plain.hex().encode(), plain.hex().upper().encode())
    yield from (quote(text, safe="").encode(), quote_plus(text).encode())
    yield from (json.dumps(text)[1:-1].encode(), json.dumps(text, ensure_ascii=False)[1:-1].encode())
    for before in range(3):  # where it begins within a group of three bytes
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            coded = encode(b"\0" * before + plain)
            yield coded[(before * 8 + 5) // 6 : (before + len(plain)) * 8 // 6]


def hits(data: bytes, wanted: Iterable[bytes]) -> list[bytes]:
    """Return the forms that occur in some bytes."""
    by_head: dict[bytes, list[bytes]] = {}
    for needle in wanted:
        by_head.setdefault(needle[:HEAD], []).append(needle)
    places = {at for at in range(len(data) - HEAD + 1) if data[at : at + HEAD] in by_head}
    return [needle for at in sorted(places) for needle in by_head[data[at : at + HEAD]] if data.startswith(needle, at)]


def scan(folder: Path, wanted: set[bytes]) -> dict[str, int]:
    """Return how often values occur in the files below a folder and in their names, by file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        data = str(path.relative_to(folder)).encode() + b"\n"
        if path.is_file() and not path.is_symlink():
            data += path.read_bytes()
        if count := len(hits(data, wanted)):
            found[str(path.relative_to(folder))] = count
    return found
