"""The command that takes the pictures of README and documentation runs, and the committed pictures match its output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.app.processes import ROOT, clean_environment
from tests.support.browsers.chromium import find_chromium

pytestmark = pytest.mark.e2e
ASSETS = ROOT / "docs" / "assets"
PICTURES = {"demo.webp": (960, 640), "demo.png": (1800, 1590), "guarantees.png": (1800, 1590)}
_MOST_BYTES = 1_500_000


def test_the_command_takes_the_pictures(tmp_path: Path) -> None:
    find_chromium()
    recipe = subprocess.run(
        [Path(sys.executable).parent / "just", "--show", "screenshots"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "{{ run }} python scripts/screenshots.py {{ ARGS }}" in recipe.stdout.replace("{{ARGS}}", "{{ ARGS }}").replace(
        "{{run}}", "{{ run }}"
    )
    done = subprocess.run(
        [sys.executable, "scripts/screenshots.py", "--any-port", "--to", str(tmp_path)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    for name in PICTURES:
        check(tmp_path / name)


def test_the_committed_pictures_match_the_command() -> None:
    for name in PICTURES:
        check(ASSETS / name)
    assert "(docs/assets/demo.webp)" in (ROOT / "README.md").read_text()


def check(path: Path) -> None:
    assert path.stat().st_size < _MOST_BYTES
    with Image.open(path) as picture:
        assert picture.size == PICTURES[path.name]
        assert getattr(picture, "n_frames", 1) == (9 if path.suffix == ".webp" else 1)
