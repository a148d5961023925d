"""Takes the README's screenshot from the running demo, as a user sees it after a minute.

    uv run python scripts/screenshot.py

Writes docs/assets/demo.png; look at it before you commit it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, sync_playwright

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "docs" / "assets" / "demo.png"
_SIZE: Final = {"width": 1200, "height": 1060}


def main() -> int:
    """Take the picture; return the exit code."""
    sys.path.insert(0, str(ROOT))
    from tests.auth_demo.demo_process import running_demo  # noqa: PLC0415 - found through the line above

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("error: Chromium is missing; install it with: sudo apt-get install chromium", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory() as directory,
        running_demo(Path(directory), ports=(8000, 9000)) as demo,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(base_url=demo.app_url, viewport=_SIZE, device_scale_factor=1.5)  # type: ignore[arg-type]
        _use(page)
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=TARGET)
        browser.close()
    print(f"wrote {TARGET.relative_to(ROOT)}")
    return 0


def _use(page: Page) -> None:
    """Count a visit, log in, leave a note."""
    page.goto("/")
    page.get_by_role("button", name="Count a visit without logging in").click()
    page.get_by_role("banner").get_by_role("link", name="Log in").click()
    page.get_by_role("button", name="alice").click()
    for _ in range(4):
        page.get_by_role("button", name="Count a visit").click()
    page.get_by_label("Greeting in").select_option("fr")
    page.get_by_label("Note to self").fill("Two tabs, no lost clicks.")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Bonjour").wait_for()


if __name__ == "__main__":
    sys.exit(main())
