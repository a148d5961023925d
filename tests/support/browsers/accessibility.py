"""Checks a page with axe-core and for its width, on every screen size and in both themes."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page

__all__ = ("SCREENS", "findings")

SCREENS: Final = ((1280, 800), (390, 844), (320, 640))
SCHEMES: Final = ("light", "dark")
_RUN: Final = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
}"""


@cache
def _axe() -> str:
    spec = find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def findings(page: Page, screens: tuple[tuple[int, int], ...] = SCREENS, shots: Path | None = None) -> list[str]:
    """Return the problems of the current page: violated axe-core rules, and elements wider than the screen.

    It is not loaded again. With `shots`, a folder, each screen is photographed.
    """
    found: list[str] = []
    page.evaluate(_axe())
    for width, height in screens:
        page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            where = f"{page.title()!r} at {width}, {scheme}"
            wide: Any = page.evaluate("document.documentElement.scrollWidth")
            found += [f"{where}: {wide} wide"] if wide > width else []
            found += [f"{where}: {violation}" for violation in page.evaluate(_RUN)]
            if shots is not None:
                name = "".join(letter if letter.isalnum() else "-" for letter in page.title())[:60]
                page.screenshot(path=shots / f"{name}-{width}-{scheme}.png", full_page=True)
    return found
