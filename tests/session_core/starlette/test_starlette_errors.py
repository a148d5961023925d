"""`StarletteSessions(on_error=...)` replaces the responses to errors of the library."""

from __future__ import annotations

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from session_core import SessionConfig, SessionCoreError
from session_core.starlette import SessionMiddleware, StarletteSessions, requires_login
from tests.support.sessions import AppSession

pytestmark = pytest.mark.anyio


async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
    await requires_login(Request(scope, receive))


async def test_the_applications_own_response_replaces_that_of_an_error() -> None:
    async def page(request: Request, error: SessionCoreError) -> PlainTextResponse:
        return PlainTextResponse(f"{request.url.path}: {error.code}", status_code=error.status_code)

    sessions = StarletteSessions(SessionConfig(AppSession), on_error=page)
    transport = httpx2.ASGITransport(SessionMiddleware(guarded, sessions))
    async with (
        sessions.application.running(),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000") as client,
    ):
        response = await client.get("/orders")
    assert (response.status_code, response.text) == (401, "/orders: login_required")
