"""The session outside its middleware: outer middleware, hooks, exception handlers, 404 and 405 pages."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from litestar import Controller, Litestar, Request, Response, Router, WebSocket, asgi, get, websocket
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.middleware import AbstractAuthenticationMiddleware, ASGIMiddleware, AuthenticationResult
from litestar.response import Stream
from litestar.testing import TestClient
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from session_core import (
    ConfigurationError,
    Session,
    SessionPlugin,
    StoreUnavailableError,
    Timeouts,
    loaded_session_of,
    session_of,
)
from session_core.testing import FakeClock, logged_in_cookie
from tests.support.sessions import ALICE, HANDLERS, AppSession, Recorder, client_of, make_config, plugin_in

pytestmark = pytest.mark.anyio


class Asks(ASGIMiddleware):
    """Middleware that reads the session, and may change it, before or after the inner application."""

    def __init__(self, *, note: str | None = None, after: str | None = None, answer: bool = False) -> None:
        self.note = note
        self.after = after
        self.answer = answer
        self.seen: list[Any] = []

    def __deepcopy__(self, memo: Any) -> Asks:
        return self  # Litestar copies handlers together with their middleware

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        session = await session_of(scope)
        self.seen.append(session)
        if self.note is not None:
            session.data.note = self.note
        if self.answer:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": b"own", "more_body": False})
        else:
            await next_app(scope, receive, send)
        if self.after is not None:
            session.data.note = self.after


class PassesOn(ASGIMiddleware):
    """Middleware that does not use the session."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        await next_app(scope, receive, send)


@get("/plain")
async def plain() -> str:
    return "plain"


@get("/who")
async def who(request: Request[Any, Any, Any]) -> str:
    return str(request.user)


@get("/read-too")
async def read_too(session: Session[AppSession], request: Request[Any, Any, Any]) -> list[Any]:
    return [session.data.note, session is await session_of(request)]


@get("/streamed")
async def streamed() -> Stream:
    async def parts() -> Any:
        yield b"one "
        yield b"two"

    return Stream(parts())


def build(*handlers: Any, config: Any = None, **options: Any) -> Litestar:
    plugins = [SessionPlugin(config or make_config())]
    return Litestar(
        [*HANDLERS, plain, read_too, streamed, *handlers], plugins=plugins, openapi_config=None, logging_config=None, **options
    )


@pytest.fixture(params=["application", "router", "controller", "handler"])
def layer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on_layer(layer: str, middleware: Any) -> Litestar:
    """An application with `/x/plain` and `/x/read`, and middleware on one of its layers."""

    @get("/plain", middleware=[middleware] if layer == "handler" else None)
    async def inner_plain() -> str:
        return "plain"

    @get("/read", middleware=[middleware] if layer == "handler" else None)
    async def inner_read(session: Session[AppSession]) -> str:
        return session.data.note

    held: Any = Router("/x", route_handlers=[inner_plain, inner_read], middleware=[middleware] if layer == "router" else None)
    if layer == "controller":

        class Held(Controller):
            path = "/x"

            @get("/plain")
            async def inner_plain(self) -> str:
                return "plain"

            @get("/read")
            async def inner_read(self, session: Session[AppSession]) -> str:
                return session.data.note

        Held.middleware = [middleware]
        held = Held
    return build(held, middleware=[middleware] if layer == "application" else None)


@pytest.mark.parametrize("path", ["/x/plain", "/x/read"])
async def test_middleware_of_every_layer_reads_and_writes_the_session(layer: str, path: str) -> None:
    asks = Asks(note="by middleware")
    app = on_layer(layer, asks)
    async with client_of(app) as client:
        first = await client.get(path)
        assert (first.status_code, first.text) == (200, "plain" if path == "/x/plain" else "by middleware")
        assert "session-8000" in client.cookies
        assert (first.headers["vary"], first.headers["cache-control"]) == ("Cookie", "private, no-store")
        asks.note = None
        assert (await client.get(path)).status_code == 200
        assert [session.data.note for session in asks.seen] == ["by middleware"] * 2
        assert (await client.get("/read")).json()["data"]["note"] == "by middleware"


async def test_middleware_and_handler_share_one_session_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asks = Asks()
    app = build(middleware=[asks])
    loads: list[str] = []
    async with client_of(app) as client:
        await client.post("/visit")
        store = plugin_in(app).store.inner
        load = store.load

        async def counted(key: str) -> Any:
            loads.append(key)
            return await load(key)

        monkeypatch.setattr(store, "load", counted)
        assert (await client.get("/read-too")).json() == ["", True]
    assert len(loads) == 1


async def test_a_request_without_session_use_calls_no_store_and_adds_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    app = build(middleware=[PassesOn()], exception_handlers={404: lambda _, __: Response("none", status_code=404)})
    async with client_of(app) as client:
        await client.post("/login/alice")

        async def none(*_: Any) -> None:
            pytest.fail("the store was asked")

        monkeypatch.setattr(plugin_in(app).store.inner, "load", none)
        for path, status in (("/plain", 200), ("/nowhere", 404), ("/visit", 405)):
            answer = await client.get(path)
            assert (answer.status_code, "vary" in answer.headers, "set-cookie" in answer.headers) == (status, False, False)


async def cookie_header(app: Litestar) -> str:
    return "=".join(await logged_in_cookie(app, ALICE))


class Authenticates(AbstractAuthenticationMiddleware):
    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        session = await session_of(connection)
        if session.identity is None:
            raise NotAuthorizedException
        return AuthenticationResult(user=session.identity.subject, auth=session)


@websocket("/who-ws")
async def who_ws(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.send_text(str(socket.user))
    await socket.close()


async def test_litestars_authentication_middleware_works_with_the_session() -> None:
    app = build(who, who_ws, middleware=[Authenticates])
    async with client_of(app) as client:
        refused = await client.get("/who")
        assert (refused.status_code, refused.headers["vary"]) == (401, "Cookie")
        client.headers["cookie"] = await cookie_header(app)
        answer = await client.get("/who")
        assert (answer.text, answer.headers["cache-control"]) == ("alice", "private, no-store")


def test_litestars_authentication_middleware_works_on_a_websocket() -> None:
    app = build(who_ws, middleware=[Authenticates])
    cookie = asyncio.run(cookie_header(app))
    with (
        TestClient(app, base_url="http://127.0.0.1:8000") as client,
        client.websocket_connect("/who-ws", headers={"cookie": cookie}) as socket,
    ):
        assert socket.receive_text() == "alice"


def on_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    session = loaded_session_of(request)
    who = session.identity.subject if session is not None and session.identity else None
    return Response({"who": who, "loaded": session is not None}, status_code=getattr(error, "status_code", 500))


async def load_before_answering(error: Exception, scope: Scope) -> None:
    await session_of(scope)


async def test_exception_handlers_404_and_405_pages_know_the_user() -> None:
    @get("/refuses")
    async def refuses(session: Session[AppSession]) -> None:
        raise HTTPException(status_code=418)

    @get("/refuses-plainly")
    async def refuses_plainly() -> None:
        raise HTTPException(status_code=418)

    app = build(refuses, refuses_plainly, exception_handlers={HTTPException: on_error}, after_exception=[load_before_answering])
    async with client_of(app) as client:
        for cookie, name in ((None, None), (await cookie_header(app), "alice")):
            if cookie is not None:
                client.headers["cookie"] = cookie
            for path, status in (("/nowhere", 404), ("/visit", 405), ("/refuses", 418), ("/refuses-plainly", 418)):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()) == (status, {"who": name, "loaded": True}), path
                assert answer.headers["vary"] == "Cookie"
                assert answer.headers.get("cache-control") == (None if name is None else "private, no-store")


async def test_an_exception_handler_sees_only_a_loaded_session() -> None:
    app = build(exception_handlers={HTTPException: on_error})
    async with client_of(app) as client:
        assert (await client.get("/nowhere")).json() == {"who": None, "loaded": False}


@pytest.mark.parametrize("layer", ["application", "handler"])
async def test_a_before_request_hook_has_the_session(layer: str) -> None:
    async def count(request: Request[Any, Any, Any]) -> None:
        (await session_of(request)).data.visits += 1

    @get("/hooked", before_request=count if layer == "handler" else None)
    async def hooked() -> str:
        return "hooked"

    app = build(hooked, before_request=count if layer == "application" else None)
    async with client_of(app) as client:
        for _ in range(3):
            assert (await client.get("/hooked")).text == "hooked"
        assert (await client.get("/read")).json()["data"]["visits"] >= 3


async def test_middleware_that_responds_itself_saves_first() -> None:
    asks = Asks(note="kept", answer=True)
    async with client_of(build(middleware=[asks])) as client:
        assert (await client.get("/plain")).text == "own"
        asks.answer, asks.note = False, None
        assert (await client.get("/read")).json()["data"]["note"] == "kept"


@pytest.mark.parametrize("path", ["/plain", "/streamed"])
async def test_an_error_replaces_a_response_whose_session_cannot_be_saved(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = build(middleware=[Asks(note="not saved")])

    async def down(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError

    monkeypatch.setattr(plugin_in(app).store.inner, "create", down)
    async with client_of(app) as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


async def test_reading_the_session_in_outer_middleware_extends_it(clock: FakeClock) -> None:
    app = build(config=make_config(clock=clock, timeouts=Timeouts(idle=100, touch_interval=1)), middleware=[Asks()])
    async with client_of(app) as client:
        await client.post("/login/alice")
        for _ in range(4):
            clock.advance(seconds=60)
            assert (await client.get("/plain")).status_code == 200
        assert (await client.get("/read")).json()["subject"] == "alice"


async def test_a_response_whose_session_was_read_outside_is_not_cached() -> None:
    made: list[int] = []

    @get("/cached", cache=True)
    async def cached() -> str:
        made.append(1)
        return str(len(made))

    app = build(cached, middleware=[Asks()])
    async with client_of(app) as client:
        assert [(await client.get("/cached")).text for _ in range(2)] == ["1", "2"]
    app = build(cached, middleware=[PassesOn()])
    async with client_of(app) as client:
        assert [(await client.get("/cached")).text for _ in range(2)] == ["3", "3"]


async def test_a_response_already_in_the_cache_gets_no_session() -> None:
    raised: list[Exception] = []

    class AsksLate(ASGIMiddleware):
        async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
            async def late(message: Message) -> None:
                try:
                    (await session_of(scope)).data.note = "everyone's"
                except ConfigurationError as error:
                    raised.append(error)
                await send(message)

            await next_app(scope, receive, late)

    @get("/cached", cache=True)
    async def cached() -> str:
        return "for everyone"

    app = build(cached, middleware=[AsksLate()])
    async with client_of(app) as client:
        for _ in range(2):
            answer = await client.get("/cached")
            assert (answer.text, "set-cookie" in answer.headers) == ("for everyone", len(client.cookies) > 0)
    assert "response cache" in str(raised[0])


async def test_outer_assignments_after_the_response_are_reported() -> None:
    recorder = Recorder()
    asks = Asks(after="too late")
    app = build(config=make_config(on_event=[recorder]), middleware=[asks])
    async with client_of(app) as client:
        for path in ("/plain", "/read"):
            recorder.events.clear()
            await client.get(path)
            asks.seen.clear()
            gc.collect()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [(event.name, event.reason) for event in recorder.events if event.name == "session.unsaved"] == [
                ("session.unsaved", "response_sent")
            ], path


async def test_a_session_read_without_a_declaration_is_an_error() -> None:
    @get("/silent")
    async def silent(request: Request[Any, Any, Any]) -> str:
        return (await session_of(request)).data.theme

    raised: list[Exception] = []
    plugin = SessionPlugin(make_config())
    app = Litestar([silent], plugins=[plugin], openapi_config=None, logging_config=None)
    assert plugin.outside is None
    assert app.before_send == []
    app.after_exception.append(lambda error, _: _note(raised, error))
    async with client_of(app) as client:
        assert (await client.get("/silent")).status_code == 500
    assert "opt={'session': True}" in str(raised[0])


async def test_a_guard_of_the_application_reads_the_session_also_on_routes_without_one() -> None:
    """The routes of a provider's logout are such routes."""

    async def gate(connection: ASGIConnection[Any, Any, Any, Any], _: Any) -> None:
        if (await session_of(connection)).identity is None:
            raise NotAuthorizedException

    @get("/without", opt={"session": False})
    async def without() -> str:
        return "without"

    app = build(without, guards=[gate])
    async with client_of(app, cookies=dict([await logged_in_cookie(app, ALICE)])) as client:
        assert (await client.get("/without")).text == "without"
        client.cookies.clear()
        for path in ("/without", "/public"):
            assert (await client.get(path)).status_code == 401


async def _note(raised: list[Exception], error: Exception) -> None:
    raised.append(error)


async def test_nested_applications_each_have_their_own_session() -> None:
    asks = Asks(note="inner")
    inner = build(middleware=[asks])
    outer_asks = Asks(note="outer")
    outer = Litestar(
        [asgi("/in", is_mount=True, copy_scope=True)(inner)],
        plugins=[SessionPlugin(make_config())],
        middleware=[outer_asks],
        openapi_config=None,
        logging_config=None,
    )
    async with client_of(outer) as client:
        assert (await client.get("/in/plain")).text == "plain"
    assert asks.seen[0].data.note in {"inner", "outer"}
