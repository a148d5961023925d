"""Litestar's own server-side sessions in Redis, as its documentation sets them up."""

from __future__ import annotations

import os
from typing import Any

from litestar import Litestar, Request, get, post
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.redis import RedisStore

from benchmarks.payload import COOKIE, FIELDS, LIFETIME_SECONDS

AnyRequest = Request[Any, Any, Any]


@get("/public", opt={"skip_session": True})
async def public(request: AnyRequest) -> dict[str, str]:
    """A page without a session; excluded from the middleware."""
    del request
    return {"theme": "dark"}


@get("/read")
async def read(request: AnyRequest) -> dict[str, str]:
    """Read one value."""
    return {"theme": request.session.get("theme", "light")}


@get("/visits")
async def visits(request: AnyRequest) -> dict[str, int]:
    """Read the counter."""
    return {"visits": request.session.get("visits", 0)}


@post("/increment", status_code=200)
async def increment(request: AnyRequest) -> dict[str, int]:
    """Add one."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return {"visits": request.session["visits"]}


@post("/login", status_code=200)
async def login(request: AnyRequest, user: str) -> dict[str, str]:
    """Fill the session. Its id cannot be changed."""
    request.set_session({**FIELDS, "user": user})
    return {"user": user}


def create() -> Litestar:
    """The application."""
    store = RedisStore.with_client(os.environ["BENCH_STORE"])
    config = ServerSideSessionConfig(key=COOKIE, max_age=LIFETIME_SECONDS)
    return Litestar(
        [public, read, visits, increment, login],
        middleware=[config.middleware],
        stores={"sessions": store},
        openapi_config=None,
    )
