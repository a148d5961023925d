"""The logged-in user as JSON: identity and sessions."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import delete, get, head
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery

from app.routes.account import RECENT_MINUTES
from app.services import Injected
from app.session_data import AppSession
from session_core import Identity, Session, Sessions
from session_core.concurrency import in_turns
from session_core.errors import LoginRequiredError
from session_core.guards import requires_login, requires_recent_login
from session_core.litestar.openapi import problem_responses
from session_core.oidc import Tokens

__all__ = ("handlers",)


_CHANGE = [requires_login, requires_recent_login(minutes=RECENT_MINUTES)]


class Me(msgspec.Struct, kw_only=True):
    """The logged-in user. `auth_time` is when the user authenticated at the provider, in Unix seconds."""

    issuer: str
    subject: str
    name: str
    email: str | None
    roles: tuple[str, ...]
    auth_time: int | None


class SessionItem(msgspec.Struct, kw_only=True):
    """One of the user's sessions. `handle` is its public name, not a secret; times are Unix seconds, as in `auth_time`."""

    handle: str
    current: bool
    created_at: int
    last_seen_at: int
    ip: str
    user_agent: str


def _identity(session: Session[AppSession]) -> Identity:
    if session.identity is None:
        raise LoginRequiredError
    return session.identity


@get("/api/me", guards=[requires_login], tags=["user"])
async def me(session: Session[AppSession], services: Injected) -> Me:
    """Return who is logged in."""
    user, identity = await services.require_user(session), _identity(session)
    return Me(
        issuer=user.issuer,
        subject=user.subject,
        name=user.name,
        email=user.email,
        roles=user.roles,
        auth_time=identity.auth_time,
    )


@get("/api/sessions", guards=[requires_login], tags=["user"])
async def list_sessions(session: Session[AppSession], sessions: Sessions) -> list[SessionItem]:
    """List the user's own sessions, the most recently used first."""
    return [
        SessionItem(
            handle=summary.handle,
            current=summary.handle == session.handle,
            created_at=summary.created_at // 1000,
            last_seen_at=summary.last_seen_at // 1000,
            ip=summary.device.ip,
            user_agent=summary.device.user_agent,
        )
        async for summary in in_turns(await sessions.list_for(_identity(session)))
    ]


@delete("/api/sessions/{handle:str}", guards=_CHANGE, tags=["user"], responses=problem_responses(404))
async def end_session(handle: FromPath[str], session: Session[AppSession], sessions: Sessions) -> None:
    """End one of the user's own sessions; 404 for another user's."""
    if handle == session.handle:
        await session.destroy()
    elif not await sessions.revoke(handle, identity=_identity(session)):
        raise NotFoundException


@delete("/api/sessions", guards=_CHANGE, tags=["user"])
async def end_sessions(session: Session[AppSession], sessions: Sessions, *, include_current: FromQuery[bool] = False) -> None:
    """End all other sessions, and with `include_current` also this one."""
    await sessions.revoke_all(_identity(session), keep=session.key)
    if include_current:
        await session.destroy()


@get("/api/userinfo", guards=[requires_login], tags=["user"], responses=problem_responses(502, 504))
async def userinfo(session: Session[AppSession], tokens: Tokens) -> dict[str, Any]:
    """Return the provider's current claims about the user, fetched with the session's access token, refreshed if needed."""
    return await tokens.userinfo(session)


@head("/api/userinfo", guards=[requires_login], include_in_schema=False, media_type="text/plain")
async def userinfo_head() -> None:
    """Answer without a call to the provider: refreshing the token would use up the refresh token."""


handlers = [me, userinfo, userinfo_head, list_sessions, end_session, end_sessions]
