"""Concurrent writes: no acknowledged write is lost, silently overwritten, or revives an ended session."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import anyio
import pytest
from litestar import get, post

from session_core import Session, SessionConfig, SessionDataError, SessionGoneError, SessionHandle, SessionPlugin
from session_core.errors import SessionConflictError, StoreUnavailableError
from session_core.sessions.notes import is_note
from session_core.sessions.writer import _Pending, _Queue
from session_core.stores import MemoryStore
from session_core.stores.base import Entry, StoredSession
from session_core.testing import FakeClock
from tests.support.sessions import ALICE, AppSession, Recorder, client_of, cookie_of, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio


class Gate:
    """Blocks handlers until a test releases them."""

    def __init__(self) -> None:
        self.arrived = asyncio.Semaphore(0)
        self.go = asyncio.Event()

    async def wait(self) -> None:
        self.arrived.release()
        await self.go.wait()

    async def until(self, count: int) -> None:
        for _ in range(count):
            await asyncio.wait_for(self.arrived.acquire(), 60)


def gated(gate: Gate) -> list[Any]:
    @post("/slow/theme")
    async def slow_theme(session: Session[AppSession]) -> None:
        session.data.theme = "dark"
        await gate.wait()

    @post("/slow/note")
    async def slow_note(session: Session[AppSession]) -> None:
        session.data.note = "slow"
        await gate.wait()

    @post("/slow/update")
    async def slow_update(session: Session[AppSession]) -> None:
        await gate.wait()
        await session.update(note="slow")

    @get("/slow/read")
    async def slow_read(session: Session[AppSession]) -> dict[str, Any]:
        await gate.wait()
        return {"exists": session.exists}

    return [slow_theme, slow_note, slow_update, slow_read]


@pytest.mark.attack("41")
async def test_a_hundred_parallel_increments_all_count() -> None:
    app = make_app()
    async with client_of(app) as client:
        await client.post("/visit")
        answers = await asyncio.gather(*(client.post("/visit") for _ in range(100)))
        assert sorted(answer.json()["visits"] for answer in answers) == list(range(2, 102))
        assert (await client.get("/read")).json()["data"]["visits"] == 101


async def test_a_write_moves_the_expiry_as_rarely_as_a_read() -> None:
    """Databases index the expiry, so a write that moves it costs several times as much."""
    clock = FakeClock()
    app = make_app(clock=clock, store=MemoryStore(clock=clock))
    store = plugin_in(app).store
    async with client_of(app) as client:
        await client.post("/visit")
        (first,) = [stored async for stored in store.scan()]
        clock.advance(seconds=59)
        await client.post("/visit")
        assert [stored.entry.expires_at async for stored in store.scan()] == [first.entry.expires_at]
        clock.advance(seconds=1)
        await client.post("/visit")
        assert [stored.entry.expires_at async for stored in store.scan()] == [first.entry.expires_at + 60_000]
        assert (await client.get("/read")).json()["data"]["visits"] == 3


async def test_waiting_updates_share_store_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    store = plugin_in(app).store.inner
    replace, writes = store.replace, 0

    async def counting(*args: Any, **kwargs: Any) -> int:
        nonlocal writes
        writes += 1
        await asyncio.sleep(0)
        return await replace(*args, **kwargs)

    monkeypatch.setattr(store, "replace", counting)
    async with client_of(app) as client:
        await client.post("/visit")
        await asyncio.gather(*(client.post("/visit") for _ in range(50)))
        assert (await client.get("/read")).json()["data"]["visits"] == 51
    assert writes < 50


async def test_a_write_reads_first_only_where_a_later_write_is_known() -> None:
    class Counted(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        async def load(self, key: str) -> StoredSession | None:
            self.calls.append("load")
            return await super().load(key)

        async def replace(self, key: str, entry: Entry, *, version: int) -> int:
            self.calls.append("replace")
            await asyncio.sleep(0)
            return await super().replace(key, entry, version=version)

    store = Counted()
    app = make_app(store=store)
    handles = [handle_on(plugin_in(app))]
    await handles[0].update(visits=1)
    handles += [await handle_on(plugin_in(app), handles[0].session_id).load() for _ in range(2)]
    store.calls.clear()
    await handles[0].update(visits=2)
    assert store.calls == ["replace"]
    await asyncio.gather(*(handle.update(visits=number) for number, handle in enumerate(handles)))
    store.calls.clear()
    await handles[1].update(visits=3)  # its last change was written together with a later one
    assert store.calls == ["load", "replace"]


async def test_concurrent_assignments_of_different_fields_are_merged() -> None:
    gate = Gate()
    app = make_app(*gated(gate))
    async with client_of(app) as client, anyio.create_task_group() as tasks:
        await client.post("/visit")
        tasks.start_soon(client.post, "/slow/theme")
        tasks.start_soon(client.post, "/slow/note")
        await gate.until(2)
        gate.go.set()
    async with client_of(app, cookies=dict(client.cookies)) as client:
        data = (await client.get("/read")).json()["data"]
        assert (data["theme"], data["note"], data["visits"]) == ("dark", "slow", 1)


async def test_of_concurrent_assignments_of_one_field_the_later_is_refused() -> None:
    gate, recorder = Gate(), Recorder()
    app = make_app(*gated(gate), on_event=[recorder])
    async with client_of(app) as client:
        await client.post("/visit")
        slow = asyncio.create_task(client.post("/slow/note"))
        await gate.until(1)
        assert (await client.patch("/assign", json={"note": "fast"})).status_code == 200
        gate.go.set()
        refused = await slow
        assert refused.status_code == 409
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["fields"] == ["note"]
        assert (await client.get("/read")).json()["data"]["note"] == "fast"
    assert "session.conflict" in recorder.names


async def test_concurrent_assignments_of_the_same_value_are_no_conflict() -> None:
    gate = Gate()
    app = make_app(*gated(gate))
    async with client_of(app) as client:
        await client.post("/visit")
        slow = asyncio.create_task(client.post("/slow/note"))
        await gate.until(1)
        await client.patch("/assign", json={"note": "slow"})
        gate.go.set()
        assert (await slow).status_code == 201


async def test_the_last_write_wins_when_configured() -> None:
    gate = Gate()
    app = make_app(*gated(gate), on_conflict="last_write_wins")
    async with client_of(app) as client:
        await client.post("/visit")
        slow = asyncio.create_task(client.post("/slow/note"))
        await gate.until(1)
        await client.patch("/assign", json={"note": "fast"})
        gate.go.set()
        assert (await slow).status_code == 201
        assert (await client.get("/read")).json()["data"]["note"] == "slow"


@pytest.mark.attack("39")
@pytest.mark.attack("40")
@pytest.mark.parametrize("path", ["/slow/note", "/slow/update"])
@pytest.mark.parametrize("end", ["logout", "revoke_all", "expiry", "regenerate"])
async def test_a_concurrent_write_never_revives_a_session(path: str, end: str, clock: FakeClock) -> None:
    gate = Gate()
    app = make_app(*gated(gate), clock=clock)
    async with client_of(app) as client:
        await client.post("/login/alice")
        old = cookie_of(client) or ""
        slow = asyncio.create_task(client.post(path))
        await gate.until(1)
        async with client_of(app, cookies={"session-8000": old}) as other:
            if end == "logout":
                await other.post("/logout")
            elif end == "revoke_all":
                await plugin_in(app).sessions.revoke_all(ALICE)
            elif end == "regenerate":
                await other.post("/regenerate")
            else:
                clock.advance(days=2)
        gate.go.set()
        answer = await slow
        assert answer.status_code == 401
        assert answer.json()["code"] == "session_gone"
        assert "set-cookie" not in answer.headers
    async with client_of(app, cookies={"session-8000": old}) as thief:
        assert (await thief.get("/read")).json()["exists"] is False
    assert (await plugin_in(app).sessions.stats()).total == (1 if end == "regenerate" else 0)


@pytest.mark.attack("40")
async def test_a_logout_wins_against_a_concurrent_regeneration() -> None:
    """The logout read the session under the old id; the regeneration reached the store first."""
    app = make_app()
    handle = handle_on(plugin_in(app))
    await handle.login(ALICE)
    leaving = await handle_on(plugin_in(app), handle.session_id).load()
    await handle.regenerate()
    await leaving.destroy()
    assert (await handle_on(plugin_in(app), handle.session_id).load()).identity is None


@pytest.mark.attack("40")
async def test_a_regeneration_after_a_concurrent_logout_revives_nothing() -> None:
    app = make_app()
    handle = handle_on(plugin_in(app))
    await handle.login(ALICE)
    regenerating = await handle_on(plugin_in(app), handle.session_id).load()
    await handle.destroy()
    with pytest.raises(SessionGoneError):
        await regenerating.regenerate()
    assert (await plugin_in(app).sessions.stats()).total == 0


@pytest.mark.attack("42")
async def test_a_login_after_a_concurrent_logout_inherits_nothing() -> None:
    """The old session ended while the user was at the identity provider."""
    app = make_app()
    handle = handle_on(plugin_in(app))
    await handle.login(ALICE)
    await handle.update(note="before")
    returning = await handle_on(plugin_in(app), handle.session_id).load()
    await handle.destroy()
    await returning.login(ALICE)
    assert returning.identity == ALICE
    assert returning.data.note == ""


@pytest.mark.attack("42")
async def test_a_login_whose_op_session_ends_meanwhile_is_refused(clock: FakeClock) -> None:
    app = make_app(clock=clock)
    sessions, lifecycle = plugin_in(app).sessions, plugin_in(app).lifecycle
    begun = await sessions.moment()
    clock.advance(seconds=2)
    await sessions.end_op_session(ALICE.issuer, ALICE.sid or "")
    handle = handle_on(plugin_in(app))
    with pytest.raises(SessionGoneError):
        await handle.login(ALICE, begun=begun)
    assert [stored async for stored in lifecycle.store.scan() if not is_note(stored.entry.data)] == []
    await handle_on(plugin_in(app)).login(ALICE, begun=await sessions.moment())
    assert len(await sessions.list_for(ALICE)) == 1


@pytest.mark.attack("43")
@pytest.mark.attack("asvs-7.1.2")
async def test_concurrent_logins_never_exceed_the_limit(clock: FakeClock) -> None:
    app = make_app(clock=clock, max_sessions_per_user=3)
    handles = [handle_on(plugin_in(app)) for _ in range(20)]
    await asyncio.gather(*(handle.login(ALICE) for handle in handles))
    assert len(await plugin_in(app).sessions.list_for(ALICE)) == 3


async def test_a_value_of_the_wrong_type_is_refused_and_not_saved() -> None:
    app = make_app()
    handle = handle_on(plugin_in(app))
    await handle.update(visits=1)
    with pytest.raises(SessionDataError, match=r"\$\.theme"):
        await handle.update(theme="pink")
    with pytest.raises(SessionDataError, match="no field nonsense"):
        await handle.update(nonsense=1)
    handle.data.visits = "many"  # type: ignore[assignment]
    with pytest.raises(SessionDataError, match=r"\$\.visits"):
        await handle.save()
    assert (await handle.reload()).visits == 1


async def test_data_above_the_size_limit_is_refused() -> None:
    handle = handle_on(plugin_in(make_app(max_data_bytes=100)))
    with pytest.raises(SessionDataError, match="more than the limit"):
        await handle.update(note="x" * 200)


async def test_a_failing_update_fails_alone() -> None:
    app = make_app()
    handle = handle_on(plugin_in(app))
    await handle.update(visits=1)

    def fail(data: AppSession) -> None:
        data.visits = 99
        msg = "sold out"
        raise LookupError(msg)

    def bump(data: AppSession) -> None:
        data.visits += 1

    twin = handle_on(plugin_in(app), handle.session_id)
    results = await asyncio.gather(handle.update(fail), twin.update(bump), return_exceptions=True)
    assert isinstance(results[0], LookupError)
    assert (await twin.reload()).visits == 2


async def test_an_outage_fails_every_update_of_a_batch() -> None:
    class Failing(MemoryStore):
        left = 1

        async def replace(self, key: str, entry: Entry, *, version: int) -> int:
            await asyncio.sleep(0)
            self.left -= 1
            if self.left < 0:
                raise StoreUnavailableError
            return await super().replace(key, entry, version=version)

    store = Failing()
    app = make_app(store=store)
    handles = [handle_on(plugin_in(app))]
    await handles[0].update(visits=1)
    handles += [await handle_on(plugin_in(app), handles[0].session_id).load() for _ in range(2)]
    updates = [handle.update(visits=number) for number, handle in enumerate(handles, start=2)]
    first, *others = await asyncio.gather(*updates, return_exceptions=True)
    assert isinstance(first, AppSession)
    assert [type(error) for error in others] == [StoreUnavailableError] * 2
    store.left = 2
    assert (await handles[1].update(note="later")).visits == 2


async def test_an_update_can_return_new_data() -> None:
    handle = handle_on(plugin_in(make_app()))
    assert (await handle.update(lambda data: AppSession(theme="dark", visits=data.visits + 5))).visits == 5
    with pytest.raises(SessionDataError, match="must not be async"):
        await handle.update(lambda _: "no session")  # type: ignore[arg-type, return-value]


async def test_an_update_saves_earlier_assignments() -> None:
    app = make_app()
    handle = handle_on(plugin_in(app))
    await handle.update(visits=1)
    handle.data.note = "assigned"
    await handle.update(visits=2)
    assert (await handle_on(plugin_in(app), handle.session_id).load()).data.note == "assigned"


@pytest.mark.parametrize("made", [False, True])
async def test_a_cancelled_request_does_not_cancel_the_writes_of_others(*, made: bool) -> None:
    """The first of ten is cancelled while the store handles its write, before or after the write is applied; nine wait."""
    gate = Gate()

    class Gated(MemoryStore):
        shut = False

        async def replace(self, key: str, entry: Entry, *, version: int) -> int:
            if not self.shut:
                return await super().replace(key, entry, version=version)
            self.shut = False
            written = await super().replace(key, entry, version=version) if made else 0
            await gate.wait()
            return written

    store = Gated()
    app = make_app(store=store)
    handle = handle_on(plugin_in(app))
    await handle.update(note="begun")

    def bump(data: AppSession) -> None:
        data.visits += 1

    twins = [await handle_on(plugin_in(app), handle.session_id).load() for _ in range(10)]
    store.shut = True
    tasks = [asyncio.create_task(twin.update(bump)) for twin in twins]
    await gate.until(1)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert all(isinstance(result, AppSession) for result in done[1:])
    assert (await handle.reload()).visits == (10 if made else 9)
    assert plugin_in(app).lifecycle._writer._queues == {}


@pytest.mark.parametrize("beaten", [False, True])
async def test_a_cancelled_request_does_not_hold_up_the_others_of_its_batch(*, beaten: bool) -> None:
    """The first of three is cancelled while the store handles their write, which another process may have beaten."""
    gates = [Gate(), Gate()]

    class Gated(MemoryStore):
        calls = 0

        async def replace(self, key: str, entry: Entry, *, version: int) -> int:
            number, self.calls = self.calls, self.calls + 1
            if number < len(gates):
                await gates[number].wait()
            if number == 1 and beaten:
                raise SessionConflictError
            return await super().replace(key, entry, version=version)

    app = make_app(store=Gated())
    handle = handle_on(plugin_in(app))
    await handle.update(note="begun")

    def bump(data: AppSession) -> None:
        data.visits += 1

    twins = [await handle_on(plugin_in(app), handle.session_id).load() for _ in range(4)]
    tasks = [asyncio.create_task(twin.update(bump)) for twin in twins]
    await gates[0].until(1)
    gates[0].go.set()
    await gates[1].until(1)
    tasks[1].cancel()
    gates[1].go.set()
    alone, cancelled, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert [result.visits for result in (alone, *others)] == ([1, 2, 3] if beaten else [1, 3, 4])
    assert (await handle.reload()).visits == (3 if beaten else 4)


async def test_a_waiting_update_without_a_change_returns_the_newest_data() -> None:
    gate = Gate()

    class Gated(MemoryStore):
        async def replace(self, key: str, entry: Entry, *, version: int) -> int:
            await gate.wait()
            return await super().replace(key, entry, version=version)

    app = make_app(store=Gated())
    first = handle_on(plugin_in(app))
    await first.update(note="begun")
    second = await handle_on(plugin_in(app), first.session_id).load()
    tasks = [asyncio.create_task(first.update(visits=1)), asyncio.create_task(second.update(lambda _: None))]
    await gate.until(1)
    gate.go.set()
    assert [data.visits for data in await asyncio.gather(*tasks)] == [1, 1]


async def test_fields_a_newer_version_wrote_survive_an_older_ones_writes() -> None:
    class Newer(AppSession):
        coupon: str = ""

    app = make_app()
    handle = handle_on(plugin_in(app))
    await handle.update(visits=1)
    plugin = SessionPlugin(SessionConfig(Newer, store=plugin_in(app).store.inner))
    other: SessionHandle[Newer] = handle_on(plugin, handle.session_id)
    await other.update(coupon="NEW10")
    await handle.update(visits=2)
    data = await other.reload()
    assert (data.coupon, data.visits) == ("NEW10", 2)


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("is_writing", [False, True])
async def test_each_waiting_writer_fails_at_its_deadline(is_writing: bool) -> None:
    """In any order of arrival, also while the store does not respond."""
    loop, began = asyncio.get_running_loop(), monotonic()
    queue = _Queue(loop)
    waiting = {seconds: _Pending(lambda record: record, loop.create_future(), began + seconds) for seconds in (5.3, 2.6, 9.4)}
    for pending in waiting.values():
        queue.add(pending)
    if is_writing:
        assert queue.take(0.0) == list(waiting.values())
    for seconds in sorted(waiting):
        with pytest.raises(StoreUnavailableError):
            await asyncio.wait_for(waiting[seconds].future, 60)
        assert monotonic() - began == pytest.approx(seconds, abs=0.01)
    queue.close()


@pytest.mark.usefixtures("virtual_time")
async def test_a_batch_leaves_out_writers_with_too_little_time() -> None:
    loop, began = asyncio.get_running_loop(), monotonic()
    queue = _Queue(loop)
    late, fit = (_Pending(lambda record: record, loop.create_future(), began + seconds) for seconds in (0.9, 1.1))
    queue.add(late)
    queue.add(fit)
    assert queue.take(1.0) == [fit]
    with pytest.raises(StoreUnavailableError):
        await late.future
    queue.close()
    assert fit.future.cancelled()
    assert queue._timer is not None
    assert queue._timer.cancelled()


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize(("left", "is_written"), [(0.98, False), (1.02, True)])
async def test_a_twentieth_of_the_timeout_is_enough_to_join_a_batch(left: float, *, is_written: bool) -> None:
    """The second of two updates waits while the first one's write takes nearly the whole timeout."""

    class Slow(MemoryStore):
        takes = 0.0

        async def replace(self, key: str, entry: Entry, *, version: int) -> int:
            await asyncio.sleep(self.takes)
            self.takes = 0.0
            return await super().replace(key, entry, version=version)

    store = Slow()
    app = make_app(store=store, store_timeout=20)
    handle = handle_on(plugin_in(app))
    await handle.update(visits=1)
    twin = await handle_on(plugin_in(app), handle.session_id).load()
    store.takes = 20 - left
    first, second = await asyncio.gather(handle.update(note="first"), twin.update(visits=2), return_exceptions=True)
    assert isinstance(first, AppSession)
    assert isinstance(second, AppSession if is_written else StoreUnavailableError)
    assert (await handle.reload()).visits == (2 if is_written else 1)


@pytest.mark.usefixtures("virtual_time")
async def test_a_write_that_always_loses_gives_up_after_a_hundred_attempts_that_wait() -> None:
    class Contended(MemoryStore):
        attempts = 0

        async def replace(self, key: str, entry: Entry, *, version: int) -> int:
            self.attempts += 1
            raise SessionConflictError

    store = Contended()
    handle = handle_on(plugin_in(make_app(store=store)))
    await handle.update(visits=1)
    began = monotonic()
    with pytest.raises(SessionConflictError):
        await handle.update(visits=2)
    assert store.attempts == 1 + 100
    assert monotonic() - began > 1
