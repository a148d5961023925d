"""The provider ends a login in progress at nodes whose clocks differ by five minutes: no clock decides the order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from session_core.clock import TOLERATED_SKEW_MS
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import GONE, World

pytestmark = pytest.mark.anyio

SKEW_SECONDS = 60
"""The default of `clock_tolerance_seconds`."""

SIDES = ("behind", "ahead")
NODES = pytest.mark.parametrize("finished_at", SIDES)
BEGUN = pytest.mark.parametrize("begun_at", SIDES)
ENDED = pytest.mark.parametrize("ended_at", SIDES)
BY = pytest.mark.parametrize("claims", [{}, {"sid": GONE, "sub": "alice"}], ids=["by sid", "by sub"])


class Cluster(NamedTuple):
    """Two nodes with one store. A node further behind would reject the provider's tokens as issued in the future."""

    behind: World
    ahead: World

    def node(self, name: str) -> World:
        return self.behind if name == "behind" else self.ahead

    def advance(self, seconds: float) -> None:
        for clock in (self.behind.op.clock, self.behind.clock, self.ahead.clock):
            clock.advance(seconds=seconds)

    @staticmethod
    def hand_over(here: World, there: World) -> None:
        """The browser's next request goes to another node."""
        there.browser.cookies = here.browser.cookies

    async def send_logout(self, at: World, claims: dict[str, Any]) -> None:
        # A longer expiry than recommended: by the clock that is ahead, the usual two minutes are over.
        token = self.behind.op.logout_token(exp=self.behind.op.clock.now() // 1000 + 600, **claims)
        assert (await at.send_logout(token)).status_code == 200


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    behind, ahead = FakeClock(), FakeClock()
    behind.advance(seconds=-SKEW_SECONDS)
    ahead.advance(seconds=TOLERATED_SKEW_MS / 1000 - SKEW_SECONDS)
    store = f"file://{tmp_path}/sessions"
    first = World(clock=behind, store=store)
    first.op.clock = FakeClock()
    nodes = Cluster(first, World(sharing=first, clock=ahead, store=store))
    for node in nodes:
        await node.sessions.store.open()
    yield nodes
    for node in nodes:
        await node.sessions.store.close()


@pytest.mark.attack("42")
@BEGUN
@ENDED
@NODES
@BY
async def test_a_logout_during_the_callback_ends_the_login(
    cluster: Cluster, begun_at: str, ended_at: str, finished_at: str, claims: dict[str, Any]
) -> None:
    begun, ended, finished = (cluster.node(name) for name in (begun_at, ended_at, finished_at))
    url = begun.op.authorize(await begun.start())
    cluster.hand_over(begun, finished)
    cluster.advance(seconds=2)
    inside, go_on = begun.op.hold("/userinfo")
    callback = asyncio.create_task(finished.come_back(url))
    await inside.wait()
    cluster.advance(seconds=2)
    await cluster.send_logout(ended, claims)
    go_on.set()
    assert (await callback).status_code == 400
    assert finished.reasons() == ["ended_by_provider"]
    assert await finished.subject() is None


@pytest.mark.attack("42")
@BEGUN
@ENDED
@NODES
@BY
async def test_a_logout_after_the_callback_ends_the_session(
    cluster: Cluster, begun_at: str, ended_at: str, finished_at: str, claims: dict[str, Any]
) -> None:
    begun, ended, finished = (cluster.node(name) for name in (begun_at, ended_at, finished_at))
    url = begun.op.authorize(await begun.start())
    cluster.hand_over(begun, finished)
    assert (await finished.come_back(url)).status_code == 303
    assert await finished.subject() == "alice"
    await cluster.send_logout(ended, claims)
    cluster.hand_over(finished, begun)
    assert [await node.subject() for node in (finished, begun)] == [None, None]


@pytest.mark.attack("42")
@BEGUN
@ENDED
@NODES
@pytest.mark.parametrize("seconds", [0, 2, 299])
@BY
async def test_a_logout_before_the_callback_ends_the_login(
    cluster: Cluster, begun_at: str, ended_at: str, finished_at: str, claims: dict[str, Any], seconds: int
) -> None:
    """The provider redeems a code issued before the logout, although it should not, for a current ID token."""
    begun, ended, finished = (cluster.node(name) for name in (begun_at, ended_at, finished_at))
    begun.op.auth_time = begun.op.clock.now() // 1000 - 3600
    url = begun.op.authorize(await begun.start())
    cluster.hand_over(begun, finished)
    await cluster.send_logout(ended, claims)
    cluster.advance(seconds=seconds)
    assert (await finished.come_back(url)).status_code == 400
    assert finished.reasons() == ["ended_by_provider"]
    assert await finished.subject() is None


@pytest.mark.parametrize("ago", [None, 3600], ids=["without auth_time", "single sign-on"])
@BEGUN
@ENDED
@NODES
@BY
async def test_a_login_after_the_logout_is_not_affected(
    cluster: Cluster, begun_at: str, ended_at: str, finished_at: str, claims: dict[str, Any], ago: int | None
) -> None:
    """The user can log in again at once, also when the provider has ended the login only here and keeps its session and `sid`."""
    begun, ended, finished = (cluster.node(name) for name in (begun_at, ended_at, finished_at))
    begun.op.auth_time = None if ago is None else begun.op.clock.now() // 1000 - ago
    await cluster.send_logout(ended, claims)
    url = begun.op.authorize(await begun.start())
    cluster.hand_over(begun, finished)
    assert (await finished.come_back(url)).status_code == 303
    assert await finished.subject() == "alice"


@BEGUN
@ENDED
@NODES
@BY
async def test_a_login_authenticated_after_the_logout_continues(
    cluster: Cluster, begun_at: str, ended_at: str, finished_at: str, claims: dict[str, Any]
) -> None:
    """The provider ends the old session because of this login, and sends its logout token while the login is in progress."""
    begun, ended, finished = (cluster.node(name) for name in (begun_at, ended_at, finished_at))
    start = await begun.start()
    await cluster.send_logout(ended, claims)
    cluster.advance(seconds=1)
    begun.op.auth_time = begun.op.clock.now() // 1000
    url = begun.op.authorize(start)
    cluster.hand_over(begun, finished)
    assert (await finished.come_back(url)).status_code == 303
    assert await finished.subject() == "alice"
