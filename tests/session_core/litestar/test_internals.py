"""The bypasses of Litestar's internals: handlers and errors behave the same with and without them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from litestar import Litestar, Request, Response, asgi, get, post, websocket
from litestar.connection import WebSocket
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.middleware import ASGIMiddleware
from litestar.params import FromQuery
from litestar.response import Stream
from litestar.routes import HTTPRoute, WebSocketRoute
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from session_core import Session, SessionPlugin, StoreUnavailableError, session_of
from session_core.litestar import internals
from session_core.litestar.internals import ERROR_HANDLING, INJECTION, error_guard_of, is_known
from tests.support.sessions import AppSession, client_of, make_app, make_config, plugin_in

pytestmark = pytest.mark.anyio


async def provide_theme(session: Session[AppSession]) -> str:
    return session.data.theme


async def provide_number() -> int:
    return 7


@get("/themed", dependencies={"theme": Provide(provide_theme), "number": Provide(provide_number)})
async def themed(
    session: Session[AppSession], theme: NamedDependency[str], number: NamedDependency[int], q: FromQuery[str] = "-"
) -> list[Any]:
    return [session.data.theme, theme, number, q]


@get("/only-inside", dependencies={"theme": Provide(provide_theme)})
async def only_inside(theme: NamedDependency[str]) -> str:
    return theme


async def provide_other() -> str:
    return "a dependency of the application"


@get("/other", dependencies={"session": Provide(provide_other)})
async def other(session: NamedDependency[str]) -> str:
    return session


@get("/scoped")
async def scoped(session: Session[AppSession], request: Request[Any, Any, Any], scope: Scope) -> list[bool]:
    return [session.exists, request.scope is scope]


@get("/refuses")
async def refuses(session: Session[AppSession], code: FromQuery[int] = 418) -> None:
    session.data.note = "not of a refused request alone"
    raise HTTPException(status_code=code, detail="short and stout")


@post("/login-and-refuse")
async def login_and_refuse(session: Session[AppSession]) -> None:
    await session.update(note="made before")
    raise HTTPException(status_code=409)


@websocket("/socket")
async def socket_with_session(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    await socket.accept()
    await socket.send_json([session.data.theme])
    await socket.close()


HANDLERS = [themed, only_inside, other, scoped, refuses, login_and_refuse, socket_with_session]


only_bypassed = pytest.mark.parametrize("bypasses", [True], indirect=True)


@pytest.fixture
def app() -> Litestar:
    return make_app(*HANDLERS)


async def test_a_session_is_injected_beside_other_parameters(app: Litestar) -> None:
    async with client_of(app) as client:
        await client.patch("/assign", json={"theme": "dark"})
        assert (await client.get("/themed?q=x")).json() == ["dark", "dark", 7, "x"]
        assert (await client.get("/only-inside")).text == "dark"
        assert (await client.get("/scoped")).json() == [True, True]


async def test_a_foreign_dependency_of_that_name_is_kept(app: Litestar) -> None:
    async with client_of(app) as client:
        assert (await client.get("/other")).text == "a dependency of the application"


async def test_an_outage_is_a_503_before_the_handler_runs(app: Litestar, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(key: str) -> None:
        raise StoreUnavailableError(key)

    async with client_of(app) as client:
        await client.post("/login/alice")
        monkeypatch.setattr(plugin_in(app).store.inner, "load", down)
        answer = await client.get("/themed")
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


async def test_errors_of_handlers_get_the_usual_response(app: Litestar) -> None:
    raised: list[str] = []
    app.after_exception.append(lambda error, _: _note(raised, error))
    async with client_of(app) as client:
        refused = await client.get("/refuses")
        assert (refused.status_code, refused.json()["detail"]) == (418, "short and stout")
        assert refused.headers["vary"] == "Cookie"
        assert (await client.get("/read")).json()["data"]["note"] == "not of a refused request alone"
        assert (await client.get("/refuses?code=x")).status_code == 400
        assert (await client.get("/fails")).status_code == 500
        assert (await client.get("/read")).json()["data"]["note"] == "not of a refused request alone"
    assert raised == ["HTTPException", "ValidationException", "RuntimeError"]


async def _note(raised: list[str], error: Exception) -> None:
    raised.append(type(error).__name__)


async def test_a_visitor_s_cookie_is_set_on_the_refusal(app: Litestar) -> None:
    async with client_of(app) as client:
        assert (await client.post("/login-and-refuse")).status_code == 409
        assert (await client.get("/read")).json()["data"]["note"] == "made before"


@only_bypassed  # the test sets the switch itself
async def test_an_exception_handler_of_the_application_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request[Any, Any, Any], error: Exception) -> Any:
        return Response({"by": type(error).__name__, "path": request.url.path}, status_code=422)

    bodies = []
    for way in ("directly", "by Litestar"):
        with monkeypatch.context() as patch:
            patch.setattr(internals, "enabled", way == "directly")
            app = Litestar(
                [refuses],
                plugins=[SessionPlugin(make_config())],
                exception_handlers={HTTPException: answer},
                openapi_config=None,
                logging_config=None,
            )
            async with client_of(app) as client:
                got = await client.get("/refuses")
                bodies.append((got.status_code, got.json(), got.headers.get("cache-control"), got.headers.get("vary")))
    assert bodies[0] == bodies[1]
    assert bodies[0][:2] == (422, {"by": "HTTPException", "path": "/refuses"})


@get("/breaks-off")
async def breaks_off(session: Session[AppSession]) -> Stream:
    async def parts() -> AsyncIterator[bytes]:
        yield session.data.theme.encode()
        msg = "half-way"
        raise ValueError(msg)

    return Stream(parts())


class HoldsBack(ASGIMiddleware):
    """Buffers all messages until the application has returned."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        held: list[Message] = []

        async def keep(message: Message) -> None:
            held.append(message)

        await next_app(scope, receive, keep)
        for message in held:
            await send(message)


async def test_no_second_response_starts_behind_a_buffering_middleware() -> None:
    plugins = [SessionPlugin(make_config())]
    app = Litestar([breaks_off], plugins=plugins, middleware=[HoldsBack()], openapi_config=None, logging_config=None)
    async with client_of(app) as client:
        answer = await client.get("/breaks-off")
    assert (answer.status_code, "light" in answer.text) == (500, False)


class Kept:
    """An object referenced by a failing handler."""


async def test_a_failed_request_leaves_no_references(app: Litestar) -> None:
    held: list[weakref.ref[Kept]] = []

    @get("/fails-with-much")
    async def fails_with_much(session: Session[AppSession]) -> None:
        much = Kept()
        held.append(weakref.ref(much))
        raise HTTPException(status_code=400 if session.exists else 409)

    app.register(fails_with_much)
    async with client_of(app) as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                assert (await client.get("/fails-with-much")).status_code == 409
            assert [kept() for kept in held] == [None] * 20
        finally:
            gc.enable()


@only_bypassed  # the test sets the switch itself
async def test_an_inner_application_of_the_same_sessions_handles_its_own_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its middleware sees a response as it does alone, also when the session middleware is installed twice."""
    seen: list[str] = []

    class Sees(ASGIMiddleware):
        async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
            async def look(message: Message) -> None:
                if message["type"] == "http.response.start":
                    seen.append(f"status {message['status']}")
                await send(message)

            await next_app(scope, receive, look)

    for way in ("directly", "by Litestar"):
        with monkeypatch.context() as patch:
            patch.setattr(internals, "enabled", way == "directly")
            plugin = SessionPlugin(make_config())
            inner = Litestar([refuses], plugins=[plugin], middleware=[Sees()], openapi_config=None, logging_config=None)
            outer = Litestar(
                [asgi("/inner", is_mount=True, opt={"session": True}, copy_scope=False)(inner)],
                plugins=[plugin],
                openapi_config=None,
                logging_config=None,
            )
            async with client_of(outer) as client:
                assert (await client.get("/inner/refuses")).status_code == 418
    assert seen == ["status 418", "status 418"]


def models_of(app: Litestar, path: str) -> list[Any]:
    route = next(route for route in app.routes if route.path == path)
    if isinstance(route, HTTPRoute):
        return [model for handler, model in route.route_handler_map.values() if handler.handler_name != "options_handler"]
    assert isinstance(route, WebSocketRoute)
    return [route.handler_parameter_model]


@only_bypassed
@pytest.mark.parametrize("path", ["/read", "/themed", "/scoped", "/socket", "/refuses"])
def test_the_locked_litestar_is_bypassed(path: str) -> None:
    """With another version the faster path may silently not be active."""
    for model in models_of(make_app(*HANDLERS), path):
        assert "session" not in {dependency.key for batch in model.dependency_batches for dependency in batch}
        assert model.extractors[0] is internals.take_session
        assert all(model.dependency_batches)


@only_bypassed
def test_the_locked_litestar_s_exception_middleware_is_bypassed() -> None:
    app = make_app()
    guards: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "session_core.litestar.middleware.error_guard_of", lambda stack: guards.append(error_guard_of(stack)) or guards[-1]
        )
        app = make_app()
    assert app.routes
    assert guards
    assert None not in guards


@pytest.mark.parametrize("broken", [object(), type("Odd", (), {"app": None})()])
def test_other_middleware_stays_in_place(broken: Any) -> None:
    assert error_guard_of(broken) is None


async def test_a_route_registered_later_is_treated_the_same() -> None:
    app = make_app()
    app.register(themed)
    app.register(refuses)
    async with client_of(app) as client:
        assert (await client.get("/themed")).json() == ["light", "light", 7, "-"]
        assert (await client.get("/refuses")).status_code == 418


async def test_concurrent_requests_each_get_their_own_session(app: Litestar) -> None:
    def client_for(number: int) -> httpx.AsyncClient:
        return client_of(app, headers={"x-number": str(number)})

    async def visit(number: int) -> None:
        async with client_for(number) as client:
            await client.post(f"/login/user{number}")
            for _ in range(3):
                assert (await client.get("/read")).json()["subject"] == f"user{number}"
                assert (await client.post("/visit")).status_code == 201

    await asyncio.gather(*(visit(number) for number in range(20)))


class Odd(HTTPRoute):
    """A route of another Litestar version: `given` holds its handlers."""

    given: Any = None

    def __init__(self) -> None: ...

    @property
    def route_handler_map(self) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


class Model:
    """The place where a Litestar version keeps a handler's parameters."""

    def __init__(self, batches: Any, extractors: Any) -> None:
        self.dependency_batches = batches
        self.extractors = extractors


def ours() -> Any:
    provide = SimpleNamespace(dependency=internals.provide_session)
    return type("Dependency", (), {"key": "session", "provide": provide, "__hash__": lambda _: 1})()


@pytest.mark.parametrize(
    "given",
    [
        AttributeError(), TypeError(), KeyError("get"), RuntimeError(), None, 5, [], {"GET": object()}, {"GET": (1, 2, 3)},
        {"GET": ("handler", object())}, {"GET": ("handler", Model(None, []))}, {"GET": ("handler", Model([[ours()]], []))},
        {"GET": ("handler", Model([{ours()}], None))}, {"GET": ("handler", Model([{object()}], []))},
    ],
)  # fmt: skip
def test_an_unknown_structure_is_left_to_litestar(given: Any) -> None:
    route = Odd()
    good = Model([{ours()}], [])
    if isinstance(given, dict):
        given = {"HEAD": ("handler", good), **given}
    route.given = given
    assert internals.inject_directly(route) is False
    assert good.extractors == []  # a route is changed completely or not at all
    assert len(good.dependency_batches) == 1


@only_bypassed
@pytest.mark.parametrize("name", [*INJECTION, *ERROR_HANDLING])
async def test_any_difference_in_litestar_disables_the_bypass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, path = name.partition(":")
    *holders, last = path.split(".")
    holder: Any = import_module(module)
    for part in holders:
        holder = getattr(holder, part)
    original = getattr(holder, last)

    def altered(*args: Any, **named: Any) -> Any:
        return original(*args, **named)

    monkeypatch.setattr(holder, last, altered)
    bypass = INJECTION if name in INJECTION else ERROR_HANDLING
    assert not is_known(bypass)
    app = make_app(*HANDLERS)
    if bypass is INJECTION:
        assert all(model.extractors[:1] != [internals.take_session] for model in models_of(app, "/themed"))
    async with client_of(app) as client:
        await client.patch("/assign", json={"theme": "dark"})
        assert (await client.get("/themed?q=x")).json() == ["dark", "dark", 7, "x"]
        assert (await client.get("/refuses")).status_code == 418


def test_a_litestar_without_these_functions_is_not_bypassed() -> None:
    assert is_known(INJECTION)
    assert is_known(ERROR_HANDLING)
    for name in ("litestar.nowhere:x", "litestar.routes.http:HTTPRoute.nothing", "litestar.routes.http:chain", "builtins:len"):
        assert not is_known({name: {"0"}})


def test_a_litestar_with_other_signature_checks_uses_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("litestar.nowhere", "litestar.di"):
        monkeypatch.setattr(internals, "import_module", lambda _, name=name: import_module(name))
        internals.explain_refusals()
    assert internals._fix_of(["handler", {"session"}, SimpleNamespace(parameters=5)]) is None


@pytest.mark.parametrize("bypasses", [False], indirect=True)
async def test_a_litestar_that_merges_layers_into_handlers_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Litestar 3 a handler does not reference its layers, so the hook for outer layers is always installed."""
    monkeypatch.setattr("session_core.litestar.plugin.knows_layers", lambda: False)
    monkeypatch.setattr("session_core.litestar.outer_layers.knows_layers", lambda: False)
    seen: list[bool] = []

    class Sees(ASGIMiddleware):
        async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
            seen.append((await session_of(scope)).exists)
            await next_app(scope, receive, send)

    app = Litestar(
        [themed, refuses], plugins=[SessionPlugin(make_config())], middleware=[Sees()], openapi_config=None, logging_config=None
    )
    async with client_of(app) as client:
        assert (await client.get("/themed")).json() == ["light", "light", 7, "-"]
        assert (await client.get("/refuses")).status_code == 418
    assert seen == [False, False]
