"""The app in a real browser: found, edited, revealed, followed live, and nothing of it left in the notebook."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import crmkit

pytestmark = pytest.mark.browser
SHOTS = Path(__file__).resolve().parents[2] / ".shots"
IBAN = "GB33BUKB20201555555555"
SAVE = "async () => await jupyterapp.commands.execute('docmanager:save')"
READY = """async () => { const w = jupyterapp.shell.currentWidget;
    await w.sessionContext.ready; await w.sessionContext.session.kernel.info; }"""
DRAWN = """[...document.querySelectorAll('.crm-figure .barlayer .point')]
    .filter(bar => bar.getBoundingClientRect().height > 20).length >= 10"""
DARK = "async () => await jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"


def elsewhere(workspace: Path, code: str) -> None:
    """Do something to the workspace in another process, as a colleague would."""
    program = f"import crmkit\nfrom crmkit import F\nwith crmkit.open({str(workspace)!r}) as crm:\n    {code}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def search(page: Any, text: str) -> None:
    """Type into the search box and open the first match with Enter."""
    page.locator(".crm-search").fill(text)
    page.locator(".crm-options [role=option][aria-selected=true]").first.wait_for()
    page.keyboard.press("Enter")
    page.locator(".crm-f-name input:visible").wait_for()


def shown(page: Any, selector: str) -> Any:
    """Return the one visible element."""
    return page.locator(f"{selector}:visible").first


def stored(workspace: Path, number: str) -> Any:
    """Return a customer as it is on disk."""
    with crmkit.open(workspace) as crm:
        return crm.customers.find(crmkit.F.number == number).records[0]


def test_app_runs_without_a_key_pressed(open_page: Callable[..., Any], lab: Any) -> None:
    """The first thing seen is the app, with its customers; the notice for browsers without it is not."""
    page = open_page(lab, "home.ipynb")
    page.wait_for_selector(".crm-grid [role=gridcell]")
    assert page.locator(".crm-grid-count").inner_text() == "1,003 customers"
    assert not page.get_by_text("did not load").is_visible()


def test_search_opens_card_edit_and_save(app: Any, world: SimpleNamespace) -> None:
    """Typing finds the customer; a mistake is told beside its field; then it is saved."""
    search(app, "grace hop")
    mail = shown(app, ".crm-f-email input")
    mail.fill("grace at example")
    shown(app, ".crm-f-email .crm-error").get_by_text("is not an e-mail address").wait_for()
    assert mail.get_attribute("aria-invalid") == "true"
    mail.fill("grace.h@example.org")
    shown(app, ".crm-f-tags input").fill("pioneer")
    app.keyboard.press("Enter")
    app.get_by_text("2 unsaved changes").wait_for()
    shown(app, ".crm-save").click()
    app.get_by_text("Grace Hopper saved.").wait_for()
    now = stored(world.workspace, "G1906")
    assert (now.email, now.tags) == ("grace.h@example.org", ("pioneer",))


def test_somebody_else_saves_first(app: Any, world: SimpleNamespace) -> None:
    """Both values stand side by side; one is kept, one taken; nothing typed is lost."""
    search(app, "C0007")
    shown(app, ".crm-f-city input").fill("Lisboa")
    shown(app, ".crm-f-street input").fill("Rua Nova 1")
    shown(app, ".crm-f-region input").fill("Mine")
    app.get_by_text("3 unsaved changes").wait_for()
    change = "crm.customers.update(crm.customers.find(F.number == 'C0007').records[0].id, city='Faro', region='Theirs')"
    elsewhere(world.workspace, change)
    app.locator(".crm-f-city .crm-conflict:visible").get_by_text("Faro").wait_for()
    shown(app, ".crm-save").click()
    app.get_by_text("Choose what to keep").wait_for()
    shown(app, ".crm-f-city .crm-keep").click()
    shown(app, ".crm-f-region .crm-take").click()
    app.wait_for_function("[...document.querySelectorAll('.crm-f-region input')].some(i => i.value === 'Theirs')")
    shown(app, ".crm-save").click()
    app.locator(".crm-status").get_by_text("saved.").wait_for()
    now = stored(world.workspace, "C0007")
    assert (now.city, now.region, now.street) == ("Lisboa", "Theirs", "Rua Nova 1")


def test_secret_is_revealed_for_a_reason_and_hides_itself(app: Any) -> None:
    """Masked; shown for a reason; gone after its time and whenever the tab is hidden."""
    page = app
    page.clock.install()
    search(page, "ada lov")
    page.locator(".crm-secret-value:visible", has_text="GB•• •••• 5555").wait_for()
    assert IBAN not in page.content()

    def reveal() -> None:
        page.get_by_role("button", name="Reveal IBAN").click()
        page.get_by_label("Reason to reveal IBAN").fill("refund 812")
        page.keyboard.press("Enter")
        page.locator(".crm-secret-value.crm-open").get_by_text(IBAN).wait_for()

    reveal()
    page.clock.fast_forward(31_000)
    page.wait_for_function("!document.querySelector('.crm-secret-value.crm-open')")
    assert IBAN not in page.content()
    reveal()
    page.evaluate("""() => { Object.defineProperty(document, 'hidden', {value: true, configurable: true});
        document.dispatchEvent(new Event('visibilitychange')); delete document.hidden; }""")
    assert IBAN not in page.content()


def test_figure_is_drawn(app: Any) -> None:
    """The revenue page draws a Plotly figure of the purchases."""
    app.get_by_role("button", name="Revenue").click()
    app.wait_for_function(DRAWN)


def test_change_elsewhere_is_seen_here(app: Any, world: SimpleNamespace) -> None:
    """A customer added by another process appears without anything pressed."""
    count = app.locator(".crm-grid-count:visible")
    before = int(count.inner_text().split()[0].replace(",", ""))
    elsewhere(world.workspace, "crm.customers.add(name='Aaron Early', number='Z1')")
    count.get_by_text(f"{before + 1:,} customers").wait_for()
    app.locator("[role=gridcell]", has_text="Aaron Early").wait_for()
    elsewhere(world.workspace, "crm.customers.remove(crm.customers.find(F.number == 'Z1').records[0].id)")
    count.get_by_text(f"{before:,} customers").wait_for()


def test_grid_by_keyboard(app: Any) -> None:
    """Arrows, End, Home and Enter work, and the notebook's own keys stay out."""
    app.locator(".crm-grid-view:visible").focus()
    app.keyboard.press("End")
    app.locator("[role=row][aria-selected=true][aria-rowindex='1004']").wait_for()
    app.locator("[role=row][aria-rowindex='1004']:not(.crm-waiting)").wait_for()
    app.keyboard.press("Home")
    app.keyboard.press("ArrowDown")
    row = app.locator("[role=row][aria-selected=true]:visible")
    assert row.get_attribute("aria-rowindex") == "3"
    name = row.locator("[role=gridcell]").first.inner_text()
    cells = app.locator(".jp-Notebook .jp-Cell").count()
    app.keyboard.type("dd")
    assert app.locator(".jp-Notebook .jp-Cell").count() == cells
    app.keyboard.press("Enter")
    app.locator(".crm-title:visible", has_text=name).wait_for()


def test_grid_sorts_and_filters(app: Any) -> None:
    """The kernel sorts and filters; data is shown as text, not as markup."""
    grid = app.locator(".crm-grid:visible")
    app.get_by_role("button", name="Number", exact=True).click()
    app.get_by_role("columnheader", name="Number").and_(app.locator("[aria-sort=ascending]")).wait_for()
    app.get_by_role("button", name="Number").click()
    grid.locator("[role=gridcell]").filter(has_text=re.compile("^M1780$")).first.wait_for()
    app.get_by_label("Filter customers").fill("somerville")
    app.locator(".crm-grid-count:visible").get_by_text("1 customer").wait_for()
    assert grid.locator("[role=gridcell]").first.inner_text() == "Mary <b>Bold</b> Somerville"
    app.get_by_label("Filter customers").fill("nobody of this name")
    app.get_by_text("No customers match this filter.").wait_for()


def test_new_customer(app: Any, world: SimpleNamespace) -> None:
    """A new customer is created with a sensitive field, which leaves the page once and comes back masked."""
    app.get_by_role("button", name="New customer").first.click()
    shown(app, ".crm-save").click()
    shown(app, ".crm-f-name .crm-error").get_by_text("is required").wait_for()
    shown(app, ".crm-f-name input").fill("Zoe Neu")
    shown(app, ".crm-f-number input").fill("N1")
    shown(app, ".crm-f-organisation input").fill("grace")
    app.locator(".crm-f-organisation [role=option]").first.click()
    shown(app, ".crm-f-iban input").fill(IBAN)
    shown(app, ".crm-save").click()
    app.locator(".crm-status").get_by_text("Customer Zoe Neu created.").wait_for()
    app.locator(".crm-secret-value:visible", has_text="GB•• •••• 5555").wait_for()
    assert IBAN not in app.content()
    assert stored(world.workspace, "N1").organisation == stored(world.workspace, "G1906").id


def test_card_number_typed_into_notes_is_moved(app: Any, world: SimpleNamespace) -> None:
    """It is offered beside the text, leaves it by one click, and is saved masked."""
    app.get_by_role("button", name="New customer").first.click()
    shown(app, ".crm-f-name input").fill("Olga Neu")
    shown(app, ".crm-f-number input").fill("N2")
    notes = shown(app, ".crm-f-notes textarea")
    notes.fill("Pays by 4111 1111 1111 1111. Likes tea.")
    shown(app, ".crm-f-notes .crm-found").get_by_text("This looks like a card number").wait_for()
    shown(app, ".crm-f-notes .crm-move").click()
    app.wait_for_function(
        "[...document.querySelectorAll('.crm-f-notes textarea')].some(i => i.value.includes('(card moved). Likes'))"
    )
    assert shown(app, ".crm-f-card input").get_attribute("placeholder") == "•••• •••• •••• 1111"
    shown(app, ".crm-save").click()
    app.locator(".crm-status").get_by_text("Customer Olga Neu created.").wait_for()
    assert "4111 1111" not in app.content()
    now = stored(world.workspace, "N2")
    assert (now.notes, str(now.card)) == ("Pays by (card moved). Likes tea.", "•••• •••• •••• 1111")


def test_saved_notebook_holds_no_value(app: Any, world: SimpleNamespace) -> None:
    """What was searched, opened, edited and revealed is not in the file; the control is the next test."""
    search(app, "ada lov")
    app.get_by_role("button", name="Reveal IBAN").click()
    app.get_by_label("Reason to reveal IBAN").fill("check of the notebook")
    app.keyboard.press("Enter")
    app.locator(".crm-secret-value.crm-open").wait_for()
    app.get_by_role("button", name="Timeline").click()
    app.get_by_text("Asked about delivery").wait_for()
    app.evaluate(SAVE)
    text = (world.workspace / "notebooks" / "home.ipynb").read_text()
    assert "application/vnd.jupyter.widget-view+json" in text
    assert not [word for word in ("Lovelace", "ada@", "7946", "delivery", "5555", "check of") if word in text]
    assert "widgets" not in json.loads(text)["metadata"]


def test_saved_notebook_control(
    open_page: Callable[..., Any], world: SimpleNamespace, run_all: Callable[[Any], None]
) -> None:
    """The same check finds the value of a plain ipywidgets form."""
    book = json.loads((world.workspace / "notebooks" / "home.ipynb").read_text())
    cell = {**book["cells"][0], "outputs": [], "execution_count": None, "metadata": {}}
    cell["source"] = "import ipywidgets\nipywidgets.VBox([ipywidgets.Text('Ada Lov' + 'elace')])"
    control = world.workspace / "notebooks" / "control.ipynb"
    control.write_text(json.dumps({**book, "cells": [cell]}))
    page = open_page(world.lab, "control.ipynb")
    run_all(page)
    page.wait_for_selector(".widget-text")
    page.evaluate(SAVE)
    assert "Ada Lovelace" in control.read_text()
    control.unlink()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_own_views_pass_axe(app: Any, axe: Callable[..., list[str]], theme: str) -> None:
    """Grid, card, secret, timeline, figure page and the form of a new customer, in both themes."""
    if theme == "dark":
        app.evaluate(DARK)
        app.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    found = axe(app, ".crm-app")
    search(app, "ada lov")
    found += axe(app, ".crm-app")
    app.screenshot(path=str(SHOTS / f"card-{theme}.png"))
    app.get_by_role("button", name="Timeline").click()
    app.get_by_text("Asked about delivery").wait_for()
    found += axe(app, ".crm-app")
    app.get_by_role("button", name="New customer").first.click()
    app.locator(".crm-f-name input:visible").wait_for()
    found += axe(app, ".crm-app")
    app.get_by_role("button", name="Revenue").click()
    app.wait_for_function(DRAWN)
    app.screenshot(path=str(SHOTS / f"figure-{theme}.png"))
    if theme == "dark":
        app.get_by_role("button", name="Customers", exact=True).click()
        app.screenshot(path=str(SHOTS / "grid-dark.png"))
        app.evaluate(DARK.replace("Dark", "Light"))
    assert not found, found


@pytest.mark.parametrize("width", [900, 1600])
def test_widths(open_app: Callable[..., Any], width: int) -> None:
    """Nothing is cut off on a narrow page, nothing is lost on a wide one."""
    page = open_app(width=width)
    page.screenshot(path=str(SHOTS / f"grid-{width}.png"))
    search(page, "ada lov")
    page.locator(".crm-secret-value:visible").first.wait_for()
    page.screenshot(path=str(SHOTS / f"card-{width}.png"))
    page.locator(".crm-secret-value:visible").first.scroll_into_view_if_needed()
    page.screenshot(path=str(SHOTS / f"secret-{width}.png"))
    over = """() => { const edge = document.querySelector('.jp-Notebook').getBoundingClientRect().right;
        return [...document.querySelectorAll('.crm-app button, .crm-app input, .crm-app select')]
        .filter(e => e.offsetParent && e.getBoundingClientRect().right > edge).map(e => e.outerHTML.slice(0, 120)) }"""
    assert page.evaluate(over) == []


def test_reload_brings_the_app_back(app: Any) -> None:
    """The kernel goes on while the page is loaded again."""
    search(app, "ada lov")
    shown(app, ".crm-f-city input").fill("Bath")
    app.get_by_text("1 unsaved change").wait_for()
    app.evaluate(SAVE)
    app.reload()
    app.locator(".crm-tab-go", has_text="Ada Lovelace").wait_for()
    app.wait_for_function("[...document.querySelectorAll('.crm-f-city input')].some(i => i.value === 'Bath')")
    shown(app, ".crm-revert").click()
    app.wait_for_function("[...document.querySelectorAll('.crm-f-city input')].every(i => i.value !== 'Bath')")


@pytest.mark.parametrize("name", ["01_customers.ipynb", "02_analysis.ipynb"])
def test_other_notebooks_run(
    open_page: Callable[..., Any], lab: Any, run_all: Callable[[Any], None], name: str
) -> None:
    """Each shipped notebook runs from the top."""
    page = open_page(lab, name)
    run_all(page)
    page.evaluate(SAVE)


def test_second_start_is_as_the_first(workspace: Path, lab: Any, open_page: Callable[..., Any]) -> None:
    """After the server was stopped, the saved outputs name views that are gone; the next start makes new ones."""
    from crmkit.ui.lab import launch

    copy = workspace.with_name("again")
    shutil.copytree(workspace, copy)
    for _ in range(2):
        with launch(copy, browser=False, options=("--LabApp.expose_app_in_browser=True",)) as other:
            page = open_page(other, "home.ipynb")
            page.wait_for_selector(".crm-grid [role=gridcell]")
            page.goto("about:blank")


def test_token_is_needed_and_not_on_the_command_line(lab: Any) -> None:
    """Without the token there is no answer, and other users cannot read it."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{lab.port}/api/contents")
    assert refused.value.code == 403
    refused.value.close()
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert not [line for line in lines if lab.token.encode() in line]


def test_says_what_is_missing(chrome: Any, lab: Any, run_all: Callable[[Any], None]) -> None:
    """Where the browser cannot load anywidget, the cell says so in words."""
    page = chrome.new_context(viewport={"width": 1200, "height": 900}).new_page()
    page.set_default_timeout(20_000)
    page.route("**/lab/extensions/anywidget/**", lambda route: route.abort())
    page.goto(f"http://127.0.0.1:{lab.port}/lab/tree/home.ipynb?reset&token={lab.token}")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    page.evaluate(READY)
    run_all(page)
    page.get_by_text("Install anywidget where JupyterLab runs").wait_for()
    page.context.close()
