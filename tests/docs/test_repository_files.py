"""Configuration files of other programs are valid by those programs' schemas."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from editorconfig import get_properties

from tests.support.pages import ROOT

BIN = Path(sys.executable).parent
# The properties that the specification of EditorConfig 0.17 names, with their values.
EDITOR = {
    "root": "true",
    "charset": "latin1|utf-8|utf-8-bom|utf-16be|utf-16le",
    "end_of_line": "lf|cr|crlf",
    "indent_style": "tab|space",
    "indent_size": "[1-9]|tab|unset",
    "insert_final_newline": "true|false",
    "trim_trailing_whitespace": "true|false",
}
BUILT = {".git", ".venv", ".cache", ".hypothesis", "build", "dist", "node_modules", "site", "var", "__pycache__"}
SCHEMAS = {
    "vendor.github-workflows": [".github/workflows/ci.yml"],
    "vendor.dependabot": [".github/dependabot.yml"],
    "vendor.github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.github-issue-forms": [".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/request.yml"],
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_is_valid_by_its_schema(schema: str) -> None:
    done = run("check-jsonschema", "--builtin-schema", schema, *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_for_github_is_checked() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / ".github").rglob("*.yml")}
    assert files == {file for listed in SCHEMAS.values() for file in listed}


def test_the_workflow_runs_the_same_script_as_developers() -> None:
    assert ".ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()


@pytest.mark.parametrize("firefox", ["firefox-esr", "firefox"])
def test_the_script_installs_no_program_that_is_there(tmp_path: Path, firefox: str) -> None:
    browsers = ("chromium", "WebKitWebDriver", "Xvfb", firefox)
    servers = ("redis-server", "mariadbd", "pgbouncer", "memcached", "systemd-analyze")
    for program in (*browsers, *servers, "apt-get"):
        (tmp_path / program).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / program).chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    script = (ROOT / ".ci/run").read_text().partition("step ")[2].partition('step "dependencies"')[0]
    script = f"set -euo pipefail\nstep() {{ :; }}\nstep {script}"
    done = subprocess.run([bash, "-c", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_hook_configuration_is_valid() -> None:
    done = run("prek", "validate-config", ".pre-commit-config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dev_container_has_the_oldest_python_and_both_ports() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["image"].endswith(":3.11")
    assert "uv sync --locked" in container["postCreateCommand"]
    assert 8000 in container["forwardPorts"]


def test_the_settings_of_editors_are_in_the_specification() -> None:
    parsed = ConfigParser()
    parsed.read_string("[*root*]\n" + (ROOT / ".editorconfig").read_text())
    found = [(name, value) for section in parsed for name, value in parsed[section].items()]
    assert len(found) > len(EDITOR)
    assert [(name, value) for name, value in found if not re.fullmatch(EDITOR.get(name, "(?!)"), value)] == []


def test_every_file_follows_the_settings_of_editors() -> None:
    files = files_of(ROOT)
    assert len(files) > 100
    found = [(path, fault) for path in files for fault in faults(path.read_bytes(), get_properties(str(path)))]
    assert found == []


def files_of(folder: Path) -> list[Path]:
    """The text files that git has; where there is no git, all but what is installed or built."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=folder, capture_output=True, text=True, check=False)
    paths = [folder / name for name in listed.stdout.split("\0") if name] or [
        path for path in folder.rglob("*") if not any(map(is_generated, path.relative_to(folder).parts))
    ]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def is_generated(name: str) -> bool:
    """Whether a folder of this name holds only what is installed or built."""
    return name in BUILT or name.endswith("_cache")


def faults(content: bytes, wanted: dict[str, str]) -> Iterator[str]:
    text = content.decode(wanted["charset"])
    if "\r" in text:
        yield "another end of line"
    if text and not text.endswith("\n"):
        yield "no newline at the end"
    if wanted["trim_trailing_whitespace"] == "true" and re.search(r"[ \t]$", text, re.MULTILINE):
        yield "whitespace at the end of a line"
    if wanted["indent_style"] == "space" and re.search(r"^ *\t", text, re.MULTILINE):
        yield "a tab that indents"


@pytest.mark.parametrize("text", ["a\r\nb\n", "a", "a \n", "\tb\n", "  \tb\n"])
def test_a_file_that_differs_is_found(text: str) -> None:
    assert len(list(faults(text.encode(), get_properties(str(ROOT / "app.py"))))) == 1
