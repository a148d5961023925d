"""starsessions in Redis on Starlette, as its documentation sets it up."""

from __future__ import annotations

import os

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware, SessionMiddleware, regenerate_session_id
from starsessions.stores.redis import RedisStore

from benchmarks.payload import COOKIE, FIELDS, LIFETIME_SECONDS


async def public(request: Request) -> JSONResponse:
    """A page without a session."""
    del request
    return JSONResponse({"theme": "dark"})


async def read(request: Request) -> JSONResponse:
    """Read one value."""
    return JSONResponse({"theme": request.session.get("theme", "light")})


async def visits(request: Request) -> JSONResponse:
    """Read the counter."""
    return JSONResponse({"visits": request.session.get("visits", 0)})


async def increment(request: Request) -> JSONResponse:
    """Add one."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JSONResponse({"visits": request.session["visits"]})


async def login(request: Request) -> JSONResponse:
    """Fill the session under a new id."""
    user = request.query_params["user"]
    regenerate_session_id(request)
    request.session.update({**FIELDS, "user": user})
    return JSONResponse({"user": user})


def create() -> Starlette:
    """The application."""
    store = RedisStore(connection=Redis.from_url(os.environ["BENCH_STORE"]))
    return Starlette(
        routes=[
            Route("/public", public),
            Route("/read", read),
            Route("/visits", visits),
            Route("/increment", increment, methods=["POST"]),
            Route("/login", login, methods=["POST"]),
        ],
        middleware=[
            Middleware(SessionMiddleware, store=store, lifetime=LIFETIME_SECONDS, cookie_name=COOKIE, cookie_https_only=False),
            Middleware(SessionAutoloadMiddleware, paths=["/read", "/visits", "/increment", "/login"]),
        ],
    )
