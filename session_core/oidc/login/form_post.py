"""Carries a posted authorization response to a request that has the browser's session. Does not validate it.

The provider's page makes the browser POST to us. That request is cross-site, so it has no session cookie, and a login there would
lose or duplicate the browser's session. So the POST only stores the response in a sealed cookie and redirects to our own address
by GET, which has the session cookie.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

import msgspec

from session_core.clock import TOLERATED_SKEW_MS, Clock
from session_core.cookies import CookieConfig, ResolvedCookie, cookie_name, read_cookies
from session_core.errors import AuthorizationResponseError, LoginExpiredError
from session_core.ids import SecretStruct
from session_core.oidc.login.authorization_response import AuthorizationResponse
from session_core.oidc.login.transaction import LoginTransaction
from session_core.sealing import SealingKeys

__all__ = ("PostedResponses",)

_LIFETIME_SECONDS: Final = 60
_MAX_CODE: Final = 2048
"""The longest code: sealed and with the other values, it must fit into a cookie."""
_MAX_ISSUER: Final = 512
_MAX_VALUE: Final = 4000


class _Posted(SecretStruct, frozen=True, kw_only=True, omit_defaults=True):
    state_digest: str
    posted_at: int
    code: str | None = None
    issuer: str | None = None
    error: str | None = None
    user: str | None = None


class PostedResponses:
    """Responses between the provider's POST and our own GET, each for one login and one minute."""

    def __init__(self, sealing: SealingKeys, clock: Clock, *, public_url: str) -> None:
        self._sealing = sealing
        self._clock = clock
        self._public_url = public_url
        self._prefix = cookie_name("login-reply", public_url) + "-"

    def keep(self, response: AuthorizationResponse, transaction: LoginTransaction) -> bytes:
        """Return the Set-Cookie value that keeps a response. Raises `AuthorizationResponseError` when it is too large."""
        if len(response.code or "") > _MAX_CODE or len(response.issuer or "") > _MAX_ISSUER:
            raise AuthorizationResponseError("response_too_large")
        posted = _Posted(
            state_digest=transaction.state_digest,
            posted_at=self._clock.now(),
            code=response.code,
            issuer=response.issuer,
            error=response.error,
            # Left out if it does not fit beside a long code: the login does not need it.
            user=response.user if len(response.code or "") + len((response.user or "").encode()) <= _MAX_CODE else None,
        )
        cookie = self._cookie(transaction)
        value = self._sealing.seal_text(posted, context=_context(cookie.name))
        if len(value) > _MAX_VALUE:
            raise AuthorizationResponseError("response_too_large")
        return cookie.set_header(value, _LIFETIME_SECONDS)

    def find(
        self, headers: Iterable[tuple[bytes, bytes]], asked: AuthorizationResponse, transaction: LoginTransaction
    ) -> AuthorizationResponse:
        """Return the posted response of a login. Raises `AuthorizationResponseError` if there is none."""
        name = self._cookie(transaction).name
        for value in read_cookies(headers, name):
            posted = self._sealing.unseal_text(value, _Posted, context=_context(name))
            if posted is None or not hmac.compare_digest(posted.state_digest, transaction.state_digest):
                continue
            # The sealed time decides: the cookie's Max-Age is only a request to the browser.
            # Another node, whose clock is ahead, may have received the form.
            if not -TOLERATED_SKEW_MS <= self._clock.now() - posted.posted_at < _LIFETIME_SECONDS * 1000:
                raise LoginExpiredError("state_expired")
            return msgspec.structs.replace(asked, code=posted.code, issuer=posted.issuer, error=posted.error, user=posted.user)
        raise LoginExpiredError("response_missing")

    def delete_header(self, transaction: LoginTransaction) -> bytes:
        """Return the Set-Cookie value that deletes the cookie of `keep`."""
        return self._cookie(transaction).delete_header()

    def _cookie(self, transaction: LoginTransaction) -> ResolvedCookie:
        return CookieConfig(name=self._prefix + transaction.state_digest[:8], same_site="lax").resolve(self._public_url)


def _context(cookie_name: str) -> str:
    return f"login-reply:{cookie_name}"
