"""The user's own pages: profile, trail, and the devices that are logged in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from litestar import Request, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Response

from app.services import Injected, Services
from app.session_data import AppSession
from app.web.public_address import see_other
from app.web.wording import device
from session_core import Identity, Session, Sessions, SessionSummary
from session_core.errors import LoginRequiredError
from session_core.guards import requires_login, requires_recent_login
from session_core.oidc import OidcPlugin

__all__ = ("MOST_SHOWN", "RECENT_MINUTES", "find_session", "handlers", "is_recent")

MOST_SHOWN: Final = 100
"""Sessions on a page: thousands of them would keep all other requests waiting while it is made."""

RECENT_MINUTES: Final = 5
"""How recent a login must be to sign devices out: a person at an open browser must not lock its owner out."""
_PAGE: Final = "/account/sessions"
_CHANGE: Final = [requires_login, requires_recent_login(minutes=RECENT_MINUTES)]


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
    user, identity = await services.require_user(session), _identity(session)
    await services.audit.flush(0.5)
    return services.pages.render(
        request,
        "account.html",
        session=session,
        user=user,
        identity=identity,
        provider_account=_provider_account(request, services, identity),
        activity=await services.activity_of_user(user.key, lines=30),
    )


@get(_PAGE, guards=[requires_login], include_in_schema=False)
async def devices(
    request: Request[Any, Any, Any], session: Session[AppSession], sessions: Sessions, services: Injected
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
    )


@get(f"{_PAGE}/{{handle:str}}/end", guards=_CHANGE, include_in_schema=False)
async def ask_end_device(
    request: Request[Any, Any, Any],
    handle: FromPath[str],
    session: Session[AppSession],
    sessions: Sessions,
    services: Injected,
) -> Response[str]:
    """Ask before one device is signed out."""
    name = device(find_session(await sessions.list_for(_identity(session)), handle).device.user_agent).name
    return services.pages.confirm(
        request,
        session,
        await services.require_user(session),
        question=f"Sign out {name}?",
        consequence="It is out with its next request. What is kept in its session alone is lost. This cannot be undone.",
        action=f"{_PAGE}/{handle}/end",
        button="Sign out the device",
        back=_PAGE,
    )


@post(f"{_PAGE}/{{handle:str}}/end", guards=_CHANGE, include_in_schema=False)
async def end_device(
    request: Request[Any, Any, Any], handle: FromPath[str], session: Session[AppSession], sessions: Sessions
) -> Redirect:
    """Sign one device out."""
    if handle == session.handle:
        await session.destroy()
        return see_other(request, "/", say="logged-out")
    if not await sessions.revoke(handle, identity=_identity(session)):
        raise NotFoundException
    return see_other(request, _PAGE, say="device-signed-out")


@get(f"{_PAGE}/end-others", guards=_CHANGE, include_in_schema=False)
async def ask_end_other_devices(
    request: Request[Any, Any, Any], session: Session[AppSession], services: Injected
) -> Response[str]:
    """Ask before all other devices are signed out."""
    return services.pages.confirm(
        request,
        session,
        await services.require_user(session),
        question="Sign out everywhere else?",
        consequence="All other devices are out with their next request. What is kept in their sessions alone is lost. "
        "This cannot be undone.",
        action=f"{_PAGE}/end-others",
        button="Sign out all other devices",
        back=_PAGE,
    )


@post(f"{_PAGE}/end-others", guards=_CHANGE, include_in_schema=False)
async def end_other_devices(request: Request[Any, Any, Any], session: Session[AppSession], sessions: Sessions) -> Redirect:
    """Sign all other devices out."""
    ended = await sessions.revoke_all(_identity(session), keep=session.key)
    say = {0: "no-device-signed-out", 1: "device-signed-out"}.get(ended, "devices-signed-out")
    return see_other(request, _PAGE, say=say, count=ended if ended > 1 else None)


def find_session(summaries: Sequence[SessionSummary], handle: str) -> SessionSummary:
    """Return the session that `handle` names. Raises `NotFoundException`."""
    found = next((each for each in summaries if each.handle == handle), None)
    if found is None:
        raise NotFoundException
    return found


def _provider_account(request: Request[Any, Any, Any], services: Services, identity: Identity) -> str | None:
    """Return where the user manages the account at the provider: as the settings say, or the provider's metadata."""
    party = request.app.plugins.get(OidcPlugin).relying_parties.by_issuer(identity.issuer)
    if party is None:
        return None
    given = {each.oidc_id: each.oidc_account_url for each in services.settings.providers}.get(party.provider.id)
    metadata = party.connection.discovery.known
    return given or (metadata.account_management_uri if metadata is not None else None)


handlers = [account, devices, ask_end_device, end_device, ask_end_other_devices, end_other_devices]
