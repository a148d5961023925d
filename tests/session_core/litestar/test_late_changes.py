"""Assignments after the response has started are saved or reported, never lost silently."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from litestar import Litestar, Request, Response, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.params import FromQuery
from litestar.response import Stream
from litestar.testing import TestClient

from session_core import (
    Session,
    SessionConflictError,
    SessionGoneError,
    SessionHandle,
    StoreUnavailableError,
    session_of,
)
from session_core.sessions.lifecycle import SessionLifecycle
from tests.support.sessions import AppSession, Recorder, client_of, make_app

pytestmark = pytest.mark.anyio


async def _assign(session: SessionHandle[AppSession], note: Any) -> None:
    session.data.note = note


@get("/background")
async def background(session: Session[AppSession], note: FromQuery[str] = "late") -> Response[str]:
    value: Any = {"invalid": object(), "surrogate": "\ud800", "number": 5}.get(note, note)
    return Response("sent", background=BackgroundTask(_assign, session, value))


@get("/stream")
async def stream(session: Session[AppSession], fails: FromQuery[bool] = False) -> Stream:
    async def parts() -> Any:
        yield b"one"
        session.data.note = "late"
        if fails:
            raise ValueError
        yield b"two"

    return Stream(parts())


async def _after(request: Request[Any, Any, Any]) -> None:
    (await session_of(request)).data.note = "late"


@get("/after", after_response=_after)
async def after(session: Session[AppSession]) -> str:
    return "sent"


@post("/fails-late")
async def fails_late(session: Session[AppSession]) -> Response[str]:
    return Response("sorry", status_code=500, background=BackgroundTask(_assign, session, "dropped, as documented"))


HANDLERS = [background, stream, after, fails_late]


def told(recorder: Recorder) -> list[str | None]:
    return [event.reason for event in recorder.events if event.name == "session.unsaved"]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def app(recorder: Recorder) -> Litestar:
    return make_app(*HANDLERS, hang_up, ends, on_event=[recorder])


@pytest.mark.parametrize("path", ["/background", "/stream", "/after"])
async def test_a_visitors_late_change_is_lost_and_reported(path: str, app: Litestar, recorder: Recorder) -> None:
    async with client_of(app) as client:
        assert (await client.get(path)).status_code == 200
        assert told(recorder) == ["no_session"]
        assert (await client.get("/read")).json()["data"]["note"] == ""


@pytest.mark.parametrize("path", ["/background", "/stream", "/after"])
async def test_a_late_change_of_a_stored_session_is_saved(path: str, app: Litestar, recorder: Recorder) -> None:
    async with client_of(app) as client:
        await client.post("/visit")
        assert (await client.get(path)).status_code == 200
        assert told(recorder) == []
        assert (await client.get("/read")).json()["data"]["note"] == "late"


@pytest.mark.parametrize("note", ["invalid", "surrogate", "number"])
async def test_a_late_value_that_cannot_be_stored_is_reported(note: str, app: Litestar, recorder: Recorder) -> None:
    async with client_of(app) as client:
        await client.post("/visit")
        assert (await client.get(f"/background?note={note}")).text == "sent"
    assert told(recorder) == ["session_data"]


async def test_a_late_conflict_logout_or_outage_is_reported(
    app: Litestar, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:

    async with client_of(app) as client:
        await client.post("/visit")
        for error in (SessionConflictError, SessionGoneError, StoreUnavailableError):

            async def refuse(*_: Any, error: Any = error) -> Any:
                raise error

            monkeypatch.setattr(SessionLifecycle, "write", refuse)
            assert (await client.get("/background")).text == "sent"
    assert told(recorder) == ["session_conflict", "session_gone", "store_unavailable"]


async def test_an_aborted_stream_is_reported(app: Litestar, recorder: Recorder) -> None:
    async with client_of(app) as client:
        await client.post("/visit")
        await client.get("/stream?fails=true")
    assert told(recorder) == ["handler_failed"]


async def test_a_stream_whose_client_disconnects_is_reported(app: Litestar, recorder: Recorder) -> None:
    scope: Any = {
        "type": "http", "method": "GET", "path": "/stream", "raw_path": b"/stream", "query_string": b"", "headers": [],
        "client": ("127.0.0.1", 1), "server": ("localhost", 8000), "scheme": "http", "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    begun = asyncio.Event()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message.get("body") == b"two":
            begun.set()
            await asyncio.Event().wait()

    request = asyncio.create_task(app(scope, receive, send))
    await begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert told(recorder) == ["handler_failed"]


async def test_assignments_of_a_failed_handler_are_dropped_as_documented(app: Litestar, recorder: Recorder) -> None:
    async with client_of(app) as client:
        await client.post("/visit")
        assert (await client.post("/fails-late")).status_code == 500
        assert (await client.get("/fails")).status_code == 500
    assert told(recorder) == []


@websocket("/hang-up")
async def hang_up(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    await socket.accept()
    session.data.note = await socket.receive_text()
    await socket.receive_text()  # the client disconnects


@websocket("/ends")
async def ends(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    await socket.accept()
    session.data.note = await socket.receive_text()
    await socket.close()


@pytest.mark.parametrize("path", ["/hang-up", "/ends"])
@pytest.mark.parametrize("begun", [True, False])
def test_a_websocket_saves_at_its_end(path: str, begun: bool, app: Litestar, recorder: Recorder) -> None:
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        if begun:
            client.post("/visit")
        with client.websocket_connect(path) as socket:
            socket.send_text("by socket")
        assert client.get("/read").json()["data"]["note"] == ("by socket" if begun else "")
    assert told(recorder) == ([] if begun else ["no_session"])
