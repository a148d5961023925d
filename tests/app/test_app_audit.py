"""The audit trail: complete after a clean shutdown, silent about secrets, never in the way of a login."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from app.data import audit as audit_module
from session_core import Event, Identity
from tests.app.conftest import ISSUER, Running, Start

pytestmark = pytest.mark.anyio

ALICE = Identity(issuer=ISSUER, subject="alice")


async def test_what_happens_to_a_user_is_written_and_shown(running: Running) -> None:
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


@pytest.mark.attack("asvs-14.2.4")
async def test_the_trail_holds_no_id_key_or_cookie(running: Running) -> None:
    async with running.browser() as browser:
        await running.log_in(browser)
        await browser.post("/session/regenerate")
        cookie = browser.cookies.get("session") or ""
        await running.services.audit.flush(30)
        written = repr(await running.services.audit.latest())
        assert cookie[6:40] not in written
        async for stored in running.plugin.store.scan():
            assert stored.key not in written


async def test_nothing_is_lost_at_a_clean_shutdown(start: Start) -> None:
    async with start() as running:
        for number in range(500):
            running.services.audit.record(Event(name="login.succeeded", at=number, identity=ALICE))
    async with start() as again:
        assert len(await again.services.audit.latest(limit=1000)) == 500


async def first_entry(running: Running) -> None:
    """Once it is written, the writer has forgotten what is old, and waits for entries."""
    running.services.audit.record(Event(name="login.succeeded", at=1, identity=ALICE))
    await running.services.audit.flush(30)


async def test_a_database_that_is_out_delays_nothing_and_catches_up(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "_RETRY", 0.01)
    await first_entry(running)
    database, tried = running.services.database, asyncio.Event()
    begin = database.begin

    def begin_in_vain() -> Any:
        tried.set()
        return begin()

    monkeypatch.setattr(database, "begin", begin_in_vain)
    await database.close()
    started = time.process_time()
    for _ in range(100):
        running.services.audit.record(Event(name="login.succeeded", at=1, identity=ALICE))
    assert time.process_time() - started < 1
    await asyncio.wait_for(tried.wait(), 30)
    await database.open()
    await running.services.audit.flush(30)
    assert len(await running.services.audit.latest(limit=1000)) == 101
    assert running.services.audit.lost == 0


async def test_a_flood_is_bounded_and_what_is_lost_is_counted(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = running.services.audit
    monkeypatch.setattr(audit_module, "_RETRY", 0.01)
    await first_entry(running)
    await running.services.database.close()
    trail._queue = asyncio.Queue(10)
    for _ in range(25):
        trail.record(Event(name="login.failed", at=1, reason="state"))
    assert trail.lost == 15
    async with running.client() as client:
        assert "audit_entries_lost 15.0" in (await client.get("/metrics")).text
    trail._queue = asyncio.Queue(10)
    await running.services.database.open()


async def test_what_anybody_can_cause_in_any_number_is_not_kept(running: Running) -> None:
    async with running.client() as client:
        for _ in range(3):
            await client.get("/api/session", headers={"cookie": "session=s%3Aforged.signature"})
    await running.services.audit.flush(30)
    assert await running.services.audit.latest() == []


@pytest.mark.attack("asvs-14.2.7")
async def test_old_entries_are_forgotten(start: Start) -> None:
    async with start() as running:
        now = running.clock.now()
        running.services.audit.record(Event(name="login.succeeded", at=now - 91 * 86_400_000, identity=ALICE))
        running.services.audit.record(Event(name="login.succeeded", at=now - 89 * 86_400_000, identity=ALICE))
    async with start() as again:
        again.services.audit.record(Event(name="logout.local", at=now, identity=ALICE))
        await again.services.audit.flush(30)
        assert [entry.event for entry in await again.services.audit.latest()] == ["logout.local", "login.succeeded"]
