"""A user's complete visit to the demo in Chromium, Firefox and WebKit, over http and behind https."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from auth_demo.visitor import log_in as log_in_elsewhere
from auth_demo.visitor import new_client
from tests.auth_demo.demo_process import Demo, running_demo
from tests.support.browsers.window import Browser, Window
from tests.support.cross_site_pages import Pages, page_address
from tests.support.https_demo import running_https_demo
from tests.support.thread_server import listen, served

pytestmark = pytest.mark.e2e
_LOADED = "return document.readyState === 'complete' && location.hostname === 'localhost'"
# Chromium drops a page from its back-forward cache on any later event, such as a late driver message: seen in up to one of
# five.
_CACHE_ATTEMPTS = 20
_LOG_OUT = "form[action='/auth/logout'] button"


@pytest.fixture(scope="module")
def plain_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


@pytest.fixture(scope="module")
def https_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_https_demo(tmp_path_factory.mktemp("https")) as url:
        yield url


@pytest.fixture(scope="module")
def hostile() -> Iterator[dict[str, str]]:
    """Pages of another origin: over http on a sibling host; behind https, with HSTS, on another site."""
    listening, port = listen()
    with served(Pages(), listening):
        yield {"http": f"http://localhost:{port}", "https": f"http://127.0.0.1:{port}"}


def wait_for_page(window: Window, condition: str) -> None:
    window.wait_for(f"{_LOADED} && ({condition})")


def shows(selector: str) -> str:
    return f'document.querySelector("{selector}") !== null'


def log_in(window: Window, user: str) -> None:
    window.follow("a.button.primary")
    window.follow(f"button[value={user}]")
    wait_for_page(window, shows(_LOG_OUT))


@pytest.mark.attack("49")
@pytest.mark.attack("asvs-7.4.1")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_login_use_logout_and_back(
    any_browser: Browser, request: pytest.FixtureRequest, hostile: dict[str, str], tmp_path: Path, scheme: str
) -> None:
    url = request.getfixturevalue("https_url") if scheme == "https" else request.getfixturevalue("plain_demo").app_url
    name = "__Host-session" if scheme == "https" else f"session-{urlsplit(url).port}"
    with any_browser.window() as window:
        window.open(f"{url}/")
        assert window.cookies() == {}
        assert any(comes_back_from_the_cache(window, url) for _ in range(_CACHE_ATTEMPTS))
        window.open(f"{url}/")
        window.follow("form[action='/session/visits'] button")
        assert window.run("return document.querySelector('.counter strong').innerText") == "1"
        anonymous = window.cookies()[name]
        log_in(window, "alice")
        assert window.run("return document.querySelector('.counter strong').innerText") == "1"
        cookie = window.cookies()[name]
        assert cookie["value"] != anonymous["value"]
        assert cookie["httpOnly"]
        assert cookie["secure"] == (scheme == "https")
        assert (cookie["sameSite"].lower(), cookie["path"], cookie["domain"].lstrip(".")) == ("lax", "/", "localhost")

        window.fill("#note", "milk")
        window.follow("form[action='/session/preferences'] button")
        assert window.run("return document.querySelector('#note').value") == "milk"
        window.follow("form[action='/session/regenerate'] button")
        assert window.cookies()[name]["value"] != cookie["value"]
        for path in ("/auth/logout", "/session/regenerate"):
            window.open(page_address(hostile[scheme], "form redirected by 307", url + path, "no-referrer", "no-referrer"))
            window.follow("button")
            assert window.url == url + path
            assert "Alice" not in window.text
        window.open(f"{url}/")
        assert "Alice" in window.text
        window.screenshot(tmp_path / f"{any_browser.name}-{scheme}.png")

        window.follow(_LOG_OUT)
        wait_for_page(window, shows("a.button.primary"))
        assert name not in window.cookies()
        window.back()
        wait_for_page(window, shows("a.button.primary"))
        assert "Alice" not in window.text


def comes_back_from_the_cache(window: Window, url: str) -> bool:
    """Whether this browser restores pages on Back from its cache; without that the test would prove nothing."""
    window.open(f"{url}/")
    window.run("window.kept = true")
    window.open(f"{url}/health/live")
    window.back()
    wait_for_page(window, "location.pathname === '/'")
    return bool(window.run("return window.kept ?? false"))


@pytest.mark.attack("49")
def test_back_shows_nothing_after_the_session_was_ended_elsewhere(any_browser: Browser, plain_demo: Demo) -> None:
    url = plain_demo.app_url
    with any_browser.window() as window:
        window.open(f"{url}/")
        log_in(window, "bob")
        window.open(f"{url}/health/live")
        with ThreadPoolExecutor(1) as other_device:  # Playwright's event loop runs in this thread
            other_device.submit(asyncio.run, sign_out_everywhere(plain_demo, "bob")).result()
        window.back()
        wait_for_page(window, f"location.pathname === '/' && {shows('a.button.primary')}")
        assert "Bob" not in window.text


async def sign_out_everywhere(demo: Demo, user: str) -> None:
    async with new_client() as client:
        await log_in_elsewhere(client, demo.app_url, demo.issuer, user)
        answer = await client.delete(f"{demo.app_url}/api/sessions?include_current=true", headers={"origin": demo.app_url})
        assert answer.status_code == 204
