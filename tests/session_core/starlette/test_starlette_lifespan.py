"""The store lives from the server's start to its stop, whether or not the application knows of a lifespan."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from session_core import SessionConfig
from session_core.starlette import SessionMiddleware, StarletteSessions
from tests.support.sessions import AppSession

pytestmark = pytest.mark.anyio


async def returns(scope: Any, receive: Any, send: Any) -> None:
    return


async def asserts(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


async def lives(scope: Any, receive: Any, send: Any) -> None:
    for _ in range(2):
        await send({"type": f"{(await receive())['type']}.complete"})


@pytest.mark.parametrize("application", [returns, asserts, lives])
async def test_the_store_is_open_from_start_to_stop(application: Any) -> None:
    sessions = StarletteSessions(SessionConfig(AppSession))
    ended: list[str] = []

    async def stop() -> None:
        ended.append("stopped")

    async def say(message: Any) -> None:
        ended.append(message["type"])
        said.set()

    sessions.on_stop.append(stop)
    messages, said = asyncio.Queue[Any](), asyncio.Event()
    lifespan = asyncio.create_task(SessionMiddleware(application, sessions)({"type": "lifespan"}, messages.get, say))
    await messages.put({"type": "lifespan.startup"})
    await asyncio.wait_for(said.wait(), 5)
    assert ended == ["lifespan.startup.complete"]
    await messages.put({"type": "lifespan.shutdown"})
    await lifespan
    assert ended == ["lifespan.startup.complete", "stopped", "lifespan.shutdown.complete"]


async def test_a_failed_start_of_the_application_is_not_hidden() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError

    async def startup() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    with pytest.raises(RuntimeError):
        await SessionMiddleware(fails, StarletteSessions(SessionConfig(AppSession)))({"type": "lifespan"}, startup, send)
