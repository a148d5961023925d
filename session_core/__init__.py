"""Typed server-side sessions for Litestar: no acknowledged write lost, no logged-out user back.

    class AppSession(msgspec.Struct):
        visits: int = 0

    @post("/visit")
    async def visit(session: Session[AppSession]) -> dict[str, int]:
        def bump(data: AppSession) -> None:
            data.visits += 1

        return {"visits": (await session.update(bump)).visits}

    app = Litestar([visit], plugins=[SessionPlugin(SessionConfig(AppSession))])

Login over OpenID Connect is in `session_core.oidc`, guards in `session_core.guards`, stores in `session_core.stores`, helpers for
tests in `session_core.testing`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from session_core.clock import Clock, SystemClock
from session_core.config import SessionConfig
from session_core.cookies import CookieConfig
from session_core.errors import (
    ConfigurationError,
    SessionConflictError,
    SessionCoreError,
    SessionDataError,
    SessionGoneError,
    StoreUnavailableError,
)
from session_core.events import Event, EventListener
from session_core.extras import extra
from session_core.identity import Identity
from session_core.impersonation import Impersonation
from session_core.sessions.handle import SessionHandle
from session_core.sessions.manager import SessionManager, SessionStats, SessionSummary
from session_core.sessions.record import Device
from session_core.sessions.store_order import Moment
from session_core.sessions.timeouts import Timeouts
from session_core.stores import SessionStore, open_store

if TYPE_CHECKING:
    from session_core.litestar.access import loaded_session_of, session_of
    from session_core.litestar.dependency import Session, Sessions
    from session_core.litestar.plugin import SessionPlugin

__all__ = (
    "Clock",
    "ConfigurationError",
    "CookieConfig",
    "Device",
    "Event",
    "EventListener",
    "Identity",
    "Impersonation",
    "Moment",
    "Session",
    "SessionConfig",
    "SessionConflictError",
    "SessionCoreError",
    "SessionDataError",
    "SessionGoneError",
    "SessionHandle",
    "SessionManager",
    "SessionPlugin",
    "SessionStats",
    "SessionStore",
    "SessionSummary",
    "Sessions",
    "StoreUnavailableError",
    "SystemClock",
    "Timeouts",
    "loaded_session_of",
    "open_store",
    "session_of",
)

_LITESTAR: Final = {
    "Session": "session_core.litestar.dependency",
    "SessionPlugin": "session_core.litestar.plugin",
    "Sessions": "session_core.litestar.dependency",
    "loaded_session_of": "session_core.litestar.access",
    "session_of": "session_core.litestar.access",
}
"""Imported on first use: the rest of the library works without Litestar."""


def __getattr__(name: str) -> object:
    if (module := _LITESTAR.get(name)) is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    with extra("litestar", "litestar", wanted=f"{__name__}.{name}"):
        found: object = getattr(import_module(module), name)
        import_module("session_core.litestar.internals")  # names the fix where an application uses them without the plugin
    globals()[name] = found
    return found
