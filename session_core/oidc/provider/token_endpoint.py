"""Calls the token and userinfo endpoints and parses their responses. Independent of sessions and browsers."""

from __future__ import annotations

from typing import Any, Final

from session_core.errors import IdTokenError, TokenExchangeError
from session_core.ids import SecretStruct
from session_core.oidc.http import OpHttp, OpResponse
from session_core.oidc.provider.client_authentication import ClientAuthentication
from session_core.oidc.provider.discovery import ProviderMetadata
from session_core.oidc.provider.openid import OidcProvider
from session_core.oidc.provider.registration import Registration
from session_core.oidc.verify.claims import audiences_of, check_issuer, optional_text
from session_core.oidc.verify.jws import MAX_TOKEN_CHARS, parse_jws
from session_core.oidc.verify.keys import KeyCache

__all__ = ("RefreshResponse", "TokenEndpoint", "TokenResponse", "error_reason", "fetch_userinfo")

_OK: Final = 200
_MAX_SECONDS: Final = 10 * 365 * 86400
_MAX_SCOPE: Final = 4096
_MAX_ISSUER: Final = 2048
_ERRORS: Final = frozenset(
    {
        "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
        "invalid_scope", "login_required", "interaction_required", "consent_required", "account_selection_required",
        "mfa_required", "unmet_authentication_requirements",
    }
)  # fmt: skip
"""RFC 6749 5.2, and codes of some providers for a refresh that needs the user (OpenID Connect Core 3.1.2.6). Other
codes are not repeated, because they are untrusted text."""
_OTHER_NAMES: Final = {"bad_verification_code": "invalid_grant", "bad_refresh_token": "invalid_grant"}
"""The code of GitHub."""


class TokenResponse(SecretStruct, frozen=True, kw_only=True):
    """A successful token response (RFC 6749 5.1, OpenID Connect Core 3.1.3.3). `expires_in` is in seconds.

    An optional member that is null, empty or malformed counts as absent.
    """

    access_token: str
    expires_in: int | None
    refresh_token: str | None
    id_token: str | None
    scope: str | None


class RefreshResponse(SecretStruct, frozen=True):
    """The response to a refresh, not yet validated.

    `refresh_token` is the new one, if there is one. The old one may be spent, so the new one is kept even if the rest is invalid.
    """

    refresh_token: str | None
    document: dict[str, Any]
    openid: bool

    def tokens(self) -> TokenResponse:
        """Return the parsed response. Raises `TokenExchangeError` when a required member is missing or malformed."""
        return _parse(self.document, openid=self.openid)


class TokenEndpoint:
    """The token endpoint of one provider. Every method raises `TokenExchangeError` with a reason."""

    def __init__(self, provider: Registration, http: OpHttp, client: ClientAuthentication) -> None:
        self._provider = provider
        self._http = http
        self._client = client
        # Without OpenID Connect there are no rules to validate an ID token.
        self._openid = isinstance(provider, OidcProvider)

    async def redeem_code(self, url: str, *, code: str, redirect_uri: str, code_verifier: str) -> TokenResponse:
        """Exchange an authorization code. Sent only once: a second use of a code revokes the tokens of the first."""
        params = {"code": code, "redirect_uri": redirect_uri}
        if not self._provider.accept_code_injection_without_pkce:
            params["code_verifier"] = code_verifier
        document = await self._request(url, "authorization_code", **params)
        response = _parse(document, openid=self._openid)
        if self._openid and response.id_token is None:
            raise TokenExchangeError("id_token_missing" if document.get("id_token") is None else "token_malformed")
        return response

    async def refresh(self, url: str, *, refresh_token: str) -> RefreshResponse:
        """Exchange a refresh token; the response may hold a new one, which replaces it."""
        document = await self._request(url, "refresh_token", refresh_token=refresh_token)
        return RefreshResponse(_token(document.get("refresh_token")), document, self._openid)

    async def revoke(self, metadata: ProviderMetadata, *, token: str, hint: str) -> None:
        """Revoke a token (RFC 7009 2.1). A token that the provider does not know is not an error (2.2)."""
        if metadata.revocation_endpoint is None:
            raise TokenExchangeError("revocation_not_offered")
        params = {"token": token, "token_type_hint": hint}
        headers, form = await self._client.prepare(params, token_endpoint=metadata.token_endpoint)
        url = metadata.revocation_endpoint
        response = await self._http.send("POST", url, what="revocation", error=TokenExchangeError, headers=headers, form=form)
        if response.status != _OK:
            raise TokenExchangeError("revocation_status")

    async def _request(self, url: str, grant_type: str, **params: str) -> dict[str, Any]:
        headers, form = await self._client.prepare({"grant_type": grant_type, **params}, token_endpoint=url)
        response = await self._http.send("POST", url, what="token", error=TokenExchangeError, headers=headers, form=form)
        if response.status != _OK:
            raise TokenExchangeError(error_reason(response))
        try:
            document = response.json_object()
        except ValueError:
            raise TokenExchangeError("token_malformed") from None
        # Some providers send errors with status 200.
        if isinstance(document.get("error"), str) and document["error"]:
            raise TokenExchangeError(error_reason(response))
        return document


async def fetch_userinfo(
    provider: OidcProvider, metadata: ProviderMetadata, url: str, *, access_token: str, http: OpHttp, keys: KeyCache
) -> dict[str, Any]:
    """Return the claims of the userinfo endpoint (OpenID Connect Core 5.3), plain or signed.

    The caller compares `sub`. Raises `TokenExchangeError` if the response has no claims, with `userinfo_unauthorized` if the
    token is refused; `IdTokenError` for an invalid signed response.
    """
    response = await http.send(
        "GET",
        url,
        what="userinfo",
        error=TokenExchangeError,
        headers={"authorization": f"Bearer {access_token}"},
        accept="application/json, application/jwt",
    )
    if response.status != _OK:
        raise TokenExchangeError("userinfo_unauthorized" if response.status == 401 else "userinfo_status")  # noqa: PLR2004
    if response.media_type != "application/jwt":
        try:
            return response.json_object()
        except ValueError:
            raise TokenExchangeError("userinfo_malformed") from None
    algorithms = provider.accepted_algorithms(())
    jws = parse_jws(response.body.decode("ascii", "replace").strip(), algorithms=algorithms, error=IdTokenError)
    refusal = await keys.refusal(jws, metadata.jwks_uri, source="id_token")
    if refusal is not None:
        raise IdTokenError(f"userinfo_{refusal}")
    # 5.3.2: signed userinfo names its issuer and audience; others are refused.
    if optional_text(jws.claims.get("iss"), _MAX_ISSUER) is not None:
        check_issuer(jws.claims, provider.issuer_of(jws.claims), IdTokenError)
    # `azp` belongs to ID tokens: here it is enough that we are in the audience.
    audiences = audiences_of(jws.claims)
    if audiences and provider.client_id not in audiences:
        raise IdTokenError("aud_mismatch")
    return jws.claims


def error_reason(response: OpResponse, what: str = "token") -> str:
    """Return the reason slug of an error response: its code if known (RFC 6749 5.2)."""
    try:
        error = response.json_object().get("error")
    except ValueError:
        return f"{what}_status"
    error = _OTHER_NAMES.get(error, error) if isinstance(error, str) else None
    if error not in _ERRORS:
        return f"{what}_status"
    return error if what == "token" else f"{what}_{error}"


def _parse(document: dict[str, Any], *, openid: bool) -> TokenResponse:
    """Return a token response. Raises `TokenExchangeError` when a required member is missing or malformed."""
    token_type = document.get("token_type")
    # Other token types (DPoP, mac) need proof of possession; without a type the token cannot be used.
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise TokenExchangeError("token_type")
    access_token = _token(document.get("access_token"))
    if access_token is None:
        raise TokenExchangeError("access_token_missing" if document.get("access_token") is None else "token_malformed")
    return TokenResponse(
        access_token=access_token,
        expires_in=_seconds(document.get("expires_in")),
        refresh_token=_token(document.get("refresh_token")),
        id_token=_token(document.get("id_token")) if openid else None,
        scope=optional_text(document.get("scope"), _MAX_SCOPE),
    )


def _token(value: object) -> str | None:
    """Return a token, or None unless it is printable ASCII without space (RFC 6749 A.12), because it goes into a header."""
    token = optional_text(value, MAX_TOKEN_CHARS)
    return None if token is None or " " in token else token


def _seconds(value: object) -> int | None:
    """Return `expires_in`; some providers send the number as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 12:  # noqa: PLR2004 - any sane number
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_SECONDS:
        return None
    return int(value)
