"""A WebSocket never loses a session whose cookie the server cannot send, on the production server and on uvicorn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.server_process import SERVERS, serving
from tests.support.websocket_client import WebSocketClient

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("sessions")
    store = f"sqlite+aiosqlite:///{directory}/sessions.db"
    with serving("tests.support.websocket_writes:app", request.param, TEST_STORE=store) as url:
        yield url


async def attempt(url: str, what: str, cookie: str = "") -> str | int:
    socket = await WebSocketClient.connect(f"{url}/try/{what}", cookie)
    try:
        return await socket.receive()
    finally:
        await socket.close()


@pytest.mark.parametrize("what", ["login", "update", "assign"])
async def test_a_visitor_gets_no_session_whose_cookie_would_be_lost(served: str, what: str) -> None:
    async with httpx.AsyncClient(base_url=served) as client:
        before = (await client.get("/count")).json()
        if what == "assign":  # saved at the accept, which then fails
            with pytest.raises(ConnectionRefusedError):
                await attempt(served, what)
        else:
            assert "in an HTTP request before the page opens the WebSocket" in str(await attempt(served, what))
        assert (await client.get("/count")).json() == before


@pytest.mark.parametrize("what", ["login", "regenerate"])
async def test_an_id_the_browser_has_stays_valid(served: str, what: str) -> None:
    async with httpx.AsyncClient(base_url=served) as client:
        await client.post("/login/alice")
        cookie = f"session-8000={client.cookies['session-8000']}"
        assert "in an HTTP request" in str(await attempt(served, what, cookie))
        assert (await client.get("/read")).json()["subject"] == "alice"


@pytest.mark.parametrize("what", ["update", "assign"])
async def test_an_existing_session_can_be_changed(served: str, what: str) -> None:
    async with httpx.AsyncClient(base_url=served) as client:
        await client.post("/login/alice")
        cookie = f"session-8000={client.cookies['session-8000']}"
        assert await attempt(served, what, cookie) == "done"
        assert (await client.get("/read")).json()["data"]["visits"] == 7


async def test_an_existing_session_can_be_ended(served: str) -> None:
    async with httpx.AsyncClient(base_url=served) as client:
        await client.post("/login/alice")
        cookie = f"session-8000={client.cookies['session-8000']}"
        assert await attempt(served, "destroy", cookie) == "done"
        assert (await client.get("/read")).json()["subject"] is None
