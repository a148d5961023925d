"""One shared timer ends exactly the calls whose deadline has passed."""

from __future__ import annotations

import asyncio

import pytest

from session_core.stores.deadlines import Deadlines
from tests.session_core.stores.limited import limited

pytestmark = pytest.mark.anyio

SHORT = 0.02


async def hang() -> None:
    await asyncio.Event().wait()


async def test_a_hanging_call_is_ended_and_the_task_continues() -> None:
    deadlines = Deadlines()
    with pytest.raises(TimeoutError):
        await limited(deadlines, hang(), SHORT)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # a leftover cancellation would be raised here
    assert deadlines._running == deadlines._expired == {}


async def test_a_result_and_an_error_pass_unchanged() -> None:
    deadlines = Deadlines()

    async def fail() -> None:
        raise KeyError

    async def answer() -> int:
        await asyncio.sleep(0)
        return 7

    assert await limited(deadlines, answer(), 5) == 7
    with pytest.raises(KeyError):
        await limited(deadlines, fail(), 5)
    assert deadlines._running == {}


async def test_each_call_has_its_own_deadline() -> None:
    deadlines = Deadlines()
    loop = asyncio.get_running_loop()

    async def timed() -> float:
        began = loop.time()
        with pytest.raises(TimeoutError):
            await limited(deadlines, hang(), SHORT)
        return loop.time() - began

    async def quick() -> None:
        await limited(deadlines, asyncio.sleep(0), SHORT)

    async def later() -> float:
        await asyncio.sleep(SHORT / 2)
        return await timed()

    # The quick call sets the timer; when it fires with no call to end, it must be set again for running calls.
    _, *took = await asyncio.gather(quick(), *(timed() for _ in range(20)), *(later() for _ in range(20)))
    assert min(took) >= SHORT * 0.99


async def test_a_task_cancelled_from_outside_stays_cancelled() -> None:
    deadlines = Deadlines()
    task = asyncio.create_task(limited(deadlines, hang(), 5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_cancelled_by_deadline_and_caller_stays_cancelled() -> None:
    deadlines = Deadlines()
    tasks: list[asyncio.Task[None]] = []

    async def ends_late() -> None:
        try:
            await hang()
        finally:
            tasks[0].cancel()  # the client disconnects at the deadline

    tasks.append(asyncio.create_task(limited(deadlines, ends_late(), SHORT)))
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_a_call_that_finishes_despite_its_deadline_leaves_no_cancellation() -> None:
    deadlines = Deadlines()

    async def stubborn() -> str:
        try:
            await hang()
        except asyncio.CancelledError:
            return "done"
        return "never"

    assert await limited(deadlines, stubborn(), SHORT) == "done"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_nested_call_has_its_own_deadline() -> None:
    deadlines = Deadlines()

    async def inner() -> str:
        with pytest.raises(TimeoutError):
            await limited(Deadlines(), hang(), SHORT)
        return "outer goes on"

    assert await limited(deadlines, inner(), 60) == "outer goes on"
    with pytest.raises(TimeoutError):
        await limited(deadlines, limited(deadlines, hang(), SHORT), SHORT)


def test_the_timer_serves_one_event_loop_after_another() -> None:
    deadlines = Deadlines()

    async def left_running() -> None:
        task = asyncio.create_task(limited(deadlines, hang(), SHORT))
        await asyncio.sleep(0)
        task.cancel()

    async def again() -> None:
        with pytest.raises(TimeoutError):
            await limited(deadlines, hang(), SHORT)

    for _ in range(3):
        asyncio.run(left_running())
        asyncio.run(again())
