"""How concurrent tasks wait: between retries, in long loops, and for several calls at once. Independent of stores."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Iterable
from time import perf_counter
from typing import Final, TypeVar

__all__ = ("back_off", "in_turns", "together")

T = TypeVar("T")
_FIRST_SECONDS: Final = 0.001
_MOST_SECONDS: Final = 0.064
_TURN_SECONDS: Final = 0.001


async def back_off(attempt: int) -> None:
    """Wait a random time that grows with `attempt`, from 0: two processes in lockstep would make each other fail forever."""
    await asyncio.sleep(random.random() * min(_FIRST_SECONDS * 2**attempt, _MOST_SECONDS))  # noqa: S311 - no secret


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Iterate over `items`, and let the event loop run what else is ready after each millisecond."""
    began = perf_counter()
    for item in items:
        yield item
        if perf_counter() - began > _TURN_SECONDS:
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
