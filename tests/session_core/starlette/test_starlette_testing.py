"""The tools for tests of applications, in a FastAPI application."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from session_core import ConfigurationError, SessionConfig, SessionHandle
from session_core.starlette import SessionMiddleware, StarletteSessions, get_session, requires_login
from session_core.testing import log_in, log_in_sync
from tests.support.sessions import ALICE, AppSession

Session = Annotated[SessionHandle[AppSession], Depends(get_session)]


def make_app() -> tuple[FastAPI, StarletteSessions[AppSession]]:
    sessions = StarletteSessions(SessionConfig(AppSession))
    app = FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)

    @app.get("/account", dependencies=[Depends(requires_login)])
    async def account(session: Session) -> list[str]:
        return [session.identity.subject if session.identity else "", session.data.note]

    @app.post("/logout")
    async def logout(session: Session) -> None:
        await session.destroy()

    return app, sessions


def test_one_line_logs_a_synchronous_client_in() -> None:
    app, sessions = make_app()
    with TestClient(app) as client:
        assert client.get("/account").status_code == 401
        log_in_sync(client, "carol", app=sessions)
        assert client.get("/account").json() == ["carol", ""]
        client.post("/logout")
        assert client.get("/account").status_code == 401


@pytest.mark.anyio
async def test_one_line_logs_an_asynchronous_client_in() -> None:
    app, sessions = make_app()
    transport = httpx.ASGITransport(app)
    async with sessions.application.running(), httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        await log_in(client, sessions, ALICE, AppSession(note="from a test"))
        assert (await client.get("/account")).json() == ["alice", "from a test"]


def test_a_client_outside_of_its_with_statement_is_refused() -> None:
    app, sessions = make_app()
    with pytest.raises(ConfigurationError, match="with statement"):
        log_in_sync(TestClient(app), "carol", app=sessions)


def test_an_application_without_its_sessions_is_refused() -> None:
    app, _ = make_app()
    with TestClient(app) as client, pytest.raises(ConfigurationError, match="StarletteSessions"):
        log_in_sync(client, "carol")
