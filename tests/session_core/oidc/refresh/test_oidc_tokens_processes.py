"""One redemption across real processes that wait, are killed, are suspended, or have different clocks."""

from __future__ import annotations

import asyncio
import signal
import time

import httpx
import httpx2
import pytest

from tests.session_core.oidc.token_nodes import Nodes, all_waiting, on_valkey, until
from tests.support.freezing import freeze

pytestmark = pytest.mark.anyio


@pytest.mark.attack("35")
async def test_twenty_requests_in_two_processes_redeem_once(nodes: Nodes) -> None:
    one, two = await nodes.pair()
    asked, go_on = nodes.op.hold()
    requests = [asyncio.create_task(node.token()) for node in (one, two) for _ in range(10)]
    await asked.wait()
    await until(lambda: all_waiting(one, two, 20))
    go_on.set()
    assert set(await asyncio.gather(*requests)) == {(200, "at-2")}
    assert list(nodes.redemptions().values()) == [1]
    assert [await node.token() for node in (one, two)] == [(200, "at-2")] * 2


@on_valkey
async def test_without_a_lease_two_processes_redeem_twice(nodes: Nodes) -> None:
    """The test above can fail."""
    one, two = await nodes.pair(broken="lease")
    _, go_on = nodes.op.hold()
    requests = [asyncio.create_task(node.token()) for node in (one, two) for _ in range(10)]
    await until(lambda: sum(nodes.redemptions().values()) == 2)
    go_on.set()
    await asyncio.gather(*requests)
    assert list(nodes.redemptions().values()) == [2]


@on_valkey
@pytest.mark.attack("35")
async def test_a_slow_redemption_keeps_its_lease(nodes: Nodes) -> None:
    one, two = await nodes.pair(lease=5)  # a process on a busy machine may be late to renew it by a few seconds
    first, go_on = await nodes.redeeming(one)
    second = asyncio.create_task(two.token())
    await until(two.waiting)
    begun = time.monotonic()
    await until(lambda: time.monotonic() > begun + 8)
    go_on.set()
    assert [await first, await second] == [(200, "at-2")] * 2
    assert list(nodes.redemptions().values()) == [1]


@on_valkey
async def test_without_renewal_a_slow_redemption_loses_its_lease(nodes: Nodes) -> None:
    """The test above can fail."""
    one = await nodes.start(lease=1, broken="renewal")
    await nodes.log_in(one)
    two = await nodes.start(lease=1)
    first, go_on = await nodes.redeeming(one)
    second = asyncio.create_task(two.token())
    await until(lambda: list(nodes.redemptions().values()) == [2])
    go_on.set()
    await asyncio.gather(first, second)
    assert list(nodes.redemptions().values()) == [2]


@on_valkey
@pytest.mark.attack("35")
async def test_a_client_that_disconnects_does_not_stop_the_redemption(nodes: Nodes) -> None:
    one = await nodes.start()
    await nodes.log_in(one)
    request, go_on = await nodes.redeeming(one)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    go_on.set()
    assert await one.token() == (200, "at-2")
    assert list(nodes.redemptions().values()) == [1]


@on_valkey
@pytest.mark.attack("35")
@pytest.mark.parametrize("clock", [300_000, -300_000])
async def test_clocks_five_minutes_apart_redeem_once(nodes: Nodes, clock: int) -> None:
    one = await nodes.start()
    await nodes.log_in(one)
    two = await nodes.start(clock=clock)
    # A node whose clock is behind considers the first token valid; the resource server refuses it.
    for number in (2, 3):
        old = f"at-{number - 1}"
        asked, go_on = nodes.op.hold()
        requests = [asyncio.create_task(node.token(refused=old)) for node in (two, one) for _ in range(10)]
        await asked.wait()
        await until(lambda: all_waiting(one, two, 20))
        go_on.set()
        assert set(await asyncio.gather(*requests)) == {(200, f"at-{number}")}
    assert list(nodes.redemptions().values()) == [1, 1]
    assert [await node.subject() for node in (one, two)] == ["alice", "alice"]


@on_valkey
@pytest.mark.attack("35")
async def test_a_late_refusal_of_a_former_holder_ends_nothing(nodes: Nodes) -> None:
    one, two = await nodes.pair(lease=1)
    late, go_on = await nodes.redeeming(one)
    freeze(one.process.pid)
    del nodes.op.replies["/token"]
    assert await two.token() == (200, "at-2")
    go_on.set()
    await until(lambda: sum(nodes.redemptions().values()) == 2)
    one.process.send_signal(signal.SIGCONT)
    # The provider refuses the token that the other process has redeemed; the stored tokens stay valid.
    assert await late == (200, "at-2")
    assert [await node.subject() for node in (one, two)] == ["alice", "alice"]


@on_valkey
@pytest.mark.attack("35")
async def test_a_late_response_of_a_former_holder_overwrites_nothing_newer(nodes: Nodes) -> None:
    """At a provider with reusable refresh tokens, so that both redemptions succeed."""
    nodes.op.refreshable, nodes.op.refresh_token = False, "rt-for-ever"
    one = await nodes.start(lease=1)
    await nodes.log_in(one, refresh_token="rt-for-ever")
    two = await nodes.start(lease=1)
    answered = asyncio.Event()

    def stop_and_answer(request: httpx2.Request) -> httpx2.Response:
        freeze(one.process.pid)
        answered.set()
        return nodes.op.token(request)

    nodes.op.replies["/token"] = stop_and_answer
    late = asyncio.create_task(one.token())
    await answered.wait()
    nodes.op.replies.clear()
    assert await two.token() == (200, "at-3")
    one.process.send_signal(signal.SIGCONT)
    assert await late == (200, "at-3")
    assert [await node.token() for node in (one, two)] == [(200, "at-3")] * 2


@on_valkey
@pytest.mark.attack("39")
async def test_a_regeneration_during_the_redemption_keeps_the_new_tokens(nodes: Nodes) -> None:
    one, two = await nodes.pair()
    late, go_on = await nodes.redeeming(one)
    regenerated = await two.client.post("/regenerate-now")
    assert regenerated.status_code == 201
    two.client.cookies = httpx.Cookies({"session-8000": regenerated.cookies["session-8000"]})
    go_on.set()
    assert await late == (200, "at-2")
    assert await two.token() == (200, "at-2")
    assert list(nodes.redemptions().values()) == [1]


@on_valkey
@pytest.mark.attack("40")
async def test_a_logout_during_the_redemption_wins(nodes: Nodes) -> None:
    one, two = await nodes.pair()
    late, go_on = await nodes.redeeming(one)
    assert (await two.client.post("/logout")).status_code == 201
    go_on.set()
    assert (await late)[0] == 401
    assert await one.subject() is None
