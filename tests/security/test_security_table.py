"""The tables of docs/security.md equal those generated from the marks, and a requirement without a passed test fails a run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import security_table
from scripts.security_table import PAGE, ROOT, Seen, problems, requirements, tables, with_tables
from tests.support.security_marks import unproved


@pytest.fixture(scope="module")
def collected() -> list[Seen]:
    return security_table.ask_pytest("--collect-only", "-n", "0")


def test_every_requirement_is_proved_or_explained(collected: list[Seen]) -> None:
    sections = requirements()
    assert {name: len(section) for name, section in sections.items() if name != "flows"} == {"modules": 42, "asvs": 82}
    numbers = [int(number) for number in sections["flows"]]
    assert numbers == sorted(numbers)
    assert set(range(1, 65)) < set(numbers) <= set(range(1, 100))
    for section in sections.values():
        for name, value in section.items():
            if isinstance(value, dict):
                assert set(value) in ({"what", "setting"}, {"what", "not_applicable"}), name
    assert problems(collected, sections) == []


def test_the_page_equals_the_generated_page(collected: list[Seen]) -> None:
    """The run fails when any of these tests fails, or when no test of an id ran, so "passed" is reliable."""
    if not (ROOT / "tests" / "e2e").exists():
        return  # a clone that removed these tests generates its own page
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page, tables(collected, requirements())), "run: uv run just security"


def test_links_of_the_page_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in re.findall(r"(?m)^#+ (.+)$", page)}
    for section in requirements().values():
        for value in section.values():
            for anchor in re.findall(r"\(#([\w-]+)\)", value.get("setting", "") if isinstance(value, dict) else ""):
                assert anchor in headings


def test_a_gap_a_failure_and_a_skip_are_detected() -> None:
    known = {"1": "x", "2": "x", "3": "x", "4": {"what": "x", "setting": "y"}}
    seen = {
        "a": {"ids": ["1"], "outcome": "passed"},
        "b": {"ids": ["1", "2"], "outcome": "skipped"},
        "c": {"ids": ["3"], "outcome": "passed"},
        "d": {"ids": ["3"], "outcome": "failed"},
    }
    assert unproved(known, seen) == ["3: a test failed", "2: no test passed"]
    told = [Seen(name, tuple(test["ids"]), str(test["outcome"])) for name, test in seen.items()]
    assert problems(told, {"flows": known}) == ["d: failed", "2: no test passed"]


PROJECT = {
    "pyproject.toml": '[tool.pytest.ini_options]\ntestpaths = ["checks"]\nmarkers = ["attack(id): x"]\n',
    "docs/security_requirements.toml": '[flows]\n1 = "one"\n2 = "two"\n',
    "checks/conftest.py": "from tests.support.long_run import pytest_addoption\nfrom tests.support.security_marks import *\n",
    "checks/test_it.py": (
        "import pytest\n\n@pytest.mark.attack('1')\ndef test_one() -> None:\n    pass\n\n"
        "@pytest.mark.attack('{second}')\ndef test_two() -> None:\n    {body}\n"
    ),
}


def run_project(directory: Path, *options: str, second: str = "2", body: str = "pass") -> subprocess.CompletedProcess[str]:
    for name, text in PROJECT.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text.replace("{second}", second).replace("{body}", body))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**kept, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio", *options]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_complete_run_fails_when_a_requirement_is_not_proved(tmp_path: Path, workers: str) -> None:
    assert run_project(tmp_path, "-n", workers).returncode == 0
    skipped = run_project(tmp_path, "-n", workers, body="pytest.skip('no such program')")
    assert skipped.returncode == 1
    assert "security requirement 2: no test passed" in skipped.stdout
    # A partial run does not report requirements of other tests.
    assert run_project(tmp_path, "-n", workers, "checks/test_it.py", body="pytest.skip('no such program')").returncode == 0


def test_an_unknown_id_is_refused(tmp_path: Path) -> None:
    refused = run_project(tmp_path, "-n", "0", second="65")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "checks/test_it.py::test_two: attack ids that docs/security_requirements.toml does not have: 65" in refused.stderr
