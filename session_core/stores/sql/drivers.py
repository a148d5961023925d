"""Selects and imports the driver of a URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from session_core.errors import ConfigurationError

if TYPE_CHECKING:
    from session_core.stores.sql.link import Driver

__all__ = ("driver_for",)

_POSTGRESQL: Final = frozenset({"postgresql", "postgres"})
_MYSQL: Final = frozenset({"mysql", "mariadb"})


def driver_for(url: str) -> Driver:
    """Return the driver of a URL. Raises `ConfigurationError`, and `ImportError` when it is not installed."""
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme in _POSTGRESQL:
        from session_core.stores.sql.postgresql import PostgresqlDriver  # noqa: PLC0415

        return PostgresqlDriver(url)
    if scheme in _MYSQL:
        from session_core.stores.sql.mysql import MysqlDriver  # noqa: PLC0415

        return MysqlDriver(url)
    msg = "the SQL session store takes postgresql:// and mysql:// URLs; a good example: postgresql://user:password@host/database"
    raise ConfigurationError(msg)
