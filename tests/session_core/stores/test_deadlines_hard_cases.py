"""One shared timer: calls that clean up after cancellation, and event loops in several threads."""

from __future__ import annotations

import asyncio
from threading import Thread

import pytest

from session_core.stores.deadlines import Deadlines
from tests.session_core.stores.limited import limited

SHORT = 0.02


async def hang() -> None:
    await asyncio.Event().wait()


@pytest.mark.anyio
async def test_a_call_that_calls_again_during_cleanup_has_still_timed_out() -> None:
    deadlines = Deadlines()

    async def tidies_up() -> None:
        try:
            await hang()
        finally:
            await limited(deadlines, asyncio.sleep(0), SHORT)

    with pytest.raises(TimeoutError):
        await limited(deadlines, tidies_up(), SHORT)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


def test_a_timer_left_in_another_threads_loop_cancels_no_task_here() -> None:
    deadlines = Deadlines()
    other = asyncio.new_event_loop()
    other.run_until_complete(limited(deadlines, asyncio.sleep(0), SHORT))

    async def answer() -> str:
        await asyncio.sleep(0)
        elsewhere = Thread(target=other.run_until_complete, args=(asyncio.sleep(3 * SHORT),))
        elsewhere.start()
        elsewhere.join()
        return "answer"

    async def ask() -> str:
        found = await limited(deadlines, answer(), SHORT)
        await asyncio.sleep(0)  # a leftover cancellation would be raised here
        return found

    assert asyncio.run(ask()) == "answer"
    other.close()
