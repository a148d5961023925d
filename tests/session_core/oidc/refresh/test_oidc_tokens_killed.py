"""The process that redeems a token is killed at each step: the others continue, and no session is blocked."""

from __future__ import annotations

import asyncio
import time

import httpx
import httpx2
import pytest

from tests.session_core.oidc.token_nodes import Nodes, on_postgres, on_sqlite, on_valkey

pytestmark = pytest.mark.anyio


@on_postgres
@pytest.mark.attack("35")
async def test_killed_before_the_provider_responds(nodes: Nodes) -> None:
    one, two = await nodes.pair(lease=3)
    lost, _ = await nodes.redeeming(one)
    one.kill()
    nodes.op.replies.clear()
    begun = time.monotonic()
    # The token was not consumed: the other process continues as soon as the lease expires.
    assert await two.token() == (200, "at-2")
    assert time.monotonic() - begun < 30  # half of the timeout of a call to the provider
    assert await two.subject() == "alice"
    with pytest.raises(httpx.HTTPError):
        await lost


@on_valkey
@pytest.mark.attack("35")
async def test_killed_before_the_token_was_sent(nodes: Nodes) -> None:
    two = await nodes.start(lease=3)
    await nodes.log_in(two)
    one = await nodes.start(lease=3)
    asked = asyncio.Event()

    async def silent(_: httpx2.Request) -> httpx2.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    nodes.op.replies["/.well-known/openid-configuration"] = silent
    lost = asyncio.create_task(one.token())
    await asked.wait()
    one.kill()
    nodes.op.replies.clear()
    assert await two.token() == (200, "at-2")
    assert list(nodes.redemptions().values()) == [1]
    with pytest.raises(httpx.HTTPError):
        await lost


@on_sqlite
@pytest.mark.attack("35")
async def test_killed_after_the_provider_responds(nodes: Nodes) -> None:
    """The old token is consumed and the new one is lost: the login ends, and no request hangs."""
    one, two = await nodes.pair(lease=3)

    def kill_and_answer(request: httpx2.Request) -> httpx2.Response:
        answer = nodes.op.token(request)
        one.kill()
        return answer

    nodes.op.replies["/token"] = kill_and_answer
    with pytest.raises(httpx.HTTPError):
        await one.token()
    nodes.op.replies.clear()
    assert (await two.token())[0] == 401
    assert await two.subject() is None
    await nodes.log_in(two)
    assert await two.token() == (200, "at-4")


@on_valkey
@pytest.mark.attack("35")
async def test_killed_after_the_new_tokens_are_stored(nodes: Nodes) -> None:
    one = await nodes.start(die_on="tokens.refreshed")
    await nodes.log_in(one)
    two = await nodes.start()
    with pytest.raises(httpx.HTTPError):
        await one.token()
    assert await two.token() == (200, "at-2")
    assert list(nodes.redemptions().values()) == [1]
