"""Nodes whose clocks differ by five minutes, on every store: no write lost, nothing revived, no user logged out.

Lifetimes are off by the difference, in either direction, and by no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import product
from typing import NamedTuple

import msgspec
import pytest

from session_core import Identity, SessionGoneError, SessionHandle
from session_core.clock import TOLERATED_SKEW_MS
from session_core.events import Events
from session_core.ids import session_key
from session_core.sessions import logout_marks as end_marks
from session_core.sessions.lifecycle import SessionLifecycle
from session_core.sessions.login_limits import LoginLimits
from session_core.sessions.logout_marks import was_ended_since
from session_core.sessions.manager import SessionManager
from session_core.sessions.record import DataCodec
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.sessions.timeouts import Timeouts
from session_core.stores.base import SessionIndex, SessionStore
from session_core.testing import FakeClock
from tests.session_core.stores.contract.every_store import STORES, MakeStore, make_store  # noqa: F401 - a fixture
from tests.support.presented import PresentedId

SHARED = [name for name in STORES if name != "memory"]
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("make_store", SHARED, indirect=True)]

ALICE = Identity(issuer="https://op.example", subject="alice", sid="op-1")
MINUTE = 60_000
SKEW_MINUTES = TOLERATED_SKEW_MS // MINUTE


class Data(msgspec.Struct):
    visits: int = 0


def bump(data: Data) -> None:
    data.visits += 1


class Node(NamedTuple):
    clock: FakeClock
    store: SessionStore
    lifecycle: SessionLifecycle[Data]
    manager: SessionManager

    def handle(self, session_id: str | None = None) -> SessionHandle[Data]:
        return SessionHandle(self.lifecycle, PresentedId(session_id))

    async def uses(self, session_id: str | None) -> bool:
        """A request that reads the session; returns whether it exists."""
        handle = await self.handle(session_id).load()
        await handle.save()
        return handle.exists


class Nodes(NamedTuple):
    ahead: Node
    behind: Node

    @property
    def op_seconds(self) -> int:
        """The provider's clock: between those of the nodes, so that both accept its tokens."""
        return self.behind.clock.now() // 1000 + 60

    def advance(self, *, minutes: float = 0, seconds: float = 0) -> None:
        for node in self:
            node.clock.advance(minutes=minutes, seconds=seconds)


@pytest.fixture
async def nodes(make_store: MakeStore) -> AsyncIterator[Nodes]:  # noqa: F811
    both = []
    for minutes in (SKEW_MINUTES, 0):
        clock = FakeClock()
        clock.advance(minutes=minutes)
        store = make_store(clock)
        await store.open()
        timeouts, events = Timeouts(idle=3600, absolute=8 * 3600), Events(clock, ())
        marks = RevocationMarks(store, timeouts, clock)
        lifecycle: SessionLifecycle[Data] = SessionLifecycle(
            store=store, codec=DataCodec(Data), timeouts=timeouts, clock=clock, events=events,
            limits=LoginLimits(store, clock, events, 3), marks=marks, patience=30,
        )  # fmt: skip
        both.append(Node(clock, store, lifecycle, SessionManager(store, timeouts, clock, events, marks)))
    yield Nodes(*both)
    for node in both:
        await node.store.close()


async def test_no_write_is_lost(nodes: Nodes) -> None:
    first = nodes.behind.handle()
    await first.update(bump)
    twins = [await nodes[number % 2].handle(first.session_id).load() for number in range(12)]
    await asyncio.gather(*(twin.update(bump) for twin in twins))
    assert (await nodes.ahead.handle(first.session_id).load()).data.visits == 13


async def test_an_active_user_stays_logged_in(nodes: Nodes) -> None:
    """Whichever node handles each request, until the absolute timeout minus the difference."""
    handle = nodes.ahead.handle()
    await handle.login(ALICE)
    for minute in range(0, 8 * 60 - SKEW_MINUTES - 30, 30):
        assert await nodes[minute // 30 % 2].uses(handle.session_id)
        nodes.advance(minutes=30)
    assert await nodes.behind.uses(handle.session_id)


@pytest.mark.parametrize("end", ["destroy", "revoke_all", "op_logout", "regenerate", "expiry"])
@pytest.mark.parametrize("at", ["ahead", "behind"])
async def test_a_session_ended_at_one_node_is_revived_at_no_other(nodes: Nodes, at: str, end: str) -> None:
    here, there = (nodes.ahead, nodes.behind) if at == "ahead" else (nodes.behind, nodes.ahead)
    owner = here.handle()
    await owner.login(ALICE)
    ended = owner.session_id
    slow = await there.handle(ended).load()
    same = await here.handle(ended).load()
    if end == "destroy":
        await owner.destroy()
    elif end == "revoke_all":
        assert await here.manager.revoke_all(ALICE) == 1
    elif end == "op_logout":
        assert await here.manager.end_op_session(ALICE.issuer, ALICE.sid or "") == 1
    elif end == "regenerate":
        await owner.regenerate()
    else:
        nodes.advance(minutes=60 + SKEW_MINUTES)
    await here.store.delete_expired()
    for handle in (slow, same):
        with pytest.raises(SessionGoneError):
            await handle.update(bump)
    for node in nodes:
        assert await node.uses(ended) is False
        assert len(await node.store.find(SessionIndex(user=ALICE.user_key))) == (end == "regenerate")


@pytest.mark.parametrize("at", ["ahead", "behind"])
async def test_a_logout_with_a_rotated_id_finds_its_successor_by_any_clock(nodes: Nodes, at: str) -> None:
    """Within a minute, as with one clock."""
    here, there = (nodes.ahead, nodes.behind) if at == "ahead" else (nodes.behind, nodes.ahead)
    owner = here.handle()
    await owner.login(ALICE)
    late = await there.handle(owner.session_id).load()
    await owner.regenerate()
    nodes.advance(seconds=59)
    await there.store.delete_expired()
    await late.destroy()
    assert await here.uses(owner.session_id) is False


async def test_idle_sessions_end_in_time_within_the_clock_difference(nodes: Nodes) -> None:
    for begun_at in nodes:
        handle = begun_at.handle()
        await handle.login(ALICE)
        for seen_at in nodes:
            # Only examined, because a use would extend it.
            difference = (begun_at.clock.now() - seen_at.clock.now()) // MINUTE
            assert abs(difference) <= SKEW_MINUTES
        nodes.advance(minutes=60 - SKEW_MINUTES, seconds=-1)
        key = session_key(handle.session_id or "")
        assert all([await node.store.load(key) is not None for node in nodes])
        nodes.advance(minutes=2 * SKEW_MINUTES, seconds=1)
        assert not any([await node.store.load(key) is not None for node in nodes])


async def test_a_claim_is_granted_once_within_the_clock_difference(nodes: Nodes) -> None:
    for here, there in (nodes, nodes[::-1]):
        name = f"by the clock of {here.clock.now()}"
        assert await here.manager.claim(name, seconds=600)
        nodes.advance(minutes=10 - SKEW_MINUTES, seconds=-1)
        assert await there.manager.claim(name, seconds=600) is False
        assert await here.manager.claim(name, seconds=600) is False


@pytest.mark.attack("42")
@pytest.mark.parametrize("signed", [True, False], ids=["by a logout token", "by a frame"])
async def test_a_login_in_progress_ends_with_its_provider_session(nodes: Nodes, signed: bool) -> None:
    """Started, ended and completed at any three nodes, within ten minutes."""
    cases = product(product(nodes, repeat=3), ((0, 0), (0.1, 9.8), (SKEW_MINUTES + 0.1, 4.8), (9.8, 0.1)))
    for number, ((begun, ended, finished), (before, after)) in enumerate(cases):
        identity = Identity(issuer=ALICE.issuer, subject=f"user {number}", sid=f"op session {number}")
        # Earlier ends of the same session must not remove the last mark early.
        await ended.manager.end_op_session(identity.issuer, identity.sid or "")
        nodes.advance(minutes=SKEW_MINUTES, seconds=1)
        await ended.manager.end_op_session(identity.issuer, identity.sid or "")
        nodes.advance(minutes=SKEW_MINUTES, seconds=1)
        moment = await begun.manager.moment()
        nodes.advance(minutes=before)
        iat = nodes.op_seconds if signed else None
        await ended.manager.end_op_session(identity.issuer, identity.sid or "", iat=iat)
        nodes.advance(minutes=after)
        for node in nodes:
            await node.store.delete_expired()
        with pytest.raises(SessionGoneError):
            await finished.handle().login(identity, begun=moment)
        assert list(await begun.store.find(SessionIndex(user=identity.user_key))) == []
        # The next login, immediately and at any node, for any clocks.
        await finished.handle().login(identity, begun=await begun.manager.moment())


async def marked_until_the_last_login(nodes: Nodes) -> bool:
    """Whether a mark still exists at the last moment at which the node behind accepts a login.

    Login and mark begin at the node ahead, which has since swept everything that is expired by its clock.
    """
    begun, finished = nodes
    moment, started_at = await begun.manager.moment(), begun.clock.now()
    nodes.advance(minutes=0.1)
    await finished.manager.end_user(ALICE, iat=nodes.op_seconds)
    nodes.advance(minutes=10 + SKEW_MINUTES - 0.2)
    assert finished.clock.now() - started_at < 10 * MINUTE
    await begun.store.delete_expired()
    return await was_ended_since(finished.store, ALICE, moment)


async def test_a_mark_exists_as_long_as_any_node_accepts_a_login(nodes: Nodes) -> None:
    assert await marked_until_the_last_login(nodes)


async def test_a_shorter_lifetime_of_marks_is_detected(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_marks, "_KEPT_MS", end_marks._KEPT_MS - TOLERATED_SKEW_MS)
    # With a store that expires entries itself, no node sweeps early.
    assert await marked_until_the_last_login(nodes) is nodes.ahead.store.capabilities.native_expiry
