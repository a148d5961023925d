"""Two requests that act on each other's session in every order, with a fault at every store call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from session_core.ids import session_key
from session_core.sessions.handle import SessionHandle
from session_core.sessions.lifecycle import NewId, SessionLifecycle
from session_core.sessions.snapshot import Snapshot, entry_of
from session_core.sessions.writer import SessionWriter
from session_core.stores.redis import cluster_login, steps
from tests.simulation.director import Plan
from tests.simulation.explore import MEMORY, ON_A_CLUSTER, Engine, engine, explore, main, on_a_server, replay
from tests.simulation.world import SCENARIOS
from tests.support.redis_servers import _valkey, valkey

__all__ = ("_valkey", "valkey")

SAMPLE = 16
"""Schedules of each kind in the default run; `just simulate` runs all."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture(scope="module")
def on_cluster() -> Iterator[Engine]:
    """One node: its slots are as independent as those of several nodes."""
    with engine("cluster") as on:
        yield on


def found_in(name: str, *, sample: int = SAMPLE) -> list[str]:
    return asyncio.run(explore(name, MEMORY, sample=sample))[1]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_guarantee_holds_in_every_order(name: str) -> None:
    assert found_in(name) == []


@pytest.mark.parametrize("kind", ["sqlite", "valkey"])
@pytest.mark.parametrize("name", ["update+regenerate", "login+op_logout", "login+login", "tabs", "read+destroy", "login+expire"])
def test_every_guarantee_holds_on_each_engine(kind: str, name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if kind == "sqlite":
        on = Engine(kind, lambda number: f"sqlite:///{tmp_path}/sessions{number}.db")
    else:
        on = on_a_server(kind, request.getfixturevalue("valkey").url)
    assert asyncio.run(explore(name, on, sample=4, levels=6))[1] == []


@pytest.mark.parametrize("name", ON_A_CLUSTER)
def test_every_command_of_a_cluster_is_a_step(name: str, on_cluster: Engine) -> None:
    assert asyncio.run(explore(name, on_cluster, sample=8))[1] == []


@pytest.mark.parametrize("name", ["login+regenerate", "login+regenerate+regenerate"])
def test_a_login_that_misses_a_session_between_two_slots_is_detected(
    name: str, on_cluster: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that treats a session as ended when it was rotated after the index was read."""
    for module in (steps, cluster_login):
        monkeypatch.setattr(module, "pointed_to", lambda value: None)
    found = asyncio.run(explore(name, on_cluster, sample=40))[1]
    seed = next(problem for problem in found if "the limit is 1" in problem).partition(": ")[0]
    assert asyncio.run(replay(seed, on_cluster)).problem is not None
    monkeypatch.undo()
    assert asyncio.run(replay(seed, on_cluster)).problem is None


def test_a_seed_replays_its_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan({0: 1, 7: 0}, {3: "lost_down", 5: "gone_before"})
    assert Plan.parse(str(plan)) == plan
    for seed in (f"memory|update+update|{plan}", f"sqlite|tabs|{plan}"):
        assert main([seed]) == 0
        assert capsys.readouterr().out == f"{seed} -> every promise was kept\n"


# -- lifecycles with one bug each ------------------------------------------------------------------------------------


@contextmanager
def _keeps_the_old_cookie(self: SessionHandle[Any], draft: object) -> Iterator[NewId]:
    """A lost response: the browser keeps the old id, whatever the store did."""
    del self, draft
    yield NewId()


async def _ends_the_successor(self: SessionLifecycle[Any], session_ids: tuple[str, ...]) -> list[Snapshot]:
    """A login ends the session of another tab, whose id the store records as the successor."""
    for session_id in session_ids:
        await self.store.delete(session_key(session_id))
    return []


async def _skips_the_check(*_: object) -> None:
    """A login that does not check whether the provider has ended it meanwhile."""


async def _writes_without_check(self: SessionWriter, base: Snapshot, change: Any) -> Snapshot:
    """The last write wins."""
    stored = await self._store.load(base.key)
    entry = self._entry(base, change(base.record))
    version = await self._store.replace(base.key, entry, version=stored.version if stored else base.version)
    return Snapshot(base.key, version, entry.expires_at, change(base.record))


async def _extends_without_check(self: SessionLifecycle[Any], snapshot: Snapshot) -> Snapshot:
    """A read that writes the complete session back without checking that it still exists."""
    expires_at = self.expiry_after_use(snapshot)
    entry = entry_of(snapshot.record, expires_at, before=snapshot)
    if await self.store.load(snapshot.key) is None:
        await self.store.create(snapshot.key, entry)
    return Snapshot(snapshot.key, snapshot.version, expires_at, snapshot.record, entry)


async def _never_extends(self: SessionLifecycle[Any], snapshot: Snapshot) -> Snapshot:
    """A read that does not count as use."""
    del self
    return snapshot


async def _starts_a_new_session(self: SessionLifecycle[Any], session_ids: object) -> bool:
    """A write with the old id after a regeneration starts a session whose cookie replaces the new id."""
    del self, session_ids
    return False


BUGS: dict[str, tuple[type, str, Any, str]] = {
    "regeneration without a response": (SessionHandle, "_new_id", _keeps_the_old_cookie, "update+regenerate"),
    "login without a response": (SessionHandle, "_new_id", _keeps_the_old_cookie, "login"),
    "first login without a response": (SessionHandle, "_new_id", _keeps_the_old_cookie, "first login"),
    "login ends the other tab": (SessionLifecycle, "_find_unreadable", _ends_the_successor, "tabs"),
    "login does not check for its end": (SessionLifecycle, "_refuse_ended_meanwhile", _skips_the_check, "login+op_logout"),
    "last write wins": (SessionWriter, "write", _writes_without_check, "update+update"),
    "read brings an ended session back": (SessionLifecycle, "touch", _extends_without_check, "read+destroy"),
    "read brings an expired session back": (SessionLifecycle, "touch", _extends_without_check, "read+expire"),
    "read does not extend": (SessionLifecycle, "touch", _never_extends, "read"),
    "a write in progress replaces the cookie": (SessionLifecycle, "has_moved", _starts_a_new_session, "update+regenerate"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_lifecycle_with_a_bug_is_detected(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, broken, name = BUGS[bug]
    monkeypatch.setattr(owner, method, broken)
    found = found_in(name, sample=200)
    assert found
    seed = found[0].partition(": ")[0]
    assert asyncio.run(replay(seed, MEMORY)).problem is not None
    monkeypatch.undo()
    assert asyncio.run(replay(seed, MEMORY)).problem is None


@pytest.mark.parametrize("kind", ["regenerate", "login"])
def test_a_rotation_applied_late_is_detected(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request must write, so that a pending rotation can no longer apply; without that write it would."""

    async def settle(self: SessionLifecycle[Any], presented: Any) -> Any:
        for session_id in presented.ids:
            if (snapshot := await self.load(session_id)) is not None:
                return session_id, snapshot
        return None

    monkeypatch.setattr(SessionLifecycle, "settle", settle)
    assert found_in("update+regenerate" if kind == "regenerate" else "login", sample=200)
