"""The cluster's page in Chromium: two tabs count, the primary of their session is killed, no user is logged out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.auth_demo.demo_process import Demo, running_demo
from tests.support.browsers.accessibility import findings
from tests.support.browsers.chromium import find_chromium
from tests.support.browsers.window import PATIENCE_MS
from tests.support.redis_servers import needed_valkey

pytestmark = pytest.mark.e2e
_PATH = "/demo/cluster"
_REFUSED = "the server responded with a status of 503"
"""The browser's own console message about such a response."""

_BROKEN_WORDS = """elements => elements.filter(element => {
  const text = document.createRange();
  text.selectNodeContents(element);
  return text.getClientRects().length > 1;
}).map(element => element.textContent)"""
"""Returns the texts that take more than one line."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    find_chromium()
    needed_valkey()
    with running_demo(tmp_path_factory.mktemp("cluster"), "--cluster") as running:
        yield running


def log_in(page: Page) -> None:
    page.goto(_PATH)
    page.get_by_role("banner").get_by_role("link", name="Log in").click()
    page.get_by_role("button", name=re.compile("alice")).click()
    expect(page.get_by_role("definition").filter(has_text="alice")).to_be_visible()
    assert page.url.endswith(_PATH)


def press(page: Page) -> int:
    """Count once; return the status of the response."""
    with page.expect_response(re.compile(f"{_PATH}/increment")) as answer:
        page.get_by_role("button", name="Count a visit").click()
    return answer.value.status


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_tabs_keep_login_and_counter_when_a_primary_is_killed(
    browser: Browser, demo: Demo, tmp_path: Path, scheme: str
) -> None:
    context = browser.new_context(base_url=demo.app_url, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    first, second = context.new_page(), context.new_page()
    for page in (first, second):
        page.on("console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
    first.goto(_PATH)
    first.get_by_role("button", name="Start it again").click()
    expect(first.locator("[data-role=replica]")).to_have_count(3)
    log_in(first)
    second.goto(_PATH)
    assert [press(page) for page in (first, second) * 3] == [200] * 6
    for page in (first, second):
        expect(page.locator(".counter strong")).to_have_text("6")
    mine = first.locator(".node.mine")
    expect(mine).to_have_attribute("data-role", "primary")
    killed = mine.get_attribute("data-port")
    before = [cookie for cookie in context.cookies(demo.app_url) if cookie["name"] == demo.cookie]
    first.screenshot(path=tmp_path / f"before-{scheme}.png", full_page=True)
    if scheme == "light":  # wait until both have polled
        assert findings(second) == []

    first.get_by_role("button", name="Kill the primary that holds my session").click()
    for page in (first, second):
        expect(page.locator(f'[data-port="{killed}"]')).to_have_attribute("data-role", "down")
    second.screenshot(path=tmp_path / f"during-{scheme}.png", full_page=True)
    answers = [press(page) for page in (first, second) * 3]
    assert set(answers) <= {200, 503}
    for page in (first, second):
        expect(page.get_by_role("log")).to_contain_text("was promoted")
        expect(page.locator(".node.mine")).to_have_attribute("data-role", "primary")
        assert page.locator(".node.mine").get_attribute("data-port") != killed
        expect(page.get_by_role("definition").filter(has_text="alice")).to_be_visible()
        expect(page.get_by_text("0 lost")).to_be_visible()
    answers.append(press(first))
    assert answers[-1] == 200
    acknowledged = 6 + answers.count(200)
    expect(first.locator(".facts dd", has_text="0 lost")).to_contain_text(f"{acknowledged} ")
    stored = int(first.locator(".counter strong").inner_text())
    assert acknowledged <= stored <= acknowledged + answers.count(503)
    assert [cookie for cookie in context.cookies(demo.app_url) if cookie["name"] == demo.cookie] == before

    first.get_by_role("button", name="Start it again").click()
    expect(first.locator(f'[data-port="{killed}"]')).to_have_attribute("data-role", "replica")
    for width in (1280, 360, 320):
        first.set_viewport_size({"width": width, "height": 800})
        assert first.locator(".node .badge, .node strong").evaluate_all(_BROKEN_WORDS) == []
        assert len(first.screenshot(path=tmp_path / f"after-{scheme}-{width}.png", full_page=True)) > 10_000
        assert first.evaluate("document.documentElement.scrollWidth") <= width
    first.get_by_role("banner").get_by_role("button", name="Log out").click()
    second.goto(_PATH)
    expect(second.get_by_role("banner").get_by_role("link", name="Log in")).to_be_visible()
    context.close()
    assert [text for text in complaints if _REFUSED not in text] == []


def test_every_button_works_without_scripts(browser: Browser, demo: Demo) -> None:
    context = browser.new_context(base_url=demo.app_url, java_script_enabled=False)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(_PATH)
    page.get_by_role("button", name="Start it again").click()
    log_in(page)
    while page.locator("[data-role=replica]").count() < 3 or "catching up" in page.content():
        page.get_by_role("link", name="look again").click()
    for number in ("1", "2"):
        page.get_by_role("button", name="Count a visit").click()
        expect(page.locator(".counter strong")).to_have_text(number)
    page.get_by_role("button", name="Kill the primary that holds my session").click()
    expect(page.locator("[data-role=down]")).to_have_count(1)
    page.get_by_role("button", name="Count a visit").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("No user is logged out")
    while page.locator(".counter.out").count() or "was promoted" not in page.content():
        page.get_by_role("link", name="look again").click()
    expect(page.get_by_role("definition").filter(has_text="alice")).to_be_visible()
    assert page.locator(".counter strong").inner_text() in {"2", "3"}
    page.get_by_role("button", name="Start it again").click()
    context.close()
