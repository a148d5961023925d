"""What `eject.py` and `use_release.py` share: the lists that name tests follow when folders of tests are removed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

_TEXT: Final = re.compile(r"\"([^\"\n{]+)(?:\"|\{)")


def attacks(root: Path) -> set[str]:
    """Return the ids of the security requirements that tests below `root` prove."""
    return set().union(*_proofs(root).values())


def forget_tests(root: Path, folders: tuple[str, ...], proved: set[str]) -> list[str]:
    """Remove the tests of these removed `folders` from the lists, and what of `proved` no test proves any more.

    A long test that is the only one left to prove something runs by default.
    """
    proofs = _proofs(root)
    lost = proved - set().union(*proofs.values())
    gone = tuple(f"{name.removeprefix('tests/')}/" for name in folders if name.startswith("tests/"))
    long_run, table = root / "tests" / "long_run.txt", root / "docs" / "security.md"
    requirements = root / "docs" / "security_requirements.toml"
    done = _keep(long_run, lambda line: not line.startswith(gone))
    listed = tuple(line for line in long_run.read_text("utf-8").splitlines() if line and not line.startswith("#"))
    by_default = set().union(*(ids for name, ids in proofs.items() if not name.startswith(listed)))
    needed = {name for name, ids in proofs.items() if ids - by_default}
    done += _keep(long_run, lambda line: not any(name.startswith(line.strip() or "#") for name in needed))
    done += _keep(requirements, lambda line: _id_of(line) not in lost)
    done += _keep(table, lambda line: line.strip("| ").partition(" |")[0] not in lost)
    text = table.read_text("utf-8")
    names = "|".join(map(re.escape, gone))
    table.write_text(re.sub(rf"(?:<br>)?`tests/(?:{names})[^`]*`", "", text).replace("| <br>", "| "), "utf-8")
    return done


def _proofs(root: Path) -> dict[str, set[str]]:
    """Return the ids that each file of tests with security marks names. `module("x")` is the mark `oidcc-client-test-x`."""
    known = {_id_of(line) for line in (root / "docs" / "security_requirements.toml").read_text("utf-8").splitlines()}
    found: dict[str, set[str]] = {}
    for path in (root / "tests").rglob("*.py"):
        text = path.read_text("utf-8")
        texts = set(_TEXT.findall(text)) if "attack(" in text else set()
        name = path.relative_to(root / "tests").as_posix()
        found[name] = {each for each in known if {each, each.removeprefix("oidcc-client-test-")} & texts}
    return found


def _id_of(line: str) -> str:
    return line.partition("=")[0].strip().strip('"')


def _keep(path: Path, wanted: Callable[[str], bool]) -> list[str]:
    before = path.read_text("utf-8").splitlines(keepends=True)
    after = [line for line in before if wanted(line)]
    if after == before:
        return []
    path.write_text("".join(after), "utf-8")
    return [f"changed {path.name}"]
