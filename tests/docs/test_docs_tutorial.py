"""The tutorial, done as it is written: its files and lines put into a copy of the application, its test run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, fences

STEPS = {fence.title: fence for fence in fences(ROOT / "docs" / "tutorial.md") if fence.title}


def test_the_tutorial_works(tmp_path: Path) -> None:
    for name in ("app", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for title, fence in STEPS.items():
        assert title is not None
        file = tmp_path / title
        if fence.language == "python":
            file.parent.mkdir(exist_ok=True)
            file.write_text(fence.body, encoding="utf-8")
    # "Add a line to the end of it": the struct is the last thing in its module.
    data = tmp_path / "app" / "session_data.py"
    data.write_text(data.read_text().rstrip() + "\n" + STEPS["app/session_data.py"].body)
    asgi = tmp_path / "app" / "asgi.py"
    text = asgi.read_text().replace("from app.routes import ", "from app.routes import city, ", 1)
    asgi.write_text(text.replace("*home.handlers,", "*home.handlers,\n" + STEPS["app/asgi.py"].body, 1))
    outside = ("SESSION_", "OIDC_", "APP_", "DATABASE_", "PUBLIC_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests"]
    tried = subprocess.run(
        command, cwd=tmp_path, env={**environment, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert "1 passed" in tried.stdout, tried.stdout + tried.stderr
