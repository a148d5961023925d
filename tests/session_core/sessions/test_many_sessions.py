"""A user with very many sessions: the limit, and an event loop that stays responsive while they are listed and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from session_core import SessionPlugin, concurrency
from session_core.concurrency import in_turns
from session_core.errors import StoreUnavailableError
from session_core.oidc.tokens.stored import HeldTokens, SessionTokens
from session_core.oidc.tokens.vault import TokenSet, TokenVault
from session_core.sealing import SealingKeys
from session_core.sessions import manager
from session_core.sessions.manager import SessionSummary
from session_core.sessions.record import Device, SessionRecord
from session_core.stores import MemoryStore, StoreCapabilities, memory
from session_core.stores.base import SessionIndex, StoredSession
from tests.support.sessions import ALICE, AppSession, Recorder, handle_on, make_app, make_config, plugin_in

pytestmark = pytest.mark.anyio


class WeakStore(MemoryStore):
    capabilities = StoreCapabilities(atomic=False, indexed=True, shared=False, durable=False, native_expiry=True)


async def log_in(plugin: SessionPlugin, number: int) -> None:
    data, device = plugin.lifecycle.codec.encode(AppSession()), Device(ip="", user_agent="another")
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


async def find_moved(plugin: SessionPlugin) -> None:
    """Look for the session that continues one with tokens, as a refresh does after a logout."""
    vault = TokenVault(SealingKeys([b"k" * 32]))
    lost = HeldTokens("", 0, 0, SessionRecord(created_at=0, absolute_expires_at=0), ALICE, TokenSet(access_token=""))
    assert await SessionTokens(plugin.sessions, vault).find_moved(lost) is None


VERBS: dict[str, Callable[[SessionPlugin], Awaitable[Any]]] = {
    "list_for": lambda plugin: plugin.sessions.list_for(ALICE),
    "revoke_all": lambda plugin: plugin.sessions.revoke_all(ALICE),
    # A session of the user that is none of these, so all are only examined.
    "end_op_session": lambda plugin: plugin.sessions.end_op_session(ALICE.issuer, "another", subject=ALICE.subject),
    "login": lambda plugin: handle_on(plugin).login(ALICE),
    "find_moved": find_moved,
}


@pytest.mark.parametrize("verb", VERBS)
async def test_examining_and_ending_sessions_yields_to_other_tasks(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = SessionPlugin(make_config(new_device_events=True))
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
    await VERBS[verb](plugin)
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


class SlowDeletes(MemoryStore):
    """Counts the deletes that are under way at once; `refused` names keys whose delete fails."""

    most = under_way = 0

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()

    async def delete(self, key: str) -> tuple[str, ...]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if key in self.refused:
            raise StoreUnavailableError
        return await super().delete(key)


async def test_revoke_before_ends_several_sessions_at_once() -> None:
    """One at a time would take minutes in a large store; all at once would use every connection of a pool."""
    store, recorder = SlowDeletes(), Recorder()
    plugin = SessionPlugin(make_config(store=store, on_event=[recorder]))
    await plugin.store.open()
    await log_in(plugin, 20)
    assert await plugin.sessions.revoke_before(2**52) == 20
    assert store.most == manager._AT_ONCE
    assert [event.name for event in recorder.events].count("session.revoked") == 20
    assert await plugin.sessions.list_for(ALICE) == []
    await plugin.store.close()


async def test_sessions_ended_before_a_failure_are_reported_and_all_are_marked() -> None:
    store, recorder = SlowDeletes(), Recorder()
    plugin = SessionPlugin(make_config(store=store, on_event=[recorder]))
    await plugin.store.open()
    await log_in(plugin, 4)
    keys = [stored.key async for stored in store.scan()]
    store.refused = {keys[0]}
    with pytest.raises(StoreUnavailableError):
        await plugin.sessions.revoke_before(2**52)
    assert [event.name for event in recorder.events].count("session.revoked") == 3
    assert [await plugin.sessions.marks.any_of([key]) for key in keys] == [True] * 4
    store.refused = set()
    assert await plugin.sessions.revoke_before(2**52) == 1
    await plugin.store.close()


class ReadInPages(MemoryStore):
    """A store whose list of a user, read in pages, misses a session that gets a new id meanwhile."""

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        found = list(await super().find(index))
        while len(found) > 1:
            missed = found.pop()
            await self.rotate(missed.key, f"{missed.key} new", missed.entry, version=missed.version, successor_until=2**52)
        return found


async def test_a_logout_of_the_op_finds_a_session_missing_from_the_first_list() -> None:
    plugin = SessionPlugin(make_config(store=ReadInPages()))
    await plugin.store.open()
    data, device = plugin.lifecycle.codec.encode(AppSession()), Device(ip="", user_agent="another")
    for _ in range(2):
        await plugin.lifecycle.begin(data, device=device, identity=replace(ALICE, sid=None))
    assert await plugin.sessions.end_op_session(ALICE.issuer, "another", subject=ALICE.subject) == 2
    assert await plugin.sessions.list_for(ALICE) == []
    await plugin.store.close()


class _Interrupted(MemoryStore):
    """Runs `between` before sessions end, and fails the first marks."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], Awaitable[None]] | None = None
        self.failing = 0

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        if self.between is not None:
            await self.between()
        return await super().delete_by(index, keep=keep)

    async def claim(self, name: str, expires_at: int) -> bool:
        if self.failing:
            self.failing -= 1
            raise StoreUnavailableError
        return await super().claim(name, expires_at)


@pytest.mark.parametrize("how", ["a new id in between", "the first mark fails"])
async def test_a_revocation_marks_every_session_that_it_has_ended(how: str) -> None:
    store = _Interrupted()
    plugin = plugin_in(make_app(store=store))
    handle = handle_on(plugin)
    await handle.login(ALICE)
    if how == "a new id in between":
        store.between = handle.regenerate
    else:
        store.failing = 1
    assert await plugin.sessions.revoke_all(ALICE) == 1
    assert await plugin.sessions.marks.any_of([handle.key])
