"""Authlib's authorization server on this provider's stores: clients in, JSON replies out; independent of Litestar."""

# The Authlib stubs bundled with pyright declare the hooks narrower than Authlib calls them (no None, str bodies).
# ruff: noqa: ANN401 - Authlib is untyped
# pyright: reportIncompatibleMethodOverride=false

from base64 import b64decode
from collections.abc import Mapping
from typing import Any, TypeAlias, cast
from urllib.parse import unquote

from authlib.oauth2.rfc6749 import (  # type: ignore[import-untyped, unused-ignore]
    AuthorizationServer,
    ClientMixin,
    InvalidClientError,
    InvalidRequestError,
    OAuth2Request,
)
from authlib.oauth2.rfc6749.requests import (  # type: ignore[import-untyped, unused-ignore]
    BasicOAuth2Payload,
)

from auth_demo.op.protocol.claims import SUPPORTED_SCOPES, IdTokens
from auth_demo.op.settings import Account, OpSettings, RegisteredClient
from auth_demo.op.state.grants import GrantStore
from auth_demo.op.state.secret import new_secret, same

__all__ = ("AUTH_METHODS", "OAuthClient", "OAuthReply", "OAuthServer", "ProtocolRequest", "TokenResponse")

AUTH_METHODS = ["client_secret_basic", "client_secret_post", "none"]

OAuthReply: TypeAlias = tuple[int, dict[str, Any], dict[str, str]]
"""Status, JSON body and headers of a token or revocation response."""


class TokenResponse(dict[str, Any]):
    """A token response that hides its values from ``repr``: Authlib's grants log it at debug level."""

    def __repr__(self) -> str:
        """Name the members, never their values."""
        return f"<token response with {', '.join(self)}>"


class OAuthClient(ClientMixin):  # type: ignore[misc]
    """A registered client in the shape Authlib asks for."""

    def __init__(self, registered: RegisteredClient) -> None:
        self.registered = registered
        self.client_id = registered.client_id

    def __repr__(self) -> str:
        """Name the client, never its secret."""
        return f"<client {self.client_id}>"

    def get_client_id(self) -> str:
        """Return the registered identifier."""
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """Return nothing: OpenID Connect requires redirect_uri in every request (Core 3.1.2.1)."""

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """Keep what is supported and ignore the rest (OIDC Core 3.1.2.1); without ``openid`` it is invalid."""
        known = [part for part in dict.fromkeys((scope or "").split()) if part in SUPPORTED_SCOPES]
        return " ".join(known) if "openid" in known else None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Compare character by character (RFC 9700 4.1.3, ASVS 10.4.1)."""
        return redirect_uri in self.registered.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        """Compare in constant time."""
        return same(self.registered.client_secret or "", client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002 - Authlib's name
        """Accept exactly the registered method, at every endpoint (ASVS 10.4.10)."""
        return method == self.registered.token_endpoint_auth_method

    def check_response_type(self, response_type: str) -> bool:
        """Allow the code flow only (ASVS 10.4.4)."""
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        """Allow the two grants the provider has."""
        return grant_type in {"authorization_code", "refresh_token"}


class ProtocolRequest(OAuth2Request):  # type: ignore[misc]
    """One request in Authlib's terms; the URI comes from the settings, never from the Host header."""

    def __init__(self, method: str, uri: str, values: dict[str, str], authorization: str | None = None) -> None:
        headers = {} if authorization is None else {"Authorization": authorization}
        super().__init__(method, uri, headers=headers)
        self.payload: Any = BasicOAuth2Payload(values)
        self._values = values

    @property
    def form(self) -> dict[str, str]:
        """The single-valued form fields."""
        return self._values


class OAuthServer(AuthorizationServer):  # type: ignore[misc]
    """Authlib's dispatcher with this provider's clients, tokens and ID tokens plugged in."""

    def __init__(self, settings: OpSettings, grants: GrantStore, id_tokens: IdTokens) -> None:
        super().__init__()
        self.settings = settings
        self.grants = grants
        self.id_tokens = id_tokens
        self._clients = {client.client_id: OAuthClient(client) for client in settings.clients}
        self._accounts = {account.sub: account for account in settings.accounts}
        generate: Any = self._generate
        self.register_token_generator("default", generate)

    def query_client(self, client_id: str) -> OAuthClient | None:
        """Return the registered client, or ``None``."""
        return self._clients.get(client_id)

    def query_account(self, sub: str) -> Account | None:
        """Return the account of a subject identifier, or ``None``."""
        return self._accounts.get(sub)

    def authenticate_client(self, request: Any, methods: list[str], endpoint: str = "token") -> OAuthClient:
        """Authenticate the client by its one registered method.

        Raises `InvalidRequestError` when credentials come in two ways (RFC 6749 2.3) and `InvalidClientError` when
        they are missing, unreadable (Authlib itself would fail on them) or wrong.
        """
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            basic_id = _basic_user(authorization)
            if "client_secret" in request.form:
                raise InvalidRequestError(description="More than one way of client authentication.")
            if request.form.get("client_id", basic_id) != basic_id:
                raise InvalidRequestError(description="Two different clients in one request.")
        client: Any = super().authenticate_client(request, methods, endpoint)
        return cast("OAuthClient", client)

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        """Store the tokens of the response and add the ID token where ``openid`` is in scope."""
        code, refresh = request.authorization_code, request.refresh_token
        grant = code.grant if code is not None else refresh.grant
        self.grants.issue_access_token(token["access_token"], grant, token["scope"])
        self.grants.issue_refresh_token(token["refresh_token"], grant)
        if code is not None:
            # From here on the client has a login, so it gets the logout token.
            grant.session.client_ids.add(grant.client_id)
        if "openid" in token["scope"].split():
            nonce = code.nonce if code is not None else None
            token["id_token"] = self.id_tokens.issue(grant, request.user, access_token=token["access_token"], nonce=nonce)

    def create_oauth2_request(self, request: ProtocolRequest) -> ProtocolRequest:
        """Pass the request through: the web layer made it."""
        return request

    def handle_response(self, status: int, body: dict[str, Any], headers: list[tuple[str, str]]) -> OAuthReply:
        """Return the reply for the web layer to send."""
        return status, body, dict(headers)

    def send_signal(self, name: str, *_args: Any, **_kwargs: Any) -> None:
        """Ignore Authlib's signals: they have no listener here."""

    def _generate(self, *, scope: str, **_kwargs: Any) -> Mapping[str, Any]:
        return TokenResponse(
            token_type="Bearer",  # noqa: S106 - the scheme's name
            access_token=new_secret(),
            refresh_token=new_secret(),
            expires_in=self.settings.lifetimes.access_token,
            scope=scope,
        )


def _basic_user(authorization: str) -> str:
    """Return the user of a readable Basic header (RFC 7617 2), else raise `InvalidClientError`."""
    scheme, _, credentials = authorization.partition(" ")
    try:
        user, colon, _ = b64decode(credentials.strip(), validate=True).decode().partition(":")
    except ValueError:
        colon = user = ""
    if scheme.lower() != "basic" or not colon:
        raise InvalidClientError(description="Unreadable client credentials.", status_code=401)
    return unquote(user)
