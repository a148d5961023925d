"""Guarantees of a session on every store that keeps them within one process, and over real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from litestar import Litestar

from session_core import SessionConflictError, SessionGoneError
from session_core.testing import FakeClock
from tests.support.server_process import serving
from tests.support.sessions import ALICE, AppSession, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio

STORES = ("memory", "sqlite")
SERVED = "tests.support.served:app"
"""One more process that serves the same sessions."""


def store_url(kind: str, folder: Path) -> str:
    return {
        "memory": "memory://",
        "sqlite": f"sqlite:///{folder}/sessions.db",
    }[kind]


@pytest.fixture(params=STORES)
async def app(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Litestar]:
    # A long deadline: these tests check the order of writes, and a loaded machine must not cause an outage.
    app = make_app(store=store_url(request.param, tmp_path), clock=clock, store_timeout=30, max_sessions_per_user=3)
    async with app.lifespan():
        yield app


def bump(data: AppSession) -> None:
    data.visits += 1


async def test_parallel_increments_all_count(app: Litestar) -> None:
    first = handle_on(plugin_in(app))
    await first.update(bump)
    twins = [await handle_on(plugin_in(app), first.session_id).load() for _ in range(20)]
    results = await asyncio.gather(*(twin.update(bump) for twin in twins))
    assert sorted(data.visits for data in results) == list(range(2, 22))


@pytest.mark.attack("40")
@pytest.mark.parametrize("end", ["destroy", "revoke", "revoke_all", "op_logout", "expiry", "regenerate", "login"])
async def test_a_slow_writer_never_revives_a_session(app: Litestar, clock: FakeClock, end: str) -> None:
    owner = handle_on(plugin_in(app))
    await owner.login(ALICE)
    slow = await handle_on(plugin_in(app), owner.session_id).load()
    slow.data.note = "too late"
    sessions = plugin_in(app).sessions
    if end == "destroy":
        await owner.destroy()
    elif end == "revoke":
        assert await sessions.revoke(owner.handle or "", identity=ALICE)
    elif end == "revoke_all":
        assert await sessions.revoke_all(ALICE) == 1
    elif end == "op_logout":
        assert await sessions.end_op_session(ALICE.issuer, ALICE.sid or "") == 1
    elif end == "expiry":
        clock.advance(hours=1)
    elif end == "regenerate":
        await owner.regenerate()
    else:
        await owner.login(ALICE)
    with pytest.raises(SessionGoneError):
        await slow.save()
    with pytest.raises(SessionGoneError):
        await slow.update(bump)
    assert (await handle_on(plugin_in(app), slow.session_id).load()).exists is False
    alive = [session async for session in sessions.all()]
    assert len(alive) == (1 if end in {"regenerate", "login"} else 0)


@pytest.mark.attack("64")
async def test_the_same_subject_at_another_provider_is_another_user(app: Litestar) -> None:
    from session_core import Identity

    other = Identity(issuer="https://other.example", subject=ALICE.subject, sid=ALICE.sid)
    await handle_on(plugin_in(app)).login(ALICE)
    await handle_on(plugin_in(app)).login(other)
    sessions = plugin_in(app).sessions
    assert await sessions.revoke_all(ALICE) == 1
    assert await sessions.end_op_session(ALICE.issuer, ALICE.sid or "") == 0
    assert len(await sessions.list_for(other)) == 1


@pytest.mark.attack("43")
async def test_twenty_concurrent_logins_never_exceed_the_limit(app: Litestar) -> None:
    handles = [handle_on(plugin_in(app)) for _ in range(20)]
    await asyncio.gather(*(each.login(ALICE) for each in handles))
    assert len(await plugin_in(app).sessions.list_for(ALICE)) == 3


async def test_a_handle_reveals_no_session_of_another_user(app: Litestar) -> None:
    from tests.support.sessions import BOB

    owner = handle_on(plugin_in(app))
    await owner.login(ALICE)
    assert await plugin_in(app).sessions.revoke(owner.handle or "", identity=BOB) is False
    assert (await handle_on(plugin_in(app), owner.session_id).load()).identity == ALICE


async def test_sign_out_everywhere_else_keeps_this_one(app: Litestar) -> None:
    here, there = handle_on(plugin_in(app)), handle_on(plugin_in(app))
    await here.login(ALICE)
    await there.login(ALICE)
    assert await plugin_in(app).sessions.revoke_all(ALICE, keep=here.key) == 1
    assert (await handle_on(plugin_in(app), here.session_id).load()).identity == ALICE
    assert (await handle_on(plugin_in(app), there.session_id).load()).identity is None


async def test_a_concurrent_write_and_regeneration_lose_nothing(app: Litestar) -> None:
    owner = handle_on(plugin_in(app))
    await owner.login(ALICE)
    writers = [await handle_on(plugin_in(app), owner.session_id).load() for _ in range(10)]
    regenerating = await handle_on(plugin_in(app), owner.session_id).load()
    results = await asyncio.gather(
        *(writer.update(bump) for writer in writers), regenerating.regenerate(), return_exceptions=True
    )
    acknowledged = sum(isinstance(result, AppSession) for result in results)
    assert all(result is None or isinstance(result, AppSession | SessionGoneError | SessionConflictError) for result in results)
    assert (await handle_on(plugin_in(app), regenerating.session_id).load()).data.visits == acknowledged


@pytest.mark.attack("asvs-14.2.7")
async def test_expired_sessions_leave_the_store(app: Litestar, clock: FakeClock) -> None:
    for _ in range(3):
        await handle_on(plugin_in(app)).login(ALICE)
    clock.advance(days=2)
    assert await plugin_in(app).sessions.prune() >= 3
    assert (await plugin_in(app).sessions.stats()).total == 0


@pytest.mark.attack("41")
async def test_a_hundred_increments_over_two_processes_all_count(tmp_path: Path) -> None:
    store = store_url("sqlite", tmp_path)
    with serving(SERVED, TEST_STORE=store) as one, serving(SERVED, TEST_STORE=store) as two:
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=16)) as client:
            created = await client.post(f"{one}/visit")
            headers = {"cookie": created.headers["set-cookie"].partition(";")[0]}
            client.cookies.clear()
            answers = await asyncio.gather(
                *(client.post(f"{(one, two)[number % 2]}/visit", headers=headers) for number in range(100))
            )
            assert {answer.status_code for answer in answers} == {201}
            assert sorted(answer.json()["visits"] for answer in answers) == list(range(2, 102))
            assert (await client.get(f"{two}/read", headers=headers)).json()["data"]["visits"] == 101


@pytest.mark.attack("40")
async def test_a_logout_in_one_process_stops_writers_in_the_other(tmp_path: Path) -> None:
    store = store_url("sqlite", tmp_path)
    with serving(SERVED, TEST_STORE=store) as one, serving(SERVED, TEST_STORE=store) as two:
        async with httpx.AsyncClient(timeout=60) as client:
            created = await client.post(f"{one}/login/alice")
            headers = {"cookie": created.headers["set-cookie"].partition(";")[0]}
            client.cookies.clear()
            writes = [asyncio.create_task(client.post(f"{two}/visit", headers=headers)) for _ in range(30)]
            assert (await client.post(f"{one}/logout", headers=headers)).status_code == 201
            answers = await asyncio.gather(*writes)
            assert {answer.status_code for answer in answers} <= {201, 401}
            for base in (one, two):
                assert (await client.get(f"{base}/read", headers=headers)).json()["subject"] is None
