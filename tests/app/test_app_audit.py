"""The audit trail is complete after a clean shutdown, holds no secrets and never blocks a login."""

from __future__ import annotations

import asyncio
import time
from typing import Any, get_args

import pytest

from app.data import audit as audit_module
from app.data.audit import COMMAND_LINE, acting
from app.web.request_context import RequestContext, current_request
from app.web.wording import story
from session_core import Event, Identity
from session_core.events import EventName
from tests.app.conftest import ISSUER, Running, Start

pytestmark = pytest.mark.anyio

ALICE = Identity(issuer=ISSUER, subject="alice")
LOGIN = Event(name="login.succeeded", at=1, identity=ALICE)


async def test_events_of_a_user_are_written_and_shown(running: Running) -> None:
    async with running.browser() as browser:
        identity = await running.log_in(browser)
        await browser.post("/session/regenerate")
        page = (await browser.get("/account")).text
        assert "The session got a new id" in page
        assert "Firefox on Linux · this computer" in page
        entries = await running.services.audit.of_user(identity.user_key)
        assert [entry.event for entry in entries] == ["session.regenerated", "session.created"]
        assert entries[0].ip == "127.0.0.1"
        assert (await running.services.audit.of_user(Identity(issuer=ISSUER, subject="bob").user_key)) == []


async def test_every_event_in_the_trail_has_words_of_its_own(running: Running) -> None:
    audit = running.services.audit
    for name in get_args(EventName):
        audit.record(Event(name=name, at=0, identity=ALICE))
    await audit.flush(20)
    kept = await audit.latest(limit=100)
    assert len(kept) > 15
    assert [entry.event for entry in kept if story(entry)[0] == entry.event] == []
    assert {"token.rejected", "cookie.rejected"} & {entry.event for entry in kept} == set()


@pytest.mark.attack("asvs-14.2.4")
async def test_the_trail_contains_no_id_key_or_cookie(running: Running) -> None:
    async with running.browser() as browser:
        await running.log_in(browser)
        await browser.post("/session/regenerate")
        cookie = browser.cookies.get("session-8000") or ""
        await running.services.audit.flush(30)
        written = repr(await running.services.audit.latest())
        assert cookie[6:40] not in written
        async for stored in running.plugin.store.scan():
            assert stored.key not in written


async def test_a_clean_shutdown_loses_no_entry(start: Start) -> None:
    async with start() as running:
        for _ in range(500):
            running.services.audit.record(Event(name="login.succeeded", at=running.clock.now(), identity=ALICE))
    async with start() as again:
        assert len(await again.services.audit.latest(limit=1000)) == 500


async def first_entry(running: Running) -> None:
    """Return the first entry; by then the writer has deleted old entries and waits for new ones."""
    running.services.audit.record(LOGIN)
    await running.services.audit.flush(30)


async def test_a_database_outage_delays_no_login_and_entries_are_written_later(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "_RETRY", 0.01)
    await first_entry(running)
    database, tried = running.services.database, asyncio.Event()
    begin = database.begin

    def failing_begin() -> Any:
        tried.set()
        return begin()

    monkeypatch.setattr(database, "begin", failing_begin)
    await database.close()
    started = time.process_time()
    for _ in range(100):
        running.services.audit.record(LOGIN)
    assert time.process_time() - started < 1
    await asyncio.wait_for(tried.wait(), 30)
    await database.open()
    await running.services.audit.flush(30)
    assert len(await running.services.audit.latest(limit=1000)) == 101
    assert running.services.audit.lost == 0


async def test_the_queue_is_bounded_and_dropped_entries_are_counted(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = running.services.audit
    monkeypatch.setattr(audit_module, "_RETRY", 0.01)
    await first_entry(running)
    await running.services.database.close()
    trail._queue = asyncio.Queue(10)
    for _ in range(25):
        trail.record(Event(name="login.failed", at=1, reason="state", identity=ALICE))
    assert trail.lost == 15
    async with running.client() as client:
        assert "audit_entries_lost 15.0" in (await client.get("/metrics")).text
    trail._queue = asyncio.Queue(10)
    await running.services.database.open()


async def test_events_caused_by_anonymous_clients_are_not_kept(running: Running) -> None:
    async with running.client() as client:
        for _ in range(3):
            await client.get("/api/session", headers={"cookie": "session-8000=s%3Aforged.signature"})
    await running.services.audit.flush(30)
    assert await running.services.audit.latest() == []


@pytest.mark.attack("asvs-14.2.7")
async def test_old_entries_are_deleted(start: Start) -> None:
    async with start() as running:
        now = running.clock.now()
        running.services.audit.record(Event(name="login.succeeded", at=now - 91 * 86_400_000, identity=ALICE))
        running.services.audit.record(Event(name="login.succeeded", at=now - 89 * 86_400_000, identity=ALICE))
    async with start() as again:
        again.services.audit.record(Event(name="logout.local", at=now, identity=ALICE))
        await again.services.audit.flush(30)
        assert [entry.event for entry in await again.services.audit.latest()] == ["logout.local", "login.succeeded"]


async def trimmed(running: Running) -> None:
    """Wait until old entries are deleted; the writer deletes after each write."""
    trail = running.services.audit
    trail.record(Event(name="logout.local", at=running.clock.now(), identity=ALICE))
    async with asyncio.timeout(30):
        while trail._trim_at <= running.clock.now():  # noqa: ASYNC110 - it sets a time, no event
            await asyncio.sleep(0.001)


@pytest.mark.attack("asvs-14.2.7")
async def test_a_long_running_process_deletes_old_entries(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "_TRIM_BATCH", 10)
    monkeypatch.setattr(audit_module, "_TRIM_PAUSE", 0)
    trail, batches = running.services.audit, 0
    await trimmed(running)
    trim = trail._trim_if_due

    async def counted() -> bool:
        nonlocal batches
        batches += running.clock.now() >= trail._trim_at
        return await trim()

    monkeypatch.setattr(trail, "_trim_if_due", counted)
    for month in range(12):
        for _ in range(35):
            trail.record(Event(name="login.succeeded", at=running.clock.now(), identity=ALICE))
        await trail.flush(30)
        running.clock.advance(days=30)
        await trimmed(running)
        kept = min(month + 1, 3)  # the oldest entries of a month are exactly 90 days old
        events = [entry.event for entry in await trail.latest(limit=1000)]
        assert events.count("login.succeeded") == 35 * kept
    assert batches >= 9 * 4  # small batches: 35 entries, ten at a time


@pytest.mark.attack("69")
@pytest.mark.parametrize("event", ["login.failed", "logout.rejected"])
async def test_repeated_events_of_anonymous_clients_are_two_rows(running: Running, event: str) -> None:
    trail = running.services.audit
    async with running.client() as client:
        for number in range(50):
            if event == "login.failed":
                await client.get(f"/auth/callback?state=invented-{number}&code=x")
            else:
                await client.post("/auth/backchannel-logout", data={"logout_token": f"a.b.{number}"})
    await trail.flush(30)
    assert 1 <= len(await trail.latest()) <= 2  # one row for each reason
    # After a minute, the next entry or an idle writer writes the remaining count.
    running.clock.advance(minutes=1)
    trail.record(Event(name="logout.local", at=1, identity=ALICE))
    await trail.flush(30)
    await trail.flush(30)
    told = [entry for entry in await trail.latest() if entry.event == event]
    assert sum(entry.count for entry in told) == 50
    assert len(told) <= 4
    assert {entry.ip for entry in told} == {"127.0.0.1"}


@pytest.mark.attack("69")
async def test_sessions_of_an_anonymous_client_are_few_rows(running: Running) -> None:
    async with running.client() as client:
        for _ in range(100):
            assert (await client.post("/api/session/visits")).status_code == 200
            client.cookies.clear()
    await running.services.audit.finish(30)
    told = [(entry.event, entry.count) for entry in await running.services.audit.latest()]
    assert told == [("session.created", 99), ("session.created", 1)]


@pytest.mark.attack("69")
async def test_the_number_of_rows_is_bounded_for_many_addresses(running: Running) -> None:
    trail = running.services.audit
    for number in range(1000):
        current_request.set(RequestContext(ip=f"2001:db8:{number:x}::1" if number % 2 else f"192.0.2.{number % 250}"))
        trail.record(Event(name="login.failed", at=1, reason=f"invented_{number}"))
    await trail.finish(30)
    told = await trail.latest(limit=1000)
    assert len(told) <= 33
    assert sum(entry.count for entry in told) == 1000


async def test_an_ipv6_prefix_counts_as_one_address(running: Running) -> None:
    trail = running.services.audit
    for number in range(1000):
        current_request.set(RequestContext(ip=f"2001:db8::{number:x}"))
        trail.record(Event(name="login.failed", at=1, reason="state_unknown"))
    await trail.finish(30)
    assert [entry.count for entry in await trail.latest()] == [999, 1]


async def test_every_entry_of_a_user_is_kept(running: Running) -> None:
    for _ in range(50):
        running.services.audit.record(LOGIN)
    await running.services.audit.finish(30)
    assert [entry.count for entry in await running.services.audit.latest()] == [1] * 50


@pytest.mark.parametrize("act", ["disable", "enable", "sign-out"])
async def test_an_administrators_action_names_the_administrator(running: Running, act: str) -> None:
    async with running.browser() as alice, running.browser() as admin:
        user = await running.log_in(alice)
        boss = await running.log_in(admin, "boss", roles=("admin",))
        await running.services.audit.flush(30)
        before = len(await running.services.audit.of_user(user.user_key))
        answer = await admin.post(f"/admin/users/{user.user_key}/{act}", headers={"user-agent": "Administrator/1"})
        assert answer.status_code == 303
        await running.services.audit.flush(30)
        told = (await running.services.audit.of_user(user.user_key))[:-before]
        assert told
        assert {entry.actor for entry in told} == {boss.user_key}
        page = (await admin.get("/admin")).text
        assert "by <bdi>Boss</bdi>" in page
        if act == "enable":
            page = (await alice.get("/account")).text
            assert "by an administrator" in page
            assert "Administrator" not in page
        own = await running.services.audit.of_user(boss.user_key)
        assert {entry.actor for entry in own} == {None}


async def test_an_action_on_the_own_account_names_no_actor(running: Running) -> None:
    with acting(ALICE.user_key):
        running.services.audit.record(Event(name="session.revoked", at=1, identity=ALICE))
    with acting(COMMAND_LINE):
        running.services.audit.record(Event(name="session.revoked", at=1, identity=ALICE))
    await running.services.audit.flush(30)
    assert [entry.actor for entry in await running.services.audit.latest()] == [COMMAND_LINE, None]
