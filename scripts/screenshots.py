"""Takes the pictures of README and documentation from the running demo.

    uv run python scripts/screenshots.py [--to DIRECTORY] [--any-port]

Writes `demo.webp`, an animation, `demo.png` and `guarantees.png` to docs/assets; look at them before you commit them.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT: Final = Path(__file__).resolve().parent.parent
_FILM: Final = {"width": 960, "height": 640}
_PICTURE: Final = {"width": 1200, "height": 1060}
_PATIENCE_MS: Final = 60_000
_LOOK_MS, _READ_MS = 1100, 2600
_SHOWN: Final = {
    "increments": "Count 200 times at once",
    "tabs": "Write from two tabs",
    "logout": "Log out while a request runs",
    "sign-out": "Sign out elsewhere",
    "outage": "Take the store away and give it back",
}


class _Film:
    """The frames of the animation and their durations."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._frames: list[Image.Image] = []
        self._milliseconds: list[int] = []

    def take(self, milliseconds: int) -> None:
        """Add the current view of the window."""
        self._frames.append(Image.open(io.BytesIO(self._page.screenshot())).convert("RGB"))
        self._milliseconds.append(milliseconds)

    def save(self, path: Path) -> None:
        """Write an endlessly repeating WebP animation."""
        first, *rest = self._frames
        first.save(path, save_all=True, append_images=rest, duration=self._milliseconds, loop=0, quality=70, method=6)


def main(arguments: list[str] | None = None) -> int:
    """Take the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description="Take the pictures of README and documentation from the running demo.")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "assets", help="directory of the pictures")
    parser.add_argument("--any-port", action="store_true", help="do not need the ports 8000 and 9000, which the pictures show")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT))
    # Found through the line above.
    from tests.auth_demo.demo_process import running_demo  # noqa: PLC0415
    from tests.support.browsers.chromium import launch_chromium  # noqa: PLC0415

    with (
        tempfile.TemporaryDirectory() as directory,
        running_demo(Path(directory), ports=None if options.any_port else (8000, 9000)) as demo,
        sync_playwright() as playwright,
    ):
        browser = launch_chromium(playwright)
        options.to.mkdir(parents=True, exist_ok=True)
        _film(browser, demo.app_url).save(options.to / "demo.webp")
        _take_pictures(browser, demo.app_url, options.to)
        browser.close()
    print(f"wrote demo.webp, demo.png and guarantees.png to {options.to}")
    return 0


def _film(browser: Browser, app_url: str) -> _Film:
    """Log in and press the buttons of the guarantees."""
    page = _window(browser, app_url, _FILM)
    film = _Film(page)
    page.goto("/")
    film.take(_LOOK_MS)
    page.get_by_role("banner").get_by_role("link", name="Log in").click()
    film.take(_LOOK_MS)
    page.get_by_role("button", name="alice").click()
    page.get_by_role("link", name="See each promise tried").wait_for()
    film.take(_LOOK_MS)
    page.get_by_role("link", name="See each promise tried").click()
    page.get_by_role("heading", level=1).wait_for()
    film.take(_LOOK_MS)
    for name in _SHOWN:
        card = _press(page, name)
        card.evaluate("card => window.scrollTo(0, card.offsetTop - 40)")
        film.take(_READ_MS)
    page.close()
    return film


def _take_pictures(browser: Browser, app_url: str, directory: Path) -> None:
    page = _window(browser, app_url, _PICTURE, scale=1.5)
    page.goto("/")
    page.get_by_role("banner").get_by_role("link", name="Log in").click()
    page.get_by_role("button", name="alice").click()
    for _ in range(4):
        page.get_by_role("button", name="Count a visit").click()
    page.get_by_label("Greeting in").select_option("fr")
    page.get_by_label("Note to self").fill("Two tabs, no lost clicks.")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Bonjour").wait_for()
    page.screenshot(path=directory / "demo.png")
    page.get_by_role("link", name="See each promise tried").click()
    for name in ("increments", "tabs"):
        _press(page, name)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=directory / "guarantees.png")
    page.close()


def _window(browser: Browser, app_url: str, size: dict[str, int], *, scale: float = 1) -> Page:
    page = browser.new_page(base_url=app_url, viewport=size, device_scale_factor=scale)  # type: ignore[arg-type]
    page.set_default_timeout(_PATIENCE_MS)
    return page


def _press(page: Page, name: str) -> Locator:
    """Run a demonstration; return its card with the measurements."""
    card = page.locator(f"#{name}")
    card.get_by_role("button", name=_SHOWN[name]).click()
    expect(card.get_by_text("Held", exact=True)).to_be_visible(timeout=_PATIENCE_MS)
    return card


if __name__ == "__main__":
    sys.exit(main())
