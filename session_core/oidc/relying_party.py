"""The steps of a login and a logout at one provider, in order. Independent of HTTP frameworks.

start_login -> (browser, provider) -> receive_callback -> finish_login -> session.login
"""

from __future__ import annotations

import hmac
import secrets
from typing import Any, Final

import msgspec

from session_core.errors import AuthorizationResponseError, DiscoveryError, LoginCancelledError, OidcError, SessionCoreError
from session_core.identity import Identity
from session_core.ids import SecretStruct
from session_core.oidc.config import OidcConfig
from session_core.oidc.connection import ProviderConnection
from session_core.oidc.login.authorization_request import AuthorizationRequests
from session_core.oidc.login.authorization_response import AuthorizationResponse, check_code, read_authorization_response
from session_core.oidc.login.form_post import PostedResponses
from session_core.oidc.login.native_request import NativeRequest
from session_core.oidc.login.request import LoginRequest, login_demands, return_to_of
from session_core.oidc.login.single_use import use_up
from session_core.oidc.login.transaction import LoginTransaction, LoginTransactions, ResponseMode
from session_core.oidc.logout.provider_logout import ProviderLogout
from session_core.oidc.provider.authlib_client import address_with
from session_core.oidc.provider.discovery import ProviderMetadata
from session_core.oidc.provider.registration import Registration
from session_core.oidc.tokens.vault import TokenSet
from session_core.sessions.manager import SessionManager
from session_core.sessions.store_order import Moment
from session_core.urls import BaseUrl

__all__ = ("Callback", "FinishedLogin", "ProviderEndSession", "RelyingParty", "SilentRefusal")

_OF_A_SILENT_LOGIN: Final = frozenset({"state_expired", "reauthentication_required", "ended_by_provider", "code_malformed"})
_MAX_HINT_CHARS: Final = 6000
"""An ID token longer than this does not fit into a URL everywhere."""


class ProviderEndSession(SecretStruct, frozen=True):
    """Where a browser logs out at the provider: a URL and, if that cannot hold the ID token, a form to post instead.

    `form` has all parameters with `id_token_hint`; `action` is where it is posted.
    """

    url: str
    action: str
    form: dict[str, str] | None = None


class Callback(SecretStruct, frozen=True):
    """A callback of a login that this browser started and has not finished."""

    response: AuthorizationResponse
    transaction: LoginTransaction
    metadata: ProviderMetadata
    redirect_uri: str


class SilentRefusal(msgspec.Struct, frozen=True):
    """A login with `prompt=none` that the provider answered with an error (OpenID Connect Core 3.1.2.6); not a failure."""

    reason: str
    return_to: str


class FinishedLogin(SecretStruct, frozen=True):
    """A login that passed every check and may become a session. `claims`: userinfo below, ID token above."""

    identity: Identity
    claims: dict[str, Any]
    tokens: TokenSet
    begun: Moment
    return_to: str
    option: str | None = None


class RelyingParty:
    """Login and logout at one provider. `connection` calls the provider and validates its responses."""

    def __init__(self, config: OidcConfig, sessions: SessionManager, provider: Registration) -> None:
        self.config = config
        self.provider = provider
        self.sessions = sessions
        self.clock = sessions.clock
        self.connection = ProviderConnection(config, sessions, provider)
        self.base = config.base
        self.transactions = LoginTransactions(config.sealing, self.clock, public_url=config.public_url)
        self.posted = PostedResponses(config.sealing, self.clock, public_url=config.public_url)
        self.requests = AuthorizationRequests(provider, self.connection.http, self.connection.client)
        self.provider_logout = ProviderLogout(self.connection)

    async def start_login(
        self,
        asked: LoginRequest,
        headers: list[tuple[bytes, bytes]],
        begun: Moment,
        *,
        base: BaseUrl,
        id_token_hint: str | None,
        reauthenticate: bool,
        native: NativeRequest | None,
    ) -> tuple[str, list[bytes]]:
        """Return where to send the browser, and the Set-Cookie values of the new transaction.

        `begun` is the time of the request in the store's order (`SessionManager.moment`). `id_token_hint` names the user of a
        silent login (OpenID Connect Core 3.1.2.1). `reauthenticate`: single sign-on is not enough for this login (see
        `SessionHandle.was_revoked`). `native`: the client that gets the session. `base`: the URL at which the browser has reached
        the application; likewise below.

        Raises `AuthorizationResponseError` for invalid parameters, `DiscoveryError` or `TokenExchangeError` (pushed requests)
        when the provider is out, `StoreUnavailableError`; the browser has not left yet.
        """
        demands = login_demands(asked, self.provider, reauthenticate=reauthenticate)
        metadata = await self.connection.discovery.metadata()
        linked = {name: asked.others.get(name) for name in self.provider.link_params}
        optional = {**linked, "login_hint": asked.login_hint, "ui_locales": asked.ui_locales}
        hints = {name: value for name, value in optional.items() if value is not None}
        state, transaction, cookies = self.transactions.start(
            headers,
            provider=self.provider.id,
            return_to=return_to_of(asked, base),
            begun=begun,
            demands=demands,
            response_mode=self.provider.response_mode,
            silent=asked.prompt == "none",
            option=asked.option,
            native=native,
            hints=hints if native is not None else None,
        )
        given = hints | demands.params
        if id_token_hint is not None and len(id_token_hint) <= _MAX_HINT_CHARS:
            given["id_token_hint"] = id_token_hint
        redirect_uri = self.config.redirect_uri(self.provider, base)
        return await self.requests.address(metadata, transaction, state, redirect_uri, given), cookies

    def receive_post(self, form: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[str, bytes]:
        """Keep a posted response; return its state, and the Set-Cookie value that carries the rest to our own GET.

        Claims and sends nothing. Raises `AuthorizationResponseError`.
        """
        response = read_authorization_response(form)
        return response.state, self.posted.keep(response, self._transaction(headers, response, "form_post"))

    async def receive_callback(
        self,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        cookies: list[bytes],
        *,
        base: BaseUrl,
        posted: bool,
    ) -> Callback:
        """Find the login of a callback and claim it; the code is not sent anywhere yet.

        `posted`: the response was kept by `receive_post`, and `query` has only the state. `cookies` gets the Set-Cookie values of
        the response, also of an error.

        Raises `AuthorizationResponseError` if this browser has no such open login. After `DiscoveryError` and
        `StoreUnavailableError` the login stays open, and reloading the page tries again.
        """
        response = read_authorization_response(query)
        transaction = self._transaction(headers, response, "form_post" if posted else "query")
        if posted:
            response = self.posted.find(headers, response, transaction)
        metadata = await self.connection.discovery.metadata()
        # Single use over all processes, before the code is sent: of fifty concurrent callbacks one continues.
        await use_up(
            self.sessions.store, transaction, self.clock.now(), lambda lost: cookies.append(self.transactions.set_header(lost))
        )
        return Callback(response, transaction, metadata, self.config.redirect_uri(self.provider, base))

    def repeated_login(self, query: bytes, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Return the target of a login that this browser has finished, for a second response with another code or an error.

        The user went back to the provider, and submitted its page again or cancelled. No code is exchanged, no session changes.
        """
        try:
            response = read_authorization_response(query)
        except AuthorizationResponseError:
            return None
        if response.code is None and response.error is None:
            return None
        code = response.code if response.error is None else None
        return self.transactions.finished_return_to(headers, response.state, code, self.provider.id)

    def silent_return_to(self, query: bytes, headers: list[tuple[bytes, bytes]], error: SessionCoreError) -> str | None:
        """Return the page that a silent login leads to although it has failed; None where the error has to be shown.

        It is shown for other logins, and for a response that is not known to be this provider's.
        """
        if not isinstance(error, OidcError):
            return None
        if isinstance(error, AuthorizationResponseError) and error.reason not in _OF_A_SILENT_LOGIN:
            return None
        transaction = self.transactions.opened(headers, read_authorization_response(query).state)
        if transaction is None or transaction.provider != self.provider.id or transaction.native is not None:
            return None
        return transaction.return_to if transaction.silent else None

    def spent_cookies(self, callback: Callback) -> list[bytes]:
        """Return the Set-Cookie values that delete the cookies of a finished login."""
        deleted = [self.transactions.delete_header(callback.transaction)]
        if callback.transaction.response_mode == "form_post":
            deleted.append(self.posted.delete_header(callback.transaction))
        return deleted

    async def finish_login(self, callback: Callback) -> FinishedLogin | SilentRefusal:
        """Redeem the code and validate the response; no session changes here.

        Raises `AuthorizationResponseError`, `DiscoveryError`, `TokenExchangeError` or `IdTokenError`.
        """
        response, transaction, metadata = callback.response, callback.transaction, callback.metadata
        _check_response_issuer(response.issuer, metadata, self.provider)
        if response.error is not None:
            if transaction.silent:
                return SilentRefusal(response.error, transaction.return_to)
            cancelled = response.error == "access_denied"
            raise (LoginCancelledError if cancelled else AuthorizationResponseError)(response.error)
        answer = await self.connection.token_endpoint.redeem_code(
            metadata.token_endpoint,
            code=check_code(response.code),
            redirect_uri=callback.redirect_uri,
            code_verifier=transaction.code_verifier,
        )
        identity, claims = await self.connection.identify(answer, metadata, transaction)
        if self.provider.posted_user and (user := response.posted_user()) is not None:
            claims = {"user": user, **claims}
        tokens = self.connection.token_set(answer)
        return FinishedLogin(identity, claims, tokens, transaction.begun, transaction.return_to, transaction.option)

    async def end_session(self, id_token: str | None, *, base: BaseUrl) -> ProviderEndSession | None:
        """Return where to log out at the provider (RP-Initiated Logout 1.0, 2); None without such an endpoint or in an outage."""
        try:
            metadata = await self.connection.discovery.metadata()
        except DiscoveryError:
            return None
        endpoint = metadata.end_session_endpoint
        if endpoint is None:
            return None
        params = {
            "client_id": self.provider.client_id,
            self.provider.logout_return_param: base.url + self.config.post_logout_path,
            # The state is not checked on return: the local session has already ended.
            "state": secrets.token_urlsafe(16),
            **self.provider.logout_params,
        }
        hint = {"id_token_hint": id_token} if id_token else {}
        if len(id_token or "") <= _MAX_HINT_CHARS:
            return ProviderEndSession(address_with(endpoint, params | hint), endpoint)
        return ProviderEndSession(address_with(endpoint, params), endpoint, params | hint)

    def _transaction(
        self, headers: list[tuple[bytes, bytes]], response: AuthorizationResponse, mode: ResponseMode
    ) -> LoginTransaction:
        """Return the login that this browser started at this provider with this response mode."""
        transaction = self.transactions.find(headers, response.state)
        # Each provider has its own redirect URI: a response at that of another is a mix-up attack (RFC 9700 4.4).
        if transaction.provider != self.provider.id:
            raise AuthorizationResponseError("provider_mismatch")
        if transaction.response_mode != mode:
            raise AuthorizationResponseError("response_mode_mismatch")
        return transaction


def _check_response_issuer(issuer: str | None, metadata: ProviderMetadata, provider: Registration) -> None:
    """Check RFC 9207 `iss`: it keeps a code of one provider from being sent to another (mix-up, RFC 9700 4.4)."""
    if issuer is None:
        if metadata.authorization_response_iss_parameter_supported:
            raise AuthorizationResponseError("iss_missing")
    elif not hmac.compare_digest(issuer.encode(), metadata.issuer.encode()) and not (
        metadata.issuer == provider.issuer and provider.is_issuer(issuer)
    ):
        raise AuthorizationResponseError("iss_mismatch")
