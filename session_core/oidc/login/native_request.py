"""Parses the requests of native clients: for a login in the user's browser, and for the token (RFC 8252, RFC 7636)."""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import Final
from urllib.parse import quote, urlencode

from session_core.errors import NativeLoginError
from session_core.ids import SecretStruct
from session_core.oidc.login.authorization_response import single_params
from session_core.oidc.native_clients import NativeClient
from session_core.urls import party_origin

__all__ = ("NATIVE_PARAMS", "NativeRequest", "TokenRequest", "read_native_request", "read_token_request")

NATIVE_PARAMS: Final = ("response_type", "client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method")
"""The parameters of a native client's request; it may add those of `GET /auth/login`."""
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}\Z")
_STATE: Final = re.compile(r"[ -~]{1,512}\Z")
_MAX_CODE: Final = 512


class NativeRequest(SecretStruct, frozen=True, array_like=True):
    """An authorization request (RFC 6749 4.1.1) that may be answered at its redirect URI."""

    client_id: str
    redirect_uri: str
    state: str | None
    code_challenge: str

    def address(self, **params: str) -> str:
        """Return where the answer goes: the redirect URI, which has no query, with these parameters and the state."""
        given = params if self.state is None else {**params, "state": self.state}
        return f"{self.redirect_uri}?{urlencode(given, quote_via=quote)}"


class TokenRequest(SecretStruct, frozen=True):
    """A request for the token of a finished login (RFC 6749 4.1.3)."""

    code: str
    client_id: str
    redirect_uri: str
    code_verifier: str

    def proves(self, code_challenge: str) -> bool:
        """Whether its verifier matches the challenge of the login (RFC 7636 4.6, `S256`)."""
        digest = urlsafe_b64encode(sha256(self.code_verifier.encode("ascii")).digest()).rstrip(b"=")
        return hmac.compare_digest(digest, code_challenge.encode("ascii"))


def read_native_request(
    query: bytes, clients: Iterable[NativeClient], *, origin: str
) -> tuple[NativeRequest, NativeClient, NativeLoginError | None]:
    """Return the request, its client, and the error of its other parameters, if any. `origin` is the application's own.

    Raises `NativeLoginError` without a registered redirect URI: the browser must then not be redirected.
    """
    params = single_params(query, NativeLoginError, only=frozenset(NATIVE_PARAMS))
    client = next((each for each in clients if each.id == params.get("client_id")), None)
    if client is None:
        raise NativeLoginError("unknown_client")
    redirect_uri = params.get("redirect_uri", "")
    # On loopback any port is allowed, except that of an application there, whose scripts could read the code.
    if not client.allows(redirect_uri) or party_origin(redirect_uri) == origin:
        raise NativeLoginError("redirect_uri_mismatch")
    state, challenge = params.get("state"), params.get("code_challenge", "")
    fit_state = state if state is not None and _STATE.match(state) else None
    request = NativeRequest(client.id, redirect_uri, fit_state, challenge)
    if params.get("response_type") != "code":
        return request, client, NativeLoginError("response_type", error="unsupported_response_type")
    if fit_state != state:
        return request, client, NativeLoginError("state_malformed")
    # Only S256, and never without: RFC 7636 4.3 would take a missing method for `plain`, which an interceptor can answer.
    if params.get("code_challenge_method") != "S256" or not _CHALLENGE.match(challenge):
        return request, client, NativeLoginError("pkce_missing")
    return request, client, None


def read_token_request(body: bytes) -> TokenRequest:
    """Return the parameters of a token request. Raises `NativeLoginError`."""
    params = single_params(body, NativeLoginError)
    if params.get("grant_type") != "authorization_code":
        raise NativeLoginError("grant_type", error="unsupported_grant_type" if params.get("grant_type") else "invalid_request")
    try:
        code, client_id, redirect_uri = params["code"], params["client_id"], params["redirect_uri"]
        verifier = params["code_verifier"]
    except KeyError:
        raise NativeLoginError("parameter_missing") from None
    if not _VERIFIER.match(verifier) or len(code) > _MAX_CODE or not code.isascii():
        raise NativeLoginError("parameter_malformed")
    return TokenRequest(code, client_id, redirect_uri, verifier)
