"""Chromium, driven by Playwright."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser as PlaywrightBrowser
from playwright.sync_api import BrowserContext, Error, Playwright

from tests.support.browsers.programs import find_program
from tests.support.browsers.window import Browser, PageIsLoadingError, Window

__all__ = ("Chromium", "find_chromium", "launch_chromium")

_QUIET: Final = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--no-first-run",
    # Names below .test stand for hosts that are not loopback: browsers send these no Sec-Fetch headers over plain http.
    "--host-resolver-rules=MAP *.test 127.0.0.1",
)


def find_chromium() -> str:
    """The path of Chromium; skips the test if missing, fails it with CI=true."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return find_program(names, label="Chromium", package="chromium")


def launch_chromium(playwright: Playwright) -> PlaywrightBrowser:
    """Start it with the back-forward cache that users have and Playwright disables."""
    return playwright.chromium.launch(
        executable_path=find_chromium(), args=list(_QUIET), ignore_default_args=["--disable-back-forward-cache"]
    )


class Chromium(Browser):
    """A Chromium process."""

    name = "Chromium"

    def __init__(self, browser: PlaywrightBrowser) -> None:
        self._browser = browser

    def _open_window(self) -> ChromiumWindow:
        return ChromiumWindow(self._browser.new_context(ignore_https_errors=True))

    def _close_window(self, window: ChromiumWindow) -> None:
        window.context.close()

    def close(self) -> None:
        """The fixture that started it closes it."""


class ChromiumWindow(Window):
    """A browser context with one page."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        context.set_default_timeout(self.timeout * 1000)
        self._page = context.new_page()

    def open(self, url: str) -> None:
        self._page.goto(url)

    def run(self, script: str) -> Any:
        try:
            return self._page.evaluate(f"async () => {{ {script} }}")
        except Error as error:
            if "context was destroyed" in error.message or "navigation" in error.message:
                raise PageIsLoadingError from error
            raise

    def press(self, selector: str) -> None:
        self._page.click(selector, no_wait_after=True)

    def back(self) -> None:
        self._page.go_back(wait_until="commit")

    def cookies(self) -> dict[str, dict[str, Any]]:
        return {str(cookie.get("name")): dict(cookie) for cookie in self.context.cookies(self._page.url)}

    def screenshot(self, path: Path) -> None:
        self._page.screenshot(path=path)
