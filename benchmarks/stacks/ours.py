"""These sessions, on the store of `BENCH_STORE`."""

from __future__ import annotations

import logging
import os
from typing import Any

import msgspec
import structlog
from litestar import Litestar, Request, WebSocket, get, post, websocket

from benchmarks.payload import COOKIE, FIELDS, ISSUER, LIFETIME_SECONDS, SECRET
from session_core import CookieConfig, Identity, Session, SessionConfig, SessionPlugin, Timeouts


class AppSession(msgspec.Struct):
    """The session data; the fields of `benchmarks.payload`."""

    name: str = ""
    email: str = ""
    theme: str = "light"
    language: str = "en"
    roles: list[str] = []
    cart: list[str] = []
    note: str = ""
    visits: int = 0


@get("/public")
async def public(request: Request[Any, Any, Any]) -> dict[str, str]:
    """A page without a session, in an application that has sessions."""
    del request
    return {"theme": "dark"}


@get("/read")
async def read(session: Session[AppSession]) -> dict[str, str]:
    """Read one value."""
    return {"theme": session.data.theme}


@get("/visits")
async def visits(session: Session[AppSession]) -> dict[str, int]:
    """Read the counter."""
    return {"visits": session.data.visits}


def _add_one(data: AppSession) -> None:
    data.visits += 1


@post("/increment", status_code=200)
async def increment(session: Session[AppSession]) -> dict[str, int]:
    """Add one."""
    return {"visits": (await session.update(_add_one)).visits}


@post("/login", status_code=200)
async def login(session: Session[AppSession], user: str) -> dict[str, str]:
    """Do what a login callback does after the provider's response: data, a new id, indexes."""
    session.data = AppSession(**FIELDS)
    await session.login(Identity(issuer=ISSUER, subject=user, sid=f"op-{user}", auth_time=1_790_000_000))
    return {"user": user}


@websocket("/socket")
async def wait_for_client(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    """Stay open until the client closes it or its session ends."""
    await socket.accept()
    await socket.send_text("ready" if session.data.theme == "dark" else "visitor")
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def create() -> Litestar:
    """The application without event logging, because the other stacks log nothing either."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    config = SessionConfig(
        AppSession,
        store=os.environ["BENCH_STORE"],
        secrets=[SECRET],
        public_url=f"http://127.0.0.1:{os.environ['BENCH_PORT']}",
        cookie=CookieConfig(name=COOKIE),
        timeouts=Timeouts(idle=LIFETIME_SECONDS),
        sweep_interval=0,  # the sweep is measured separately
    )
    return Litestar(
        [public, read, visits, increment, login, wait_for_client], plugins=[SessionPlugin(config)], openapi_config=None
    )
