"""The handle of one request: its times, what several of its tasks do at once, and what follows an error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from litestar import Litestar

from session_core import SessionConfig, SessionDataError, SessionGoneError, SessionHandle, SessionPlugin, Timeouts
from session_core.errors import InvalidTokenError, ResponseStartedError
from session_core.ids import new_session_id
from session_core.sessions.record import decode_record, encode_record
from session_core.stores import MemoryStore
from session_core.stores.base import StoredSession
from session_core.testing import FakeClock
from tests.support.presented import PresentedId
from tests.support.sessions import ALICE, AppSession, Recorder, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio

DAY = 86_400


class GatedStore(MemoryStore):
    """Counts its reads, which wait while the gate is shut."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.loads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, key: str) -> StoredSession | None:
        self.loads += 1
        await self.gate.wait()
        return await super().load(key)

    async def until_read(self) -> None:
        for _ in range(100):
            if self.loads:
                return
            await asyncio.sleep(0)
        raise TimeoutError


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def store(clock: FakeClock) -> GatedStore:
    return GatedStore(clock=clock)


@pytest.fixture
def app(clock: FakeClock, recorder: Recorder, store: GatedStore) -> Litestar:
    timeouts = Timeouts(idle=600, absolute=3600, touch_interval=60)
    return make_app(store=store, clock=clock, on_event=[recorder], timeouts=timeouts)


@pytest.fixture
def plugin(app: Litestar) -> SessionPlugin:
    return plugin_in(app)


async def begun(plugin: SessionPlugin) -> Any:
    handle = handle_on(plugin)
    await handle.update(visits=1)
    return handle


async def test_a_handle_names_the_times_of_its_session(plugin: SessionPlugin, clock: FakeClock) -> None:
    handle = handle_on(plugin)
    assert (handle.created_at, handle.idle_expires_at, handle.absolute_expires_at) == (None, None, None)
    began = clock.now()
    await handle.update(visits=1)
    clock.advance(seconds=100)
    assert (handle.created_at, handle.absolute_expires_at) == (began, began + 3_600_000)
    assert handle.idle_expires_at == began + 700_000
    handle.extends = False
    assert handle.idle_expires_at == began + 600_000


async def test_tasks_of_one_request_load_the_session_once(plugin: SessionPlugin, store: GatedStore) -> None:
    handle = handle_on(plugin, (await begun(plugin)).session_id)
    store.loads = 0
    store.gate.clear()
    first, second, third = (asyncio.create_task(handle.load()) for _ in range(3))
    await store.until_read()
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    store.gate.set()
    assert [await first, await third] == [handle, handle]
    assert handle.data.visits == 1
    assert store.loads == 1


async def test_tasks_of_one_request_begin_one_session(plugin: SessionPlugin) -> None:
    handle = handle_on(plugin)
    await handle.load()

    def bump(data: AppSession) -> None:
        data.visits += 1

    await asyncio.gather(handle.update(bump), handle.update(bump))
    assert handle.data.visits == 2
    assert (await plugin.sessions.stats()).total == 1


@pytest.mark.parametrize("changes", [{"theme": "dark"}, {"visits": -1}, {"visits": 1}])
async def test_only_a_change_begins_a_session(plugin: SessionPlugin, changes: dict[str, Any]) -> None:
    handle = handle_on(plugin)
    await handle.update()
    await handle.update(visits=0)
    assert not handle.exists
    await handle.update(**changes)
    assert handle.exists


async def test_the_live_one_of_several_ids_is_given_again(plugin: SessionPlugin) -> None:
    known = (await begun(plugin)).session_id
    handle = await handle_on(plugin, known).load()
    assert (handle.served, handle.presents_several, handle.cookie_action) == (True, False, None)
    source: Any = PresentedId()
    source.session_id = (new_session_id(), known)
    handle = await SessionHandle(plugin.lifecycle, source).load()
    assert (handle.session_id, handle.presents_several, handle.cookie_action) == (known, True, "set")


async def test_a_visitor_is_reloaded_as_a_visitor(plugin: SessionPlugin) -> None:
    handle = handle_on(plugin)
    assert await handle.reload() == AppSession()
    handle.data.note = "dropped"
    assert await handle.reload() == AppSession()
    assert not handle.exists


async def test_an_ended_session_is_reloaded_as_a_visitor(plugin: SessionPlugin, recorder: Recorder) -> None:
    handle = await begun(plugin)
    await handle_on(plugin, handle.session_id).destroy()
    assert await handle.reload() == AppSession()
    assert (handle.session_id, handle.exists, handle.cookie()) == (None, False, None)
    assert "session.undecodable" not in recorder.names


async def test_a_session_of_another_version_is_reloaded_as_a_visitor(plugin: SessionPlugin, recorder: Recorder) -> None:
    handle = await begun(plugin)
    stored = await plugin.store.load(handle.key)
    assert stored is not None
    data = msgspec.Raw(msgspec.msgpack.encode({"visits": "many"}))
    record = msgspec.structs.replace(decode_record(stored.entry.data), data=data)
    entry = msgspec.structs.replace(stored.entry, data=encode_record(record))
    await plugin.store.replace(handle.key, entry, version=stored.version)
    assert await handle.reload() == AppSession()
    assert not handle.exists
    assert recorder.names.count("session.undecodable") == 1


async def test_other_types_than_the_applications_cannot_be_assigned(plugin: SessionPlugin) -> None:
    handle = await begun(plugin)
    with pytest.raises(SessionDataError, match="must be a AppSession"):
        handle.data = {"visits": 2}
    assert handle.data.visits == 1
    handle.data = AppSession(visits=2)
    await handle.save()
    assert (await handle.reload()).visits == 2
    assert handle.fresh_data() == AppSession()


async def test_the_data_of_a_session_that_is_not_loaded_is_refused(plugin: SessionPlugin) -> None:
    handle = handle_on(plugin, "unknown")
    for read in (lambda: handle.data, lambda: setattr(handle, "data", AppSession())):
        with pytest.raises(RuntimeError, match="not loaded yet"):
            read()


async def test_no_session_is_confirmed_where_connections_are_never_closed(clock: FakeClock) -> None:
    handle = await begun(plugin_in(make_app(clock=clock, close_connections="never")))
    clock.advance(seconds=599)
    assert not handle.has_to_confirm()


async def test_a_session_is_confirmed_after_its_time(clock: FakeClock) -> None:
    plugin = plugin_in(make_app(clock=clock, poll_interval=5))
    assert not handle_on(plugin).has_to_confirm()
    handle = await begun(plugin)
    clock.advance(seconds=5)
    assert (handle.has_to_confirm(), handle.has_to_save()) == (False, False)
    clock.advance(seconds=0.001)
    assert (handle.has_to_confirm(), handle.has_to_save()) == (True, True)
    await handle.confirm()
    assert (handle.has_to_confirm(), handle.has_to_save()) == (False, False)


@pytest.mark.parametrize("own", [None, Timeouts(idle=120, absolute=3600), Timeouts(idle=2400, absolute=3600)])
async def test_a_response_extends_the_session_after_the_touch_interval(
    plugin: SessionPlugin, clock: FakeClock, own: Timeouts | None
) -> None:
    plugin.lifecycle.confirm_after = 2**62
    handle = handle_on(plugin)
    await handle.login(ALICE, timeouts=own)
    idle = own.idle if own else 600
    for _ in range(2):
        clock.advance(seconds=59.999)
        assert not handle.has_to_save()
        clock.advance(seconds=0.001)
        assert handle.has_to_save()
        handle.extends = False
        assert not handle.has_to_save()
        handle.extends = True
        await handle.extend()
        assert handle.idle_expires_at == clock.now() + idle * 1000
    clock.advance(seconds=61)
    assert handle.has_to_save()


async def test_a_response_that_sets_no_cookie_gives_no_token(plugin: SessionPlugin) -> None:
    handle = handle_on(plugin)
    assert (handle.new_token, handle.cookie_action) == (None, None)
    await handle.destroy()
    assert (handle.new_token, handle.cookie_action) == (None, "delete")


async def test_a_visitor_extends_nothing(plugin: SessionPlugin) -> None:
    handle = handle_on(plugin)
    await handle.extend()
    assert not handle.exists


async def test_a_session_that_would_expire_soon_is_extended_when_loaded(plugin: SessionPlugin, clock: FakeClock) -> None:
    """A slow request must not outlive a session that it uses."""
    session_id, began = (await begun(plugin)).session_id, clock.now()
    for _ in range(2):
        clock.advance(seconds=150)
        handle = await handle_on(plugin, session_id).load()
        assert handle.snapshot.expires_at == began + 600_000
    clock.advance(seconds=0.001)
    handle = await handle_on(plugin, session_id).load()
    assert handle.snapshot.expires_at == clock.now() + 600_000


async def is_cookie_given(plugin: SessionPlugin, session_id: str) -> bool:
    handle = await handle_on(plugin, session_id).load()
    await handle.extend()
    return bool(handle.cookie_action == "set")


async def test_a_cookie_is_given_again_at_the_first_use_of_a_day(clock: FakeClock) -> None:
    plugin = plugin_in(make_app(clock=clock, timeouts=Timeouts(idle=500 * DAY, absolute=800 * DAY, touch_interval=0)))
    clock.advance(seconds=DAY - clock.now() / 1000 % DAY - 0.001)  # the last millisecond of a day
    session_id = (await begun(plugin)).session_id
    assert not await is_cookie_given(plugin, session_id)
    for _ in range(2):
        clock.advance(seconds=0.001)
        assert await is_cookie_given(plugin, session_id)
        clock.advance(seconds=DAY / 2)
        assert not await is_cookie_given(plugin, session_id)
        clock.advance(seconds=DAY / 2 - 0.001)
        assert not await is_cookie_given(plugin, session_id)


async def test_a_cookie_is_given_again_while_the_session_can_outlive_it(clock: FakeClock) -> None:
    plugin = plugin_in(make_app(clock=clock, timeouts=Timeouts(idle=30 * DAY, absolute=401 * DAY)))
    session_id, given = (await begun(plugin)).session_id, []
    for _ in range(3):
        clock.advance(seconds=DAY)
        given.append(await is_cookie_given(plugin, session_id))
    assert given == [True, False, False]  # on the second day it was last given 400 days before the end


async def test_each_request_with_an_unknown_token_is_refused(plugin: SessionPlugin) -> None:
    handle: SessionHandle[AppSession] = SessionHandle(plugin.lifecycle, PresentedId("unknown", presents_token=True))
    for _ in range(2):
        with pytest.raises(InvalidTokenError):
            await handle.load()
    known = (await begun(plugin)).session_id
    assert (await SessionHandle(plugin.lifecycle, PresentedId(known, presents_token=True)).load()).data.visits == 1


async def test_identity_changed_is_called_after_a_login_and_a_logout(plugin: SessionPlugin) -> None:
    handle, calls = handle_on(plugin), []

    async def note() -> None:
        calls.append(handle.identity)

    handle.identity_changed = note
    await handle.login(ALICE)
    await handle.update(visits=1)
    await handle.regenerate()
    await handle.destroy()
    assert calls == [ALICE, None]


async def test_a_session_that_is_taken_over_lets_one_login_in(plugin: SessionPlugin) -> None:
    aside = await begun(plugin)
    first, second = handle_on(plugin), handle_on(plugin)
    for handle in (first, second):
        await handle.load()
        handle.take_over(aside.snapshot)
        assert handle.data == AppSession()
        assert handle.cookie() is None
    await first.login(ALICE)
    with pytest.raises(SessionGoneError):
        await second.login(ALICE)
    assert [each.handle for each in await plugin.sessions.list_for(ALICE)] == [first.handle]
    assert not (await handle_on(plugin, aside.session_id).load()).exists


async def test_a_revocation_is_remembered_until_the_next_login_of_the_browser(plugin: SessionPlugin) -> None:
    ended = handle_on(plugin)
    assert not await ended.was_revoked()
    await ended.login(ALICE)
    await plugin.sessions.revoke_all(ALICE)
    browser = handle_on(plugin, ended.session_id)
    assert await browser.was_revoked()
    await browser.update(visits=1)
    assert await handle_on(plugin, browser.session_id).was_revoked()
    await browser.login(ALICE)
    assert not await browser.was_revoked()
    assert not await handle_on(plugin, browser.session_id).was_revoked()


async def test_a_session_that_ended_by_itself_was_not_revoked(plugin: SessionPlugin, clock: FakeClock) -> None:
    ended = handle_on(plugin)
    await ended.login(ALICE)
    clock.advance(days=1)
    assert not await handle_on(plugin, ended.session_id).was_revoked()


async def test_the_vault_needs_a_session_and_data_that_can_be_stored(plugin: SessionPlugin) -> None:
    handle = handle_on(plugin)
    with pytest.raises(SessionGoneError):
        await handle.store_vault(b"sealed")
    await handle.update(visits=1)
    handle.data.visits = "many"
    with pytest.raises(SessionDataError):
        await handle.store_vault(b"sealed")
    assert (handle.data.visits, handle.vault) == (1, b"")
    await handle.store_vault(b"sealed")
    assert (await handle_on(plugin, handle.session_id).load()).vault == b"sealed"


async def test_a_handle_belongs_to_one_plugin(plugin: SessionPlugin) -> None:
    handle = handle_on(plugin)
    assert handle.belongs_to(plugin.lifecycle)
    assert not handle.belongs_to(plugin_in(make_app()).lifecycle)


async def test_a_rejected_assignment_does_not_undo_later_ones(plugin: SessionPlugin, store: GatedStore) -> None:
    """Another task of the request has read the session again while the update failed."""
    handle = await begun(plugin)
    handle.data.visits = "many"
    store.loads = 0
    store.gate.clear()
    failing = asyncio.create_task(handle.update(note="x"))
    await store.until_read()
    reading = asyncio.create_task(handle.reload())
    store.gate.set()
    await reading
    handle.data.note = "kept"
    with pytest.raises(SessionDataError):
        await failing
    assert handle.data.note == "kept"


async def test_a_browser_that_has_just_got_a_new_id_begins_no_other_session(plugin: SessionPlugin, clock: FakeClock) -> None:
    handle = await begun(plugin)
    old = handle.session_id
    await handle.regenerate()
    with pytest.raises(SessionGoneError):
        await handle_on(plugin, old).update(visits=2)
    clock.advance(days=1)
    late = handle_on(plugin, old)
    await late.update(visits=3)
    assert late.exists


def _on_websocket(handle: Any) -> None:
    handle.source.on_websocket = True


def _with_a_started_response(handle: Any) -> None:
    handle.response_started = True


@pytest.mark.parametrize("prepare", [_on_websocket, _with_a_started_response])
@pytest.mark.parametrize("verb", [lambda handle: handle.update(visits=2), lambda handle: handle.login(ALICE)])
async def test_no_session_begins_whose_cookie_cannot_be_set(
    plugin: SessionPlugin, prepare: Callable[[Any], None], verb: Callable[[Any], Any]
) -> None:
    handle = handle_on(plugin)
    prepare(handle)
    with pytest.raises(ResponseStartedError):
        await verb(handle)
    assert (await plugin.sessions.stats()).total == 0


async def test_fresh_data_with_varying_defaults_is_made_once() -> None:
    made = iter(range(100))

    class Numbered(msgspec.Struct):
        number: int = msgspec.field(default_factory=lambda: next(made))
        note: str = ""

    handle = handle_on(SessionPlugin(SessionConfig(Numbered, store=MemoryStore())))
    await handle.load()
    number = handle.data.number
    handle.data.note = "first"
    await handle.save()
    assert handle.exists
    assert (await handle.reload()).note == "first"
    assert handle.data.number == number
