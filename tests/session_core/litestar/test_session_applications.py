"""Complex applications: late cookies, background tasks, CORS, mounts, failing middleware and guards."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from litestar import Litestar, Request, asgi, get, post
from litestar.background_tasks import BackgroundTask
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.middleware import ASGIMiddleware
from litestar.response import Response
from litestar.types import ASGIApp, Receive, Scope, Send

from session_core import (
    CookieConfig,
    Session,
    SessionConfig,
    SessionHandle,
    SessionPlugin,
)
from session_core.errors import ResponseStartedError
from session_core.guards import requires
from session_core.testing import log_in
from tests.support.sessions import ALICE, AppSession, client_of, make_app, plugin_in

pytestmark = pytest.mark.anyio


async def test_a_new_id_is_refused_when_its_cookie_can_no_longer_be_sent() -> None:
    refused: list[type[Exception]] = []

    async def late(session: SessionHandle[AppSession], verb: str) -> None:
        try:
            await (session.regenerate() if verb == "regenerate" else session.update(visits=9))
        except ResponseStartedError as error:
            refused.append(type(error))

    @post("/late/{verb:str}")
    async def handler(session: Session[AppSession], request: Request[Any, Any, Any]) -> Response[None]:
        return Response(None, background=BackgroundTask(late, session, request.path_params["verb"]))

    app = make_app(handler)
    async with client_of(app) as client:
        await client.post("/late/update")
        assert (await plugin_in(app).sessions.stats()).total == 0
        await client.post("/login/alice")
        await client.post("/late/regenerate")
        assert (await client.get("/read")).json()["subject"] == "alice"
    assert refused == [ResponseStartedError, ResponseStartedError]


async def test_assignments_of_a_background_task_are_saved() -> None:
    async def later(session: SessionHandle[AppSession]) -> None:
        session.data.note = "from the background"

    @post("/background")
    async def handler(session: Session[AppSession]) -> Response[None]:
        return Response(None, background=BackgroundTask(later, session))

    async with client_of(make_app(handler)) as client:
        await client.post("/visit")
        await client.post("/background")
        assert (await client.get("/read")).json()["data"]["note"] == "from the background"


async def test_cors_does_not_remove_vary_cookie() -> None:
    plugin = SessionPlugin(SessionConfig(AppSession))

    @get("/page")
    async def page(session: Session[AppSession]) -> Response[str]:
        return Response(session.data.theme, headers={"cache-control": "public, max-age=60"})

    cors = CORSConfig(allow_origins=["https://x.example"])
    app = Litestar([page], plugins=[plugin], cors_config=cors, openapi_config=None, logging_config=None)
    async with client_of(app) as client:
        answer = await client.get("/page", headers={"origin": "https://x.example"})
        assert {part.strip() for part in answer.headers["vary"].split(",")} == {"Origin", "Cookie"}


class Inner(msgspec.Struct):
    inside: int = 0


@post("/inner")
async def inner(session: Session[Inner]) -> str:
    session.data.inside += 1
    return type(session.data).__name__


async def test_a_mounted_application_has_its_own_sessions_and_refuses_other_sites() -> None:
    mounted = Litestar(
        [inner],
        plugins=[SessionPlugin(SessionConfig(Inner, cookie=CookieConfig(name="inner")))],
        openapi_config=None,
        logging_config=None,
    )

    @asgi("/mounted", is_mount=True, opt={"session": True}, copy_scope=True)
    async def mount(scope: Scope, receive: Receive, send: Send) -> None:
        await mounted(scope, receive, send)

    async with client_of(make_app(mount)) as client:
        await client.post("/login/alice")
        assert (await client.post("/mounted/inner")).text == "Inner"
        assert client.cookies.get("inner")
        refused = await client.post("/mounted/inner", headers={"sec-fetch-site": "cross-site"})
        assert refused.status_code == 403


async def test_an_exception_of_inner_middleware_still_carries_the_new_cookie() -> None:
    from session_core import session_of

    class LogsInAndFails(ASGIMiddleware):
        async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
            del next_app
            await (await session_of(Request(scope, receive, send))).login(ALICE)
            raise HTTPException(status_code=418)

    @get("/teapot", middleware=[LogsInAndFails()], opt={"session": True})
    async def teapot() -> None: ...

    async with client_of(make_app(teapot)) as client:
        answer = await client.get("/teapot")
        assert answer.status_code == 418
        assert (await client.get("/read")).json()["subject"] == "alice"


async def test_a_predicate_that_does_not_return_true_refuses() -> None:
    @get("/oops", guards=[requires(AppSession, lambda session: session.reload)])  # type: ignore[arg-type, return-value]
    async def oops() -> None: ...

    app = make_app(oops)
    async with client_of(app) as client:
        await log_in(client, app, "alice")
        assert (await client.get("/oops")).status_code == 403
