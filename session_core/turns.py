"""Loops that keep no other request waiting, and calls that wait for the store together."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable

__all__ = ("in_turns", "together")

T = TypeVar("T")
_SECONDS: Final = 0.001


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Iterate over `items`, and let the event loop run what else is ready after each millisecond."""
    began = perf_counter()
    for item in items:
        yield item
        if perf_counter() - began > _SECONDS:
            await asyncio.sleep(0)
            began = perf_counter()


async def together(*calls: Awaitable[T]) -> list[T]:
    """Return what the calls return; a store sends those of one turn of the event loop in one batch.

    All have ended when this returns. Raises what the first of those that failed has raised.
    """
    results: list[T] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
