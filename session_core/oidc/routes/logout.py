"""The HTTP routes of a logout, by the user and by the provider."""

from __future__ import annotations

from typing import Any, Final

from session_core.asgi.answers import is_browser_navigation, problem
from session_core.asgi.web import HTML, JSON, PROBLEM, Redirect, Response, WebRequest
from session_core.errors import LogoutTokenError, OidcError, SessionCoreError, TooManyRequestsError
from session_core.oidc.login.authorization_response import single_params
from session_core.oidc.provider.registration import DEFAULT_ID
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.relying_party import RelyingParty
from session_core.oidc.routes.bounded import count, limited, read_form_body
from session_core.oidc.routes.leaving import leave, leave_by_form
from session_core.oidc.routes.route import NO_CONTENT, NoSuchProviderError, Route, party_at
from session_core.oidc.verify.claims import optional_sid
from session_core.urls import origin_of

__all__ = ("logout_routes",)

_SEE_OTHER: Final = 303
_BAD_REQUEST: Final = 400
_NOT_ALLOWED: Final = 405
_MAX_BODY: Final = 81_920
_CLEAR: Final = '"cache", "storage"'
"""The `Clear-Site-Data` of a logout: cached pages and script storage. Not "cookies": that would also delete login transactions of
other tabs and cookies of sibling hosts; the session cookie is deleted by name."""


def logout_routes(relying_parties: RelyingParties) -> list[Route]:
    """Return the routes for these providers: without an id, and for a provider with an id also with it."""
    answers = {200: (HTML, JSON), _SEE_OTHER: NO_CONTENT}
    routes = [Route("POST", "/logout", logout, "Log out", status=_SEE_OTHER, session=True, answers=answers, errors=(403, 503))]
    named = any(party.provider.id != DEFAULT_ID for party in relying_parties)
    for by_provider, of in ((False, ""), (True, " of a provider")) if named else ((False, ""),):
        kind: dict[str, Any] = {"by_provider": by_provider, "errors": (400, 429, 503)}
        frame = {200: (HTML,)}
        routes += [
            Route("POST", "/backchannel-logout", backchannel_logout, f"Back-channel logout{of}", **kind),
            Route("GET", "/backchannel-logout", backchannel_logout_by_get, "", _NOT_ALLOWED, by_provider=by_provider, safe=True),
            Route("GET", "/frontchannel-logout", frontchannel_logout, f"Front-channel logout{of}", answers=frame, **kind),
        ]
    return routes


async def logout(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """End the session here, then send the browser to its provider to end the one there (RP-Initiated Logout 1.0).

    A client that accepts JSON and no HTML, or has a bearer token, gets `{"logout_url"}`, null if the provider has no logout:
    `fetch` would follow a redirect without showing the provider's page. If the ID token is too long for a URL, `logout_form` is
    the form to post instead, `{"action", "fields"}`.
    """
    del provider_id
    session = await request.session()
    handle, base = session.handle, relying_parties.base.at(request.scope)
    # Of an administrator who acts as another user it is the own login that ends.
    record = session.snapshot.record if session.snapshot is not None else None
    identity = record.identity if record is not None else None
    tokens = relying_parties.vault.open(record.vault, identity) if record is not None else None
    # First: a logout must not depend on the provider.
    await session.destroy()
    end = None
    if identity is not None:
        await relying_parties.sessions.events.emit("logout.local", handle=handle, identity=identity)
        party = relying_parties.of_session(tokens.provider if tokens else None, identity)
        if party is not None:
            await relying_parties.revocation.revoke(party.connection, tokens, handle=handle)
            end = await party.end_session(tokens.id_token if tokens else None, base=base)
    headers = {} if request.presents_token else {"clear-site-data": _CLEAR}
    accepted = request.headers.get("accept", "")
    if request.presents_token or ("application/json" in accepted and "text/html" not in accepted):
        answer: dict[str, Any] = {"logout_url": end.url if end is not None else None}
        if end is not None and end.form is not None:
            answer["logout_form"] = {"action": end.action, "fields": end.form}
        return Response(answer, media_type=JSON, headers=headers)
    if end is None:
        return Redirect(base.of(relying_parties.config.post_logout_path), headers=headers)
    if end.form is not None and is_browser_navigation(request):
        return leave_by_form(end.action, end.form, headers=headers)
    return leave(end.url, by_page=is_browser_navigation(request), headers=headers)


async def backchannel_logout(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Receive a logout token from a provider (Back-Channel Logout 1.0, 2.5 and 2.8). Reads and sets no cookie."""
    party, events = _party(relying_parties, provider_id), relying_parties.sessions.events
    try:
        token = await limited(request, relying_parties, "logout_token", lambda: _logout_token(request))
        order = await (party or relying_parties.by_logout_token(token)).provider_logout.by_token(token)
    except LogoutTokenError as error:
        await events.emit("logout.rejected", reason=error.reason)
        return Response(problem(error), status_code=_BAD_REQUEST, media_type=PROBLEM)
    except TooManyRequestsError:
        raise
    except SessionCoreError as error:
        await events.emit("logout.rejected", reason=error.reason if isinstance(error, OidcError) else error.code)
        raise
    await events.emit("logout.backchannel", reason="sid" if order.sid else "sub")
    return Response()


async def backchannel_logout_by_get(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Answer 405; a separate route so that this response has `no-store` as well."""
    del request, relying_parties, provider_id
    return Response(status_code=_NOT_ALLOWED, headers={"allow": "POST"})


async def frontchannel_logout(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """End the session of `iss` and `sid` (Front-Channel Logout 1.0, 3), from an invisible frame on a page of the provider.

    The frame is cross-site and has no cookie: the session is found by the parameters.
    """
    party = _party(relying_parties, provider_id)
    try:
        params = single_params(request.scope["query_string"], LogoutTokenError)
        sid = optional_sid(params.get("sid"))
        found = relying_parties.by_issuer(params.get("iss"))
        if sid is None or found is None or party not in {None, found}:
            raise LogoutTokenError("frontchannel_parameters")  # noqa: TRY301 - the same end as the others
    except LogoutTokenError as error:
        await relying_parties.sessions.events.emit("logout.rejected", reason=error.reason)
        raise
    await count(request, relying_parties, "logout_frame")
    await found.provider_logout.by_frame(params["iss"], sid)
    metadata, origins = found.connection.discovery.known, {found.provider.origin}
    if metadata is not None and metadata.end_session_endpoint is not None:
        origins.add(origin_of(metadata.end_session_endpoint))
    policy = f"default-src 'none'; frame-ancestors {' '.join(sorted(origins))}"
    return Response("", media_type=HTML, headers={"content-security-policy": policy})


async def _logout_token(request: WebRequest) -> str:
    """Read the only parameter of a back-channel logout request, bounded. Raises `LogoutTokenError`."""
    body = await read_form_body(request, LogoutTokenError, max_bytes=_MAX_BODY)
    token = single_params(body, LogoutTokenError, max_bytes=_MAX_BODY).get("logout_token")
    if not token:
        raise LogoutTokenError("logout_token_missing")
    return token


def _party(relying_parties: RelyingParties, provider_id: str | None) -> RelyingParty | None:
    if provider_id == DEFAULT_ID:
        raise NoSuchProviderError
    return None if provider_id is None else party_at(relying_parties, provider_id)
