"""Each demonstration against a library that keeps the guarantee and against one that breaks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from app.asgi import create_app
from auth_demo.guarantees import demonstrations
from auth_demo.guarantees.catalogue import CLUSTER_CODE, GUARANTEES
from auth_demo.guarantees.demonstrations import RUNS, Outcome
from auth_demo.guarantees.lab import Lab, LabSession
from auth_demo.guarantees.outage import OUTAGE_SECONDS, Outages
from session_core import SessionConfig, SessionStore
from session_core.connections.live import LiveConnection
from session_core.errors import StoreUnavailableError
from session_core.sessions.lifecycle import SessionLifecycle
from session_core.sessions.snapshot import Snapshot
from session_core.sessions.writer import SessionWriter
from session_core.stores.base import Entry
from session_core.stores.guarded import GuardedStore
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock
from tests.app.conftest import make_settings  # noqa: F401 - a fixture
from tests.docs.test_docs_architecture import defined
from tests.session_core.stores.contract.broken_records import ReplaceIsAnUpsert
from tests.session_core.stores.contract.broken_rotation import RotateLeavesTheOldKeyAlive
from tests.support.application_state import empty_database, global_state_is_restored, migrated_file  # noqa: F401 - fixtures
from tests.support.thread_server import listen

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def few_increments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations, "INCREMENTS", 20)


@asynccontextmanager
async def served_lab(store: SessionStore, clock: FakeClock) -> AsyncIterator[tuple[Lab, str]]:
    """The laboratory in this event loop, as in the demo."""

    async def nothing_else(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError(scope["path"])

    listening, port = listen()
    lab = Lab(SessionConfig(LabSession, store=store, clock=clock, public_url=f"http://localhost:{port}"))
    await lab.start()
    config = uvicorn.Config(lab.around(nothing_else), log_level="warning", lifespan="off", ws="websockets-sansio")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield lab, f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving
        await lab.stop()


async def outcome_of(name: str, store: SessionStore, clock: FakeClock) -> Outcome:
    async with served_lab(store, clock) as (lab, base):
        return await RUNS[name](lab, base)


@pytest.mark.parametrize("name", RUNS)
async def test_a_kept_guarantee_is_reported_as_kept(name: str, clock: FakeClock) -> None:
    store = MemoryStore(clock=clock)
    outcome = await outcome_of(name, store, clock)
    assert outcome.held, outcome.rows
    assert [stored async for stored in store.scan()] == [], "the demonstration has left sessions"


async def _write_without_looking(self: SessionWriter, base: Snapshot, change: Any) -> Snapshot:
    stored = await self._store.load(base.key)
    record = change(base.record)
    entry = self._entry(base, record)
    version = await self._store.replace(base.key, entry, version=stored.version if stored else base.version)
    return Snapshot(base.key, version, entry.expires_at, record)


async def _take_an_outage_for_no_session(self: SessionLifecycle[Any], session_id: str) -> Snapshot | None:
    try:
        return await LOAD(self, session_id)
    except StoreUnavailableError:
        return None


LOAD = SessionLifecycle.load
BROKEN: dict[str, tuple[type, str, Any]] = {
    "increments": (SessionWriter, "write", _write_without_looking),
    "tabs": (SessionWriter, "write", _write_without_looking),
    "sign-out": (LiveConnection, "end", lambda self, reason: None),
    "outage": (SessionLifecycle, "load", _take_an_outage_for_no_session),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_guarantee_is_reported_as_broken(name: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BROKEN[name])
    monkeypatch.setattr(demonstrations, "_CLOSE_SECONDS", 0.2)
    outcome = await outcome_of(name, MemoryStore(clock=clock), clock)
    assert not outcome.held, outcome.rows


@pytest.mark.parametrize(("name", "store"), [("logout", ReplaceIsAnUpsert), ("regeneration", RotateLeavesTheOldKeyAlive)])
async def test_a_broken_store_is_reported_as_broken(name: str, store: type[MemoryStore], clock: FakeClock) -> None:
    outcome = await outcome_of(name, store(clock=clock), clock)
    assert not outcome.held, outcome.rows


async def test_increments_are_counted_not_hard_coded(clock: FakeClock) -> None:
    ours, theirs = (await outcome_of("increments", MemoryStore(clock=clock), clock)).rows
    assert (ours.part, ours.of) == (20, 20)
    assert 1 <= theirs.part < theirs.of == 20


@pytest.mark.parametrize("place", sorted({place for each in GUARANTEES for place in each.code} | set(CLUSTER_CODE)))
async def test_the_named_source_code_exists(place: str) -> None:
    file, _, name = place.partition("::")
    assert name in defined(file)


async def test_every_demonstration_is_on_the_page() -> None:
    assert [each.name for each in GUARANTEES] == list(RUNS)
    assert all(each.sentence.endswith(".") and each.sentence.count(". ") == 0 for each in GUARANTEES)


async def test_without_the_demo_the_page_does_not_exist(make_settings) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001, F811
    app = create_app(make_settings())
    assert not [route.path for route in app.routes if route.path.startswith("/demo")]
    assert "demo_pages" not in app.state


async def test_an_outage_ends_by_itself_and_affects_one_session(clock: FakeClock) -> None:
    async def report(reason: str) -> None:
        del reason

    store = GuardedStore(MemoryStore(clock=clock), timeout=1, on_outage=report)
    outages = Outages(store, clock)
    await store.open()
    for key in ("mine", "theirs"):
        await store.create(key, Entry(data=b"x", expires_at=clock.now() + 60_000))
    outages.begin("mine")
    for call in (store.load("mine"), store.touch("mine", clock.now() + 90_000), store.delete("mine")):
        with pytest.raises(StoreUnavailableError):
            await call
    assert await store.load("theirs") is not None
    clock.advance(seconds=OUTAGE_SECONDS - 1)
    outages.begin("mine")  # a second press does not prolong it
    clock.advance(seconds=1)
    assert await store.load("mine") is not None
    outages.begin("mine")
    outages.end("mine")
    assert await store.load("mine") is not None
