"""Runs several coroutines one store call at a time, in the order and with the faults of a plan.

A plan is written as text, so that a failure can be replayed. For example `0>1,7>0;3=lost` starts with actor 1, switches to
actor 0 at decision 7, and loses the response of the fourth store call. Without a switch an actor runs until it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

from session_core.errors import StoreUnavailableError
from session_core.stores.redis.cluster import ClusterLink
from session_core.stores.redis.link import Command
from session_core.stores.redis.store import RedisStore

__all__ = ("FAULTS", "Actor", "Director", "Fault", "Plan", "SteppedCluster", "SteppedStore")

Fault: TypeAlias = Literal["lost", "lost_down", "not_down", "later_down", "gone_before", "gone_after"]
"""`lost`: applied, but the response is lost. `not`: not applied. `later`: applied after the caller got an error.
`gone`: the process ends before or after the call. `down`: every further call of the request fails too."""
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)
STEPS: Final = ("load", "create", "replace", "rotate", "touch", "delete", "find", "delete_by", "claim", "claimed_until")

_current: ContextVar[Actor | None] = ContextVar("tests.simulation.actor", default=None)


@dataclass(frozen=True)
class Plan:
    """The context switches, and the store calls that fail."""

    switches: dict[int, int] = field(default_factory=dict)
    faults: dict[int, Fault] = field(default_factory=dict)

    def __str__(self) -> str:
        switches = ",".join(f"{at}>{actor}" for at, actor in sorted(self.switches.items()))
        return f"{switches};{','.join(f'{at}={fault}' for at, fault in sorted(self.faults.items()))}"

    @staticmethod
    def parse(text: str) -> Plan:
        """Parse the result of `str`."""
        switches, _, faults = text.partition(";")
        switched = (part.split(">") for part in switches.split(",") if part)
        failed = (part.split("=") for part in faults.split(",") if part)
        return Plan({int(at): int(actor) for at, actor in switched}, {int(at): fault for at, fault in failed})  # type: ignore[misc]


@dataclass(eq=False)
class Actor:
    """A request, or a step of one that has not reached the store yet."""

    number: int
    task: asyncio.Task[None] | None = None
    gone: bool = False
    down: bool = False


class Director:
    """Lets one waiting actor continue at a time; awaits `after_call` after every store call."""

    def __init__(self, plan: Plan, after_call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.plan = plan
        self.decisions = 0
        self.calls = 0
        self.actors: list[Actor] = []
        self._after_call = after_call
        self._waiting: list[tuple[Actor, asyncio.Future[None]]] = []
        self._late: list[Coroutine[Any, Any, object]] = []
        self._busy = 0
        self._last = 0

    def add(self, work: Coroutine[Any, Any, None]) -> Actor:
        """Add a coroutine as an actor."""
        actor = Actor(len(self.actors))

        async def act() -> None:
            _current.set(actor)
            await self._pause(actor)
            await work

        actor.task = asyncio.create_task(act())
        self.actors.append(actor)
        return actor

    async def run(self) -> None:
        """Run until every actor is done or gone; late steps wait for `apply_late`."""
        while True:
            await self._quiet()
            waiting = [(actor, future) for actor, future in self._waiting if not actor.gone]
            if not waiting:
                return
            wanted = self.plan.switches.get(self.decisions, self._last)
            self.decisions += 1
            chosen = next((each for each in waiting if each[0].number == wanted), waiting[0])
            self._last = chosen[0].number
            self._waiting.remove(chosen)
            chosen[1].set_result(None)

    async def apply_late(self) -> None:
        """Run the steps that are still pending; their callers have ended."""
        late, self._late = self._late, []
        for step in late:
            try:
                await step
            except Exception:  # noqa: BLE001 - refused by its own conditions
                continue

    async def call(self, step: Callable[[], Coroutine[Any, Any, object]]) -> object:
        """Run one store call of the current actor, with the plan's fault for it."""
        actor = _current.get()
        if actor is None:  # a request after the simulation
            return await step()
        await self._pause(actor)
        number = self.calls
        self.calls += 1
        fault = None if actor.down else self.plan.faults.get(number)
        if actor.down:
            raise StoreUnavailableError(not_applied=True)
        if fault == "gone_before":
            await self._leave(actor)
        if fault == "later_down":
            self._late.append(step())
        result: object = None
        if fault not in {"not_down", "later_down"}:
            result = await self._make(actor, step)
        if fault == "gone_after":
            await self._leave(actor)
        if fault is not None:
            actor.down = fault.endswith("_down")
            raise StoreUnavailableError
        return result

    async def _make(self, actor: Actor, step: Callable[[], Coroutine[Any, Any, object]]) -> object:
        self._busy += 1
        try:
            try:
                return await step()
            finally:
                _current.set(None)  # what inspects the store is not a step
                try:
                    await self._after_call()
                finally:
                    _current.set(actor)
        finally:
            self._busy -= 1
            await self._pause(actor)

    async def _pause(self, actor: Actor) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((actor, future))
        await future

    async def _leave(self, actor: Actor) -> None:
        actor.gone = True
        await asyncio.get_running_loop().create_future()

    async def _quiet(self) -> None:
        """Wait until every actor waits for its turn or for another one, or is done."""
        loop: Any = asyncio.get_running_loop()
        while True:
            while loop._ready:  # noqa: ASYNC110 - there is no event for "nothing else is ready"
                await asyncio.sleep(0)
            pending = [actor for actor in self.actors if actor.task and not actor.task.done() and not actor.gone]
            if not self._busy and (self._waiting or not pending):
                return
            await asyncio.sleep(0.0005)  # a store is working, or an actor pauses between two attempts


class SteppedStore:
    """A store whose every call is one step of the simulation."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.director: Director | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in STEPS:
            return method

        async def call(*args: Any, **kwargs: Any) -> object:
            if self.director is None:
                return await method(*args, **kwargs)
            return await self.director.call(lambda: method(*args, **kwargs))

        return call


class SteppedCluster(SteppedStore):
    """A cluster store whose every command is a step, so that multi-command operations can be interrupted.

    The server refuses a command after its deadline, so there is no `later` here (`test_store_redis_late.py`).
    """

    def __init__(self, inner: RedisStore) -> None:
        super().__init__(inner)
        link = inner._link
        assert isinstance(link, ClusterLink)
        send = link._exchange

        async def exchange(slot: int, command: Command) -> object:
            if self.director is None:
                return await send(slot, command)
            return await self.director.call(lambda: send(slot, command))

        link._exchange = exchange  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
