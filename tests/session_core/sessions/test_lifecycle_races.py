"""Steps of the lifecycle that meet another request between a read and the write that depends on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any
from unittest.mock import AsyncMock

import pytest

from session_core import Identity, SessionGoneError, SessionPlugin
from session_core.clock import TOLERATED_SKEW_MS
from session_core.errors import SessionConflictError, SessionLimitError, StoreUnavailableError
from session_core.ids import UncertainId, new_session_id, session_key
from session_core.sessions.logout_marks import CERTAIN_MS
from session_core.sessions.snapshot import entry_of
from session_core.stores import MemoryStore
from session_core.stores.base import StoredSession
from session_core.testing import FakeClock
from tests.support.sessions import ALICE, Recorder, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio

Step = Callable[[], Awaitable[object]]


class MeetingStore(MemoryStore):
    """Runs a step of another request before the next call of a method; `down` names the methods that do not answer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.before: dict[str, Step] = {}
        self.down: set[str] = set()
        self.calls: list[str] = []

    async def _meet(self, name: str) -> None:
        self.calls.append(name)
        if name in self.down:
            raise StoreUnavailableError
        if (step := self.before.pop(name, None)) is not None:
            await step()

    async def replace(self, *args: Any, **options: Any) -> int:
        await self._meet("replace")
        return await super().replace(*args, **options)

    async def rotate(self, *args: Any, **options: Any) -> tuple[str, ...]:
        await self._meet("rotate")
        return await super().rotate(*args, **options)

    async def touch(self, *args: Any, **options: Any) -> bool:
        await self._meet("touch")
        return await super().touch(*args, **options)


@pytest.fixture
def store(clock: FakeClock) -> MeetingStore:
    return MeetingStore(clock=clock)


@pytest.fixture
def plugin(store: MeetingStore, clock: FakeClock) -> SessionPlugin:
    return plugin_in(make_app(store=store, clock=clock))


async def begun(plugin: SessionPlugin) -> Any:
    handle = handle_on(plugin)
    await handle.update(visits=1)
    return handle


async def test_an_uncertain_id_is_settled_although_the_session_is_written_meanwhile(
    plugin: SessionPlugin, store: MeetingStore
) -> None:
    old, new = await begun(plugin), new_session_id()
    twin = await handle_on(plugin, old.session_id).load()
    store.before["replace"] = lambda: twin.update(visits=2)
    found = await plugin.lifecycle.settle(UncertainId((new,), old.session_id))
    assert found is not None
    assert (found[0], found[1].version) == (old.session_id, 2)
    with pytest.raises(SessionConflictError):  # what was sent before can no longer take effect
        await store.rotate(old.key, session_key(new), old.snapshot.entry, version=1, successor_until=2**50, limit=0)


async def test_an_uncertain_id_is_settled_by_the_rotation_that_arrives_meanwhile(
    plugin: SessionPlugin, store: MeetingStore
) -> None:
    old, new = await begun(plugin), new_session_id()

    async def rotate() -> None:
        entry = (await store.load(old.key)).entry  # type: ignore[union-attr]
        await store.rotate(old.key, session_key(new), entry, version=1, successor_until=2**50, limit=0)

    store.before["replace"] = rotate
    found = await plugin.lifecycle.settle(UncertainId((new,), old.session_id))
    assert found is not None
    assert found[0] == new


@pytest.mark.parametrize(("position", "version"), [(0, 1), (1, 2)])
async def test_only_the_last_of_several_new_ids_is_settled_without_a_write(
    position: int, version: int, plugin: SessionPlugin
) -> None:
    """The session of an earlier one may still be about to move to the last, which is named first."""
    handle, new = await begun(plugin), [new_session_id(), new_session_id()]
    new[position] = handle.session_id
    found = await plugin.lifecycle.settle(UncertainId(tuple(new), None))
    assert found is not None
    assert (found[0], found[1].version) == (handle.session_id, version)


async def test_an_uncertain_id_without_a_session_settles_as_none(plugin: SessionPlugin) -> None:
    assert await plugin.lifecycle.settle(UncertainId((new_session_id(),), new_session_id())) is None


@pytest.mark.parametrize(("late", "is_live"), [(-1, True), (0, False), (1, False)])
async def test_a_login_that_was_never_confirmed_ends_when_no_mark_can_tell(
    late: int, is_live: bool, plugin: SessionPlugin, clock: FakeClock
) -> None:
    handle = handle_on(plugin)
    begun = await plugin.sessions.moment()
    await handle.login(ALICE)
    clock.advance(seconds=(CERTAIN_MS + late) / 1000)
    found = await plugin.lifecycle.settle(UncertainId((handle.session_id,), None, (begun.count, begun.number)))
    assert (found is not None) is is_live


async def test_an_anonymous_session_is_not_ended_by_the_op(plugin: SessionPlugin) -> None:
    handle = await begun(plugin)
    found = await plugin.lifecycle.settle(UncertainId((handle.session_id,), None, (7, 7)))
    assert found is not None
    assert found[0] == handle.session_id


@pytest.mark.parametrize("verb", [lambda handle: handle.regenerate(), lambda handle: handle.login(ALICE)])
async def test_a_new_id_keeps_changes_that_were_written_together(
    plugin: SessionPlugin, store: MeetingStore, verb: Callable[[Any], Awaitable[None]]
) -> None:
    """The first of two changes in one write has no copy of the second."""
    handles = [await begun(plugin)]
    handles += [await handle_on(plugin, handles[0].session_id).load() for _ in range(2)]
    store.before["replace"] = lambda: asyncio.sleep(0)
    first, second, third = handles
    await asyncio.gather(first.update(visits=2), second.update(note="second"), third.update(theme="dark"))
    store.calls.clear()
    await verb(second)
    assert (second.data.visits, second.data.note, second.data.theme) == (2, "second", "dark")
    assert store.calls == ["rotate"]


@pytest.mark.usefixtures("virtual_time")
async def test_a_new_id_is_given_up_after_the_patience_of_a_step(plugin: SessionPlugin, store: MeetingStore) -> None:
    handle = await begun(plugin)
    began = monotonic()

    async def lose() -> None:
        store.before["rotate"] = lose
        await asyncio.sleep(0.5)
        raise SessionConflictError

    store.before["rotate"] = lose
    with pytest.raises(SessionConflictError, match="other requests kept changing the session"):
        await handle.regenerate()
    assert monotonic() - began == pytest.approx(20, abs=0.6)
    assert handle.uncertain is None
    del store.before["rotate"]
    await handle.regenerate()
    assert handle.data.visits == 1


async def test_a_session_that_ends_before_it_gets_a_new_id_is_gone(plugin: SessionPlugin, store: MeetingStore) -> None:
    handle = await begun(plugin)
    twin = await handle_on(plugin, handle.session_id).load()
    store.before["rotate"] = twin.destroy
    with pytest.raises(SessionGoneError):
        await handle.regenerate()
    assert handle.uncertain is None


@pytest.mark.parametrize(
    ("end", "loads", "traces"), [(lambda handle: handle.destroy(), 1, 1), (lambda handle: handle.login(ALICE), 2, 1)]
)
async def test_an_ended_session_is_looked_up_once(
    plugin: SessionPlugin,
    store: MeetingStore,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Any], Awaitable[None]],
    loads: int,
    traces: int,
) -> None:
    """Also if a login in the same browser has replaced it."""
    handle = await begun(plugin)
    await end(await handle_on(plugin, handle.session_id).load())
    load, trace = AsyncMock(wraps=store.load), AsyncMock(wraps=store.trace)
    monkeypatch.setattr(store, "load", load)
    monkeypatch.setattr(store, "trace", trace)
    with pytest.raises(SessionGoneError):
        await plugin.lifecycle.confirm(handle.snapshot)
    assert (load.await_count, trace.await_count) == (loads, traces)


@pytest.mark.parametrize(
    ("later", "at", "is_live"), [(-1, 0, True), (0, 0, True), (0, 1, True), (1, -1, True), (1, 0, False), (1, 1, False)]
)
async def test_the_store_decides_when_a_session_ends_but_never_after_its_absolute_timeout(
    clock: FakeClock, *, later: int, at: int, is_live: bool
) -> None:
    """The store's clock may be behind; only an entry that would outlive its session is checked again."""
    store = MemoryStore(clock=FakeClock())
    plugin = plugin_in(make_app(store=store, clock=clock))
    handle = await begun(plugin)
    record = handle.snapshot.record
    end = record.absolute_expires_at
    await store.replace(handle.key, entry_of(record, end + later), version=1)
    clock.advance(seconds=(end + at - clock.now()) / 1000)
    assert (await plugin.lifecycle.load(handle.session_id) is not None) is is_live


async def test_a_former_id_leads_to_its_successor_for_six_minutes(plugin: SessionPlugin, clock: FakeClock) -> None:
    handle = await begun(plugin)
    former = handle.session_id
    await handle.regenerate()
    clock.advance(seconds=(60_000 + TOLERATED_SKEW_MS - 1) / 1000)
    assert await plugin.lifecycle.has_moved([former])
    clock.advance(seconds=0.001)
    assert not await plugin.lifecycle.has_moved([former])


async def test_an_equal_entry_of_another_version_is_loaded_with_that_version(plugin: SessionPlugin, store: MeetingStore) -> None:
    """It can be lower after the store was restored from a backup."""
    handle = await begun(plugin)
    stored = await store.load(handle.key)
    assert stored is not None

    async def version() -> int:
        return (await handle_on(plugin, handle.session_id).load()).snapshot.version

    assert await version() == 1
    await store.replace(handle.key, stored.entry, version=1)
    assert await version() == 2
    await store.delete(handle.key)
    await store.create(handle.key, stored.entry, limit=0)
    assert await version() == 1


@pytest.mark.parametrize(
    "verb", [lambda _: asyncio.sleep(0), lambda handle: handle.regenerate(), lambda handle: handle.login(ALICE)]
)
async def test_the_first_write_under_a_new_id_is_one_step(
    plugin: SessionPlugin, store: MeetingStore, verb: Callable[[Any], Awaitable[None]]
) -> None:
    handle = await begun(plugin)
    await verb(handle)
    store.calls.clear()
    await handle.update(visits=2)
    assert store.calls == ["replace"]


async def test_none_of_several_ids_without_a_session_is_used(
    plugin: SessionPlugin, store: MeetingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = AsyncMock(wraps=store.trace)
    monkeypatch.setattr(store, "trace", trace)
    assert await plugin.lifecycle.choose([new_session_id(), new_session_id()]) is None
    assert trace.await_count == 1


async def test_an_outage_does_not_fail_a_request_that_only_extends(
    plugin: SessionPlugin, store: MeetingStore, clock: FakeClock
) -> None:
    handle = await begun(plugin)
    expires_at = handle.snapshot.expires_at
    await handle.extend()
    assert store.calls == []
    clock.advance(seconds=60)
    store.down.add("touch")
    await handle.extend()
    assert handle.snapshot.expires_at == expires_at
    store.down.clear()
    await handle.extend()
    assert handle.snapshot.expires_at == expires_at + 60_000


async def test_an_anonymous_session_begins_only_if_admitted(plugin: SessionPlugin) -> None:
    async def refuse(_: object) -> None:
        raise LookupError

    plugin.lifecycle.admit_anonymous = refuse
    handle = handle_on(plugin)
    with pytest.raises(LookupError):
        await handle.update(visits=1)
    assert (await plugin.sessions.stats()).total == 0
    await handle_on(plugin).login(ALICE)
    assert (await plugin.sessions.stats()).total == 1


async def test_an_anonymous_session_counts_as_no_login(clock: FakeClock) -> None:
    plugin = plugin_in(make_app(clock=clock, max_sessions_per_user=1, on_limit="refuse"))
    for handle in (await begun(plugin), await begun(plugin)):
        assert handle.snapshot.record.logged_in_at == 0


async def test_a_login_that_a_stopped_process_made_too_late_is_undone(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has logged the user in meanwhile, because the note that keeps it out was over."""
    store, recorder = MemoryStore(clock=clock), Recorder()
    plugin = plugin_in(make_app(store=store, clock=clock, on_event=[recorder], max_sessions_per_user=1, on_limit="refuse"))
    other = handle_on(plugin_in(make_app(store=store, clock=clock)))
    limits = plugin.lifecycle._limits
    sessions_of = limits._sessions_of

    async def count(identity: Identity) -> list[StoredSession]:
        if "session.created" in recorder.names:
            await other.login(ALICE)
        return await sessions_of(identity)

    monkeypatch.setattr(limits, "_sessions_of", count)
    handle = handle_on(plugin)
    with pytest.raises(SessionLimitError):
        await handle.login(ALICE)
    assert [each.handle for each in await plugin.sessions.list_for(ALICE)] == [other.handle]
    assert [event.reason for event in recorder.events if event.name == "session.destroyed"] == ["limit"]
    assert (handle.uncertain, handle.cookie_action) == (None, None)
