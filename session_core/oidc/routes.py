"""The addresses under /auth: turns requests into the relying party's verbs and their results into answers."""

# ruff: noqa: EM101 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from litestar import MediaType, Request, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.response import Redirect

from session_core.errors import (
    AuthorizationResponseError,
    CrossSiteRequestError,
    LogoutTokenError,
    OidcError,
    SessionCoreError,
    SessionGoneError,
)
from session_core.middleware import session_of
from session_core.oidc.addresses import origin_of_url
from session_core.oidc.authorization_response import single_params
from session_core.oidc.claims import optional_text
from session_core.oidc.relying_party import RelyingParty
from session_core.problem import problem
from session_core.same_origin import is_user_navigation

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from session_core.oidc.relying_party import FinishedLogin
    from session_core.session import SessionHandle

__all__ = ("oidc_router",)

AnyRequest: TypeAlias = Request[Any, Any, Any]
RelyingPartyDependency: TypeAlias = NamedDependency[RelyingParty]

_SEE_OTHER: Final = 303
_BAD_REQUEST: Final = 400
_NOT_ALLOWED: Final = 405
_MAX_BODY: Final = 81_920
_COOKIES_KEY: Final = "session_core.oidc.cookies"
_CLEAR: Final = '"cache", "storage"'
"""What a browser forgets at a logout: pages kept for Back, and what scripts stored of the user. Not "cookies": that would take
the login transactions of other tabs, and cookies of sibling hosts, along; the session cookie is deleted by name."""


class AuthHeaders(ASGIMiddleware):
    """Adds to every answer under /auth, errors included, what none of them may lack, and the transaction cookies."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass on with a wrapped send."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given: list[tuple[bytes, bytes]] = list(cast("dict[str, Any]", message).get("headers") or ())
                names = {name.lower() for name, _ in given}
                if b"cache-control" not in names:
                    given.append((b"cache-control", b"no-store"))
                # The address of a callback holds a code: it must not be told to the next page.
                given = [(name, value) for name, value in given if name.lower() != b"referrer-policy"]
                given.append((b"referrer-policy", b"no-referrer"))
                given += [(b"set-cookie", value) for value in _queued_cookies(scope)]
                message = cast("Message", {**message, "headers": given})
            await send(message)

        await next_app(scope, receive, send_with_headers)


@get("/login", status_code=_SEE_OTHER, summary="Start a login")
async def login(request: AnyRequest, relying_party: RelyingPartyDependency) -> Redirect:
    """Send the browser to the identity provider (OpenID Connect Core 3.1.2.1).

    Query: `next` (a local path; ignored when it is none), and optionally `max_age`, `acr_values`, `prompt`, `login_hint`.
    """
    headers = request.scope["headers"]
    # Prefetchers, images and frames follow links too; a login that nobody sees would only fill the cookie jar.
    if not is_user_navigation(headers):
        await relying_party.sessions.events.emit("request.cross_site", reason="login_without_navigation")
        raise CrossSiteRequestError
    try:
        url, cookies = await relying_party.start_login(request.scope["query_string"], list(headers))
    except OidcError as error:
        await relying_party.sessions.events.emit("login.failed", reason=error.reason)
        raise
    _queued_cookies(request.scope).extend(cookies)
    await relying_party.sessions.events.emit("login.started")
    return Redirect(url, status_code=_SEE_OTHER)


@get("/callback", status_code=_SEE_OTHER, opt={"session": True}, summary="Finish a login")
async def callback(request: AnyRequest, relying_party: RelyingPartyDependency) -> Redirect:
    """Take the provider's answer; on success a new session and back to `next`, else an error and nothing changed."""
    events = relying_party.sessions.events
    handle: str | None = None
    try:
        session = await session_of(request)
        handle = session.handle
        received = await relying_party.receive_callback(request.scope["query_string"], list(request.scope["headers"]))
        _queued_cookies(request.scope).append(relying_party.transactions.delete_header(received.transaction))
        finished = await relying_party.finish_login(received)
        await _enter(relying_party, session, finished)
    except SessionCoreError as error:
        await events.emit("login.failed", handle=handle, reason=_reason(error))
        raise
    except Exception:
        await events.emit("login.failed", handle=handle, reason="refused_by_application")
        raise
    return Redirect(finished.return_to, status_code=_SEE_OTHER)


@post("/logout", status_code=_SEE_OTHER, opt={"session": True}, summary="Log out")
async def logout(request: AnyRequest, relying_party: RelyingPartyDependency) -> Redirect:
    """End the session here, then send the browser to the provider to end the one there (RP-Initiated Logout 1.0)."""
    session = await session_of(request)
    identity, handle = session.identity, session.handle
    tokens = relying_party.vault.open(session.vault, identity)
    # First, and whatever the provider does: a logout that waits for somebody else is none.
    await session.destroy()
    url = None
    if identity is not None:
        await relying_party.sessions.events.emit("logout.local", handle=handle, identity=identity)
        url = await relying_party.end_session_url(tokens.id_token if tokens else None)
    return Redirect(url or relying_party.config.post_logout_path, status_code=_SEE_OTHER, headers={"clear-site-data": _CLEAR})


@post("/backchannel-logout", status_code=200, opt={"session": False, "cross_site": True}, summary="Back-channel logout")
async def backchannel_logout(request: AnyRequest, relying_party: RelyingPartyDependency) -> Response[Any]:
    """Take a logout token from the provider (Back-Channel Logout 1.0, 2.5 and 2.8). No cookie is read or set."""
    events = relying_party.sessions.events
    try:
        order = await relying_party.provider_logout.by_token(await _logout_token(request))
    except LogoutTokenError as error:
        await events.emit("logout.rejected", reason=error.reason)
        return Response(problem(error), status_code=_BAD_REQUEST, media_type="application/problem+json")
    except SessionCoreError as error:
        await events.emit("logout.rejected", reason=_reason(error))
        raise
    await events.emit("logout.backchannel", reason="sid" if order.sid else "sub")
    return Response(b"", status_code=200, media_type=MediaType.TEXT)


@get("/backchannel-logout", status_code=_NOT_ALLOWED, opt={"session": False}, include_in_schema=False)
async def backchannel_logout_by_get() -> Response[Any]:
    """Refuse; a route of its own only so that this answer, too, says no-store."""
    return Response(b"", status_code=_NOT_ALLOWED, media_type=MediaType.TEXT, headers={"allow": "POST"})


@get("/frontchannel-logout", opt={"session": False}, media_type=MediaType.HTML, summary="Front-channel logout")
async def frontchannel_logout(request: AnyRequest, relying_party: RelyingPartyDependency) -> Response[str]:
    """End the session of `iss` and `sid` (Front-Channel Logout 1.0, 3), from an invisible frame on a page of the provider.

    The frame is cross-site, so no cookie comes with it: the session is found by what the provider says.
    """
    metadata = relying_party.discovery.known
    try:
        params = single_params(request.scope["query_string"], LogoutTokenError)
        sid = optional_text(dict(params), "sid", LogoutTokenError)
        if sid is None or params.get("iss") != relying_party.provider.issuer:
            raise LogoutTokenError("frontchannel_parameters")  # noqa: TRY301 - the same end as the others
    except LogoutTokenError as error:
        await relying_party.sessions.events.emit("logout.rejected", reason=error.reason)
        raise
    await relying_party.provider_logout.by_frame(sid)
    origins = {relying_party.provider.origin}
    if metadata is not None and metadata.end_session_endpoint is not None:
        origins.add(origin_of_url(metadata.end_session_endpoint))
    policy = f"default-src 'none'; frame-ancestors {' '.join(sorted(origins))}"
    return Response("", media_type=MediaType.HTML, headers={"content-security-policy": policy})


def oidc_router(relying_party: RelyingParty) -> Router:
    """Return the routes under /auth."""
    return Router(
        path="/auth",
        route_handlers=[login, callback, logout, backchannel_logout, backchannel_logout_by_get, frontchannel_logout],
        dependencies={"relying_party": Provide(lambda: relying_party, sync_to_thread=False)},
        middleware=[AuthHeaders()],
        tags=["login"],
    )


async def _enter(relying_party: RelyingParty, session: SessionHandle[Any], finished: FinishedLogin) -> None:
    """Make a checked login the browser's session, under a new id."""
    hook = relying_party.config.on_login
    change = await hook(finished.identity, finished.claims, session) if hook else None
    vault = relying_party.vault.seal(finished.tokens, finished.identity)
    try:
        await session.login(finished.identity, vault=vault, started_at=finished.started_at)
    except SessionGoneError:
        # The provider ended this very login while it was under way; not a 401, which would send the browser to log in.
        raise AuthorizationResponseError("ended_by_provider") from None
    if change is not None:
        try:
            await session.update(change)
        except BaseException:
            await session.destroy()
            raise


async def _logout_token(request: AnyRequest) -> str:
    """Read the one parameter of a back-channel logout request, bounded. Raises `LogoutTokenError`."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise LogoutTokenError("content_type")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise LogoutTokenError("body_too_large")
    token = single_params(bytes(body), LogoutTokenError, max_bytes=_MAX_BODY).get("logout_token")
    if not token:
        raise LogoutTokenError("logout_token_missing")
    return token


def _reason(error: SessionCoreError) -> str:
    return error.reason if isinstance(error, OidcError) else error.code


def _queued_cookies(scope: Scope) -> list[bytes]:
    queued: list[bytes] = cast("dict[str, Any]", scope).setdefault(_COOKIES_KEY, [])
    return queued
