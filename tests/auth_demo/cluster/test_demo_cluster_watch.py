"""The watch over the cluster, with servers whose replies the test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from auth_demo.cluster import watch as demo_cluster_watch
from auth_demo.cluster.watch import ClusterWatch

pytestmark = pytest.mark.anyio

SLOT = 7


class Server:
    """A server of the cluster and the connection to it; replies as configured unless it is frozen."""

    def __init__(self, port: int, *, primary: Server | None = None) -> None:
        self.port = port
        self.primary = primary
        self.epoch = 1
        self.alive = True
        self.answers = asyncio.Event()
        self.answers.set()

    def kill(self) -> None:
        self.alive = False

    def connection(self) -> Server:
        return self

    async def send_command(self, *words: str) -> None:
        await self.answers.wait()
        self._reply = self._nodes() if words[0] == "CLUSTER" else self._role()

    async def read_response(self) -> Any:
        return self._reply

    async def disconnect(self, *, nowait: bool) -> None:
        pass

    def _nodes(self) -> bytes:
        kind, primary, slots = ("slave", f"id-{self.primary.port}", "") if self.primary else ("master", "-", "0-99")
        return f"id-{self.port} 127.0.0.1:{self.port} myself,{kind} {primary} 0 0 {self.epoch} connected {slots}".encode()

    def _role(self) -> list[Any]:
        return [b"slave", b"127.0.0.1", 1, b"connected"] if self.primary else [b"master", 1, [b"a replica"]]


class Cluster:
    def __init__(self) -> None:
        primary = Server(7001)
        self.nodes = [primary, Server(7002, primary=primary), Server(7003, primary=primary)]


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(demo_cluster_watch, "_ANSWER_SECONDS", 3600)
    return Cluster()


@pytest.fixture
async def watch(cluster: Cluster) -> AsyncIterator[ClusterWatch]:
    watch = ClusterWatch(cast("Any", cluster))
    async with watch.running():
        yield watch


async def test_a_silent_server_does_not_delay_the_view_of_the_others(cluster: Cluster, watch: ClusterWatch) -> None:
    primary, elected, frozen = cluster.nodes
    frozen.answers.clear()
    outage = watch.kill_holder(SLOT)
    elected.primary, elected.epoch = None, 2
    async with asyncio.timeout(30):
        while outage.promoted is None:  # noqa: ASYNC110 - the watch has no event to wait for
            await asyncio.sleep(0)
    assert (outage.killed, outage.promoted) == (primary.port, elected.port)
    assert [view.role for view in watch.views] == ["down", "primary", "replica"]
    assert "was promoted" in watch.log[-1].text


async def test_a_promotion_is_logged_with_the_view_that_shows_it(cluster: Cluster, watch: ClusterWatch) -> None:
    _, elected, _ = cluster.nodes
    outage = watch.kill_holder(SLOT)
    assert watch.holder(SLOT) is None
    elected.primary, elected.epoch = None, 2
    async with asyncio.timeout(30):
        while watch.holder(SLOT) is None:
            assert (outage.promoted, outage.promoted_after) == (None, None)
            await asyncio.sleep(0)
    assert outage.promoted == elected.port
    assert outage.promoted_after is not None
