"""The HTTP routes of a login: calls the relying party and turns its results into responses."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from session_core.asgi.answers import is_browser_navigation
from session_core.asgi.same_origin import is_speculative, is_user_navigation
from session_core.asgi.web import HTML, JSON, Redirect, Response, WebRequest
from session_core.asgi_types import Headers
from session_core.concurrency import together
from session_core.errors import (
    AuthorizationResponseError,
    CrossSiteRequestError,
    LoginCancelledError,
    OidcError,
    SessionCoreError,
    SessionGoneError,
    TooManyRequestsError,
)
from session_core.events import EventName, Events
from session_core.identity import Identity
from session_core.oidc.config import LoginOptions, OidcConfig
from session_core.oidc.login.native_request import NativeRequest
from session_core.oidc.login.request import LoginRequest, carried_params, read_initiated_login, read_login_request, return_to_of
from session_core.oidc.provider.registration import DEFAULT_ID
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.relying_party import Callback, FinishedLogin, RelyingParty, SilentRefusal
from session_core.oidc.routes.auth_headers import queued_cookies
from session_core.oidc.routes.bounded import limited, read_form_body
from session_core.oidc.routes.leaving import leave, leave_for_client
from session_core.oidc.routes.provider_choice import choice_response, chosen_party, usual_party
from session_core.oidc.routes.route import NO_CONTENT, NoSuchProviderError, Route, party_at
from session_core.sessions.handle import SessionHandle
from session_core.sessions.store_order import Moment
from session_core.sessions.timeouts import Timeouts

__all__ = ("begin_login", "enter", "login_routes", "reason_of")

_SEE_OTHER: Final = 303
_TEMPORARY: Final = 307
_UNAVAILABLE: Final = 503
_REFUSALS: Final = range(400, 500)


def login_routes(relying_parties: RelyingParties) -> list[Route]:
    """Return the routes for these providers: without an id for the one named `default`, with the id for others."""
    providers = [party.provider for party in relying_parties]
    named = any(provider.id != DEFAULT_ID for provider in providers)
    plain = any(provider.id == DEFAULT_ID for provider in providers)
    posting = {provider.id for provider in providers if provider.response_mode == "form_post"}
    routes = [
        Route("GET", "/login", login, summary="Start a login", session=True, answers=_START, errors=_ERRORS),
        Route("POST", "/login", initiated_login, summary="Start a login for another site", **_POSTED),
    ]
    if named:
        start = "Start a login at a provider"
        routes.append(Route("GET", "/login", login, start, session=True, by_provider=True, answers=_START, errors=_ERRORS))
    for by_provider, exists, posts in ((False, plain, DEFAULT_ID in posting), (True, named, bool(posting - {DEFAULT_ID}))):
        if exists:
            routes.append(Route("GET", "/callback", callback, by_provider=by_provider, **_FINISH))
        if posts:
            summary = "Receive the provider's form"
            routes.append(Route("POST", "/callback", posted_callback, summary, by_provider=by_provider, **_POSTED))
            routes.append(Route("GET", "/continue", continue_login, by_provider=by_provider, **_FINISH))
    return routes


_ERRORS: Final = (400, 401, 403, 409, 429, 502, 503)
_START: Final = {200: (HTML, JSON), _SEE_OTHER: NO_CONTENT, _TEMPORARY: NO_CONTENT}
_REDIRECTS: Final[dict[str, Any]] = {"status": _SEE_OTHER, "answers": {_SEE_OTHER: NO_CONTENT}}
_POSTED: Final = {**_REDIRECTS, "errors": (400, 429, 503)}
_FINISH: Final = {**_REDIRECTS, "summary": "Finish a login", "session": True, "errors": _ERRORS}


async def login(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Send the browser to the identity provider (OpenID Connect Core 3.1.2.1), or to a choice of them.

    Query: `next` (a local path; ignored when it is none), `provider` or `iss`, and optionally `max_age`, `acr_values`, `prompt`,
    `login_hint`, `ui_locales`, `option`.
    """
    if provider_id is not None:
        party_at(relying_parties, provider_id)
    return await begin_login(request, relying_parties, request.scope["query_string"], path_id=provider_id)


async def initiated_login(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Redirect:
    """Accept a login that another site initiates by POST (OpenID Connect Core 4): `iss`, `login_hint`, `target_link_uri`.

    Only redirects to `GET /auth/login`. This request is cross-site and has no cookies of open logins, so it must not start one.
    """
    del provider_id
    try:
        params = read_initiated_login(await _read_body(request))
        if relying_parties.by_issuer(params["iss"]) is None:
            raise AuthorizationResponseError("unknown_issuer")
    except OidcError as error:
        await relying_parties.sessions.events.emit("login.failed", reason=error.reason)
        raise
    path = relying_parties.base.at(request.scope).of("/auth/login")
    return Redirect(f"{path}?{urlencode(params, quote_via=quote)}")


async def callback(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Receive the provider's response. On success: a new session id and a redirect to `next`; else an error and no change."""
    return await _finish(request, relying_parties, _party(relying_parties, provider_id), posted=False)


async def posted_callback(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Redirect:
    """Receive the provider's response as a form (OAuth 2.0 Form Post Response Mode) and continue by GET with the session."""
    party = _party(relying_parties, provider_id)
    request.refuse_token()
    try:
        body = await limited(request, relying_parties, "callback", lambda: _read_body(request))
        state, cookie = party.receive_post(body, list(request.scope["headers"]))
    except OidcError as error:
        await party.sessions.events.emit("login.failed", reason=error.reason)
        _begin_again(error, relying_parties, party)
        raise
    queued_cookies(request.scope).append(cookie)
    path = party.base.at(request.scope).of("/auth/continue" if provider_id is None else f"/auth/continue/{provider_id}")
    return Redirect(f"{path}?{urlencode({'state': state})}")


async def continue_login(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Finish a login whose response was posted."""
    return await _finish(request, relying_parties, _party(relying_parties, provider_id), posted=True)


async def begin_login(
    request: WebRequest,
    relying_parties: RelyingParties,
    query: bytes,
    *,
    path_id: str | None = None,
    native: NativeRequest | None = None,
) -> Response:
    """Send the browser to the provider that `query` or the path names. `native`: the client that gets the session."""
    request.refuse_token()
    headers = request.scope["headers"]
    events, base = relying_parties.sessions.events, relying_parties.base.at(request.scope)
    # Prefetchers, images and frames follow links too; a login that the user does not see would only add cookies.
    if not is_user_navigation(headers):
        await events.emit("request.cross_site", reason="login_without_navigation")
        raise CrossSiteRequestError
    if (address := base.elsewhere(request.scope)) is not None:
        return Redirect(address, status_code=_TEMPORARY)
    asked: LoginRequest | None = None
    party: RelyingParty | None = None
    try:
        begun, session = await limited(request, relying_parties, "login", lambda: _moment_and_session(request, relying_parties))
        also = relying_parties.link_params
        asked = read_login_request(query, also)
        if asked.option is not None:
            asked = _with_option(asked, relying_parties.config, headers)
        party = chosen_party(relying_parties, asked, path_id)
        if party is None:
            party = usual_party(relying_parties, session.identity if len(relying_parties) > 1 else None)
        if party is None and (asked.prompt == "none" or native is not None):
            raise AuthorizationResponseError("provider_not_chosen")
        if party is None:
            return choice_response(request, relying_parties, carried_params(query, also))
        hint = _id_token_hint(session, relying_parties, party) if asked.prompt == "none" else None
        revoked = await session.was_revoked()
        url, cookies = await party.start_login(
            asked, list(headers), begun, base=base, id_token_hint=hint, reauthenticate=revoked, native=native
        )
    except OidcError as error:
        if asked is not None and asked.prompt == "none" and native is None:  # a silent login always leads to its page
            await events.emit("login.silent_failed", reason=error.reason)
            return Redirect(return_to_of(asked, base))
        await events.emit("login.failed", reason=error.reason)
        _begin_again(error, relying_parties, party, return_to=None if asked is None else return_to_of(asked, base))
        raise
    queued_cookies(request.scope).extend(cookies)
    await events.emit("login.started")
    return leave(url, by_page=(asked.page or native is not None) and is_browser_navigation(request))


async def _moment_and_session(request: WebRequest, relying_parties: RelyingParties) -> tuple[Moment, SessionHandle[Any]]:
    """Return the time in the store's order and the session, read concurrently."""
    moment, session = await asyncio.gather(relying_parties.sessions.moment(), request.session())
    return moment, session


def _id_token_hint(session: SessionHandle[Any], relying_parties: RelyingParties, party: RelyingParty) -> str | None:
    """Return the ID token of the current login at this provider; some providers need it with `prompt=none`."""
    tokens = relying_parties.vault.open(session.vault, session.identity)
    if session.identity is None or tokens is None or not party.provider.is_issuer(session.identity.issuer):
        return None
    return tokens.id_token


def _read_body(request: WebRequest) -> Coroutine[Any, Any, bytes]:
    return read_form_body(request, AuthorizationResponseError)


async def _finish(request: WebRequest, relying_parties: RelyingParties, party: RelyingParty, *, posted: bool) -> Response:
    request.refuse_token()
    events, cookies = party.sessions.events, queued_cookies(request.scope)
    query, headers = request.scope["query_string"], list(request.scope["headers"])
    if is_speculative(headers):  # it would use up the code before the user does
        await events.emit("request.cross_site", reason="callback_prefetch")
        raise CrossSiteRequestError
    handle: str | None = None
    identity: Identity | None = None
    received: Callback | None = None
    try:
        session = await limited(request, relying_parties, "continue" if posted else "callback", request.session)
        handle = session.handle
        if session.identity is not None and (led_to := party.repeated_login(query, headers)) is not None:
            return Redirect(led_to)
        base = party.base.at(request.scope)
        received, revoked = await _receive(session, party.receive_callback(query, headers, cookies, base=base, posted=posted))
        cookies += party.spent_cookies(received)
        _refuse_revoked(received, revoked=revoked)
        finished = await party.finish_login(received)
        if isinstance(finished, SilentRefusal):
            await events.emit("login.silent_failed", handle=handle, reason=finished.reason)
        if received.transaction.native is not None:
            return await _finish_native(request, relying_parties, received, finished, received.transaction.native)
        if not isinstance(finished, SilentRefusal):
            identity = finished.identity
            await enter(party, session, finished)
            cookies.append(party.transactions.finish_header(received.transaction, received.response.code))
        return Redirect(finished.return_to)
    except SessionCoreError as error:
        led_to = party.silent_return_to(query, headers, error)
        await _report(events, handle, identity, error, silent=led_to is not None)
        if led_to is not None:
            return Redirect(led_to)
        return_to = None if received is None else received.transaction.return_to
        _begin_again(error, relying_parties, party, return_to=return_to)
        if received is None or received.transaction.native is None:
            raise
        return await _answer_native(request, relying_parties, received.transaction.native, error)
    except Exception as error:
        await events.emit("login.failed", handle=handle, identity=identity, reason=reason_of(error))
        raise


def reason_of(error: Exception) -> str:
    """Return why a login failed, for its event. What the hook raises is a refusal only if its status says so."""
    if isinstance(error, SessionCoreError):
        return error.reason if isinstance(error, OidcError) else error.code
    return "refused_by_application" if getattr(error, "status_code", None) in _REFUSALS else "application_failed"


async def _report(
    events: Events, handle: str | None, identity: Identity | None, error: SessionCoreError, *, silent: bool
) -> None:
    """Emit the event of a failed login; the limit of callbacks has its own."""
    if silent or not isinstance(error, TooManyRequestsError):
        name: EventName = "login.silent_failed" if silent else "login.failed"
        await events.emit(name, handle=handle, identity=identity, reason=reason_of(error))


def _begin_again(
    error: SessionCoreError, relying_parties: RelyingParties, party: RelyingParty | None, *, return_to: str | None = None
) -> None:
    """Let the error's "try again" lead to the same page and, where there are several, to the same provider."""
    error.return_to = return_to or error.return_to
    if party is not None and len(relying_parties) > 1:
        error.provider = party.provider.id


async def _receive(session: SessionHandle[Any], receiving: Coroutine[Any, Any, Callback]) -> tuple[Callback, bool]:
    """Claim the login and check whether the browser's session was revoked, in one round trip to the store."""
    received, revoked = asyncio.ensure_future(receiving), asyncio.ensure_future(session.was_revoked())
    await together(received, revoked)
    return received.result(), revoked.result()


def _refuse_revoked(received: Callback, *, revoked: bool) -> None:
    """Refuse a login if the browser's session was revoked after the login began: the authentication may be older."""
    if revoked and not received.transaction.reauthenticate:
        raise AuthorizationResponseError("reauthentication_required")


async def _finish_native(
    request: WebRequest,
    relying_parties: RelyingParties,
    received: Callback,
    finished: FinishedLogin | SilentRefusal,
    native: NativeRequest,
) -> Response:
    """Answer the login of a native client, or send its browser to the provider once more, to authenticate.

    That is if sessions of the user were revoked since the authentication: the client's may be one of them, and single sign-on
    would restore it.
    """
    transaction, sessions = received.transaction, relying_parties.sessions
    if (
        isinstance(finished, SilentRefusal)
        or transaction.reauthenticate
        or not await sessions.needs_authentication(finished.identity)
    ):
        return await _answer_native(request, relying_parties, native, finished)
    if transaction.silent:
        await sessions.events.emit("login.silent_failed", reason="reauthentication_required")
        refusal = SilentRefusal("login_required", transaction.return_to)
        return await _answer_native(request, relying_parties, native, refusal)
    party = party_at(relying_parties, transaction.provider)
    url, cookies = await party.start_login(
        LoginRequest(
            max_age=transaction.max_age,
            acr_values=transaction.acr_values,
            login_hint=transaction.hints.get("login_hint"),
            ui_locales=transaction.hints.get("ui_locales"),
            others=transaction.hints,
        ),
        list(request.scope["headers"]),
        await sessions.moment(),
        base=party.base.at(request.scope),
        id_token_hint=None,
        reauthenticate=True,
        native=native,
    )
    queued_cookies(request.scope).extend(cookies)
    await sessions.events.emit("login.started", reason="reauthentication_required")
    return leave(url, by_page=False)


async def enter(party: RelyingParty, session: SessionHandle[Any], finished: FinishedLogin) -> None:
    """Log the validated user in, under a new session id."""
    hook = party.config.on_login
    result = await hook(finished.identity, finished.claims, session) if hook else None
    decided = result if isinstance(result, LoginOptions) else LoginOptions(change=result)
    chosen = party.config.login_options.get(finished.option or "") or _kept_options(session, finished.identity)
    vault = party.connection.vault.seal(finished.tokens, finished.identity)
    try:
        await session.login(
            finished.identity,
            first=decided.change,
            vault=vault,
            begun=finished.begun,
            timeouts=chosen.timeouts if decided.timeouts is None else decided.timeouts,
            persistent=chosen.persistent if decided.persistent is None else decided.persistent,
        )
    except SessionGoneError as error:
        # The provider ended this login while it was in progress, or the user's session was revoked. Not a 401, which would
        # redirect to the login again.
        raise AuthorizationResponseError("reauthentication_required" if error.revoked else "ended_by_provider") from None
    if party.connection.notes is not None and session.key is not None:
        until = session.absolute_expires_at or 0
        await party.connection.notes.add(session.key, finished.identity, finished.tokens, absolute_expires_at=until)


def _with_option(asked: LoginRequest, config: OidcConfig, headers: Headers) -> LoginRequest:
    """Return what was asked without an option that a page of another site chose: that is the user's or the application's choice.

    Raises `AuthorizationResponseError` for a name that is not configured.
    """
    if asked.option not in config.login_options:
        raise AuthorizationResponseError("login_parameter")
    site = next((value for name, value in headers if name == b"sec-fetch-site"), b"none")
    return asked if site in {b"same-origin", b"none"} else msgspec.structs.replace(asked, option=None)


def _kept_options(session: SessionHandle[Any], identity: Identity) -> LoginOptions:
    """Return the options of the session that the same user has here: a step-up must neither forget nor lengthen them."""
    record = session.snapshot.record.without_impersonation() if session.snapshot is not None else None
    if record is None or not identity.is_same_user(record.identity):
        return LoginOptions()
    absolute = (record.absolute_expires_at - record.created_at) // 1000
    return LoginOptions(timeouts=Timeouts(record.idle, absolute) if record.idle else None, persistent=record.persistent)


async def _answer_native(
    request: WebRequest,
    relying_parties: RelyingParties,
    native: NativeRequest,
    outcome: FinishedLogin | SilentRefusal | SessionCoreError,
) -> Response:
    """Redirect the browser to the native client, with a code or an error (RFC 6749 4.1.2.1).

    The session of the browser itself stays as it is.
    """
    if isinstance(outcome, SessionCoreError):
        denied = isinstance(outcome, LoginCancelledError)
        failed = "temporarily_unavailable" if outcome.status_code == _UNAVAILABLE else "server_error"
        address = native.address(error="access_denied" if denied else failed)
    elif isinstance(outcome, SilentRefusal):
        address = native.address(error=outcome.reason)
    else:
        address = native.address(code=await relying_parties.native.issue(native, outcome))
    return leave_for_client(address, by_page=is_browser_navigation(request))


def _party(relying_parties: RelyingParties, provider_id: str | None) -> RelyingParty:
    # Each provider has one address; that of `default` has no id.
    if provider_id == DEFAULT_ID:
        raise NoSuchProviderError
    return party_at(relying_parties, provider_id or DEFAULT_ID)
