"""The page of the guarantees in Chromium: every button, with and without scripts, on desktop and phone screens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.auth_demo.demo_process import Demo
from tests.e2e.conftest import OpenPage
from tests.e2e.test_browser_login import log_in
from tests.support.browsers.accessibility import findings
from tests.support.browsers.window import PATIENCE_MS

pytestmark = pytest.mark.e2e
PAGE = "/demo/guarantees"
BUTTONS = {
    "Count 200 times at once": "increments",
    "Write from two tabs": "tabs",
    "Log out while a request runs": "logout",
    "Give a session a new id": "regeneration",
    "Sign out elsewhere": "sign-out",
    "Take the store away and give it back": "outage",
}
EXPECTED = {
    "increments": {
        "Kept by session_core": r"^200 of 200 acknowledged$",
        "Kept where the last write wins": r"^\d+ of 200 acknowledged$",
    },
    "tabs": {"Both write the note": r"^204 for the first, 409 for the second$", "Stored of both": r"^merged, green$"},
    "logout": {"The slow request, which then writes": r"^401$", "The same cookie afterwards opens a session": r"^no$"},
    "regeneration": {"The old id opens a session": r"^no$", "The new id finds the data": r"^1 of 1 visits$"},
    "sign-out": {"The WebSocket": r"^closed with 4401 after \d+ ms$", "The laptop is logged in": r"^yes$"},
    "outage": {
        "While the store is out: a read, a write, a logout": r"^503, 503, 503$",
        "When it is back": r"^200, still logged in$",
    },
}


def value(card: Locator, label: str) -> str:
    return str(card.locator("dt", has_text=label).locator("xpath=following-sibling::dd[1]").inner_text()).strip()


def press_all(page: Page) -> None:
    """Press each button and read the measurement."""
    for button, name in BUTTONS.items():
        page.get_by_role("button", name=button).click()
        card = page.locator(f"#{name}")
        expect(card.locator(f"#measured-{name}").get_by_text("Held", exact=True)).to_be_visible()
        for label, pattern in EXPECTED[name].items():
            assert re.search(pattern, value(card, label)), (label, value(card, label))
        if name == "increments":
            assert int(value(card, "Kept where the last write wins").split()[0]) < 200


def test_every_button_measures_its_guarantee(open_page: OpenPage, demo: Demo) -> None:
    page = open_page()
    log_in(page, "alice")
    page.goto("/")
    page.get_by_role("link", name="See each promise tried").click()
    press_all(page)
    assert page.url == f"{demo.app_url}{PAGE}", "a script shows the results in their places"
    expect(page.locator("#measured-increments")).to_contain_text("Held")
    out = page.locator("#switched")
    page.get_by_role("button", name="Take the store from me").click()
    expect(out).to_contain_text("Out for you")
    assert value(out, "by /api/session") == "503"
    page.get_by_role("button", name="Give it back", exact=True).click()
    expect(out).to_contain_text("Back")
    assert value(out, "by /api/session") == "200"
    expect(page.get_by_role("banner").get_by_role("button", name="Log out")).to_be_visible()


def test_the_user_sees_an_outage_end_by_itself(open_page: OpenPage) -> None:
    page = open_page()
    page.goto(PAGE)
    page.get_by_role("button", name="Take the store from me").click()
    expect(page.locator("#switched")).to_contain_text("Out for you")
    expect(page.locator("#switched")).to_contain_text("Back")


def test_every_button_works_without_scripts(browser: Browser, demo: Demo) -> None:
    context = browser.new_context(base_url=demo.app_url, java_script_enabled=False)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    log_in(page, "bob")
    page.goto(PAGE)
    press_all(page)
    page.get_by_role("button", name="Take the store from me").click()
    expect(page.locator("#switched")).to_contain_text("Out for you")
    page.get_by_role("button", name="Give it back", exact=True).click()
    expect(page.locator("#switched")).to_contain_text("Back")
    context.close()


def test_a_refusal_is_in_sight_of_the_button(browser: Browser, demo: Demo) -> None:
    context = browser.new_context(base_url=demo.app_url, viewport={"width": 390, "height": 844})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    log_in(page, "bob")
    page.goto(PAGE)
    context.clear_cookies()  # as after a logout in another tab
    page.get_by_role("button", name="Take the store from me").click()
    notice = page.locator("[data-notice]")
    expect(notice).to_have_text("The session has ended.")
    expect(notice).to_be_in_viewport()
    assert context.cookies() == []
    context.close()


def test_results_and_an_outage_are_readable_on_every_screen(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    page.goto(PAGE)
    press_all(page)
    page.get_by_role("button", name="Take the store from me").click()
    expect(page.locator("#switched")).to_contain_text("Out for you")
    assert findings(page, shots=tmp_path) == []
