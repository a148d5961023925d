"""Runs migrations on the database of the settings, or on the one that `app.data.database.migrate` was given."""

from __future__ import annotations

import asyncio
import sys

from alembic import command, context
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from app.data.database import make_engine, why_unavailable
from app.data.tables import metadata
from app.settings.report import SettingsError
from app.settings.settings import load_settings
from session_core.stores.sql.schema import metadata as session_metadata

_ADVISORY_LOCK = 0x5E5510
_CONNECT_SECONDS = 5.0
_TARGETS = [metadata, session_metadata]


def _url() -> str:
    given: str | None = context.config.attributes.get("url")
    if given:
        return given
    try:
        return load_settings().database_url
    except SettingsError as error:
        sys.exit(str(error))


def _migrate(connection: Connection) -> None:
    # Of processes that migrate at the same time one works, and the others wait and find nothing left to do.
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
    context.configure(connection=connection, target_metadata=_TARGETS, render_as_batch=True)
    if _upgrades() and (newer := _unknown_revisions()):
        # A rollback of the application: revisions only add, and /health/ready checks that the tables still fit.
        message = f"the database is at revision {', '.join(newer)}, which this version does not have: left as it is"
        print(message, file=sys.stderr)  # noqa: T201 - a command prints to its terminal
        return
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


def _upgrades() -> bool:
    """Whether this is an upgrade: of `migrate`, or of the command line."""
    given = getattr(context.config.cmd_opts, "cmd", None)
    return "url" in context.config.attributes or (given is not None and given[0] is command.upgrade)


def _unknown_revisions() -> list[str]:
    """Return the revisions of the database that are not in this folder."""
    known = {script.revision for script in context.script.walk_revisions()}
    return [revision for revision in context.get_context().get_current_heads() if revision not in known]


async def _online() -> None:
    engine = make_engine(_url())
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            connection = await engine.connect()
        try:
            await connection.run_sync(_migrate)
        finally:
            await connection.close()
    finally:
        await engine.dispose()


def _run() -> None:
    try:
        asyncio.run(_online())
    except (SQLAlchemyError, OSError) as error:
        if "url" in context.config.attributes:
            raise  # to `migrate`
        sys.exit(f"error: DATABASE_URL: {why_unavailable(error)}")


if context.is_offline_mode():
    context.configure(url=_url(), target_metadata=_TARGETS, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    _run()
