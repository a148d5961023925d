"""What two requests may do to each other and to their session, in every order, with a fault at every store call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from session_core.ids import session_key
from session_core.sessions.handle import SessionHandle
from session_core.sessions.lifecycle import NewId, SessionLifecycle
from session_core.sessions.snapshot import Snapshot
from session_core.sessions.writer import SessionWriter
from session_core.stores.opening import open_store
from session_core.testing import FakeClock
from tests.simulation.director import Plan
from tests.simulation.explore import explore, memory, replay
from tests.simulation.world import SCENARIOS
from tests.support.redis_servers import _valkey, valkey

__all__ = ("_valkey", "valkey")

SAMPLE = 30
"""Schedules of each kind in the default run; `just simulate` goes through all."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


def found_in(name: str, *, sample: int | None = SAMPLE, levels: int = 4) -> list[str]:
    return asyncio.run(explore(name, memory, sample=sample, levels=levels))[1]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_promise_is_kept_in_every_order(name: str) -> None:
    assert found_in(name) == []


@pytest.mark.parametrize("kind", ["sqlite", "valkey"])
@pytest.mark.parametrize("name", ["update+regenerate", "login+op_logout", "login+login", "tabs"])
def test_the_same_on_an_engine(kind: str, name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    number = 0

    @asynccontextmanager
    async def make(clock: FakeClock) -> AsyncIterator[Any]:
        nonlocal number
        number += 1
        if kind == "sqlite":
            url = f"sqlite:///{tmp_path}/sessions{number}.db"
        else:
            url = f"{request.getfixturevalue('valkey').url}?prefix=s{number}:"
        store = open_store(url, clock=clock)
        await store.open()
        yield store
        await store.close()

    _, found = asyncio.run(explore(name, make, sample=5, levels=3))
    assert found == []


def test_a_seed_replays_its_schedule() -> None:
    plan = Plan({0: 1, 7: 0}, {3: "lost_down"})
    assert Plan.parse(str(plan)) == plan
    assert asyncio.run(replay(f"update+update|{plan}")).problem is None


# -- lifecycles with one bug each ------------------------------------------------------------------------------------


@contextmanager
def _tells_the_browser_nothing(self: SessionHandle[Any], draft: object) -> Iterator[NewId]:
    """A lost answer: the browser keeps the id of before, whatever the store has made of it."""
    del self, draft
    yield NewId()


async def _ends_what_the_id_leads_to(self: SessionLifecycle[Any], session_ids: tuple[str, ...]) -> None:
    """A login ends the session of another tab, whose id the store remembers as the successor."""
    for session_id in session_ids:
        await self.store.delete(session_key(session_id))


async def _does_not_look(*_: object) -> None:
    """A login whose provider has ended it meanwhile."""


async def _writes_without_looking(self: SessionWriter, base: Snapshot, change: Any) -> Snapshot:
    """The last write wins."""
    stored = await self._store.load(base.key)
    entry = self._entry(base, change(base.record))
    version = await self._store.replace(base.key, entry, version=stored.version if stored else base.version)
    return Snapshot(base.key, version, entry.expires_at, change(base.record))


async def _begins_anew(self: SessionLifecycle[Any], session_ids: object) -> bool:
    """A write with the id of before a regeneration starts a session, whose cookie takes the place of the new id."""
    del self, session_ids
    return False


BUGS: dict[str, tuple[type, str, Any, str]] = {
    "regeneration without an answer": (SessionHandle, "_new_id", _tells_the_browser_nothing, "update+regenerate"),
    "login without an answer": (SessionHandle, "_new_id", _tells_the_browser_nothing, "login"),
    "first login without an answer": (SessionHandle, "_new_id", _tells_the_browser_nothing, "first login"),
    "login ends the other tab": (SessionLifecycle, "_find_unreadable", _ends_what_the_id_leads_to, "tabs"),
    "login does not look for its end": (SessionLifecycle, "_refuse_ended_meanwhile", _does_not_look, "login+op_logout"),
    "last write wins": (SessionWriter, "write", _writes_without_looking, "update+update"),
    "write in flight takes the cookie": (SessionLifecycle, "has_moved", _begins_anew, "update+regenerate"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_lifecycle_with_a_bug_is_found_out(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, broken, name = BUGS[bug]
    monkeypatch.setattr(owner, method, broken)
    found = found_in(name, sample=200)
    assert found
    seed = found[0].partition(": ")[0]
    assert asyncio.run(replay(seed)).problem is not None
    monkeypatch.undo()
    assert asyncio.run(replay(seed)).problem is None


@pytest.mark.parametrize("kind", ["regenerate", "login"])
def test_a_change_of_id_that_is_made_later_is_found_out(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request must make sure that a change under way never arrives: without that write it does."""

    async def settle(self: SessionLifecycle[Any], presented: Any) -> Any:
        for session_id in presented.ids:
            if (snapshot := await self.load(session_id)) is not None:
                return session_id, snapshot
        return None

    monkeypatch.setattr(SessionLifecycle, "settle", settle)
    assert found_in("update+regenerate" if kind == "regenerate" else "login", sample=200)
