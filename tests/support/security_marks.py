"""The marks `attack("id")`: only known ids are allowed, and a run of all tests fails when no passed test proves an id.

The outcomes are written to the file that `SECURITY_RESULTS` names, for `scripts/security_table.py`.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.long_run import is_complete

_PROPERTY: Final = "attack"
_SEEN: Final = pytest.StashKey[dict[str, dict[str, Any]]]()
_PROBLEMS: Final = pytest.StashKey[list[str]]()


def requirements(root: Path) -> dict[str, Any]:
    """Every id with its text or its table."""
    file = root / "docs" / "security_requirements.toml"
    sections: dict[str, dict[str, Any]] = tomllib.loads(file.read_text(encoding="utf-8"))
    return {name: value for section in sections.values() for name, value in section.items()}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SEEN] = {}
    config.stash[_PROBLEMS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse unknown ids; attach a test's ids to its report, from whichever process runs it."""
    known = requirements(config.rootpath)
    for item in items:
        ids = dict.fromkeys(str(name) for mark in item.iter_markers("attack") for name in mark.args)
        if unknown := [name for name in ids if name not in known]:
            message = f"{item.nodeid}: attack ids that docs/security_requirements.toml does not have: {', '.join(unknown)}"
            raise pytest.UsageError(message)
        item.user_properties += [(_PROPERTY, name) for name in ids]
        if ids and config.option.collectonly:
            config.stash[_SEEN][item.nodeid] = {"ids": list(ids), "outcome": "collected"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Attach the ids to the report of each phase: a test that fails in its setup has no other report."""
    report = yield
    report.attack_ids = [value for name, value in item.user_properties if name == _PROPERTY]
    return report


class _Collector:
    """Collects outcomes in the process that receives all reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        ids = getattr(report, "attack_ids", [])
        if ids and (report.when == "call" or report.outcome != "passed"):
            seen = self._config.stash[_SEEN].setdefault(report.nodeid, {"ids": ids, "outcome": report.outcome})
            if report.outcome == "failed":
                seen["outcome"] = "failed"


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Collector(session.config))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Check a complete run, and write the outcomes. A default run counts too: long tests alone prove no requirement."""
    config = session.config
    if hasattr(config, "workerinput"):
        return
    if file := os.environ.get("SECURITY_RESULTS"):
        Path(file).write_text(json.dumps(config.stash[_SEEN]), encoding="utf-8")
    if not is_complete(config) or config.option.deselect or session.shouldstop or session.shouldfail:
        return
    config.stash[_PROBLEMS] = unproved(requirements(config.rootpath), config.stash[_SEEN])
    if config.stash[_PROBLEMS] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for problem in terminalreporter.config.stash[_PROBLEMS]:
        terminalreporter.write_line(f"security requirement {problem}", red=True)


def unproved(known: dict[str, Any], seen: dict[str, dict[str, Any]]) -> list[str]:
    """The ids that need a test and have no passed test or a failed one."""
    outcomes: dict[str, set[str]] = {name: set() for name, value in known.items() if isinstance(value, str)}
    for test in seen.values():
        for name in test["ids"]:
            outcomes.setdefault(name, set()).add(test["outcome"])
    failed = [f"{name}: a test failed" for name, found in outcomes.items() if "failed" in found]
    return failed + [f"{name}: no test passed" for name, found in outcomes.items() if not found & {"passed", "failed"}]
