"""The administrator's pages: users, session counts, the audit trail, and actions on users."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlencode

from litestar import Request, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect, Response

from app.data.audit import acting
from app.data.audit_search import AuditFilter, as_csv
from app.data.users import User
from app.routes.account import MOST_SHOWN, RECENT_MINUTES, find_session, is_recent
from app.services import Injected, Services
from app.session_data import AppSession
from app.web.explanations import OwnAccountError
from app.web.public_address import see_other
from app.web.wording import EVENTS, device
from session_core import Identity, Session, Sessions
from session_core.errors import LoginRequiredError
from session_core.guards import forbids_impersonation, requires_recent_login, requires_role

__all__ = ("handlers",)

_PAGE: Final = 50
_USERS: Final = 25
"""Users on a page. The sessions of each are counted by a call of the store."""
_LATEST: Final = 10
_EXPORT: Final = 10_000
_Text: TypeAlias = Annotated[str, QueryParameter(max_length=100)]
_SIGNED_OUT: Final = "Ended sessions do not come back, and what was kept in them alone is lost. This cannot be undone."
_QUESTIONS: Final = {
    "disable": ("Disable {}?", f"The account can be enabled again. {_SIGNED_OUT}", "Disable the account"),
    "sign-out": ("Sign {} out everywhere?", _SIGNED_OUT, "Sign out everywhere"),
}
_ADMIN = [requires_role("admin"), forbids_impersonation]
_CHANGE = [*_ADMIN, requires_recent_login(minutes=RECENT_MINUTES)]


@get("/admin", guards=_ADMIN, include_in_schema=False)
async def admin(
    request: Request[Any, Any, Any],
    session: Session[AppSession],
    sessions: Sessions,
    services: Injected,
    q: Annotated[str, QueryParameter(max_length=100)] = "",
    page: Annotated[int, QueryParameter(ge=1, le=100_000)] = 1,
) -> Response[str]:
    """Show a page of users, session counts and the latest events."""
    await services.audit.flush(0.5)
    first = (page - 1) * _USERS
    found = await services.users.search(q, limit=_USERS + 1, skip=first)
    events = await services.audit.latest(limit=_LATEST)
    stats = await sessions.stats()
    hours = await services.audit_search.hours(services.clock.now())
    return services.pages.render(
        request,
        "admin.html",
        session=session,
        user=await services.require_user(session),
        recent=is_recent(session.identity, services.clock.now()),
        recent_minutes=RECENT_MINUTES,
        counts=[
            ("sessions now", stats.total),
            ("logged in", stats.logged_in),
            ("visitors without a login", stats.anonymous),
            ("users logged in", stats.users),
        ],
        query=q,
        first=first + 1,
        newer=_page_of_users(q, page - 1) if page > 1 else None,
        older=_page_of_users(q, page + 1) if len(found) > _USERS else None,
        idle=stats.idle,
        hours=hours,
        most=max((max(hour.logins, hour.refusals) for hour in hours), default=0) or 1,
        rows=[(user, len(await sessions.list_for(_identity(user)))) for user in found[:_USERS]],
        events=events,
        names=await services.users.names({key for entry in events for key in (entry.user_key, entry.actor) if key}),
    )


@get("/admin/users/{key:str}", guards=_ADMIN, include_in_schema=False)
async def show_user(
    request: Request[Any, Any, Any], key: FromPath[str], session: Session[AppSession], sessions: Sessions, services: Injected
) -> Response[str]:
    """Show one user with sessions and events."""
    person = await _user(key, services)
    await services.audit.flush(0.5)
    summaries = await sessions.list_for(_identity(person))
    return services.pages.render(
        request,
        "admin_user.html",
        session=session,
        user=await services.require_user(session),
        person=person,
        summaries=summaries[:MOST_SHOWN],
        hidden=len(summaries[MOST_SHOWN:]),
        activity=await services.activity_of_user(key, lines=20),
        recent=is_recent(session.identity, services.clock.now()),
        recent_minutes=RECENT_MINUTES,
        may_act_as=await _may_act_as(person, session, services),
        acting_seconds=services.settings.app_impersonation_seconds,
    )


@post("/admin/users/{key:str}/act-as", guards=_CHANGE, include_in_schema=False)
async def act_as_user(
    request: Request[Any, Any, Any], key: FromPath[str], session: Session[AppSession], services: Injected
) -> Redirect:
    """Let the administrator see the application as a user does."""
    user = await _another_user(key, session, services)
    if not services.settings.app_impersonation_seconds:
        raise NotFoundException
    await session.impersonate(_identity(user))
    return see_other(request, "/")


@post("/impersonation/end", include_in_schema=False)
async def end_impersonation(request: Request[Any, Any, Any], session: Session[AppSession]) -> Redirect:
    """Give the administrator the own session back; open to every request: it can only end what the browser has."""
    acted_as = session.identity if session.actor is not None else None
    await session.end_impersonation()
    if acted_as is None:
        return see_other(request, "/")
    return see_other(request, f"/admin/users/{acted_as.user_key}", say="acting-ended")


@get("/admin/users/{key:str}/sessions/{handle:str}/end", guards=_CHANGE, include_in_schema=False)
async def ask_end_session(
    request: Request[Any, Any, Any],
    key: FromPath[str],
    handle: FromPath[str],
    session: Session[AppSession],
    sessions: Sessions,
    services: Injected,
) -> Response[str]:
    """Ask before a session of a user is ended."""
    person = await _another_user(key, session, services)
    name = device(find_session(await sessions.list_for(_identity(person)), handle).device.user_agent).name
    return services.pages.confirm(
        request,
        session,
        await services.require_user(session),
        question=f"Sign {person.name} out on {name}?",
        consequence=_SIGNED_OUT,
        action=f"/admin/users/{key}/sessions/{handle}/end",
        button="End the session",
        back=f"/admin/users/{key}",
    )


@post("/admin/users/{key:str}/sessions/{handle:str}/end", guards=_CHANGE, include_in_schema=False)
async def end_session_of_user(
    request: Request[Any, Any, Any],
    key: FromPath[str],
    handle: FromPath[str],
    session: Session[AppSession],
    sessions: Sessions,
    services: Injected,
) -> Redirect:
    """End one session of a user."""
    user = await _another_user(key, session, services)
    with _recorded(session):
        if not await sessions.revoke(handle, identity=_identity(user), reason="administrator"):
            raise NotFoundException
    return see_other(request, f"/admin/users/{key}", say="session-ended")


@get("/admin/audit", guards=_ADMIN, include_in_schema=False)
async def audit_page(
    request: Request[Any, Any, Any],
    session: Session[AppSession],
    services: Injected,
    *,
    event: _Text = "",
    user: _Text = "",
    text: _Text = "",
    before: Annotated[int | None, QueryParameter(ge=1, le=2**62)] = None,
) -> Response[str]:
    """Show a page of the audit trail."""
    await services.audit.flush(0.5)
    page = await services.audit_search.page(AuditFilter(event, user, text, before), limit=_PAGE)
    return services.pages.render(
        request,
        "admin_audit.html",
        session=session,
        user=await services.require_user(session),
        entries=page.entries,
        older=page.older,
        event=event,
        text=text,
        user_key=user,
        before=before,
        known=sorted(EVENTS.items()),
        person=await services.users.find(user) if user.isprintable() else None,
        most_exported=_EXPORT,
        query=urlencode({"event": event, "user": user, "text": text}),
        names=await services.users.names({key for entry in page.entries for key in (entry.user_key, entry.actor) if key}),
    )


@get("/admin/audit.csv", guards=_ADMIN, include_in_schema=False)
async def export_audit(services: Injected, event: _Text = "", user: _Text = "", text: _Text = "") -> Response[str]:
    """Return what the filter finds as CSV, 10,000 entries at most."""
    await services.audit.flush(0.5)
    page = await services.audit_search.page(AuditFilter(event, user, text), limit=_EXPORT)
    headers = {"content-disposition": 'attachment; filename="audit.csv"', "x-content-type-options": "nosniff"}
    return Response(as_csv(page.entries), media_type="text/csv", headers=headers)


@get(["/admin/users/{key:str}/disable", "/admin/users/{key:str}/sign-out"], guards=_CHANGE, include_in_schema=False)
async def ask_disable_or_sign_out(
    request: Request[Any, Any, Any], key: FromPath[str], session: Session[AppSession], services: Injected
) -> Response[str]:
    """Ask before a user is disabled, or all sessions of a user are ended."""
    person = await _another_user(key, session, services)
    action = request.url.path.rstrip("/").rpartition("/")[2]
    question, consequence, button = _QUESTIONS[action]
    return services.pages.confirm(
        request,
        session,
        await services.require_user(session),
        question=question.format(person.name),
        consequence=consequence,
        action=f"/admin/users/{key}/{action}",
        button=button,
        back=f"/admin/users/{key}",
    )


@post("/admin/users/{key:str}/disable", guards=_CHANGE, include_in_schema=False)
async def disable_user(
    request: Request[Any, Any, Any], key: FromPath[str], session: Session[AppSession], sessions: Sessions, services: Injected
) -> Redirect:
    """Disable a user from the next request on, and end all sessions."""
    user = await _another_user(key, session, services)
    with _recorded(session):
        await services.users.set_disabled(key, disabled=True)
        services.audit.add("user.disabled", user_key=key)
        await sessions.revoke_all(_identity(user), reason="disabled")
    return see_other(request, f"/admin/users/{key}", say="user-disabled")


@post("/admin/users/{key:str}/enable", guards=_CHANGE, include_in_schema=False)
async def enable_user(
    request: Request[Any, Any, Any], key: FromPath[str], session: Session[AppSession], services: Injected
) -> Redirect:
    """Let a disabled user log in again."""
    await _another_user(key, session, services)
    with _recorded(session):
        await services.users.set_disabled(key, disabled=False)
        services.audit.add("user.enabled", user_key=key)
    return see_other(request, f"/admin/users/{key}", say="user-enabled")


@post("/admin/users/{key:str}/sign-out", guards=_CHANGE, include_in_schema=False)
async def sign_out_user(
    request: Request[Any, Any, Any], key: FromPath[str], session: Session[AppSession], sessions: Sessions, services: Injected
) -> Redirect:
    """End all sessions of a user."""
    user = await _another_user(key, session, services)
    with _recorded(session):
        await sessions.revoke_all(_identity(user), reason="administrator")
        services.audit.add("user.signed_out", user_key=key)
    return see_other(request, f"/admin/users/{key}", say="user-signed-out")


def _page_of_users(query: str, page: int) -> str:
    return f"/admin?{urlencode({'q': query, 'page': page})}#users"


def _recorded(session: Session[AppSession]) -> AbstractContextManager[None]:
    """Record actions in the block with the logged-in administrator as actor."""
    if session.identity is None:
        raise LoginRequiredError
    return acting(session.identity.user_key)


async def _another_user(key: str, session: Session[AppSession], services: Services) -> User:
    """Return the named user, but never the acting administrator, who could otherwise lock out all administrators."""
    if session.identity is not None and session.identity.user_key == key:
        raise OwnAccountError
    return await _user(key, services)


async def _user(key: str, services: Services) -> User:
    user = await services.users.find(key) if key.isprintable() else None
    if user is None:
        raise NotFoundException
    return user


async def _may_act_as(person: User, session: Session[AppSession], services: Services) -> bool:
    """Whether the page offers it; `impersonate` asks again."""
    if session.identity is None or person.disabled or not services.settings.app_impersonation_seconds:
        return False
    return session.identity.user_key != person.key and await services.may_act_as(session.identity, _identity(person))


def _identity(user: User) -> Identity:
    return Identity(issuer=user.issuer, subject=user.subject)


handlers = [
    admin,
    show_user,
    act_as_user,
    end_impersonation,
    ask_end_session,
    end_session_of_user,
    audit_page,
    export_audit,
    ask_disable_or_sign_out,
    disable_user,
    enable_user,
    sign_out_user,
]
