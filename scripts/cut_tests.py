"""What `eject.py` and `use_release.py` share: the lists that name tests follow when folders of tests are removed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

_TEXT: Final = re.compile(r"\"([^\"\n{]+)(?:\"|\{)")


def attacks(root: Path) -> set[str]:
    """Return the ids of the security requirements that tests below `root` prove: those that a file with such marks names.

    `module("invalid-iss")` is the mark `oidcc-client-test-invalid-iss`.
    """
    files = [path.read_text("utf-8") for path in (root / "tests").rglob("*.py")]
    texts = {text for file in files if "attack(" in file for text in _TEXT.findall(file)}
    lines = (root / "docs" / "security_requirements.toml").read_text("utf-8").splitlines()
    known = {line.partition("=")[0].strip().strip('"') for line in lines}
    return {name for name in known if {name, name.removeprefix("oidcc-client-test-")} & texts}


def forget_tests(root: Path, folders: tuple[str, ...], proved: set[str]) -> list[str]:
    """Remove the tests of these removed `folders` from the lists, and what of `proved` no test proves any more."""
    lost = proved - attacks(root)
    long_run, table = root / "tests" / "long_run.txt", root / "docs" / "security.md"
    requirements = root / "docs" / "security_requirements.toml"
    gone = tuple(f"{name.removeprefix('tests/')}/" for name in folders if name.startswith("tests/"))
    done = _keep(long_run, lambda line: not line.startswith(gone))
    done += _keep(requirements, lambda line: line.partition("=")[0].strip().strip('"') not in lost)
    done += _keep(table, lambda line: line.strip("| ").partition(" |")[0] not in lost)
    text = table.read_text("utf-8")
    names = "|".join(map(re.escape, gone))
    table.write_text(re.sub(rf"(?:<br>)?`tests/(?:{names})[^`]*`", "", text).replace("| <br>", "| "), "utf-8")
    return done


def _keep(path: Path, wanted: Callable[[str], bool]) -> list[str]:
    before = path.read_text("utf-8").splitlines(keepends=True)
    after = [line for line in before if wanted(line)]
    if after == before:
        return []
    path.write_text("".join(after), "utf-8")
    return [f"changed {path.name}"]
