"""`on_limit="refuse"` on every store: never one session more than allowed, from two nodes and from two processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from session_core import Identity, SessionConflictError, SessionHandle
from session_core.clock import TOLERATED_SKEW_MS
from session_core.errors import SessionLimitError
from session_core.events import Events
from session_core.sessions.lifecycle import SessionLifecycle
from session_core.sessions.login_limits import LoginLimits
from session_core.sessions.manager import SessionManager
from session_core.sessions.record import DataCodec
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.sessions.timeouts import Timeouts
from session_core.stores.base import SessionIndex, SessionStore
from session_core.stores.opening import open_store
from session_core.testing import FakeClock
from tests.session_core.stores.conditional.engines import memcached, moto
from tests.session_core.stores.contract.every_store import CONDITIONAL, STORES, MakeStore, make_store
from tests.session_core.stores.test_store_processes import Workers, workers
from tests.support.presented import PresentedId
from tests.support.sessions import AppSession

__all__ = ("make_store", "memcached", "moto", "workers")
pytestmark = pytest.mark.anyio

ALICE = Identity(issuer="https://op.example", subject="alice")
TIMEOUTS = Timeouts()
LIMIT = 3
on_every_store = pytest.mark.parametrize("make_store", [*STORES, *CONDITIONAL], indirect=True)


class Node:
    """A process of an application that refuses a fourth session."""

    def __init__(self, store: SessionStore, clock: FakeClock, patience: float = 30) -> None:
        self.store, self.clock, events = store, clock, Events(clock, ())
        marks = RevocationMarks(store, TIMEOUTS, clock)
        self.limits = LoginLimits(store, clock, events, LIMIT, on_limit="refuse", patience=patience)
        self.lifecycle: SessionLifecycle[Any] = SessionLifecycle(
            store=store, codec=DataCodec(AppSession), timeouts=TIMEOUTS, clock=clock, events=events,
            limits=self.limits, marks=marks,
        )  # fmt: skip
        self.sessions = SessionManager(store, TIMEOUTS, clock, events, marks)

    async def log_in(self) -> SessionHandle[Any] | str:
        """Log in; return the session id, or the code of the error."""
        handle: SessionHandle[Any] = SessionHandle(self.lifecycle, PresentedId())
        try:
            await handle.login(ALICE)
        except (SessionLimitError, SessionConflictError) as error:
            assert handle.session_id is None
            assert handle.uncertain is None
            return error.code
        return handle


@on_every_store
async def test_twelve_logins_at_two_nodes_give_exactly_three_sessions(make_store: MakeStore) -> None:
    clock = FakeClock()
    nodes = [Node(make_store(clock), clock) for _ in range(2)]
    for node in nodes:
        await node.store.open()
    outcomes = await asyncio.gather(*(nodes[number % 2].log_in() for number in range(12)))
    assert Counter(each for each in outcomes if isinstance(each, str)) == {"session_limit": 9}
    assert len(await nodes[0].sessions.list_for(ALICE)) == LIMIT
    for node in nodes:
        await node.store.close()


@on_every_store
async def test_a_login_suspended_while_others_log_in_is_refused(make_store: MakeStore) -> None:
    """Between its check and its session: its reservation then expires, immediately for a node whose clock is ahead."""
    behind, ahead = FakeClock(), FakeClock()
    ahead.advance(seconds=TOLERATED_SKEW_MS / 1000)
    slow, quick = Node(make_store(behind), behind), Node(make_store(ahead), ahead, patience=0.05)
    for node in (slow, quick):
        await node.store.open()
    look, others = slow.limits._sessions_of, list[Any]()

    async def look_and_stop(identity: Identity) -> Any:
        found = await look(identity)
        if not others:
            others.extend([await quick.log_in() for _ in range(LIMIT + 1)])
        return found

    slow.limits._sessions_of = look_and_stop  # type: ignore[method-assign]
    outcomes = [await slow.log_in(), *others]
    entered = [each for each in outcomes if not isinstance(each, str)]
    # With a store clock the reservation stays, and the others wait until they time out.
    assert len(entered) in {1, LIMIT}
    assert {each.handle for each in entered} == {each.handle for each in await quick.sessions.list_for(ALICE)}
    for node in (slow, quick):
        await node.store.close()


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "valkey", "valkey_cluster"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A shared store that is not open yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    names = {"postgres": "database", "mariadb": "mariadb_url"}
    if request.param in names:
        return str(request.getfixturevalue(names[request.param]))
    server = str(request.getfixturevalue(request.param).url)
    return f"{server}{'&' if '?' in server else '?'}timeout=60"  # also on a busy machine


async def test_two_processes_never_exceed_a_refusing_limit(url: str, workers: Workers) -> None:
    workers.begin(url, "log_in_or_be_refused", "8", processes=2)
    said = Counter(text for _, text in workers.said())
    assert said == {"entered": LIMIT, "session_limit": 16 - LIMIT}
    store = open_store(url)
    await store.open()
    assert len(await store.find(SessionIndex(user=ALICE.user_key))) == LIMIT
    await store.close()
