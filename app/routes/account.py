"""The user's own pages: profile, trail, and the devices that are logged in."""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import Request, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect, Response

from app.services import Injected
from app.session_data import AppSession
from app.web.public_address import see_other
from session_core import Session, Sessions
from session_core.errors import LoginRequiredError
from session_core.guards import requires_login, requires_recent_login
from session_core.identity import Identity

__all__ = ("MOST_SHOWN", "RECENT_MINUTES", "handlers", "is_recent")

MOST_SHOWN: Final = 100
"""Sessions on a page: thousands of them would keep all other requests waiting while it is made."""

RECENT_MINUTES: Final = 5
"""How recent a login must be to sign devices out: a person at an open browser must not lock its owner out."""
_PAGE: Final = "/account/sessions"


def is_recent(identity: Identity | None, now: int) -> bool:
    """Whether the login is recent enough for changes; only for display, the guard decides."""
    proved = identity.auth_time if identity else None
    return proved is not None and now // 1000 - proved <= RECENT_MINUTES * 60


def _identity(session: Session[AppSession]) -> Identity:
    if session.identity is None:
        raise LoginRequiredError
    return session.identity


@get("/account", guards=[requires_login], include_in_schema=False)
async def account(request: Request[Any, Any, Any], session: Session[AppSession], services: Injected) -> Response[str]:
    """Show what the application knows about the user."""
    user = await services.require_user(session)
    await services.audit.flush(0.5)
    return services.pages.render(
        request,
        "account.html",
        session=session,
        user=user,
        identity=_identity(session),
        events=await services.audit.of_user(user.key, limit=30),
    )


@get(_PAGE, guards=[requires_login], include_in_schema=False)
async def devices(
    request: Request[Any, Any, Any],
    session: Session[AppSession],
    sessions: Sessions,
    services: Injected,
    ended: Annotated[int | None, QueryParameter(ge=0, le=1_000_000)] = None,
) -> Response[str]:
    """Show where the user is logged in."""
    identity = _identity(session)
    summaries = await sessions.list_for(identity)
    summaries.sort(key=lambda summary: summary.handle != session.handle)  # this device is always shown
    return services.pages.render(
        request,
        "sessions.html",
        session=session,
        user=await services.require_user(session),
        summaries=summaries[:MOST_SHOWN],
        hidden=len(summaries[MOST_SHOWN:]),
        recent=is_recent(identity, services.clock.now()),
        recent_minutes=RECENT_MINUTES,
        ended=ended,
    )


@post(
    f"{_PAGE}/{{handle:str}}/end",
    guards=[requires_login, requires_recent_login(minutes=RECENT_MINUTES)],
    include_in_schema=False,
)
async def end_device(
    request: Request[Any, Any, Any], handle: FromPath[str], session: Session[AppSession], sessions: Sessions
) -> Redirect:
    """Sign one device out."""
    if handle == session.handle:
        await session.destroy()
        return see_other(request, "/")
    if not await sessions.revoke(handle, identity=_identity(session)):
        raise NotFoundException
    return see_other(request, f"{_PAGE}?ended=1")


@post(
    f"{_PAGE}/end-others",
    guards=[requires_login, requires_recent_login(minutes=RECENT_MINUTES)],
    include_in_schema=False,
)
async def end_other_devices(request: Request[Any, Any, Any], session: Session[AppSession], sessions: Sessions) -> Redirect:
    """Sign all other devices out."""
    ended = await sessions.revoke_all(_identity(session), keep=session.key)
    return see_other(request, f"{_PAGE}?ended={ended}")


handlers = [account, devices, end_device, end_other_devices]
