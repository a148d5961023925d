"""An impersonation that ends on one node closes its WebSockets and streams on the other, and is reported once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.session_core.stores.test_revocation_processes import Visitor, limit, logout, nodes, revoke, revoke_all, store

__all__ = ("store",)

pytestmark = [pytest.mark.anyio, pytest.mark.attack("83"), pytest.mark.attack("85")]


class Administrator(Visitor):
    """Acts as a user, with a WebSocket and a stream to one node."""

    async def enter(self, subject: str) -> None:
        self.keep(await self.client.post(f"{self.node}/{subject}", headers={"cookie": self.cookie}))


End = Callable[[httpx.AsyncClient, str, Visitor, str], Awaitable[None]]


async def stop(client: httpx.AsyncClient, node: str, visitor: Visitor, store: str) -> None:
    assert (await client.post(f"{node}/act-as-myself", headers={"cookie": visitor.cookie})).status_code == 201


async def by_time(client: httpx.AsyncClient, node: str, visitor: Visitor, store: str) -> None:
    """Do nothing: the impersonation expires."""


WAYS: dict[End, str] = {
    stop: "stopped", logout: "logout", revoke: "revoked", revoke_all: "revoked", limit: "ended", by_time: "expired"
}  # fmt: skip


async def test_what_ends_on_one_node_is_closed_on_the_other_and_reported_once(store: str, tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.touch()

    def told(name: str) -> list[str]:
        return [reason for event, reason, _ in map(json.loads, path.read_text().splitlines()) if event == f"impersonation.{name}"]

    with nodes(store, both={"TEST_EVENTS": str(path)}) as (here, there):
        async with httpx.AsyncClient(timeout=30) as client, AsyncExitStack() as opened, asyncio.timeout(150):

            async def open_as(visitor: Visitor, subject: str) -> None:
                await visitor.enter(subject)
                await visitor.open()
                opened.push_async_callback(visitor.leave)

            user = Visitor(client, here)  # the user's own session is none of the administrator's
            await open_as(user, "bob")
            for end, reason in WAYS.items():
                admin = Administrator(client, here)
                await open_as(admin, "act-briefly-as/bob" if end is by_time else "act-as/bob")
                waiting = asyncio.create_task(admin.closed())
                await end(client, there, admin, store)
                client.cookies.clear()
                assert (await waiting)[0] == 4401
                while len(told("ended")) < len(told("started")):  # noqa: ASYNC110 - it is a file
                    await asyncio.sleep(0.01)
                assert told("ended")[-1] == reason, end
            assert await user.is_open()
    assert told("ended") == list(WAYS.values())
