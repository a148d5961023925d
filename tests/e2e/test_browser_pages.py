"""Every page in Chromium, at three widths and in both themes: no finding of axe-core, no horizontal scrolling.

With `PAGE_SHOTS=folder` the pages are photographed there.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.asgi import create_app
from app.data.database import DatabaseUnavailableError
from auth_demo.op.web.pages import render
from session_core.asgi import answers
from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError, TooManyRequestsError
from session_core.oidc.config import ProviderChoice
from session_core.oidc.routes import provider_choice
from session_core.oidc.routes.leaving import leave, leave_by_form
from session_core.testing import FakeClock
from tests.app.conftest import Running
from tests.app.test_app_error_pages import NAVIGATION, fail, save
from tests.auth_demo.demo_process import Demo, running_demo
from tests.support.application_state import global_state_is_restored, settings_over  # noqa: F401 - a fixture
from tests.support.browsers.accessibility import findings
from tests.support.browsers.chromium import find_chromium
from tests.support.browsers.window import PATIENCE_MS

pytestmark = pytest.mark.e2e

LONG = "Wolfeschlegelsteinhausenbergerdorff" * 7
FAILED_SAVES = (
    (SessionConflictError(), "another tab changed the same value first"),
    (TooManyRequestsError(7), "Please wait 7 seconds"),
    (SessionGoneError(), "<h1>The session has ended</h1>"),
    (StoreUnavailableError(), "You are not logged out"),
    (RuntimeError("broken"), "<h1>An error occurred on our side</h1>"),
)
SHOTS = Path(shots) if (shots := os.environ.get("PAGE_SHOTS")) else None


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(directory: Path) -> Iterator[Demo]:
    find_chromium()
    with running_demo(directory) as running:
        yield running


@pytest.fixture
def page(browser: Browser, demo: Demo) -> Iterator[Page]:
    context = browser.new_context(base_url=demo.app_url)
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


def log_in(page: Page, user: str) -> None:
    page.goto("/auth/login")
    page.get_by_role("button", name=re.compile(user)).click()
    expect(page.get_by_role("banner").get_by_role("button", name="Log out")).to_be_visible()


def look(page: Page, *addresses: str) -> list[str]:
    """Return the findings for these pages."""
    found: list[str] = []
    for address in addresses:
        page.goto(address)
        found += findings(page, shots=SHOTS)
    return found


def change(directory: Path, statement: str, *values: object) -> None:
    """Change the demo's database from outside the process."""
    with closing(sqlite3.connect(directory / "var" / "app.db", timeout=30)) as connection, connection:
        connection.execute(statement, values)


def test_the_start_page_and_an_error_page_have_no_finding(page: Page) -> None:
    page.goto("/")
    assert findings(page, ((320, 640),)) == []
    page.goto("/nowhere")
    assert findings(page, ((320, 640),)) == []


def test_pages_of_a_visitor_have_no_finding(page: Page, demo: Demo) -> None:
    found = look(page, "/", "/?unsent=1", "/?cookies=1", "/nowhere", "/auth/callback?state=unknown", "/demo/guarantees")
    found += look(page, f"/auth/callback?state={'u' * 43}")
    found += look(page, "/session/visits")  # 405: only a form posts there
    found += look(page, "/auth/login", f"{demo.issuer}/", f"{demo.issuer}/nowhere", f"{demo.issuer}/authorize?client_id=unknown")
    page.goto("/auth/login")
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").last.click()
    expect(page.get_by_role("alert")).to_be_visible()
    found += findings(page, shots=SHOTS)
    assert found == []


def test_pages_of_a_user_have_no_finding(page: Page, demo: Demo, directory: Path) -> None:
    log_in(page, "alice")
    second = page.context.new_page()
    second.goto("/")
    page.goto("/")
    page.get_by_label("Note to self").fill("The first tab writes this, and " + "it is rather long, " * 20)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_have_text("Your changes are saved.")
    found = findings(page, shots=SHOTS)
    second.get_by_label("Note to self").fill(LONG)
    second.get_by_role("button", name="Save").click()
    expect(second.get_by_role("alert")).to_contain_text("was not saved")
    found += findings(second, shots=SHOTS)
    found += look(page, "/demo/guarantees", "/account", "/account/sessions", "/account/sessions/end-others", "/admin")
    handle = page.request.get("/api/sessions").json()[0]["handle"]
    found += look(page, f"/account/sessions/{handle}/end", f"{demo.issuer}/", f"{demo.issuer}/end_session")
    found += post_from_another_site(page, demo)
    change(directory, "update users set disabled = true where subject like '%alice%' or name like '%Alice%'")
    page.goto("/account")
    expect(page.get_by_role("heading", level=1)).to_have_text("This account is disabled")
    found += findings(page, shots=SHOTS)
    change(directory, "update users set disabled = false")
    page.goto(f"{demo.issuer}/end_session")
    page.get_by_role("button", name="Sign out everywhere").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")
    found += findings(page, shots=SHOTS)
    assert found == []


def post_from_another_site(page: Page, demo: Demo) -> list[str]:
    form = f'<form method="post" action="{demo.app_url}/session/visits"><button>Win</button></form>'
    page.route("http://another.test/", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto("http://another.test/")
    page.get_by_role("button", name="Win").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cross-site request refused")
    return findings(page, shots=SHOTS)


def test_pages_of_an_administrator_with_a_long_name_have_no_finding(page: Page, directory: Path) -> None:
    log_in(page, "admin")
    page.goto("/admin")
    key = re.findall(r'/admin/users/([^"]+)"', page.content())[0]
    roles = f'["admin","{LONG[:64]}"]'
    change(
        directory, "update users set name = ?, email = ?, roles = ? where user_key = ?", LONG, f"{LONG}@example.org", roles, key
    )
    change(
        directory, "insert into users values ('other', 'https://op.example', ?, ?, null, '[]', true, 1, 2)", LONG, f"{LONG} שלום"
    )
    found = look(page, "/", "/account", "/account/sessions", "/admin", "/admin/audit", f"/admin/users/{key}")
    found += look(page, "/admin/users/other", "/admin/users/other/disable", "/admin/users/other/sign-out")
    found += look(page, f"/admin/users/{key}/disable")
    assert found == []


@pytest.mark.timeout(600)
def test_pages_of_an_administrator_who_acts_as_a_user_have_no_finding(page: Page, browser: Browser, demo: Demo) -> None:
    context = browser.new_context(base_url=demo.app_url)
    log_in(context.new_page(), "bob")
    context.close()
    log_in(page, "admin")
    page.goto("/admin?q=bob")
    page.get_by_role("link", name="Bob").first.click()
    page.get_by_role("button", name="Log in as Bob").click()
    expect(page.get_by_role("complementary", name="Logged in as another user")).to_be_visible()
    found = look(page, "/", "/account", "/account/sessions", "/admin")
    page.goto("/")
    page.get_by_role("button", name="Return to your own account").click()
    expect(page.get_by_role("status")).to_be_visible()
    assert found + findings(page, shots=SHOTS) == []


@pytest.mark.timeout(600)
def test_pages_of_outages_and_conflicts_have_no_finding(page: Page, demo: Demo, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as thread:  # this one has Playwright's event loop
        pages = thread.submit(lambda: asyncio.run(pages_of_the_application(tmp_path / "app.db"))).result()
    found: list[str] = []
    for html in pages:
        found += shown(page, f"{demo.app_url}/shown", html)
    frame = f"{demo.app_url}/auth/frontchannel-logout?iss=https%3A%2F%2Fop.example&sid=unknown"
    signed_out = render("signed_out.html", return_to=None, client=None, frames=[], frame_uris=[frame, frame])
    assert found + shown(page, f"{demo.issuer}/shown", signed_out.content) == []


async def pages_of_the_application(database: Path) -> list[str]:
    """Pages that a running demo does not show on demand, such as those of an outage, as the application renders them."""
    clock = FakeClock()
    app = create_app(settings_over(database), clock=clock)
    running = Running(app, clock)
    async with app.lifespan(), running.browser() as browser:
        await running.log_in(browser)
        pages = [await without_provider(browser)]
        for error, words in FAILED_SAVES:
            with pytest.MonkeyPatch.context() as patch:
                fail(patch, error)
                pages.append((await save(browser, LONG)).text)
            assert words in pages[-1]
            assert LONG in pages[-1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(running.plugin.store), "load", store_is_out)
            pages.append((await browser.get("/account")).text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(running.services.users), "find", database_is_out)
            pages.append((await browser.get("/account")).text)
            assert "The user database does not respond" in pages[-1]
        pages.append((await browser.post("/session/preferences", data={"language": LONG, "note": LONG})).text)
        assert "<h1>The request was not understood</h1>" in pages[-1]
        choices = [ProviderChoice(name, title, f"/auth/login/{name}") for name, title in (("a", "Partner & sons"), ("b", LONG))]
        return [*pages, running.services.pages.choice(choices)]


async def without_provider(browser: httpx.AsyncClient) -> str:
    answer = await browser.get("/auth/login", headers=NAVIGATION)
    assert "The identity provider is unavailable" in answer.text
    return answer.text


async def store_is_out(*_: object) -> None:
    raise StoreUnavailableError


async def database_is_out(*_: object) -> None:
    raise DatabaseUnavailableError


def shown(page: Page, address: str, html: str) -> list[str]:
    """Return the findings of a page with this text; its styles and images are the demo's."""
    page.route(address, lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto(address)
    page.unroute(address)
    return findings(page, shots=SHOTS)


@pytest.mark.parametrize("path", ["/", "/account", "/account/sessions", "/admin", "/admin/audit", "/nowhere"])
def test_right_to_left_pages_do_not_scroll_sideways(page: Page, path: str) -> None:
    log_in(page, "admin")
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(path)
    page.evaluate("document.documentElement.dir = 'rtl'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_librarys_own_pages_have_no_finding(page: Page, demo: Demo) -> None:
    leaving = leave("https://op.example/", by_page=True).body.decode()
    pages = [re.sub("<meta http-equiv=[^>]*>", "", leaving)]  # which would redirect at once
    pages.append(leave_by_form("https://op.example/", {"a": "b"}).body.decode().replace("<script>", '<script type="text/plain">'))
    pages.append(answers._PAGE.format(title="Access denied", status=403, advice="", start="/"))
    pages.append(provider_choice._PAGE.format(items='<li><a href="/auth/login/partner">Partner</a></li>', start="/"))
    found: list[str] = []
    for html in pages:
        found += shown(page, f"{demo.app_url}/shown", html)
    assert found == []
