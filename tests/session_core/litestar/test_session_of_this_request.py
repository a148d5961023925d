"""A request gets only its own session, also when a server starts it inside another request's task."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from litestar import Litestar, get

from session_core import Session
from tests.support.sessions import AppSession, client_of, cookie_of, make_app

pytestmark = pytest.mark.anyio


@get("/forgotten", opt={"session": False})
async def forgotten(session: Session[AppSession]) -> str:
    return session.identity.subject if session.identity else "anonymous"


async def pipelined(app: Litestar, cookie: str, *paths: str) -> list[list[dict[str, Any]]]:
    """Send requests over one connection as some servers do: the next starts while the previous task still runs."""
    answers: list[list[dict[str, Any]]] = [[] for _ in paths]
    done = asyncio.Event()

    async def serve(number: int) -> None:
        headers = [(b"cookie", f"session-8000={cookie}".encode())] if number == 0 else []
        scope = {
            "type": "http", "method": "GET", "path": paths[number], "raw_path": paths[number].encode(), "query_string": b"",
            "headers": headers, "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000), "asgi": {"version": "3.0"}, "extensions": {}, "root_path": "",
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            answers[number].append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                if number + 1 < len(paths):
                    following.append(asyncio.create_task(serve(number + 1)))
                else:
                    done.set()

        await cast("Any", app)(scope, receive, send)

    following: list[asyncio.Task[None]] = [asyncio.create_task(serve(0))]
    async with asyncio.timeout(60):
        await done.wait()
        await asyncio.gather(*following)
    return answers


async def test_a_pipelined_request_does_not_get_the_previous_session(monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise the application is refused, with every Litestar whose handlers have the known structure.
    monkeypatch.setattr("session_core.litestar.plugin.check_handler", lambda *_: None)
    app = make_app(forgotten)
    async with client_of(app) as client:
        await client.post("/login/alice")
        cookie = cookie_of(client)
    assert cookie is not None
    mine, anonymous, without = await pipelined(app, cookie, "/read", "/read", "/forgotten")
    assert b'"alice"' in mine[1]["body"]
    assert b'"subject":null' in anonymous[1]["body"]
    assert without[0]["status"] == 500
    # Not only after an anonymous one.
    mine, without = await pipelined(app, cookie, "/read", "/forgotten")
    assert without[0]["status"] == 500
    assert b"alice" not in without[1]["body"]
