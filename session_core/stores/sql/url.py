"""Which database a URL means, and whether it can keep sessions; connects to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from session_core.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

__all__ = ("parse_url",)

_ASYNC_DRIVERS: Final = {"sqlite": "aiosqlite", "postgresql": "asyncpg", "mysql": "asyncmy"}


def parse_url(text: str) -> URL:
    """Read the URL of a database.

    Raises `ConfigurationError` for one that cannot be used and `ImportError` when its driver is not installed.
    """
    try:
        url = make_url(text)
        driver = _ASYNC_DRIVERS.get(url.drivername)
        if driver is not None:
            url = url.set(drivername=f"{url.drivername}+{driver}")
        dialect = url.get_dialect()
    except (ArgumentError, ValueError):
        # Not the cause: it quotes pieces of the URL, and one of them may be the password.
        msg = "the URL of the session store is malformed; a good example: sqlite+aiosqlite:///var/sessions.db"
        raise ConfigurationError(msg) from None
    if url.get_backend_name() not in _ASYNC_DRIVERS or not dialect.is_async:
        msg = f"the SQL session store cannot use {url.drivername}; use one of " + ", ".join(
            f"{name}+{driver}" for name, driver in _ASYNC_DRIVERS.items()
        )
        raise ConfigurationError(msg)
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        msg = "SQLite in memory is seen by one connection only; use memory://, or a file: sqlite+aiosqlite:///var/sessions.db"
        raise ConfigurationError(msg)
    # Raises ImportError when the driver is not installed: at start, not at the first request.
    dialect.import_dbapi()
    return url
