"""Runs several calls of cluster stores in a chosen order of their commands."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from itertools import combinations
from typing import Any

from session_core.stores.redis.cluster import ClusterLink
from session_core.stores.redis.link import Command
from session_core.stores.redis.store import RedisStore

__all__ = ("Stepped", "orders", "run_in_order")


class Stepped:
    """One call of a store, whose commands are sent one by one on demand."""

    def __init__(self, store: RedisStore, call: Coroutine[Any, Any, object]) -> None:
        link = store._link
        assert isinstance(link, ClusterLink)
        self._waiting: list[asyncio.Future[None]] = []
        self._news = asyncio.Event()
        send = link._exchange

        async def wait_for_step(slot: int, command: Command) -> Any:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            self._news.set()
            await turn
            return await send(slot, command)

        link._exchange = wait_for_step  # type: ignore[method-assign]
        self.steps = 0
        self.task = asyncio.create_task(call)
        self.task.add_done_callback(lambda _: self._news.set())

    async def step(self) -> None:
        """Send the next command and wait until the call has another one or has ended."""
        await self._wait_until_blocked()
        if self._waiting:
            self.steps += 1
            self._waiting.pop(0).set_result(None)
            self._news.clear()
            await self._wait_until_blocked()

    async def to_its_end(self) -> None:
        while not self.task.done():
            await self.step()

    async def _wait_until_blocked(self) -> None:
        while not self._waiting and not self.task.done():
            await self._news.wait()
            self._news.clear()


async def run_in_order(calls: Sequence[Stepped], order: Sequence[int]) -> list[object]:
    """Send the next command of each call named in `order`, then the rest; return the results."""
    for place in order:
        await calls[place].step()
    for call in calls:
        await call.to_its_end()
    return await asyncio.gather(*(call.task for call in calls), return_exceptions=True)


def orders(first: int, second: int) -> Iterator[list[int]]:
    """All orders of this many commands of one call and of another."""
    for places in combinations(range(first + second), first):
        yield [0 if place in places else 1 for place in range(first + second)]
