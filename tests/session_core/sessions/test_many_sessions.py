"""A user with very many sessions: the limit, and an event loop that stays responsive while they are listed and ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from session_core import SessionPlugin, concurrency
from session_core.concurrency import in_turns
from session_core.sessions import manager
from session_core.sessions.manager import SessionSummary
from session_core.sessions.record import Device
from session_core.stores import MemoryStore, StoreCapabilities, memory
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
async def test_there_is_a_default_limit(options: dict[str, Any], left: int) -> None:
    """It can be raised and lowered. A store that cannot enforce a limit has none."""
    recorder = Recorder()
    plugin = SessionPlugin(make_config(on_event=[recorder], **options))
    await plugin.store.open()
    await log_in(plugin, 1003)
    assert len(await plugin.sessions.list_for(ALICE)) == left
    assert [event.name for event in recorder.events].count("session.evicted") == 1003 - left
    await plugin.store.close()


async def test_other_tasks_run_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """It yields after each millisecond; here each item takes one."""
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


@pytest.mark.parametrize("verb", ["list_for", "revoke_all", "end_op_session"])
async def test_listing_and_ending_sessions_yields_to_other_tasks(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when sessions are only examined: at the provider one session of the user ended, and it is none of these."""
    plugin = SessionPlugin(make_config())
    await plugin.store.open()
    await log_in(plugin, 50)
    arguments: dict[str, Any] = {"identity": ALICE}
    if verb == "end_op_session":
        arguments = {"issuer": ALICE.issuer, "sid": "another", "subject": ALICE.subject}
    clock = iter(range(10_000))
    monkeypatch.setattr(concurrency, "perf_counter", lambda: next(clock))
    loop, passed = asyncio.get_running_loop(), 0

    def turn() -> None:
        nonlocal passed
        passed += 1
        loop.call_soon(turn)

    loop.call_soon(turn)
    await getattr(plugin.sessions, verb)(**arguments)
    assert passed >= 50
    await plugin.store.close()


async def test_sorting_a_long_list_yields_to_other_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = SessionPlugin(make_config())
    await plugin.store.open()
    await log_in(plugin, 100)
    clock = iter(range(10_000))
    monkeypatch.setattr(concurrency, "perf_counter", lambda: next(clock))
    order, keys, longest, loop = manager._by_last_use, 0, 0, asyncio.get_running_loop()

    def key(summary: SessionSummary) -> tuple[int, str]:
        nonlocal keys
        keys += 1
        return order(summary)

    def turn() -> None:
        nonlocal keys, longest
        longest, keys = max(longest, keys), 0
        loop.call_soon(turn)

    monkeypatch.setattr(manager, "_by_last_use", key)
    loop.call_soon(turn)
    listed = await plugin.sessions.list_for(ALICE)
    assert listed == sorted(listed, key=order)
    assert 0 < longest < 10
    await plugin.store.close()


async def test_memory_sessions_are_ended_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_AT_ONCE", 10)
    store = MemoryStore()
    plugin = SessionPlugin(make_config(store=store))
    await plugin.store.open()
    await log_in(plugin, 25)
    left: list[int] = []

    async def others() -> None:
        while True:
            left.append(len(store._records))
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    assert await plugin.sessions.revoke_all(ALICE) == 25
    other.cancel()
    assert {15, 5} < {*left}
    await plugin.store.close()
