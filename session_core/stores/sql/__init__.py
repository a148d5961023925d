"""The store on PostgreSQL, MySQL and MariaDB."""

from session_core.stores.sql.store import SqlStore

__all__ = ("SqlStore",)
