"""The tools for tests of applications."""

from __future__ import annotations

import pytest
from litestar.testing import TestClient

from session_core.testing import FakeClock, log_in, log_in_sync
from tests.support.sessions import ALICE, AppSession, client_of, make_app

pytestmark = pytest.mark.anyio


async def test_one_line_logs_a_client_in() -> None:
    app = make_app()
    async with client_of(app) as client:
        await log_in(client, app, ALICE, AppSession(note="from a test"))
        session = (await client.get("/read")).json()
        assert (session["subject"], session["data"]["note"]) == ("alice", "from a test")


def test_one_line_logs_a_synchronous_client_in() -> None:
    with TestClient(make_app(), base_url="http://127.0.0.1:8000") as client:
        log_in_sync(client, "carol")
        assert client.get("/read").json()["subject"] == "carol"
        assert client.post("/visit").json() == {"visits": 1}


def test_the_fake_clock_moves_only_by_advance() -> None:
    clock = FakeClock()
    before = clock.now()
    assert clock.now() == before
    clock.advance(seconds=1.5, minutes=1)
    assert clock.now() == before + 61_500
