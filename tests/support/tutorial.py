"""Applies the steps of docs/tutorial.md to a copy of the repository."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.pages import fences

__all__ = ("follow_tutorial",)


def follow_tutorial(root: Path) -> None:
    """Follow the tutorial in the repository below `root`. A step that is already done is left unchanged."""
    steps = {fence.title: fence for fence in fences(root / "docs" / "tutorial.md") if fence.title}
    for title, fence in steps.items():
        file = root / title
        if fence.language == "python" and not file.exists():
            file.write_text(fence.body, encoding="utf-8")
    # "Add a line to the end of it": the struct is the last thing in its module.
    data = root / "app" / "session_data.py"
    if (field := steps["app/session_data.py"].body) not in (text := data.read_text(encoding="utf-8")):
        data.write_text(f"{text.rstrip()}\n{field}", encoding="utf-8")
    asgi = root / "app" / "asgi.py"
    if (handlers := steps["app/asgi.py"].body) not in (text := asgi.read_text(encoding="utf-8")):
        before, imports, after = text.partition("from app.routes import ")
        names, end, after = after.partition("\n")
        text = before + imports + ", ".join(sorted([*names.split(", "), "city"])) + end + after
        text = re.sub(r"(?m)^ +\*\w+\.handlers,\n", lambda line: line[0] + handlers, text, count=1)
        asgi.write_text(text, encoding="utf-8")
