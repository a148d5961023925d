"""Authenticates the calls of an `httpx2` client as the logged-in user."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, Final

import httpx2

from session_core.urls import origin_of

if TYPE_CHECKING:
    from session_core.oidc.refresh.access_tokens import AccessTokens
    from session_core.sessions.handle import SessionHandle

__all__ = ("TokenAuth",)

_UNAUTHORIZED: Final = 401


class TokenAuth(httpx2.Auth):
    """Sends a fresh access token to one origin, and another one once when the API answers 401 (RFC 6750 3.1).

    A request to any other origin raises `ValueError`: the token is for this API alone. The request has no cookie: a client is
    shared, and would send the cookies that the API set for one user with the requests of all others. A request whose body is a
    stream is not repeated. Raises what `AccessTokens.access_token` raises.
    """

    def __init__(self, tokens: AccessTokens, session: SessionHandle[Any], origin: str) -> None:
        self._tokens = tokens
        self._session = session
        self._origin = origin_of(origin)

    def __repr__(self) -> str:
        return f"TokenAuth({self._origin!r})"

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Send the request, at most twice."""
        url = request.url
        if origin_of(f"{url.scheme}://{url.netloc.decode('ascii')}") != self._origin:
            msg = f"this token is only for {self._origin}"
            raise ValueError(msg)
        request.headers.pop("cookie", None)
        token = await self._tokens.access_token(self._session)
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == _UNAUTHORIZED and _is_repeatable(request):
            await response.aread()
            token = await self._tokens.access_token(self._session, refused=token)
            request.headers["authorization"] = f"Bearer {token}"
            yield request

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Refuse: fetching a token needs an event loop."""
        del request
        msg = "use httpx2.AsyncClient"
        raise RuntimeError(msg)


def _is_repeatable(request: httpx2.Request) -> bool:
    try:
        _ = request.content
    except httpx2.RequestNotRead:
        return False
    return True
