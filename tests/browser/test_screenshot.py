"""The picture in the README: the demo workspace, a customer's card open. ``CRMKIT_SCREENSHOT=1`` renews it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit.ui.lab import launch

ROOT = Path(__file__).resolve().parents[2]
WANTED = bool(os.environ.get("CRMKIT_SCREENSHOT"))
pytestmark = pytest.mark.browser


def test_screenshot(surroundings: Path, workspace: Path, tmp_path: Path, open_page: Callable[..., Any]) -> None:
    """The app with a card open; of the demo workspace where the picture is to be kept."""
    folder = demo(tmp_path / "demo") if WANTED else shutil.copytree(workspace, tmp_path / "copy")
    with launch(folder, browser=False, options=("--LabApp.expose_app_in_browser=True",)) as lab:
        page = open_page(lab, "home.ipynb", width=1500)
        page.wait_for_selector(".crm-grid [role=gridcell]")
        page.evaluate("async () => await jupyterapp.commands.execute('application:toggle-left-area')")
        page.locator(".crm-search").fill("a")
        page.locator(".crm-options [role=option]").nth(2).click()
        page.locator(".crm-f-name input:visible").wait_for()
        picture = ROOT / ".shots" / "screenshot.png"
        picture.parent.mkdir(exist_ok=True)
        page.screenshot(path=str(picture))
        page.goto("about:blank")
    assert picture.stat().st_size > 20_000
    if WANTED:
        shutil.copyfile(picture, ROOT / "docs" / "screenshot.png")


def demo(folder: Path) -> Path:
    """Build the demo workspace."""
    from crmkit.demo import build

    crm: crmkit.CRM = build(folder)
    crm.close()
    return folder
