"""Authenticates the client in every direct request to the provider. Sends nothing itself.

Used for codes and refresh tokens at the token endpoint, revocation (RFC 7009) and pushed requests (RFC 9126).
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode
from collections.abc import Mapping
from inspect import isawaitable
from typing import Final
from urllib.parse import quote, urlencode

from session_core.clock import Clock
from session_core.errors import TokenExchangeError
from session_core.oidc.provider.client_key import ClientKey
from session_core.oidc.provider.registration import Registration

__all__ = ("ClientAuthentication",)

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_TYP: Final = "client-authentication+jwt"
_ASSERTION_SECONDS: Final = 60


class ClientAuthentication:
    """Client authentication at one provider (OpenID Connect Core 9, RFC 6749 2.3.1, RFC 7523)."""

    def __init__(self, provider: Registration, clock: Clock, *, timeout_seconds: float = 5) -> None:
        self._provider = provider
        self._clock = clock
        self._timeout = timeout_seconds

    async def prepare(self, params: Mapping[str, str], *, token_endpoint: str) -> tuple[dict[str, str], str]:
        """Return headers and form body of a request with `params` and our authentication.

        Raises `TokenExchangeError` if the application's function returns no client secret.

        `token_endpoint` is the possible audience of an assertion, whatever endpoint the request goes to.
        """
        provider = self._provider
        form = dict(params)
        headers: dict[str, str] = {}
        if provider.token_endpoint_auth_method == "client_secret_basic":  # noqa: S105 - the name of a method
            # Form-encoded first, as RFC 6749 2.3.1 says: `:` and `%` occur in secrets. A space is sent as %20, because servers
            # differ in how they decode `+`.
            credentials = f"{quote(provider.client_id, safe='')}:{quote(await self._secret(), safe='')}"
            headers["authorization"] = f"Basic {b64encode(credentials.encode()).decode()}"
        else:
            form["client_id"] = provider.client_id
        if provider.token_endpoint_auth_method == "client_secret_post":  # noqa: S105 - the name of a method
            form["client_secret"] = await self._secret()
        elif provider.client_key is not None:  # which goes with private_key_jwt alone
            form["client_assertion_type"] = _ASSERTION_TYPE
            form["client_assertion"] = self._assertion(provider.client_key, token_endpoint)
        return headers, urlencode(form)

    async def _secret(self) -> str:
        secret: object = self._provider.client_secret
        if callable(secret):
            try:
                async with asyncio.timeout(self._timeout):
                    secret = secret()
                    if isawaitable(secret):
                        secret = await secret
            except Exception:  # noqa: BLE001 - whatever the application's function raises; its message may hold the secret
                secret = None
        if not isinstance(secret, str) or not secret:
            reason = "client_secret_unavailable"
            raise TokenExchangeError(reason)
        return secret

    def _assertion(self, key: ClientKey, token_endpoint: str) -> str:
        """Return a new assertion (RFC 7523 3), valid for one minute and, by its `jti`, for one use."""
        provider, now = self._provider, self._clock.now() // 1000
        # One audience, by default the configured issuer: a URL from the provider's metadata could belong to another provider,
        # where the assertion could be used (CVE-2025-27370).
        audience = token_endpoint if provider.client_assertion_audience == "token_endpoint" else provider.issuer
        return key.sign(
            _ASSERTION_TYP,
            {
                "iss": provider.client_id,
                "sub": provider.client_id,
                "aud": audience,
                "jti": secrets.token_urlsafe(24),
                "iat": now,
                "exp": now + _ASSERTION_SECONDS,
            },
        )
