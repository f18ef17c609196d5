"""Screens of what is protected: the page Security, erasing from a card, who may not, and what became of a record."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

import crmkit
from crmkit.contributions import Rows, Text
from crmkit.ui.compose import compose
from crmkit.ui.screen import views
from crmkit.ui.viewmodels.card import CardModel
from crmkit.ui.viewmodels.erase import EraseModel, can_be_erased
from crmkit.ui.viewmodels.secret import SecretModel
from crmkit.ui.widgets.erase import Erase
from crmkit.ui.widgets.form import Form
from crmkit.ui.widgets.secret import Secret

Keep = Callable[[Any], Any]
MESSAGE = {"reason": "request Q4207", "understood": True}


def of(widget: Any, kind: type[Any]) -> Any:
    """The first own view of a kind inside a widget."""
    return next(view for view in views(widget) if isinstance(view, kind))


def synced(widget: Any) -> str:
    """All that a saved notebook could hold of a widget tree."""
    text = str(widget.get_state()) + repr(widget) + str(widget._repr_mimebundle_())
    return text + "".join(synced(child) for child in getattr(widget, "children", ()))


def allow_only(crm: crmkit.CRM, *may: str) -> None:
    """Let whoever acts do these things only."""

    class Rule:
        @crmkit.hookimpl
        def crm_authorize(self, action: str) -> crmkit.Decision:
            return crmkit.Decision(action in may, "this is for boss (grace)")

    crm.register(Rule(), "rule")


# ------------------------------------------------------------------ erasing


def test_erasing_from_a_card(crm: crmkit.CRM, ada: Any, drive: Any, sent: list[Any], keep: Keep) -> None:
    """Plan, reason, tick, certificate; the card shows nothing of the person any more, and neither does the bar."""
    crm.purchases.add(number="P1", customer=ada, purchased_on="2026-11-01", total="12.00")
    app = keep(crm.app())
    drive(app.bar, "hello")
    app.open_record(ada)
    card, erase = app._parts[ada.id], of(app, Erase)
    drive(card._head, "hello")
    assert drive(erase, "hello") == [{"type": "erase", "noun": "customer", "refused": ""}]
    [plan] = drive(erase, "plan")
    assert plan["lines"][0] == "Deleted for good: 1 customer."
    assert "Kept for statistics, without the person: 1 purchase." in plan["lines"]
    assert "2 addresses will be known again" in plan["lines"][-1]
    assert any("Copies of the whole folder" in note for note in plan["notes"])
    assert crm.customers.get(ada.id) is not None
    told = drive(erase, "erase", **MESSAGE)
    assert [message["type"] for message in told][-1] == "certificate"
    assert told[-1]["text"] == str(crm.erasures()[0])
    assert {"type": "status", "text": "Customer erased.", "bad": False} in told
    assert crm.customers.get(ada.id) is None
    assert "Lovelace" not in json.dumps(told)
    assert [item["title"] for item in told if item["type"] == "head"] == ["Customer erased"]
    assert (card.is_gone, card.title, card.dirty) == (True, "Customer gone", False)
    assert [message["type"] for message in drive(erase, "hello")] == ["certificate"], "a page that is loaded again"
    app.refresh()
    assert "Q4207" not in synced(app), "the reason is no trait"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"reason": " ", "understood": True}, "reason"),
        ({"reason": "request Q4207"}, "nobody can undo"),
        ({"reason": "request Q4207", "understood": "yes"}, "nobody can undo"),
        ({}, "reason"),
    ],
)
def test_nothing_is_erased_without_reason_and_tick(
    crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep, message: dict[str, Any], says: str
) -> None:
    """The kernel asks for both, whatever the page sends."""
    erase = keep(Erase(EraseModel(crm, ada), lambda: None))
    [problem] = drive(erase, "erase", **message)
    assert problem["type"] == "problem"
    assert says in problem["text"]
    assert crm.customers[ada.id].name == "Ada Lovelace"


def test_erasing_control(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """The same harness sees it where both are there."""
    told: list[bool] = []
    erase = keep(Erase(EraseModel(crm, ada), lambda: told.append(True)))
    assert drive(erase, "erase", **MESSAGE)[0]["type"] == "certificate"
    assert told == [True]
    assert crm.customers.get(ada.id) is None


def test_a_certificate_is_shown_even_if_the_rest_of_the_card_fails(
    crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep
) -> None:
    """What was done is said."""
    erase = keep(Erase(EraseModel(crm, ada), lambda: 1 / 0))
    assert [message["type"] for message in drive(erase, "erase", **MESSAGE)] == ["certificate", "problem"]


def test_what_was_typed_goes_with_the_person(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """A draft holds personal data too."""
    card = keep(crm.card(ada))
    drive(of(card, Form), "set", field="city", value="Bath")
    model = of(card, Form).model
    drive(of(card, Erase), "erase", **MESSAGE)
    assert model.drafts == {}


def test_only_people_are_erased(crm: crmkit.CRM) -> None:
    """Products are nobody; purchases and interactions go with their customer."""
    erasable = {crm.collection(each).info.type for each in crm.types if can_be_erased(each)}
    assert erasable == {"customer"}


# ------------------------------------------------------------------ others erase, remove, hide


@pytest.mark.parametrize(("fate", "where"), [("erased", "here"), ("erased", "elsewhere"), ("removed", "here")])
def test_a_card_says_what_became_of_its_record(
    crm: crmkit.CRM, ada: Any, drive: Any, sent: list[Any], keep: Keep, fate: str, where: str
) -> None:
    """Whoever did it, the open card closes over what it showed."""
    app = keep(crm.app())
    drive(app.bar, "hello")
    app.open_record(ada)
    card = app._parts[ada.id]
    drive(card._head, "hello")
    drive(of(card, Secret), "hello")
    sent.clear()
    if where == "elsewhere":
        with crmkit.open(crm.workspace.folder) as other:
            other.erase(ada.id, reason="request Q4207")
    elif fate == "erased":
        crm.erase(ada, reason="request Q4207")
    else:
        crm.customers.remove(ada)
    app.refresh()
    app.refresh()
    assert card.is_gone
    assert [message["title"] for message in sent if message["type"] == "head"] == [f"Customer {fate}"]
    assert "Lovelace" not in json.dumps([message for message in sent if message["type"] in ("nav", "head")])
    assert not [view for view in views(card) if isinstance(view, Form | Secret)]
    assert crm.failures == []
    if fate == "removed":
        app.open_record(crm.customers.restore(ada.id))
        assert not app._parts[ada.id].is_gone


def test_what_was_typed_into_a_removed_record_stays(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """Nothing that was typed is dropped because of what somebody else did."""
    card = keep(crm.card(ada))
    form = of(card, Form)
    drive(form, "hello")
    drive(form, "set", field="city", value="Bath")
    crm.customers.remove(ada)
    card.refresh()
    assert form.model.value("city") == "Bath"
    assert drive(form, "save")[-1]["type"] == "problem"


def test_a_card_that_is_no_longer_shared_closes(crm: crmkit.CRM, ada: Any, keep: Keep) -> None:
    """To whom a record is hidden it is gone."""
    assert CardModel(crm, ada).fate() == ""
    screen = keep(crm.card(ada))
    with crm.acting_as("grace"):
        mine = crm.customers.update(ada, visible_to="private", owner="grace")
        assert CardModel(crm, mine).fate() == ""
    screen.refresh()
    assert screen.children[0].is_gone


def test_a_card_says_to_whom_it_is_visible(crm: crmkit.CRM, ada: Any) -> None:
    """A chip where it is not for everybody."""
    chips = {
        word: CardModel(crm, crm.customers.update(crm.customers[ada.id], visible_to=word, owner=crm.actor)).head()[
            "chips"
        ]
        for word in ("private", "team", "all")
    }
    assert [chips[word][0] for word in ("private", "team")] == ["Private", "Team"]
    assert not {"Private", "Team", "All"} & set(chips["all"])


# ------------------------------------------------------------------ who may not


def test_who_may_not_is_told_why(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """The reason comes with the button, and the kernel refuses all the same."""
    allow_only(crm, "export")
    field = keep(Secret(SecretModel(crm, ada, "iban")))
    erase = keep(Erase(EraseModel(crm, ada), lambda: None))
    for view, kind, message in ((field, "reveal", {"reason": "refund 812"}), (erase, "erase", MESSAGE)):
        [told] = drive(view, "hello")
        assert "boss (grace)" in told["refused"]
        [problem] = drive(view, kind, **message)
        assert problem["type"] == "problem"
        assert "boss (grace)" in problem["text"]
    assert crm.customers[ada.id] == ada


def test_who_may_is_told_nothing(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """The control of the test above: with the right there is no reason, and it works."""
    allow_only(crm, "reveal", "erase")
    field = keep(Secret(SecretModel(crm, ada, "iban")))
    assert drive(field, "hello")[0]["refused"] == ""
    assert drive(field, "reveal", reason="refund 812")[0]["type"] == "value"


def test_the_rate_limit_is_one_clear_line(crm: crmkit.CRM, ada: Any, drive: Any, keep: Keep) -> None:
    """Whoever was shown many values reads when it works again."""
    field = keep(Secret(SecretModel(crm, ada, "iban")))
    kinds = [drive(field, "reveal", reason="refund 812")[0] for _ in range(21)]
    assert [each["type"] for each in kinds] == ["value"] * 20 + ["problem"]
    assert "crmkit unlock" in kinds[-1]["text"]
    assert "\n" not in kinds[-1]["text"]


def test_a_change_elsewhere_leaves_alone_what_is_being_looked_at(
    crm: crmkit.CRM, ada: Any, drive: Any, sent: list[Any], keep: Keep
) -> None:
    """Only another mask is shown anew; that closes the question for a reason, and covers what is open."""
    field = keep(Secret(SecretModel(crm, ada, "iban")))
    drive(field, "hello")
    now = crm.customers.update(ada, city="Bath")
    sent.clear()
    field.refresh()
    assert sent == []
    crm.customers.update(now, iban="DE89370400440532013000")
    field.refresh()
    assert [message["masked"] for message in sent] == ["DE•• •••• 3000"]


# ------------------------------------------------------------------ the page


def page(crm: crmkit.CRM) -> dict[str, Any]:
    """The parts of the page by title."""
    [found] = [view for view in crm.views if view.name == "security"]
    return {part.title: part for part in found.build(crm).parts}


def test_page_tells_what_is_due_first(crm: crmkit.CRM) -> None:
    """Each with what to type."""
    parts = page(crm)
    assert next(iter(parts)) == "What is due"
    due = dict(parts["What is due"].rows)
    assert due["There is no backup"] == "crmkit backup FOLDER"
    assert due["The recovery key was never tried"] == "crmkit keys recovery --drill"
    assert parts["What is due"].commands == ("Command",)


def test_page_lists_fields_erasures_and_the_log_without_values(crm: crmkit.CRM, ada: Any) -> None:
    """Labels, counts, ids and times; no value and no reason, which may hold a name."""
    crm.purchases.add(number="P1", customer=ada, purchased_on="2026-11-01", total="12.00")
    crm.reveal(ada, "iban", reason="Ada Lovelace asked")
    certificate = crm.erase(ada, reason="Ada Lovelace asked")
    parts = page(crm)
    assert ("Customer", "sealed, shown for a reason", "IBAN, Card number, Tax id") in parts["What is sealed"].rows
    [erased] = parts["Erasures"].rows
    assert erased[2:] == ("customer", "1 customer", "1 purchase", "yes", certificate.id)
    did = [(row[2], row[4]) for row in parts["Newest lines of the audit log"].rows]
    assert did == [("erase", ""), ("reveal", "iban")]
    assert parts["Exact search of sealed fields"].rows[0][0] == "Customer: IBAN"
    assert crm.actor in dict(parts["Who can open this workspace"].rows)
    assert not [word for word in ("Lovelace", "asked", "5555", "ada@") if word in str(parts)]


def test_page_tells_the_log_in_the_time_of_the_workspace(crm: crmkit.CRM, ada: Any) -> None:
    """As the clock of the office had it."""
    from zoneinfo import ZoneInfo

    crm.reveal(ada, "iban", reason="refund 812")
    [entry] = crm.audit.entries()
    crm.zone = ZoneInfo("Asia/Tokyo")
    [row] = page(crm)["Newest lines of the audit log"].rows
    assert row[0] == f"{entry.at.astimezone(crm.zone):%Y-%m-%d %H:%M}"


def test_first_page_says_quietly_that_something_is_due(
    crm: crmkit.CRM, drive: Any, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the first page only, with the way there; looked up when somebody comes, not at each refresh."""
    app = keep(crm.app())
    asked: list[int] = []
    report = crm.security.report
    monkeypatch.setattr("crmkit.security.Security.report", lambda self: asked.append(1) or report())
    notices = [message for message in drive(app.bar, "hello") if message["type"] == "notice"]
    assert notices[-1]["text"].endswith("things about safety are due")
    assert (notices[-1]["key"], notices[-1]["title"]) == ("security", "Security")
    assert asked == [1]
    app.refresh()
    assert asked == [1]
    gone = [message["text"] for message in drive(app.bar, "go", id="products") if message["type"] == "notice"]
    assert gone == [""]
    back = [message["text"] for message in drive(app.bar, "go", id="customers") if message["type"] == "notice"]
    assert back == [notices[-1]["text"]]


def test_first_page_says_nothing_when_nothing_is_due(
    crm: crmkit.CRM, drive: Any, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is the usual state; the page says so."""
    module = sys.modules["crmkit.security.report"]  # the name in the package is that of its function
    monkeypatch.setattr(module, "overdue", lambda *_: iter(()))
    app = keep(crm.app())
    assert [message["text"] for message in drive(app.bar, "hello") if message["type"] == "notice"] == [""]
    assert "Nothing is due" in page(crm)


def test_texts_and_rows_become_views(crm: crmkit.CRM, drive: Any, keep: Keep) -> None:
    """What is no text becomes one; nothing of it is a trait."""
    text = keep(compose(crm, Text("Headed", ("One line.", "Another."))))
    [told] = drive(text, "hello")
    assert (told["title"], list(told["lines"])) == ("Headed", ["One line.", "Another."])
    rows = keep(compose(crm, Rows("Keys", ("Name", "Type"), (("<b>", 3),), commands=("Type",))))  # type: ignore[arg-type]
    [told] = drive(rows, "hello")
    assert told["rows"] == [["<b>", "3"]]
    assert told["columns"] == [{"label": "Name", "command": False}, {"label": "Type", "command": True}]
    assert "<b>" not in synced(rows)
    assert "Headed" not in synced(text)
