"""An environment with some installed distributions and their requirements only: without Litestar, for example."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def make_environment(folder: Path, *names: str) -> Path:
    """Fill a folder with links to these distributions and their requirements; `name[extra]` as for pip."""
    pending = [Requirement(name) for name in names]
    seen: set[tuple[str, str]] = set()
    while pending:
        requirement = pending.pop()
        found = distribution(requirement.name)
        for extra in {"", *requirement.extras}:
            if (key := (canonicalize_name(requirement.name), extra)) in seen:
                continue
            seen.add(key)
            required = map(Requirement, found.requires or ())
            pending += [each for each in required if each.marker is None or each.marker.evaluate({"extra": extra})]
        for top in {path.parts[0] for path in found.files or () if path.parts[0] not in {"..", "__pycache__"}}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))
    return folder


def run_in(folder: Path, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run Python with this environment and the project's own packages only."""
    paths = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]"
    # Isolated and without `site`, so neither the virtual environment nor the user's packages are found.
    command = [sys.executable, "-I", "-S", "-c", f"{paths}; {arguments[0]}", *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=folder)
