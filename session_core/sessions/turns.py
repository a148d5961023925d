"""Long loops that run in the event loop without keeping other requests waiting."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

__all__ = ("in_turns",)

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
