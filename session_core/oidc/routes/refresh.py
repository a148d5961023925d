"""The route by which a scheduler refreshes tokens; for programs with the key, not for browsers."""

from __future__ import annotations

import hmac
from typing import Any, Final

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler

from session_core.oidc.refresh.batch_refresh import RefreshBatch
from session_core.sessions.manager import SessionManager

__all__ = ("batch_route",)

_EVERY_SECONDS: Final = 10
_NO_STORE: Final = {"cache-control": "no-store"}
_UNAUTHORIZED: Final = 401
_TOO_MANY: Final = 429


def batch_route(batch: RefreshBatch, sessions: SessionManager, key: str) -> HTTPRouteHandler:
    """Return `POST /auth/refresh-tokens`. `key` is the bearer token that the Authorization header must have (RFC 6750 2.1)."""
    running = False

    # No cookie is read, so cross-site requests are harmless.
    @post(
        "/auth/refresh-tokens",
        status_code=200,
        opt={"session": False, "cross_site": True, "exclude_from_auth": True},
        tags=["login"],
        summary="Refresh the tokens that are due",
    )
    async def refresh_tokens(request: Request[Any, Any, Any]) -> Response[Any]:
        """Refresh the tokens of the sessions that are due and return the counts. One run in ten seconds, over all processes."""
        nonlocal running
        if not _bears(request.headers.get("authorization", ""), key):
            await sessions.events.emit("access.denied", reason="refresh_tokens_key")
            return _problem(_UNAUTHORIZED, "A key is required", {"www-authenticate": "Bearer"})
        if running or not await sessions.claim("refresh-tokens", seconds=_EVERY_SECONDS):
            return _problem(_TOO_MANY, "A run has just begun", {"retry-after": str(_EVERY_SECONDS)})
        running = True
        try:
            return Response(await batch.run(), headers=_NO_STORE)
        finally:
            running = False

    return refresh_tokens


def _bears(header: str, key: str) -> bool:
    """Whether the header has the key; compared in constant time."""
    scheme, _, given = header.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("utf-8", "replace"), key.encode())


def _problem(status: int, title: str, headers: dict[str, str]) -> Response[Any]:
    return Response(
        {"type": "about:blank", "title": title, "status": status},
        status_code=status,
        media_type="application/problem+json",
        headers={**_NO_STORE, **headers},
    )
