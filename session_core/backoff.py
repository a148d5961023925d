"""Backoff between compare-and-swap retries; independent of stores."""

from __future__ import annotations

import asyncio
import random
from typing import Final

__all__ = ("back_off",)

_FIRST_SECONDS: Final = 0.001
_MOST_SECONDS: Final = 0.064


async def back_off(attempt: int) -> None:
    """Wait for a random time that grows with `attempt`, from 0: two processes in lockstep would fail each other for ever."""
    await asyncio.sleep(random.random() * min(_FIRST_SECONDS * 2**attempt, _MOST_SECONDS))  # noqa: S311 - no secret
