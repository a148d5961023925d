"""How much of a sweep is one step, and how long it rests afterwards; knows no database.

A step holds locks, a connection and a core, and whoever comes meanwhile may have to wait for it. How long it takes is found out
by doing it: rows are larger here, disks slower there, and the machine has more to do than yesterday.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("Pace",)

_FEWEST: Final = 25
"""Rows. With fewer a step is all overhead."""
_MOST: Final = 100
"""Rows, however fast they are: what they leave behind (dirty pages, log, index entries) is written by others, and later."""
_STEP_SECONDS: Final = 0.005
"""What a step is to take at most; one that took longer is halved."""
_LONGEST_REST: Final = 1.0
"""Seconds. A step that waited for a lost server says nothing of the next one."""
_CALL_SECONDS: Final = 10.0
"""Callers have deadlines of their own; what is left is for the next call."""


class Pace:
    """Sets the size of the steps by the time they take. `timer` gives seconds, `sleep` waits for some."""

    def __init__(
        self,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.timer = timer
        self.rows = _FEWEST
        """Of the next step."""
        self._sleep = sleep

    def is_over(self, began: float) -> bool:
        """Whether a call that began then has gone on for long enough."""
        return self.timer() - began >= _CALL_SECONDS

    async def rest(self, seconds: float) -> None:
        """Rest after a step for as long as it took: half of the time nothing is locked, at the least."""
        if seconds > _STEP_SECONDS:
            self.rows = max(self.rows // 2, _FEWEST)
        elif seconds < _STEP_SECONDS / 2:
            self.rows = min(self.rows * 2, _MOST)
        await self._sleep(min(seconds, _LONGEST_REST))
