"""Typed search: letters in any spelling, phones in any spacing, and names that are misspelt."""

from __future__ import annotations

from random import Random

import pytest
from rapidfuzz.distance import OSA

from crmkit import CRM, F
from crmkit.search import folded, search_words
from crmkit.store.words import WordIndex


@pytest.fixture
def people(crm: CRM) -> CRM:
    """A few customers with names that are easily misspelt."""
    names = ["John Smith", "Joan Smyth", "Jonas Schmidt", "Catherine Jones", "Bob Stone", "Smith Johnson"]
    crm.customers.add_many([{"name": name, "number": 1000 + n} for n, name in enumerate(names)])
    return crm


def found(crm: CRM, text: str, limit: int = 20) -> list[str]:
    return [customer.name for customer in crm.customers.search(text, limit)]


# --------------------------------------------------------------------------- letters


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("Straße", "strasse"),
        ("STRASSE", "straße"),
        ("Sørensen", "sorensen"),
        ("Sorensen", "SØRENSEN"),
        ("Łukasz Żółć", "lukasz zolc"),
        ("Diyarbakır", "DIYARBAKIR"),
        ("İstanbul", "istanbul"),
        ("ISTANBUL", "ıstanbul"),
        ("Ægir Þór", "aegir thor"),
        ("Cœur", "coeur"),
        ("O’Brien", "o'brien"),
        ("Zoe\u0308", "zoë"),
        ("Νίκος", "ΝΙΚΟΣ"),
        ("ＡＢＣ", "abc"),
        ("Đorđe", "dorde"),
        ("㎏™", "KGtm"),
    ],
)
def test_letters_are_found_however_they_are_typed(crm: CRM, name: str, typed: str) -> None:
    crm.customers.add(name="somebody else entirely")
    crm.customers.add(name=name)
    assert found(crm, typed) == [name]
    assert folded(name) == folded(typed)


def test_folding_twice_changes_nothing() -> None:
    every = [chr(code) for code in range(0x3000) if chr(code).isprintable()]
    assert [c for c in every if folded(folded(c)) != folded(c)] == []


# --------------------------------------------------------------------------- phones


@pytest.mark.parametrize(
    "typed",
    [
        *("+493012345678", "+49 30 12345678", "0049 30 123 456 78", "030/12345678", "(030) 1234-5678", "0 30 / 123-45"),
        *("+49 (0)30 123", "+49 (0) 30 123", "30 12345", "030 – 12345", "12345678", "0301234"),
    ],
)
def test_a_phone_is_found_in_any_spacing(crm: CRM, typed: str) -> None:
    crm.customers.add(name="Bob", phone="+49 40 12345670")
    hans = crm.customers.add(name="Hans", phone="+49 30 12345678")
    other = crm.customers.add(name="Otto", contacts=[{"kind": "phone", "value": "+49 (30) 1234 5678"}])
    assert set(crm.customers.search(typed)) == {hans, other}


@pytest.mark.parametrize(
    ("typed", "words"), [("2024-00017", ["2024-00017"]), ("00000", ["00000"]), ("1 2", ["1", "2"])]
)
def test_what_is_no_phone_stays_as_it_is(typed: str, words: list[str]) -> None:
    assert search_words(typed) == words


# --------------------------------------------------------------------------- names that are misspelt


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("Jon Smtih", "John Smith"),
        ("smtih jon", "John Smith"),
        ("Jhon Smith", "John Smith"),
        ("katherine", "Catherine Jones"),
        ("cathrin", "Catherine Jones"),
        ("schmitd", "Jonas Schmidt"),
        ("jonas schmit", "Jonas Schmidt"),
        ("smtih 1000", "John Smith"),
        ("smtih jo", "John Smith"),
    ],
)
def test_a_misspelt_name_is_found(people: CRM, typed: str, first: str) -> None:
    assert found(people, typed)[0] == first


def test_control_without_the_index_of_words_no_misspelt_name_is_found(
    people: CRM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WordIndex, "near", lambda *_, **__: [])
    assert [found(people, typed) for typed in ("Jon Smtih", "katherine", "schmitd")] == [[], [], []]


def test_where_what_was_typed_is_found_nothing_near_is(people: CRM) -> None:
    assert found(people, "smith") == ["Smith Johnson", "John Smith"]  # and nobody who is spelt in another way
    assert found(people, "smith", limit=2) == ["Smith Johnson", "John Smith"]
    assert found(people, "smith", limit=1) == ["Smith Johnson"]


@pytest.mark.parametrize(
    "typed", ["1010", "100 1", "jhon@example.org", "smith@", "x1", "jo", "xy", "Smith 1009", "zzzzzz"]
)
def test_numbers_mails_and_scraps_are_meant_as_they_are(people: CRM, typed: str) -> None:
    exact = [c.name for c in people.customers if all(word in f"{c.name.lower()} {c.number}" for word in typed.split())]
    assert sorted(found(people, typed)) == sorted(exact)


def test_a_word_of_three_letters_is_not_taken_for_one_that_begins_otherwise(crm: CRM) -> None:
    crm.customers.add_many([{"name": name} for name in ("Ann", "Jon Dee", "Don Dee", "Joe Dee")])
    assert found(crm, "jan") == ["Jon Dee"]


def test_names_that_change_are_found_by_the_new_one_only(people: CRM) -> None:
    stone = people.customers.search("stome")[0]
    people.customers.update(stone, name="Bob Marble")
    assert (found(people, "stome"), found(people, "marbel")) == ([], ["Bob Marble"])
    people.customers.remove(stone.id)
    assert found(people, "marbel") == []
    people.customers.add(name="Ann Marble")
    assert found(people, "marbel") == ["Ann Marble"]


def test_a_grid_shows_near_names_only_where_nothing_else_matches(people: CRM) -> None:
    assert people.customers.count(text="smith") == 2
    assert [c.name for c in people.customers.window(0, 9, text="jon smtih")][:1] == ["John Smith"]
    assert people.customers.count(text="smtih") == len(people.customers.window(0, 9, text="smtih")) == 2


def test_near_words_against_a_plain_loop() -> None:
    random = Random(11)
    names = ["".join(random.choices("abcd", k=random.randint(2, 8))) for _ in range(400)]
    docs = {f"{n:03}": {"id": f"{n:03}", "t": f"{random.choice(names)} {random.choice(names)}"} for n in range(200)}
    index = WordIndex(lambda doc: doc["t"], docs)

    def distance(typed: str, text: str) -> float | None:
        edits = 1 if len(typed) < 6 else 2
        slips = [0.0 for word in text.split() if word.startswith(typed) and len(word) > 2]
        for word in text.split():
            far = OSA.distance(typed, word)
            if len(word) > 2 and far <= edits and (word[0] == typed[0] or len(typed) > 3):
                slips.append(far + (word[0] != typed[0]) / 2)
        return min(slips, default=None)

    hits = 0
    for _ in range(300):
        words = random.choices([name for name in names if len(name) > 2], k=random.randint(1, 2))
        each = {id: [distance(word, doc["t"]) for word in words] for id, doc in docs.items()}
        total = {id: sum(far) for id, far in each.items() if None not in far}  # type: ignore[arg-type]
        expected = [id for _, id in sorted((far, id) for id, far in total.items())]
        assert index.near(words, 999) == expected
        assert index.near(words, 2) == expected[:2]
        hits += len(expected)
    assert hits > 300


# --------------------------------------------------------------------------- account numbers


@pytest.mark.parametrize(
    "typed", ["DE89370400440532013000", "DE89 3704 0044 0532 0130 00", " de89-3704 0044 0532013000 "]
)
def test_a_whole_iban_finds_who_has_it(people: CRM, typed: str) -> None:
    people.customers.add(name="Ada", iban="DE89370400440532013000")
    people.customers.add(name="Eve", iban="GB33BUKB20201555555555")
    assert found(people, typed) == ["Ada"]
    assert people.customers.count(text=typed) == 1
    assert [record.name for record in people.customers.window(0, 5, text=typed)] == ["Ada"]
    assert people.customers.count(F.name == "Eve", text=typed) == 0


def test_an_iban_that_nobody_has_or_that_is_none_finds_nobody(people: CRM) -> None:
    people.customers.add(name="Ada", iban="DE89370400440532013000")
    assert found(people, "GB33BUKB20201555555555") == []
    assert found(people, "DE89370400440532013001") == []
    assert found(people, "DE89 3704") == []
    assert people.customers.count(text="GB33BUKB20201555555555") == 0
