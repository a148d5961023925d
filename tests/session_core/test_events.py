"""Events reach all listeners; a listener that fails or hangs has no other effect."""

from __future__ import annotations

import asyncio

import pytest

from session_core import Event
from session_core import events as module
from tests.support.sessions import Recorder, client_of, make_app

pytestmark = pytest.mark.anyio


async def test_a_listener_that_fails_or_hangs_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LISTENER_SECONDS", 0.01)

    def fails(event: Event) -> None:
        raise ConnectionRefusedError(event.name)

    async def hangs(event: Event) -> None:
        del event
        await asyncio.Event().wait()

    recorder = Recorder()
    async with client_of(make_app(on_event=[fails, hangs, recorder])) as client:
        assert (await client.post("/login/alice")).status_code == 201
        assert (await client.post("/logout")).status_code == 201
    assert recorder.names == ["session.created", "login.succeeded", "session.destroyed"]


async def test_the_events_of_one_visit_are_in_order() -> None:
    recorder = Recorder()
    async with client_of(make_app(on_event=[recorder])) as client:
        for path in ("/visit", "/regenerate", "/login/alice", "/logout"):
            await client.post(path)
    assert recorder.names == ["session.created", "session.regenerated", "login.succeeded", "session.destroyed"]
    assert all(event.handle for event in recorder.events)
    assert recorder.events[2].identity == recorder.events[3].identity


async def test_the_sweeper_survives_a_failed_round(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.sessions import plugin_in

    app = make_app(sweep_interval=0.001)
    rounds = 0
    enough = asyncio.Event()

    async def fail(limit: int = 1000) -> int:
        del limit
        nonlocal rounds
        rounds += 1
        if rounds >= 3:
            enough.set()
        raise RuntimeError

    monkeypatch.setattr(plugin_in(app).store.inner, "delete_expired", fail)
    async with app.lifespan():
        await asyncio.wait_for(enough.wait(), 60)
    assert rounds >= 3
