"""Real-browser tests: `crmkit lab` on loopback, seen through the distribution's Chromium.

Everything runs in folders of its own: configuration, runtime, keys and workspace are made here and thrown away.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / ".shots"
EXPOSE = ("--LabApp.expose_app_in_browser=True",)
SAVE = "async () => await jupyterapp.commands.execute('docmanager:save')"
READY = """async () => { const w = jupyterapp.shell.currentWidget;
    await w.context.ready; await w.sessionContext.ready; await w.sessionContext.session.kernel.info; }"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Chromium: skip with the reason, but fail where CI says that everything must run."""
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    if CHROMIUM or not here:
        return
    if os.environ.get("CI"):
        raise pytest.UsageError("chromium is missing: apt-get install -y --no-install-recommends chromium")
    for item in here:
        item.add_marker(pytest.mark.skip(reason="chromium is not installed"))


@pytest.fixture(scope="session")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment of its own for Jupyter, IPython, crmkit's keys and everything started from here."""
    home = tmp_path_factory.mktemp("home")
    ours = {
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "IPYTHONDIR": home / "ipython",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "CRMKIT_CONFIG": home / "crmkit",
        "PYTHONPATH": ROOT,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, str(value))
        patch.delenv("CRMKIT_WORKSPACE", raising=False)
        yield home


@pytest.fixture(autouse=True)
def own_identity(surroundings: Path) -> Path:
    """One identity for all browser tests, because they share the server and its kernels."""
    return surroundings / "crmkit"


@pytest.fixture(scope="module")
def workspace(surroundings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of 1,003 invented customers, with purchases and a few interactions."""
    import crmkit

    folder = tmp_path_factory.mktemp("ws") / "acme"
    with crmkit.create(folder, currency="EUR", country="GB", name="Acme") as crm:
        fill(crm)
    return folder


def fill(crm: Any) -> None:
    """Put the same customers in on every run."""
    dice = random.Random(7)
    first = ("Ana", "Ben", "Cem", "Dora", "Eve", "Finn", "Gita", "Hugo", "Ines", "Jan")
    last = ("Abel", "Berg", "Costa", "Diaz", "Egger", "Fuchs", "Graf", "Horn", "Ivanov", "Jung")
    cities = (("London", "GB"), ("Paris", "FR"), ("Wien", "AT"), ("Porto", "PT"), ("Oslo", "NO"))
    rows = []
    for number in range(1000):
        city, country = dice.choice(cities)
        name = f"{dice.choice(first)} {dice.choice(last)}"
        row = {"name": name, "number": f"C{number:04}", "email": f"c{number}@example.org", "city": city}
        rows.append({**row, "country": country, "stage": dice.choice(("prospect", "active", "at_risk"))})
    crm.customers.add_many(rows)
    ada = crm.customers.add(
        name="Ada Lovelace",
        number="A1815",
        email="ada@example.org",
        phone="+44 20 7946 0018",
        city="London",
        country="GB",
        stage="active",
        tags=("vip",),
        iban="GB33BUKB20201555555555",
        notes="Prefers letters.",
    )
    crm.customers.add(name="Grace Hopper", number="G1906", email="grace@example.org", city="New York", country="US")
    crm.customers.add(name="Mary <b>Bold</b> Somerville", number="M1780", city="Jedburgh", country="GB")
    crm.purchases.add_many(
        {
            "number": f"P{number:04}",
            "customer": ada.id if number % 10 == 0 else None,
            "purchased_on": f"2026-{1 + number % 10:02}-15",
            "total": f"{dice.randrange(10, 900)}.50",
        }
        for number in range(400)
    )
    crm.interactions.add(customer=ada, kind="call", title="Asked about delivery", happened_at="2026-10-01T09:30:00Z")


@pytest.fixture(scope="module")
def lab(workspace: Path) -> Iterator[Any]:
    """`crmkit lab`, without opening the user's browser."""
    from crmkit.ui.lab import launch

    with launch(workspace, browser=False, options=EXPOSE) as running:
        yield running


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    """The distribution's Chromium, for one module: Playwright keeps an event loop running in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chrome: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """``open_page(lab, "home.ipynb")`` -> a page; fails the test on foreign requests and on errors in the page."""
    pages: list[Any] = []
    bad: list[str] = []

    def open_(lab: Any, notebook: str, width: int = 1400, scheme: str = "light") -> Any:
        own = f"http://127.0.0.1:{lab.port}/"
        page = chrome.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme).new_page()
        pages.append(page)
        page.set_default_timeout(20_000)
        page.on(
            "request", lambda r: None if r.url.startswith((own, "data:", "blob:")) else bad.append(f"foreign {r.url}")
        )
        page.on("pageerror", lambda error: bad.append(f"page error {error}"))
        page.on("console", lambda m: bad.append(f"console {m.text}") if m.type == "error" else None)
        page.goto(f"{own}lab/tree/{notebook}?reset&token={lab.token}")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        page.evaluate(READY)
        return page

    yield open_
    SHOTS.mkdir(exist_ok=True)
    for number, page in enumerate(pages):
        page.screenshot(path=str(SHOTS / f"{request.node.name}-{number}.png"))
        page.context.close()
    assert not bad, bad


@pytest.fixture
def open_app(open_page: Callable[..., Any], lab: Any) -> Callable[..., Any]:
    """``open_app(width=900)`` -> a page whose cell ran again, which ends the app of the test before."""

    def open_(**options: Any) -> Any:
        page = open_page(lab, "home.ipynb", **options)
        page.wait_for_selector(".crm-bar")  # views that are closed while they are being made complain
        run_all(page)
        page.evaluate(SAVE)  # the next page that loads this notebook finds the views that live
        page.locator(".crm-grid [role=gridcell]:visible").first.wait_for()
        return page

    return open_


@pytest.fixture
def app(open_app: Callable[..., Any]) -> Any:
    """A page with a fresh app."""
    return open_app()


def run_all(page: Any) -> None:
    """Run every cell of the page's notebook; a failing cell fails the test."""
    fine = page.evaluate("async () => await jupyterapp.commands.execute('notebook:run-all-cells')")
    shown = page.locator(
        "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"
    )
    assert not shown.count(), shown.all_inner_texts()
    assert fine is not False


@pytest.fixture(name="run_all")
def run_all_fixture() -> Callable[[Any], None]:
    """`run_all` for tests."""
    return run_all


@pytest.fixture
def axe() -> Callable[..., list[str]]:
    """``axe(page, ".crm")`` -> what axe-core finds wrong inside."""
    from axe_playwright_python.sync_playwright import Axe

    def check(page: Any, context: str) -> list[str]:
        found = Axe().run(page, context=context).response["violations"]
        return [f"{each['id']} ({each['impact']}): {each['nodes'][0]['html'][:160]}" for each in found]

    return check


@pytest.fixture(scope="module")
def world(lab: Any, workspace: Path) -> SimpleNamespace:
    """The running lab and its workspace."""
    return SimpleNamespace(lab=lab, workspace=workspace)
