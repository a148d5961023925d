"""Bounds what a client may send: the size of a form body, and how many logins, callbacks and logout messages in a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from session_core.asgi.web import WebRequest
from session_core.errors import OidcError
from session_core.oidc.relying_parties import RelyingParties

__all__ = ("count", "limited", "read_form_body")

T = TypeVar("T")

_MAX_BODY: Final = 16_384


async def limited(
    request: WebRequest, relying_parties: RelyingParties, what: str, ask: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Return the result of `ask` if the client is within its limit; both run concurrently, so counting adds no delay.

    Raises `TooManyRequestsError`, whatever `ask` does; makes no call if this process knows that the limit is reached.
    """
    if not relying_parties.config.requests_per_minute:
        return await ask()
    counting = asyncio.ensure_future(count(request, relying_parties, what))
    await asyncio.sleep(0)
    if counting.done():
        counting.result()
    try:
        result = await ask()
    finally:
        await counting
    return result


async def count(request: WebRequest, relying_parties: RelyingParties, what: str) -> None:
    """Count one. Raises `TooManyRequestsError`, `StoreUnavailableError`."""
    await request.limits.take(what, request.client_address, limit=relying_parties.config.requests_per_minute)


async def read_form_body(request: WebRequest, error: type[OidcError], *, max_bytes: int = _MAX_BODY) -> bytes:
    """Return the encoded body.

    Raises `error` for another content type, a body over the limit (the rest is not read) and a disconnected client.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise error("content_type")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise error("body_too_large")
    except ConnectionError:
        raise error("body_incomplete") from None
    return bytes(body)
