"""How a handler is notified that its session has ended: by an error on send or receive, or by cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from litestar import Request, get

from session_core import Session
from session_core.connections import live as module
from tests.support.live_wire import (
    CLOSED,
    DEADLINE,
    FINISHED,
    Wire,
    live_app,
    open_socket,
    open_stream,
    until,
)
from tests.support.sessions import AppSession, client_of, make_app, make_config, plugin_in

pytestmark = pytest.mark.anyio


async def test_a_handler_that_only_sends_gets_an_error_from_its_next_send() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client, "/ticks")
        await client.post("/logout")
        assert await socket.closed() == CLOSED
        assert app.state["left"] == 4401


async def test_no_data_follows_the_end_of_a_stream() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        stream = await open_stream(app, client, "/flood")
        await until(lambda: len(stream.sent) > 100)
        await client.post("/logout")
        assert await stream.closed() == FINISHED
        assert [message.get("more_body") for message in stream.sent].count(False) == 1


async def test_a_response_with_a_declared_length_is_aborted_by_the_server() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        stream = await open_stream(app, client, "/sized")
        await until(lambda: len(stream.sent) == 2)
        await client.post("/logout")
        assert (await stream.closed())["body"] == b"x"


@pytest.mark.parametrize(("path", "kind"), [("/deaf", "websocket"), ("/raw", "http")])
async def test_a_handler_that_neither_sends_nor_receives_is_cancelled(
    path: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.05)
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        wire = await Wire(app, path, client, kind=kind).started()
        await asyncio.sleep(0)
        await client.post("/logout")
        assert await wire.closed() == (CLOSED if kind == "websocket" else FINISHED)
        assert not wire.task.cancelled()


async def test_a_session_requested_late_is_watched_from_then_on() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client, "/late")
        socket.say("hello")
        await until(lambda: socket.heard == ["hello"])
        await client.post("/logout")
        assert await socket.closed() == CLOSED


async def test_a_cancelled_client_is_not_an_ended_session() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client, "/deaf")
        socket.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await socket.task


async def test_a_task_that_outlives_its_request_is_not_watched() -> None:
    go_on, gone = asyncio.Event(), asyncio.Event()

    @get("/leaves-a-task")
    async def leaves_a_task(request: Request[Any, Any, Any], session: Session[AppSession]) -> str:
        async def wait_for_the_client() -> None:
            await go_on.wait()
            await request.receive()
            gone.set()

        left.append(asyncio.create_task(wait_for_the_client()))
        return "answer"

    left: list[asyncio.Task[None]] = []
    app = make_app(leaves_a_task, config=make_config(poll_interval=60.0))
    async with client_of(app) as client:
        await client.post("/login/alice")
        wire = await Wire(app, "/leaves-a-task", client).started()
        await wire.task
        go_on.set()
        await wire.hang_up()
        await asyncio.wait_for(gone.wait(), DEADLINE)
        watch = plugin_in(app).connections
        assert watch is not None
        assert list(watch.watch()._sessions) == []
