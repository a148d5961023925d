"""The one place that uses Authlib: writes OAuth 2.0 requests as text; sends nothing and keeps nothing.

Only Authlib's protocol core is used. Its HTTP clients read answers without limits and accept far more than they should,
and its framework registry keeps one login per browser; both would bring the checks of this package around a corner.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from session_core.oidc.provider import OidcProvider

__all__ = ("authorization_url", "token_request")


def authorization_url(
    provider: OidcProvider,
    endpoint: str,
    *,
    redirect_uri: str,
    state: str,
    nonce: str,
    code_verifier: str,
    params: Mapping[str, str],
) -> str:
    """Return where to send the browser (OpenID Connect Core 3.1.2.1), with PKCE S256 always (RFC 7636, RFC 9700 2.1.1)."""
    given: dict[str, Any] = {
        **provider.authorization_params,
        **params,
        "nonce": nonce,
        "code_challenge": create_s256_code_challenge(code_verifier),
        "code_challenge_method": "S256",
    }
    url: str = prepare_grant_uri(
        endpoint,
        client_id=provider.client_id,
        response_type="code",
        redirect_uri=redirect_uri,
        scope=list(provider.scopes),
        state=state,
        **given,
    )
    return url


def token_request(provider: OidcProvider, endpoint: str, grant_type: str, **params: str) -> tuple[dict[str, str], str]:
    """Return headers and form body of a token request with client authentication (RFC 6749 2.3.1, 4.1.3, 6)."""
    body = prepare_token_request(grant_type, **params)
    auth = ClientAuth(provider.client_id, provider.client_secret, _METHODS[provider.token_endpoint_auth_method])
    _, headers, signed = auth.prepare("POST", endpoint, {}, body)
    return headers, signed


def _basic(client: Any, method: str, uri: str, headers: dict[str, str], body: str) -> tuple[str, dict[str, str], str]:  # noqa: ANN401 - Authlib's signature
    """Authenticate by HTTP Basic; unlike Authlib's own, form-encoded first, as RFC 6749 2.3.1 says: `:` and `%` occur."""
    del method
    credentials = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    return uri, {**headers, "authorization": f"Basic {b64encode(credentials.encode()).decode()}"}, body


_METHODS: Final[dict[str, Any]] = {
    "client_secret_basic": _basic,
    "client_secret_post": "client_secret_post",
    "none": "none",
}
