"""The store on PostgreSQL, MySQL and MariaDB."""

from session_core.extras import extra

with extra("sql", "sqlalchemy", wanted="session_core.stores.sql"):
    from session_core.stores.sql.store import SqlStore

__all__ = ("SqlStore",)
