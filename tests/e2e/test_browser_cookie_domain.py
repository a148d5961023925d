"""A change of the session cookie's domain or path, and a cookie from a sibling host, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from session_core import CookieConfig
from session_core.stores import MemoryStore
from tests.support.browsers.window import PATIENCE_MS
from tests.support.sessions import make_app
from tests.support.thread_server import listen, served

pytestmark = pytest.mark.e2e


class Switched:
    """Applications with one store and one address, of which one is active."""

    def __init__(self, public_url: str) -> None:
        self.url = public_url
        self.sibling = public_url.replace("app.", "sibling.")
        self._store = MemoryStore()
        self.use()

    def use(self, **options: Any) -> None:
        self.names_former = any(name.startswith("former") for name in options)
        self._app = make_app(store=self._store, public_url=self.url, cookie=CookieConfig(name="session", **options))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def switched() -> Iterator[Switched]:
    listening, port = listen()
    app = Switched(f"http://app.example.test:{port}")
    with served(app, listening):
        yield app


@pytest.fixture
def page(browser: Browser, switched: Switched) -> Iterator[Page]:
    context = browser.new_context(base_url=switched.url)
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


def log_in(page: Page, subject: str) -> None:
    page.goto("/public")
    assert page.evaluate(f"fetch('/login/{subject}', {{method: 'POST'}}).then(answer => answer.status)") == 201


def subject(page: Page, path: str = "/read") -> Any:
    page.goto("/public")
    return page.evaluate(f"fetch('{path}').then(answer => answer.json()).then(answer => answer.subject)")


def kept(page: Page) -> list[tuple[str, str]]:
    """Domain and path of the session cookies in this browser."""
    cookies = page.context.cookies()
    return sorted((cookie["domain"], cookie["path"]) for cookie in cookies if cookie["name"] == "session")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"domain": "example.test"}),
        ({"domain": "example.test"}, {"former_domains": ["example.test"]}),
        ({"domain": "example.test"}, {"domain": "app.example.test", "former_domains": ["example.test"]}),
        ({"path": "/read"}, {"former_paths": ["/read"]}),
    ],
)
def test_a_user_stays_logged_in_and_one_cookie_remains(
    page: Page, switched: Switched, before: dict[str, Any], after: dict[str, Any]
) -> None:
    switched.use(**before)
    log_in(page, "alice")
    assert subject(page) == "alice"
    switched.use(**after)
    assert subject(page) == "alice"
    log_in(page, "bob")
    # With the former cookie in the settings, the login deletes it; otherwise the first request that sends both does.
    assert len(kept(page)) == (1 if switched.names_former else 2)
    assert subject(page) == "bob"
    assert len(kept(page)) == 1
    assert subject(page) == "bob"


@pytest.mark.attack("53")
def test_a_sibling_host_cannot_replace_a_live_session(page: Page, switched: Switched) -> None:
    switched.use()
    log_in(page, "attacker")
    planted = next(cookie for cookie in page.context.cookies() if cookie["name"] == "session")
    page.context.clear_cookies()
    log_in(page, "victim")
    page.goto(f"{switched.sibling}/public")
    page.evaluate(f"document.cookie = 'session={planted['value']}; domain=example.test; path=/'")
    assert len(kept(page)) == 2
    assert subject(page) is None
    # The victim's login deletes the planted cookie, so it cannot lock the user out.
    log_in(page, "victim")
    assert len(kept(page)) == 2
    assert subject(page) == "victim"
    page.context.clear_cookies(domain="app.example.test")
    assert subject(page) is None
