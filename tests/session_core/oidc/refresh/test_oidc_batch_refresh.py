"""Batch refresh for absent users: due tokens are refreshed, and no other session is read."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx2
import pytest

from session_core import ConfigurationError, Identity
from session_core.ids import new_session_id, session_key
from session_core.oidc import BatchRefresh
from session_core.oidc.tokens.due_notes import DueNote, DueNotes
from session_core.oidc.tokens.vault import TokenSet
from session_core.sessions.record import SessionRecord, UndecodableError, decode_record, encode_record
from session_core.stores.base import Entry
from tests.session_core.oidc.batch_world import (
    KEY,
    new_world,
    notes,
    post_to,
    records,
    result,
    run,
    several_users,
    stay_in_use,
    world_in_use,
)
from tests.session_core.oidc.fake_op import ISSUER, World

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world() -> World:
    return await world_in_use()


async def test_tokens_not_due_are_left_unchanged(world: World) -> None:
    assert await run(world) == result()
    assert world.op.count("/token") == 1


async def test_due_tokens_are_refreshed_once_and_become_due_again(world: World) -> None:
    for number in (2, 3, 4):
        await stay_in_use(world, 55)
        assert await run(world) == result(due=1, refreshed=1)
        assert await run(world) == result()
        assert (await world.browser.get("/token-now")).text == f"at-{number}"
        assert len(await notes(world)) == 1


async def test_a_dry_run_only_counts(world: World) -> None:
    await stay_in_use(world, 55)
    before = await records(world)
    assert await run(world, dry_run=True) == result(due=1)
    assert await records(world) == before
    assert world.op.count("/token") == 1


async def test_the_horizon_selects_the_tokens(world: World) -> None:
    assert await run(world, horizon_seconds=3599) == result()
    assert await run(world, horizon_seconds=3600) == result(due=1, refreshed=1)


async def test_tokens_with_a_shorter_lifetime_than_the_horizon_are_refreshed_once_per_run(world: World) -> None:
    """The new token is due in a later minute, which the run has not reached yet."""
    await stay_in_use(world, 55)
    world.op.answer = {"expires_in": 400}
    assert await run(world, horizon_seconds=600) == result(due=1, refreshed=1)
    world.clock.advance(minutes=1)
    assert await run(world, horizon_seconds=600) == result(due=1, refreshed=1)
    assert world.op.count("/token") == 3
    assert len(await notes(world)) == 1


async def test_tokens_left_by_a_long_run_are_found_by_the_next_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new token is recorded in a minute that is long over when the run ends."""
    await stay_in_use(world, 55)
    world.op.answer = {"expires_in": 400}
    due, seen = DueNotes.due, []

    async def slowly(notes: DueNotes, minute: int) -> list[DueNote]:
        found = await due(notes, minute)
        seen.extend(found)
        if found and len(seen) == 2:
            world.clock.advance(minutes=20)
        return found

    monkeypatch.setattr(DueNotes, "due", slowly)
    assert await run(world, horizon_seconds=3600) == result(due=1, refreshed=1)
    assert len(seen) == 2
    assert await run(world, horizon_seconds=3600) == result(due=1, refreshed=1)


async def test_a_run_does_not_extend_sessions(world: World) -> None:
    """An absent user is logged out eventually, however often the tokens are refreshed."""
    world.op.answer = {"expires_in": 600}
    await run(world, horizon_seconds=3600)
    for _ in range(5):
        world.clock.advance(minutes=10)
        await run(world)
    assert await run(world, dry_run=True) == result()
    world.clock.advance(minutes=11)
    assert await world.subject() is None


async def test_a_refresh_by_a_request_moves_the_record(world: World) -> None:
    await stay_in_use(world, 60)
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert len(await notes(world)) == 1
    assert await run(world) == result()


async def test_an_ended_session_is_skipped_and_forgotten(world: World) -> None:
    await stay_in_use(world, 55)
    await world.browser.post("/auth/logout")
    assert await run(world) == result(skipped=1)
    assert await notes(world) == []


async def test_a_session_with_a_new_id_is_found(world: World) -> None:
    await world.browser.post("/regenerate-now")
    await stay_in_use(world, 55)
    assert await run(world) == result(due=1, refreshed=1)
    assert (await world.browser.get("/token-now")).text == "at-2"
    await stay_in_use(world, 55)
    assert await run(world) == result(due=1, refreshed=1)


@pytest.mark.attack("37")
async def test_invalid_grant_ends_the_login(world: World) -> None:
    await stay_in_use(world, 55)
    world.op.refresh_token = "revoked"
    assert await run(world) == result(due=1, ended=1)
    assert await world.subject() is None
    assert world.reasons() == ["refresh_invalid_grant"]
    assert await run(world) == result()


@pytest.mark.attack("37")
async def test_an_outage_ends_no_session_and_the_next_run_tries_again(world: World) -> None:
    await stay_in_use(world, 55)
    world.op.replies["/token"] = lambda _: httpx2.Response(503)
    assert await run(world) == result(due=1, failed=1)
    await stay_in_use(world, 30)
    world.op.replies.clear()
    assert await run(world) == result(due=1, refreshed=1)


async def test_a_provider_that_is_down_is_not_called_repeatedly(world: World) -> None:
    several_users(world)
    for _ in range(30):
        async with world.new_browser() as browser:
            await world.login(browser)
    world.clock.advance(minutes=55)
    world.op.replies["/token"] = lambda _: httpx2.Response(503)
    before = world.op.count("/token")
    done = await run(world, concurrency=2)
    assert not done["complete"]
    assert done["failed"] == world.op.count("/token") - before < 12
    world.op.replies.clear()
    assert (await run(world))["refreshed"] == 30


async def test_concurrent_runs_and_requests_redeem_once(world: World) -> None:
    await stay_in_use(world, 60)
    other = new_world(sharing=world)
    cookies = {"session-8000": world.browser.cookies["session-8000"]}
    browsers = [process.new_browser(cookies=cookies) for process in (world, other)]
    requests = asyncio.gather(*(browser.get("/token-now") for browser in browsers))
    await asyncio.gather(run(world), run(other))
    assert [answer.text for answer in await requests] == ["at-2", "at-2"]
    assert world.op.count("/token") == 2


async def test_the_number_per_run_is_bounded(world: World) -> None:
    small = new_world(batch_refresh=BatchRefresh(max_sessions=2, concurrency=1))
    several_users(small)
    for _ in range(5):
        async with small.new_browser() as browser:
            await small.login(browser)
    small.clock.advance(minutes=56)
    assert [(await run(small))["refreshed"] for _ in range(3)] == [2, 2, 1]


async def test_a_due_record_is_not_listed_as_a_session(world: World) -> None:
    [note] = await notes(world)
    assert len(note.key) == len(session_key(new_session_id()))
    with pytest.raises(UndecodableError):
        decode_record(note.entry.data)
    manager = world.sessions.sessions
    assert [summary.identity.subject async for summary in manager.all() if summary.identity] == ["alice"]
    stats = await manager.stats()
    assert (stats.total, stats.logged_in, stats.undecodable) == (1, 1, 0)
    assert b"rt-" not in note.entry.data


async def test_due_records_expire(world: World) -> None:
    world.clock.advance(days=32)
    await world.sessions.sessions.prune()
    assert await records(world) == []


async def test_nothing_is_recorded_without_the_option() -> None:
    plain = new_world(batch_refresh=None)
    await plain.login()
    assert len(await records(plain)) == 1
    with pytest.raises(ConfigurationError, match="BatchRefresh"):
        await run(plain)
    assert (await post_to(plain, KEY)).status_code == 404


class Counting:
    """Counts the calls to a store."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self.inner, name)


async def test_of_ten_thousand_sessions_only_the_due_ones_are_read() -> None:
    world = new_world()
    several_users(world)
    guarded: Any = world.sessions.store
    store, now = world.sessions.sessions.store, world.clock.now()
    due_notes = DueNotes(store, world.clock)
    for number in range(10_000):
        due = now + (300_000 if number < 5 else 3_600_000 + number * 1000)
        identity = Identity(issuer=ISSUER, subject="alice" if number < 5 else f"user-{number}")
        tokens = TokenSet(access_token=f"at-of-{number}", refresh_token="rt-for-ever", expires_at=due)
        vault = world.oidc.relying_party.connection.vault.seal(tokens, identity)
        until = now + 86_400_000
        record = SessionRecord(created_at=now, absolute_expires_at=until, identity=identity, logged_in_at=now, vault=vault)
        key = session_key(new_session_id())
        await store.create(key, Entry(encode_record(record), until, user=identity.user_key))
        await due_notes.add(key, identity, tokens, absolute_expires_at=until)
    guarded.inner = counting = Counting(guarded.inner)
    world.op.calls.clear()
    done = await run(world)
    assert done == result(due=5, refreshed=5)
    assert world.op.count("/token") == 5
    assert counting.calls["scan"] == 0
    assert counting.calls["find"] < 80
    assert sum(counting.calls.values()) < 150


@pytest.mark.attack("35")
async def test_a_stopped_run_loses_no_tokens(world: World) -> None:
    """The provider has consumed the refresh token, so its response is stored although no caller waits."""
    await stay_in_use(world, 55)
    spent, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: httpx2.Request) -> httpx2.Response:
        answer = world.op.token(request)
        spent.set()
        await go_on.wait()
        return answer

    world.op.replies["/token"] = slow
    running = asyncio.create_task(run(world))
    await spent.wait()
    running.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    world.op.replies.clear()
    world.clock.advance(minutes=5)
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert world.op.count("/token") == 2
