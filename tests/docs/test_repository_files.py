"""Configuration files of other programs are valid by those programs' schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

BIN = Path(sys.executable).parent
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


def test_the_hook_configuration_is_valid() -> None:
    done = run("prek", "validate-config", ".pre-commit-config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dev_container_has_the_oldest_python_and_both_ports() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["image"].endswith(":3.11")
    assert "uv sync --locked" in container["postCreateCommand"]
    assert 8000 in container["forwardPorts"]
