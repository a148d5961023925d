"""The packages' use of cryptography, read from their source: no weak algorithms, no predictable secrets, no disabled checks."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_core.ids import is_session_id, new_session_id

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
WEAK = {"md5", "sha1", "blake2s", "MD5", "SHA1", "ECB", "CBC", "ARC4", "TripleDES", "DES", "Blowfish"}
NO_CHOICE = {"sha1"}
"""Redis identifies scripts by it. The call must set `usedforsecurity=False`."""
SPREAD = {"random", "uniform", "choice", "SystemRandom"}
"""Allowed from the module `random`: jitter and the choice of a server, and the generator of the operating system."""
_SECRETS = {"signature", "digest", "mac", "tag", "secret", "password", "nonce", "verifier", "code_verifier"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def weak(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names} - NO_CHOICE
        elif isinstance(node, ast.Attribute):
            found |= {node.attr} - NO_CHOICE
        elif isinstance(node, ast.Call) and called(node) in NO_CHOICE:
            given = {each.arg: each.value for each in node.keywords}
            harmless = given.get("usedforsecurity")
            if not (isinstance(harmless, ast.Constant) and harmless.value is False):
                found.add(called(node))
    return found & WEAK


def guessable(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    generators: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name == "uuid"}
            generators |= {alias.asname or alias.name for alias in node.names if alias.name == "random"}
        elif isinstance(node, ast.ImportFrom) and node.module in {"random", "uuid"}:
            found |= {alias.name for alias in node.names if alias.name != "UUID"} - SPREAD
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in generators:
            found |= {node.attr} - SPREAD
    return found


def compared(tree: ast.AST) -> set[str]:
    """Names of secrets compared by `==`, which stops at the first differing byte and so leaks timing."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
            sides = [node.left, *node.comparators]
            if not any(isinstance(side, ast.Constant) for side in sides):
                found |= {side.id for side in sides if isinstance(side, ast.Name)} & _SECRETS
    return found


@pytest.mark.attack("asvs-11.3.1")
@pytest.mark.attack("asvs-11.4.1")
@pytest.mark.attack("asvs-11.4.3")
def test_no_weak_hash_function_or_cipher_mode_is_used() -> None:
    assert {file: found for file, tree in sources() if (found := weak(tree))} == {}


@pytest.mark.attack("asvs-11.5.1")
def test_secrets_come_from_a_secure_generator() -> None:
    assert {file: found for file, tree in sources() if (found := guessable(tree))} == {}


@pytest.mark.attack("asvs-11.2.4")
def test_secrets_are_compared_in_constant_time() -> None:
    assert {file: found for file, tree in sources() if (found := compared(tree))} == {}


def test_each_check_detects_its_violation() -> None:
    for source in ("hashlib.md5(b'')", "sha1(b'')", "hashlib.sha1(b'', usedforsecurity=True)", "from x import CBC"):
        assert weak(ast.parse(source)), source
    for source in ("from uuid import uuid4", "import uuid", "import random as r\nr.randbytes(16)", "from random import randint"):
        assert guessable(ast.parse(source)), source
    assert not weak(ast.parse("sha1(b'', usedforsecurity=False)"))
    assert compared(ast.parse("if signature == given: pass")) == {"signature"}


@pytest.mark.attack("asvs-7.2.3")
@pytest.mark.attack("asvs-11.5.1")
def test_session_ids_are_unique_and_random() -> None:
    ids = {new_session_id() for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(is_session_id(each) for each in ids)
    # 256 bits; each of the first 42 characters takes all its 64 values.
    for position in range(42):
        assert len({each[position] for each in ids}) == 64
