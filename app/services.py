"""The services of the running application, in one injectable object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from litestar.di import NamedDependency

from app import NAME
from app.data.audit import AuditEntry, AuditTrail
from app.data.audit_search import AuditSearch
from app.data.database import Database, DatabaseUnavailableError
from app.data.users import User, Users
from app.ops.metrics import Metrics
from app.settings.report import Problem, SettingsError
from app.web.messages import Messages
from app.web.pages import Pages
from app.web.wording import Activity, activities
from session_core.errors import LoginRequiredError
from session_core.urls import base_url_of

if TYPE_CHECKING:
    from app.ops.traces import Traces
    from app.session_data import AppSession
    from app.settings.settings import Settings
    from session_core import Clock, Identity, SessionHandle

__all__ = ("Injected", "Services")


_ENTRIES_READ: Final = 300
"""Of a user, for a page: refusals in a row are one line, and must not hide what happened before them."""


class Services:
    """The services that live as long as the application."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.database = Database(settings.database_url)
        self.users = Users(self.database, clock)
        self.metrics = Metrics()
        self.audit = AuditTrail(self.database, clock, days=settings.app_audit_days, watch=self.metrics)
        self.audit_search = AuditSearch(self.database)
        self.traces = _traces() if settings.app_traces else None
        self.messages = Messages(settings.public_url)
        self.pages = Pages(clock, base_url_of(settings.public_url), self.messages)

    async def user_of(self, session: SessionHandle[AppSession]) -> User | None:
        """Return the logged-in, active user."""
        user = await self.users.find(session.identity.user_key) if session.identity else None
        return None if user is None or user.disabled else user

    async def activity_of_user(self, user_key: str, *, lines: int) -> list[Activity]:
        """Return what the audit trail has of a user as a person reads it, the latest first, one line for each thing."""
        entries = await self.audit.of_user(user_key, limit=_ENTRIES_READ)
        return (await self._activity(entries, all_read=len(entries) < _ENTRIES_READ))[:lines]

    async def activity_of_session(self, session: SessionHandle[AppSession], *, entries: int) -> list[Activity] | None:
        """Return likewise the latest entries of a session and, with a login, of its user; None while the database is out."""
        try:
            found = await self.audit.of_session(session, limit=entries)
            return await self._activity(found, all_read=len(found) < entries)
        except DatabaseUnavailableError:
            return None

    async def _activity(self, entries: Sequence[AuditEntry], *, all_read: bool) -> list[Activity]:
        return activities(entries, await self.audit.user_agents(entries), all_read=all_read)

    async def require_user(self, session: SessionHandle[AppSession]) -> User:
        """Return the logged-in user; raise `LoginRequiredError` if the login ended after the guard's check."""
        user = await self.user_of(session)
        if user is None:
            raise LoginRequiredError
        return user

    async def may_act_as(self, administrator: Identity, user: Identity) -> bool:
        """Whether an administrator may act as a user: not as another administrator. Both are known to be active."""
        actor, person = await self.users.find(administrator.user_key), await self.users.find(user.user_key)
        return actor is not None and actor.is_administrator and person is not None and not person.is_administrator


def _traces() -> Traces:
    try:
        from app.ops.traces import Traces  # noqa: PLC0415 - an extra
    except ImportError:
        problem = Problem("APP_TRACES", "needs packages that are not installed", "uv sync --group app-telemetry")
        raise SettingsError([problem]) from None
    return Traces(NAME)


Injected: TypeAlias = NamedDependency[Services]
"""Annotates the parameter of a handler: `services: Injected`."""
