"""The one-time code of a native client, redeemed by many concurrent requests, on every store."""

from __future__ import annotations

import asyncio

import pytest

from session_core.testing import FakeClock
from tests.session_core.oidc.native_client import Native, subject, world_of
from tests.session_core.stores.conditional.engines import memcached, moto
from tests.session_core.stores.contract.every_store import CONDITIONAL, STORES, MakeStore, make_store

__all__ = ("make_store", "memcached", "moto")
pytestmark = pytest.mark.anyio


@pytest.mark.attack("92")
@pytest.mark.parametrize("make_store", [*STORES, *CONDITIONAL], indirect=True)
async def test_of_fifty_concurrent_redemptions_one_gets_a_token_on_every_store(make_store: MakeStore) -> None:
    clock = FakeClock()
    patient = {"store_timeout": 60}  # also on a busy machine
    nodes = [world_of(store=make_store(clock), clock=clock, config=patient)]
    nodes.append(world_of(store=make_store(clock), clock=clock, config=patient, sharing=nodes[0]))
    for node in nodes:
        await node.sessions.store.open()
    try:
        native = Native(nodes[0])
        code = await native.code()
        others = Native(nodes[1], code_challenge=native.params["code_challenge"])
        others.verifier = native.verifier
        answers = await asyncio.gather(*((native, others)[index % 2].redeem(code) for index in range(50)))
        given = [answer for answer in answers if answer.status_code == 200]
        assert len(given) == 1
        assert {answer.status_code for answer in answers} == {200, 400}
        # The code was presented again with its verifier, so its session has ended.
        assert await subject(nodes[0], given[0].json()["access_token"]) is None
    finally:
        for node in nodes:
            await node.sessions.store.close()
