"""A call with a time limit, as `GuardedStore` makes it, for the tests of the shared timer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import Any, TypeVar

from session_core.stores.deadlines import Deadlines

T = TypeVar("T")


async def limited(deadlines: Deadlines, call: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return the result of the call. Raises `TimeoutError` after `seconds` and cancels the call."""
    task = deadlines.begin(monotonic() + seconds)
    if task is None:
        async with asyncio.timeout(seconds):
            return await call
    try:
        return await call
    except asyncio.CancelledError:
        if deadlines.is_over(task):
            raise TimeoutError from None
        raise
    finally:
        deadlines.end(task)
