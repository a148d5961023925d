"""The store on PostgreSQL, MySQL, MariaDB and SQLite through SQLAlchemy Core."""

from session_core.stores.sql.store import SqlStore

__all__ = ("SqlStore",)
