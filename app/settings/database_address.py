"""The address of the database server in `DATABASE_URL`, whose options are those of a session store's URL. Opens no connection."""

from __future__ import annotations

from sqlalchemy.engine import make_url

from session_core.stores.sql.urls.mysql import MysqlAddress, parse_mysql_url
from session_core.stores.sql.urls.postgresql import PostgresqlAddress, parse_postgresql_url

__all__ = ("address_of",)


def address_of(url: str) -> PostgresqlAddress | MysqlAddress | None:
    """Return the address and the driver's arguments; None for SQLite. Raises `ConfigurationError` for an unsupported option."""
    kind = make_url(url).get_backend_name()
    if kind == "sqlite":
        return None
    return parse_postgresql_url(url) if kind == "postgresql" else parse_mysql_url(url)
