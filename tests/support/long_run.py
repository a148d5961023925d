"""Which tests `uv run pytest` leaves to `uv run just test-all`: those of `tests/long_run.txt`, and those marked `long`."""

from __future__ import annotations

import gc
import os
from functools import cache
from pathlib import Path
from typing import Final

import pytest

LIST: Final = Path(__file__).parent.parent / "long_run.txt"


@cache
def prefixes() -> tuple[str, ...]:
    """The prefixes of long tests' names, as listed."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return tuple(f"tests/{line.strip()}" for line in lines if line.strip() and not line.startswith("#"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", dest="run_all", help="run the long tests, too")


def is_default_run(config: pytest.Config) -> bool:
    """Whether long tests are excluded: neither `--all` nor a selection of tests was given."""
    return is_complete(config) and not config.option.run_all


def is_complete(config: pytest.Config) -> bool:
    """Whether no selection of tests was given."""
    selected = config.option.keyword or config.option.markexpr or config.option.collectonly
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not selected


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A default run uses three processes for two processors, because its tests wait for a third of the time."""
    return (os.cpu_count() or 1) * 3 // 2 if is_default_run(config) else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip files and folders whose tests are all long, so that a default run does not import them."""
    if not is_default_run(config):
        return None
    name = collection_path.relative_to(config.rootpath).as_posix()
    return (f"{name}/" if collection_path.is_dir() else name).startswith(prefixes()) or None


def pytest_collection_finish() -> None:
    """Exclude all imported modules from garbage collection: each collection would examine them again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the listed tests `long`; deselect all long ones in a default run."""
    listed = prefixes()
    for item in items:
        if item.nodeid.startswith(listed):
            item.add_marker("long")
    if is_default_run(config):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
