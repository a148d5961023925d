"""Fetches the user of an access token from a plain OAuth 2.0 provider. Independent of sessions and browsers."""

from __future__ import annotations

from typing import Any, Final

from session_core.errors import TokenExchangeError
from session_core.identity import Identity
from session_core.oidc.http import OpHttp
from session_core.oidc.provider.oauth2 import OAuth2Provider
from session_core.oidc.strict_json import parse_json
from session_core.oidc.verify.claims import subject_of
from session_core.urls import is_provider_url, origin_of

__all__ = ("UserEndpoint",)

_OK: Final = 200
_UNAUTHORIZED: Final = 401


class UserEndpoint:
    """The user endpoint of one provider."""

    def __init__(self, provider: OAuth2Provider, http: OpHttp) -> None:
        self._provider = provider
        self._http = http
        self._origins = {origin_of(url) for url in (provider.userinfo_endpoint, provider.token_endpoint)}

    async def user(self, access_token: str) -> tuple[Identity, dict[str, Any]]:
        """Return the user of the token, and the claims.

        Raises `TokenExchangeError`, with `userinfo_unauthorized` when the token is refused; `IdTokenError` for a user without a
        subject.
        """
        user = await self._fetch(self._provider.userinfo_endpoint, access_token)
        if not isinstance(user, dict):
            raise TokenExchangeError("userinfo_malformed")
        identity = Identity(issuer=self._provider.issuer, subject=subject_of(user, self._provider.subject_claim))
        if self._provider.claims is None:
            return identity, user
        return identity, dict(await self._provider.claims(user, lambda url: self._fetch(url, access_token)))

    async def _fetch(self, url: str, access_token: str) -> Any:  # noqa: ANN401 - any JSON
        # The URL may come from a profile that the user edited: the token is sent only to the provider.
        if not is_provider_url(url, allow_http=self._provider.allow_http) or origin_of(url) not in self._origins:
            raise TokenExchangeError("userinfo_address")
        headers = {"authorization": f"Bearer {access_token}"}
        response = await self._http.send("GET", url, what="userinfo", error=TokenExchangeError, headers=headers)
        if response.status != _OK:
            raise TokenExchangeError("userinfo_unauthorized" if response.status == _UNAUTHORIZED else "userinfo_status")
        try:
            return parse_json(response.json_body())
        except ValueError:
            raise TokenExchangeError("userinfo_malformed") from None
