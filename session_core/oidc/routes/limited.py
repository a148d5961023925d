"""Limits logins, callbacks and logout messages per client address, concurrently with another call of the request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from session_core.asgi.web import WebRequest
    from session_core.oidc.relying_parties import RelyingParties

__all__ = ("count", "limited")

T = TypeVar("T")


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
