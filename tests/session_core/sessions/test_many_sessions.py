"""A user with very many sessions: how many there may be, and that the event loop goes on while they are listed and ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from session_core import SessionPlugin, concurrency
from session_core.concurrency import in_turns
from session_core.sessions.record import Device
from session_core.stores import MemoryStore, StoreCapabilities
from tests.support.sessions import ALICE, AppSession, Recorder, make_config

pytestmark = pytest.mark.anyio


class WeakStore(MemoryStore):
    capabilities = StoreCapabilities(atomic=False, indexed=True, shared=False, durable=False, native_expiry=True)


async def log_in(plugin: SessionPlugin, number: int) -> None:
    data, device = plugin.lifecycle.codec.encode(AppSession()), Device(ip="", user_agent="")
    for _ in range(number):
        await plugin.lifecycle.begin(data, device=device, identity=ALICE)


@pytest.mark.parametrize(
    ("options", "left"),
    [({}, 1000), ({"max_sessions_per_user": 1002}, 1002), ({"max_sessions_per_user": 3}, 3), ({"store": WeakStore()}, 1003)],
)
async def test_there_is_a_limit_without_one_of_the_application(options: dict[str, Any], left: int) -> None:
    """It can be raised and lowered. A store that cannot keep a limit has none."""
    recorder = Recorder()
    plugin = SessionPlugin(make_config(on_event=[recorder], **options))
    await plugin.store.open()
    await log_in(plugin, 1003)
    assert len(await plugin.sessions.list_for(ALICE)) == left
    assert [event.name for event in recorder.events].count("session.evicted") == 1003 - left
    await plugin.store.close()


async def test_others_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each millisecond: here one passes with every item."""
    clock = iter(range(10_000))
    monkeypatch.setattr(concurrency, "perf_counter", lambda: next(clock))
    seen: list[str] = []

    async def others() -> None:
        while True:
            seen.append("other")
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    async for item in in_turns("abc"):
        seen.append(item)  # noqa: PERF401 - others append as well
    other.cancel()
    assert seen == ["a", "other", "b", "other", "c", "other"]


@pytest.mark.parametrize("verb", ["list_for", "revoke_all"])
async def test_sessions_are_listed_and_ended_in_turns(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = SessionPlugin(make_config())
    await plugin.store.open()
    await log_in(plugin, 50)
    clock = iter(range(10_000))
    monkeypatch.setattr(concurrency, "perf_counter", lambda: next(clock))
    loop, passed = asyncio.get_running_loop(), 0

    def turn() -> None:
        nonlocal passed
        passed += 1
        loop.call_soon(turn)

    loop.call_soon(turn)
    await getattr(plugin.sessions, verb)(ALICE)
    assert passed >= 50
    await plugin.store.close()
