"""The tutorial, followed step by step in a copy of the application, with its test."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.app.processes import clean_environment
from tests.support.pages import ROOT
from tests.support.tutorial import follow_tutorial


def test_the_tutorial_works_and_leaves_the_database_unchanged(tmp_path: Path) -> None:
    for name in ("app", "docs", "migrations", "session_core", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for _ in range(2):
        follow_tutorial(tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/test_city.py"]
    environment = {**clean_environment(), "PYTHONPATH": str(tmp_path)}
    tried = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "1 passed" in tried.stdout, tried.stdout + tried.stderr
    assert not (tmp_path / "var").exists()
