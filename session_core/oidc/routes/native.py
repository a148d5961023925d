"""The routes of a native client's login: two for the user's browser, one for the client itself (RFC 8252)."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from session_core.asgi.answers import is_browser_navigation
from session_core.asgi.middleware import SCOPE_KEY
from session_core.asgi.same_origin import is_user_navigation
from session_core.asgi.web import HTML, JSON, PROBLEM, Redirect, Response, WebRequest
from session_core.errors import (
    CrossSiteRequestError,
    NativeLoginError,
    OidcError,
    TooManyRequestsError,
)
from session_core.identity import Identity
from session_core.oidc.login.authorization_response import single_params
from session_core.oidc.login.native_request import NATIVE_PARAMS, NativeRequest, read_native_request, read_token_request
from session_core.oidc.login.request import carried_params, read_login_request
from session_core.oidc.native_clients import NativeClient
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.relying_party import FinishedLogin
from session_core.oidc.routes.bounded import limited, read_form_body
from session_core.oidc.routes.leaving import leave_for_client
from session_core.oidc.routes.login import begin_login, enter, reason_of
from session_core.oidc.routes.provider_choice import chosen_party
from session_core.oidc.routes.route import NO_CONTENT, Route
from session_core.sessions.handle import SessionHandle
from session_core.sessions.snapshot import Snapshot

__all__ = ("native_routes",)

_TEMPORARY: Final = 307
_LEADS: Final = {200: (HTML,), 303: NO_CONTENT, _TEMPORARY: NO_CONTENT}
_REDEEMS: Final = {200: (JSON,), 400: (JSON, PROBLEM)}
"""The errors of RFC 6749 5.2 are JSON; a request that presents a session at the same time is a problem."""
_NOT_CARRIED: Final = frozenset({"next", "option"})
"""The parameters of a login link that do not apply to a native client."""
_NO_CACHE: Final = {"cache-control": "no-store", "pragma": "no-cache"}
_POLICY: Final = "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Log in</title></head>
<body><main><h1>Log in to {name}?</h1>
<p>The application <strong>{name}</strong> on this device wants to use your account. Go on only if you have just started to log in
there.</p>
<form method="post" action="{action}">{fields}{buttons}</form>
<p><a href="{start}">Cancel</a></p></main></body></html>
"""


def native_routes(relying_parties: RelyingParties) -> list[Route]:
    """Return the routes; none without native clients."""
    if not relying_parties.config.native_clients:
        return []
    shared: dict[str, Any] = {"session": True, "answers": _LEADS}
    return [
        Route("GET", "/authorize", ask, "Start the login of a native client", safe=True, **shared, errors=(400, 403)),
        Route("POST", "/authorize", authorize, "Go on with that login", 303, **shared, errors=(400, 429)),
        Route("POST", "/token", token, "Redeem the code of a native client", session=True, answers=_REDEEMS, errors=(429,)),
    ]


async def ask(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Ask the user whether a native client may log in (RFC 8252 8.6: another program may use its name).

    Query: `response_type=code`, `client_id`, `redirect_uri`, `state`, `code_challenge` and `code_challenge_method=S256`, and what
    `GET /auth/login` takes except `next`.
    """
    del provider_id
    events, base = relying_parties.sessions.events, relying_parties.base.at(request.scope)
    request.refuse_token()
    if not is_user_navigation(request.scope["headers"]):
        await events.emit("request.cross_site", reason="login_without_navigation")
        raise CrossSiteRequestError
    if (address := base.elsewhere(request.scope)) is not None:
        return Redirect(address, status_code=_TEMPORARY)
    query = request.scope["query_string"]
    native, client, problem = await _read(relying_parties, query)
    if problem is not None:
        return _back(request, native, problem)
    carried = single_params(query, NativeLoginError, only=frozenset(NATIVE_PARAMS))
    carried |= carried_params(query, relying_parties.link_params)
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in carried.items()
        if name not in _NOT_CARRIED
    )
    page = _PAGE.format(
        name=escape(client.name),
        action=escape(base.of("/auth/authorize")),
        fields=fields,
        buttons=_buttons(relying_parties, query),
        start=escape(base.of("/")),
    )
    return Response(page, media_type=HTML, headers={"content-security-policy": _POLICY})


async def authorize(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Send the browser of a native client to the provider, after the user has agreed. From our own page only."""
    del provider_id
    body = await read_form_body(request, NativeLoginError)
    native, _, problem = await _read(relying_parties, body)
    if problem is not None:
        return _back(request, native, problem)
    try:
        return await begin_login(request, relying_parties, body, native=native)
    except OidcError as error:
        unavailable = "temporarily_unavailable" if error.status_code != NativeLoginError.status_code else "invalid_request"
        return _back(request, native, NativeLoginError(error.reason, error=unavailable))


async def token(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Give a native client its token for the code that its browser came back with (RFC 6749 4.1.3, RFC 7636 4.5).

    Form: `grant_type=authorization_code`, `code`, `redirect_uri`, `client_id`, `code_verifier`. Neither cookie nor token.
    """
    del provider_id
    request.refuse_token()
    session: SessionHandle[Any] = request.scope[SCOPE_KEY]
    session.use_bearer()
    events = relying_parties.sessions.events
    identity: Identity | None = None
    try:
        body = await limited(request, relying_parties, "token", lambda: read_form_body(request, NativeLoginError))
        pending, finished = await relying_parties.native.redeem(read_token_request(body))
        identity = finished.identity
        await _enter(relying_parties, session, pending, finished)
    except OidcError as error:
        await events.emit("login.failed", identity=identity, reason=error.reason)
        code = error.error if isinstance(error, NativeLoginError) else "invalid_grant"
        return Response({"error": code}, status_code=NativeLoginError.status_code, media_type=JSON, headers=_NO_CACHE)
    except Exception as error:
        session.cookie_action = None  # no token in the header either: whether sessions of the user were revoked is not known
        if not isinstance(error, TooManyRequestsError):
            await events.emit("login.failed", identity=identity, reason=reason_of(error))
        raise
    left = (session.absolute_expires_at or 0) - relying_parties.sessions.clock.now()
    answer = {"access_token": session.new_token, "token_type": "Bearer", "expires_in": left // 1000}
    return Response(answer, media_type=JSON, headers=_NO_CACHE)


async def _enter(
    relying_parties: RelyingParties, session: SessionHandle[Any], pending: Snapshot, finished: FinishedLogin
) -> None:
    party = relying_parties.of_session(finished.tokens.provider, finished.identity)
    if party is None:
        raise NativeLoginError("unknown_provider", error="invalid_grant")
    session.take_over(pending)
    try:
        await enter(party, session, finished)
    except OidcError:
        # Refused by the application, ended by the provider, or redeemed by another request at this moment.
        if await relying_parties.native.withdraw(pending.key):
            raise
        raise NativeLoginError("code_used_or_expired", error="invalid_grant") from None
    # Again, now that a revocation finds the session: one since the first check ended nothing.
    if await relying_parties.native.is_outdated(pending, finished.identity):
        await session.destroy()
        raise NativeLoginError("code_older_than_revocation", error="invalid_grant")


async def _read(relying_parties: RelyingParties, params: bytes) -> tuple[NativeRequest, NativeClient, NativeLoginError | None]:
    """Read the request of a native client; emit an event if it is invalid."""
    try:
        origin = relying_parties.config.base.origin
        native, client, problem = read_native_request(params, relying_parties.config.native_clients, origin=origin)
        if problem is None:
            try:
                chosen_party(relying_parties, read_login_request(params, relying_parties.link_params))
            except OidcError as error:
                problem = NativeLoginError(error.reason)
    except OidcError as error:
        await relying_parties.sessions.events.emit("login.failed", reason=error.reason)
        raise
    if problem is not None:
        await relying_parties.sessions.events.emit("login.failed", reason=problem.reason)
    return native, client, problem


def _buttons(relying_parties: RelyingParties, query: bytes) -> str:
    """Return one button, or one for each provider where the request names none of several."""
    asked = read_login_request(query, relying_parties.link_params)
    party = chosen_party(relying_parties, asked)
    parties = list(relying_parties) if party is None else [party]
    several = len(parties) > 1
    return "".join(
        f'<p><button name="provider" value="{escape(each.provider.id)}">Continue'
        f"{' with ' + escape(each.provider.title or each.provider.id) if several else ''}</button></p>"
        for each in parties
    )


def _back(request: WebRequest, native: NativeRequest, error: NativeLoginError) -> Response:
    return leave_for_client(native.address(error=error.error), by_page=is_browser_navigation(request))
