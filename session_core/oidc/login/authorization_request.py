"""Builds the authorization request: a URL with the parameters of the login, or with a reference to them (RFC 9126)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from session_core.errors import DiscoveryError, TokenExchangeError
from session_core.oidc.http import OpHttp
from session_core.oidc.login.transaction import LoginTransaction
from session_core.oidc.provider.authlib_client import address_with, code_challenge
from session_core.oidc.provider.client_authentication import ClientAuthentication
from session_core.oidc.provider.discovery import ProviderMetadata
from session_core.oidc.provider.openid import OidcProvider
from session_core.oidc.provider.registration import Registration
from session_core.oidc.provider.token_endpoint import error_reason

__all__ = ("AuthorizationRequests",)

_CREATED: Final = 201
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}:[!-~]{1,1024}\Z")


class AuthorizationRequests:
    """Authorization requests to one provider, with PKCE S256 unless its configuration disables it (RFC 7636, RFC 9700 2.1.1)."""

    def __init__(self, provider: Registration, http: OpHttp, client: ClientAuthentication) -> None:
        self._provider = provider
        self._http = http
        self._client = client

    async def address(
        self, metadata: ProviderMetadata, transaction: LoginTransaction, state: str, redirect_uri: str, asked: Mapping[str, str]
    ) -> str:
        """Return where to send the browser (OpenID Connect Core 3.1.2.1). `asked`: the parameters of this login.

        Raises `DiscoveryError` or `TokenExchangeError` when the provider does not accept the request, before the browser leaves.
        """
        provider = self._provider
        modes = metadata.response_modes_supported
        if provider.response_mode != "query" and modes and provider.response_mode not in modes:
            raise DiscoveryError("response_mode_unsupported")
        params = {
            **provider.authorization_params,
            **asked,
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": redirect_uri,
            "state": state,
        }
        if not provider.accept_code_injection_without_pkce:
            params |= {"code_challenge": code_challenge(transaction.code_verifier), "code_challenge_method": "S256"}
        if scope := provider.scope:
            params["scope"] = scope
        if isinstance(provider, OidcProvider) and not provider.accept_id_token_replay_without_nonce:
            params["nonce"] = transaction.nonce
        if provider.response_mode != "query":
            params["response_mode"] = provider.response_mode
        endpoint = self._push_endpoint(metadata)
        if endpoint is not None:
            request_uri = await self._push(endpoint, metadata, params)
            # No other parameters: the provider must use those that were pushed, not changes made in the browser.
            params = {"client_id": provider.client_id, "request_uri": request_uri}
        return address_with(metadata.authorization_endpoint, params)

    def _push_endpoint(self, metadata: ProviderMetadata) -> str | None:
        """Return the endpoint to push to, or None for a request through the browser."""
        endpoint, wanted = metadata.pushed_authorization_request_endpoint, self._provider.pushed_authorization_requests
        required = metadata.require_pushed_authorization_requests
        if wanted == "off" and not required:
            return None
        if endpoint is None and (required or wanted == "required"):
            raise DiscoveryError("par_missing")
        return endpoint

    async def _push(self, endpoint: str, metadata: ProviderMetadata, params: Mapping[str, str]) -> str:
        """Push the parameters and return the reference to them (RFC 9126 2).

        If that fails, the login fails: a fallback to the browser would let an attacker force it.
        """
        headers, form = await self._client.prepare(params, token_endpoint=metadata.token_endpoint)
        response = await self._http.send("POST", endpoint, what="par", error=TokenExchangeError, headers=headers, form=form)
        if response.status != _CREATED:
            raise TokenExchangeError(error_reason(response, "par"))
        try:
            answer = response.json_object()
        except ValueError:
            raise TokenExchangeError("par_malformed") from None
        request_uri, expires_in = answer.get("request_uri"), answer.get("expires_in")
        # It goes into a URL: printable ASCII without space (RFC 3986 2), and a URI.
        if not isinstance(request_uri, str) or not _URI.match(request_uri) or type(expires_in) is not int or expires_in <= 0:
            raise TokenExchangeError("par_malformed")
        return request_uri
