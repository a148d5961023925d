"""Reads the audit trail for administrators: filtered, in pages, as CSV, and counted by hour. Writes nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import ColumnElement, and_, or_, select

from app.data.audit import AuditEntry
from app.data.tables import audit as table

if TYPE_CHECKING:
    from app.data.database import Database

__all__ = ("AuditFilter", "AuditPage", "AuditSearch", "Hour", "as_csv")

_HOUR_MS: Final = 3_600_000
_HOURS: Final = 24
_LOGINS: Final = "login.succeeded"
_REFUSALS: Final = ("login.failed", "logout.rejected", "access.denied")
_COLUMNS: Final = ("at", "event", "count", "user_key", "actor", "session", "reason", "ip", "user_agent", "detail")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class AuditFilter(msgspec.Struct, frozen=True):
    """Which entries. `event` may be the beginning of a name (`login.`); `text` is part of an address, handle, reason or actor.

    `before` is where a page of older entries begins.
    """

    event: str = ""
    user_key: str = ""
    text: str = ""
    before: int | None = None

    def condition(self) -> ColumnElement[bool]:
        """Return the WHERE of the query."""
        found: list[ColumnElement[bool]] = [table.c.id > 0]
        if self.event:
            found.append(table.c.event.startswith(_printable(self.event), autoescape=True))
        if self.user_key:
            found.append(table.c.user_key == _printable(self.user_key))
        if self.before is not None:
            found.append(table.c.id < self.before)
        if text := _printable(self.text):
            columns = (table.c.ip, table.c.session, table.c.reason, table.c.actor)
            found.append(or_(*(column.icontains(text, autoescape=True) for column in columns)))
        return and_(*found)


class AuditPage(msgspec.Struct, frozen=True):
    """Entries, the latest first. `older` is the `before` of the next page, None on the last one."""

    entries: list[AuditEntry]
    older: int | None


class Hour(msgspec.Struct):
    """Counts of the hour that began at `at` (Unix milliseconds)."""

    at: int
    logins: int = 0
    refusals: int = 0


class AuditSearch:
    """Queries over the trail of one application."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: AuditFilter, *, limit: int) -> AuditPage:
        """Return one page."""
        columns = [table.c.id, *(table.c[name] for name in AuditEntry.__struct_fields__)]
        statement = select(*columns).where(wanted.condition()).order_by(table.c.id.desc()).limit(limit + 1)
        async with self._database.connect() as connection:
            rows = [dict(row._mapping) for row in await connection.execute(statement)]  # noqa: SLF001 - public
        ids = [row.pop("id") for row in rows]
        return AuditPage([AuditEntry(**row) for row in rows[:limit]], ids[limit - 1] if len(rows) > limit else None)

    async def hours(self, now: int) -> list[Hour]:
        """Return logins and refusals of the last hours, the oldest first."""
        first = now - now % _HOUR_MS - (_HOURS - 1) * _HOUR_MS
        hours = [Hour(first + number * _HOUR_MS) for number in range(_HOURS)]
        wanted = and_(table.c.at >= first, table.c.event.in_((_LOGINS, *_REFUSALS)))
        async with self._database.connect() as connection:
            for row in await connection.execute(select(table.c.at, table.c.event, table.c.count).where(wanted)):
                hour = hours[min((row.at - first) // _HOUR_MS, _HOURS - 1)]
                times: int = row._mapping["count"]  # noqa: SLF001 - `row.count` is a method
                if row.event == _LOGINS:
                    hour.logins += times
                else:
                    hour.refusals += times
        return hours


def as_csv(entries: Iterable[AuditEntry]) -> str:
    """Return entries as CSV (RFC 4180), with times in UTC (RFC 3339).

    A cell that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for entry in entries:
        at = datetime.fromtimestamp(entry.at / 1000, tz=UTC).isoformat(timespec="milliseconds")
        writer.writerow([at, *(_cell(getattr(entry, name)) for name in _COLUMNS[1:])])
    return text.getvalue()


def _cell(value: Any) -> Any:  # noqa: ANN401 - text, number or None
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _printable(text: str) -> str:
    # PostgreSQL refuses the NUL character, and SQLite ends the text there.
    return "".join(character for character in text if character.isprintable())
