"""The start state of application tests: default settings, an empty database, restored global state."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from app.data.database import migrate

__all__ = ("KEY", "SECRET", "empty_database", "global_state_is_restored", "migrated_file")

SECRET = "kQ3vX9zLm2Rt7Wb5Yc8Nf4Hj6Ps1DgAaEeUuIiOo"
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"


@pytest.fixture(autouse=True)
def global_state_is_restored() -> Iterator[None]:
    """Undo what the application sets for its process."""
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    levels = {name: each.level for name, each in root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    # The application silences the HTTP client's loggers; a later test needs their records.
    for name, earlier in levels.items():
        logging.getLogger(name).setLevel(earlier)
    structlog.configure(**configuration)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty, migrated database, created once and copied."""
    file = tmp_path_factory.mktemp("database") / "empty.db"
    migrate(f"sqlite+aiosqlite:///{file}")
    return file.read_bytes()


@pytest.fixture(name="database")
def empty_database(tmp_path: Path, migrated_file: bytes) -> Path:
    """The test's own database."""
    file = tmp_path / "app.db"
    file.write_bytes(migrated_file)
    return file
