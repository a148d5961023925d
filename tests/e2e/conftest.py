"""Real browsers on a real demo; every page is checked for console errors and for requests to other hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request, expect, sync_playwright

from tests.auth_demo.demo_process import Demo, running_demo
from tests.support.browsers.chromium import Chromium, find_chromium, launch_chromium
from tests.support.browsers.firefox import Firefox
from tests.support.browsers.webkit import WebKit
from tests.support.browsers.window import PATIENCE_MS
from tests.support.browsers.window import Browser as AnyBrowser

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    chromium = launch_chromium(playwright)
    yield chromium
    chromium.close()


@pytest.fixture(scope="module", params=["Chromium", "Firefox", "WebKit"])
def any_browser(request: pytest.FixtureRequest) -> Iterator[AnyBrowser]:
    """Each of the three engines in turn; a missing engine is skipped by name."""
    match request.param:
        case "Chromium":
            yield Chromium(request.getfixturevalue("browser"))
        case name:
            started = Firefox() if name == "Firefox" else WebKit()
            yield started
            started.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    find_chromium()
    directory: Path = tmp_path_factory.mktemp("demo")
    with running_demo(directory) as running:
        yield running


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, demo: Demo) -> Iterator[OpenPage]:
    """Opens pages in separate windows; at the end none may have logged an error or requested another host."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    hosts: set[str] = set()

    def on_console(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    def on_request(request: Request) -> None:
        hosts.add(urlsplit(request.url).netloc)

    def open_one(**options: Any) -> Page:
        context = browser.new_context(base_url=demo.app_url, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        context.on("request", on_request)
        page = context.new_page()
        page.on("console", on_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []
    assert hosts <= {f"localhost:{demo.port}", f"127.0.0.1:{demo.op_port}"}
