"""One real server of the demo's cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from auth_demo.cluster.cluster import _program
from auth_demo.cluster.node import ClusterNode, free_port_pairs
from tests.support.redis_servers import needed_valkey

pytestmark = pytest.mark.anyio


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ClusterNode]:
    needed_valkey()
    node = ClusterNode(_program(), tmp_path, free_port_pairs(1)[0], "password")
    node.start(os.getpgid(0))
    try:
        node.wait(lambda: None)
        yield node
    finally:
        node.kill()


async def test_a_loop_of_commands_ends_when_it_is_cancelled(node: ClusterNode) -> None:
    async def ask_forever() -> None:
        while True:
            await connection.send_command("PING")
            await connection.read_response()

    for turns in range(200):
        connection = node.connection()
        await connection.connect()
        asking = asyncio.create_task(ask_forever())
        for _ in range(turns % 40):
            await asyncio.sleep(0)
        asking.cancel()
        _, running = await asyncio.wait([asking], timeout=30)
        await connection.disconnect(nowait=True)
        assert not running, f"it continues after a cancellation in turn {turns % 40}"
