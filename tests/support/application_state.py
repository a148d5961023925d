"""The start state of application tests: default settings, an empty database, restored global state."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pytest
import structlog
from pydantic import SecretStr

from app.data.database import migrate
from app.settings.settings import Settings
from app.web import pages

__all__ = (
    "KEY",
    "NO_PROVIDER",
    "SECRET",
    "empty_database",
    "global_state_is_restored",
    "migrated_file",
    "settings_over",
    "templates_are_compiled_once",
)

SECRET = "kQ3vX9zLm2Rt7Wb5Yc8Nf4Hj6Ps1DgAaEeUuIiOo"
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
NO_PROVIDER = "http://127.0.0.1:1"
"""An issuer at which nothing listens, so that the tests never ask a provider on this machine."""


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


class _Compiled(jinja2.BytecodeCache):
    """The templates that an application of this process has compiled."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        if bucket.key in self._known:
            bucket.bytecode_from_string(self._known[bucket.key])

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        self._known[bucket.key] = bucket.bytecode_to_string()


@pytest.fixture(scope="session", autouse=True)
def templates_are_compiled_once() -> Iterator[None]:
    """Let all applications of this process share compiled templates: each test starts one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pages, "Environment", partial(jinja2.Environment, bytecode_cache=_Compiled()))
        yield


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


def settings_over(database: Path, **overrides: Any) -> Settings:
    """Settings for one application on a database, with sessions in memory; anything can be overridden."""
    values: dict[str, Any] = {
        "session_store": "memory://",
        "database_url": f"sqlite+aiosqlite:///{database}",
        "session_secrets": (SecretStr(SECRET),),
        "session_encryption_keys": (SecretStr(KEY),),
        "oidc_issuer": NO_PROVIDER,
        "oidc_client_secret": SecretStr("client-secret-of-the-tests"),
        "_env_file": None,
    }
    return Settings(**{**values, **overrides})
