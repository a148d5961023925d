"""Reads the form of a page."""

from __future__ import annotations

from html.parser import HTMLParser


class Fields(HTMLParser):
    """The hidden fields and buttons of a page's form."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.buttons: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input":
            self.fields[str(given["name"])] = given["value"] or ""
        elif tag == "button":
            self.buttons.append(given.get("value") or "")
