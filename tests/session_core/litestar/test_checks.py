"""Mistakes refused when the application is built, with the handler's name and the fix."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest
from litestar import Controller, Litestar, Request, Router, WebSocket, get, post, websocket
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import ImproperlyConfiguredException
from litestar.middleware.session.client_side import CookieBackendConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import FromQuery, JSONBody
from litestar.types import Scope
from structlog.testing import capture_logs

from session_core import (
    ConfigurationError,
    CookieConfig,
    Session,
    SessionConfig,
    SessionHandle,
    SessionPlugin,
    Sessions,
    session_of,
)
from session_core.guards import requires, requires_login
from session_core.litestar.routes import uses_session
from tests.support.pages import ROOT
from tests.support.sessions import AppSession, client_of, make_config

pytestmark = pytest.mark.anyio


def build(*handlers: Any, plugins: list[Any] | None = None, **options: Any) -> Litestar:
    plugins = [SessionPlugin(make_config())] if plugins is None else plugins
    return Litestar(list(handlers), plugins=plugins, openapi_config=None, logging_config=None, **options)


# -- cached dependencies


class User:
    def __init__(self, session: Session[AppSession]) -> None:
        self.name = session.identity.subject if session.identity else None


async def current_user(session: Session[AppSession]) -> str:
    return session.identity.subject if session.identity else ""


async def greeting(user: NamedDependency[str]) -> str:
    return f"hello {user}"


async def page_title(greeting: NamedDependency[str]) -> str:
    return greeting


@get("/greet")
async def greet(title: NamedDependency[str]) -> str:
    return title


@get("/two", sync_to_thread=False)
def two(title: NamedDependency[str], session: Session[AppSession]) -> str:
    return title


@websocket("/greet-ws")
async def greet_ws(socket: WebSocket[Any, Any, Any], title: NamedDependency[str]) -> None: ...


DEEP = {"user": Provide(current_user), "greeting": Provide(greeting), "title": Provide(page_title, use_cache=True)}
MIDDLE = {"user": Provide(current_user), "greeting": Provide(greeting, use_cache=True), "title": Provide(page_title)}
INNER = {"user": Provide(current_user, use_cache=True), "greeting": Provide(greeting), "title": Provide(page_title)}
CLASS = {"title": Provide(User, use_cache=True, sync_to_thread=False)}


class Greetings(Controller):
    path = "/c"
    dependencies = INNER

    @get("/")
    async def greet(self, title: NamedDependency[str]) -> str:
        return title


@pytest.mark.parametrize("handler", [greet, two, greet_ws])
@pytest.mark.parametrize(("dependencies", "name"), [(DEEP, "title"), (MIDDLE, "greeting"), (INNER, "user"), (CLASS, "title")])
def test_a_cached_dependency_that_takes_the_session_is_refused(handler: Any, dependencies: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{name}` has use_cache=True and takes the session") as refused:
        build(handler, dependencies=dependencies)
    assert handler.fn.__name__ in str(refused.value)


@pytest.mark.parametrize("layer", ["router", "controller", "handler", "mixed"])
def test_a_cached_dependency_is_found_on_every_layer(layer: str) -> None:
    own = get("/own", dependencies=INNER)(greet.fn)
    layers: Any = {
        "router": Router("/r", route_handlers=[greet], dependencies=INNER),
        "controller": Greetings,
        "handler": own,
        "mixed": Router("/r", route_handlers=[greet], dependencies={"title": DEEP["title"], "greeting": DEEP["greeting"]}),
    }
    with pytest.raises(ConfigurationError, match=r"greet .*use_cache=True and takes the session"):
        build(layers[layer], dependencies={"user": DEEP["user"]})


async def by_request(request: Request[Any, Any, Any]) -> str:
    session = await session_of(request)
    return session.identity.subject if session.identity else ""


async def by_scope(scope: Scope) -> str:
    return (await session_of(ASGIConnection(scope))).data.theme


async def settings(request: Request[Any, Any, Any]) -> str:
    return str(request.app.state.get("settings", "default"))


class WithOthers(AppSession):
    others: dict[str, Any] = msgspec.field(default_factory=dict)


async def by_user(request: Request[Any, Any, Any]) -> str:
    return str(request.user)


async def by_auth(scope: Scope) -> str:
    return str(scope.get("auth"))


def by_idiom(request: Request[Any, Any, Any]) -> str:
    return str(request.session)


@get("/greeting")
async def greeting_alone(greeting: NamedDependency[str]) -> str:
    return greeting


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("provide", [by_request, by_scope, by_user, by_auth, by_idiom])
async def test_a_cached_dependency_that_requests_the_session_is_refused_at_run_time(provide: Any, inner: bool) -> None:
    """Also one that is computed from another dependency, which is not cached."""
    in_loop: dict[str, Any] = {"sync_to_thread": False} if provide is by_idiom else {}
    cached = Provide(page_title, use_cache=True) if inner else Provide(provide, use_cache=True, **in_loop)
    config = SessionConfig(
        WithOthers, load_user=lambda identity, _: identity.subject, request_session="others", public_url="http://127.0.0.1:8000"
    )
    dependencies = {"title": cached, "greeting": Provide(provide, **in_loop)}
    app = build(two, greeting_alone, plugins=[SessionPlugin(config)], dependencies=dependencies)
    async with client_of(app) as client:
        for _ in range(2):
            answer = await client.get("/two")
            assert (answer.status_code, "alice" in answer.text) == (500, False)
        # Where nothing is cached that is computed from it, it may ask.
        assert (await client.get("/greeting")).status_code == 200


async def test_a_cached_dependency_with_a_request_but_no_session_is_computed_once() -> None:
    calls: list[int] = []

    async def counted(request: Request[Any, Any, Any]) -> str:
        calls.append(1)
        return await settings(request)

    app = build(two, dependencies={"title": Provide(counted, use_cache=True)})
    async with client_of(app) as client:
        assert [(await client.get("/two")).text for _ in range(3)] == ["default"] * 3
    assert calls == [1]


def test_an_uncached_dependency_may_take_the_session() -> None:
    assert build(greet, two, dependencies={**DEEP, "title": Provide(page_title)}).routes


# -- other parameters and types


async def provide_other() -> str:
    return "not ours"


@get("/other", dependencies={"session": Provide(provide_other)}, cache=True)
async def other(session: NamedDependency[str]) -> str:
    return session


async def test_a_dependency_of_another_kind_named_session_is_left_alone() -> None:
    app = build(other)
    handler = next(handler for route in app.routes for handler in route.route_handlers if handler.handler_name == "other")  # type: ignore[union-attr]
    assert handler.cache is True
    assert not uses_session(handler)
    assert not handler.middleware
    async with client_of(app) as client:
        answers = [await client.get("/other") for _ in range(2)]
    assert [(answer.text, "vary" in answer.headers) for answer in answers] == [("not ours", False)] * 2


class Other(msgspec.Struct):
    theme: str = ""


class Extended(AppSession):
    more: int = 0


@get("/x")
async def another_type(session: Session[Other]) -> None: ...


@get("/x")
async def narrower(session: Session[Extended]) -> None: ...


@get("/x")
async def the_struct(session: AppSession) -> None: ...


@get("/x")
async def a_mapping(session: dict[str, Any]) -> None: ...


@get("/x")
async def a_query(session: FromQuery[str]) -> None: ...


@get("/x")
async def renamed(mine: Session[AppSession]) -> None: ...


@get("/x")
async def renamed_plain(mine: SessionHandle[AppSession]) -> None: ...


@get("/x")
async def renamed_struct(mine: AppSession) -> None: ...


@get("/x")
async def perhaps_the_struct(mine: AppSession | None) -> None: ...


@get("/x")
async def renamed_manager(others: Sessions) -> None: ...


@post("/x")
async def through_a_dependency(inner: NamedDependency[str]) -> None: ...


@websocket("/x")
async def in_a_websocket(socket: WebSocket[Any, Any, Any], session: Session[Other]) -> None: ...


async def inner_of_another_type(session: Session[Other]) -> str:
    return ""


@get("/x", opt={"session": False})
async def contradicts(session: Session[AppSession]) -> None: ...


@get("/x", opt={"session": False}, guards=[requires_login])
async def contradicts_its_guard() -> None: ...


@get("/x", guards=[requires(Other, lambda _: True)])
async def guarded_by_another_type() -> None: ...


@pytest.mark.parametrize("bypasses", [True], indirect=True)  # the message is part of `internals`
@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (another_type, r"Session\[Other\], but sessions hold AppSession"),
        (narrower, r"Session\[Extended\], but sessions hold AppSession"),
        (in_a_websocket, r"Session\[Other\]"),
        (the_struct, r"Session\[AppSession\]"),
        (a_mapping, r"Session\[AppSession\]"),
        (a_query, r"another name"),
        (renamed, r"must be named `session`"),
        (renamed_plain, r"`session: Session\[AppSession\]`"),
        (renamed_struct, r"`session: Session\[AppSession\]`"),
        (perhaps_the_struct, r"`session: Session\[AppSession\]`"),
        (renamed_manager, r"must be named `sessions`"),
        (contradicts, r"opt=\{'session': False\}"),
        (contradicts_its_guard, r"exclude_from_auth"),
        (guarded_by_another_type, r"requires\(Other, \.\.\.\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning")
def test_a_handler_that_cannot_get_its_session_is_refused(handler: Any, says: str) -> None:
    with pytest.raises((ConfigurationError, ImproperlyConfiguredException), match=says) as refused:
        build(handler)
    assert handler.fn.__name__ in str(refused.value)


def test_a_dependency_that_cannot_get_its_session_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"through_a_dependency \(/x\), dependency inner takes Session\[Other\]"):
        build(through_a_dependency, dependencies={"inner": Provide(inner_of_another_type)})


def test_accepted_annotations_of_the_session() -> None:
    @get("/any")
    async def anything(session: NamedDependency[Any]) -> None: ...

    @get("/handle")
    async def handle(session: NamedDependency[SessionHandle[Any]]) -> None: ...

    @post("/body")
    async def body(data: JSONBody[AppSession]) -> None: ...

    assert {"/any", "/handle", "/body"} <= {route.path for route in build(anything, handle, body).routes}


@pytest.mark.parametrize("bypasses", [True], indirect=True)  # the message is part of `internals`
@pytest.mark.parametrize("through", [False, True])
def test_a_session_without_the_plugin_is_refused_with_the_fix(through: bool) -> None:
    @get("/x")
    async def alone(session: Session[AppSession]) -> None: ...

    dependencies = {"inner": Provide(inner_of_another_type)} if through else {}
    with pytest.raises(ConfigurationError, match=r"SessionPlugin\(SessionConfig") as refused:
        build(through_a_dependency if through else alone, plugins=[], dependencies=dependencies)
    assert ("inner_of_another_type" if through else "alone") in str(refused.value)


@pytest.mark.parametrize("bypasses", [True], indirect=True)  # the message is part of `internals`
def test_the_manager_without_the_plugin_is_refused_with_the_fix() -> None:
    @get("/x")
    async def alone(sessions: Sessions) -> None: ...

    with pytest.raises(ConfigurationError, match=r"alone takes `sessions: Sessions`.*SessionPlugin\(SessionConfig"):
        build(alone, plugins=[])


def test_an_application_that_imports_only_the_annotation_is_refused_with_the_fix() -> None:
    """Without the plugin no other module of ours is imported."""
    code = """
import msgspec
from litestar import Litestar, get
from session_core import Session

class AppSession(msgspec.Struct):
    visits: int = 0

@get("/x")
async def alone(session: Session[AppSession]) -> None: ...

Litestar([alone])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "ConfigurationError: alone takes `session: Session[...]`, but the application has no SessionPlugin" in ran.stderr


@pytest.mark.parametrize("bypasses", [False], indirect=True)  # where Litestar's code is not as reviewed
def test_litestars_own_message_for_a_session_without_the_plugin_is_on_the_page_about_troubles() -> None:
    @get("/x")
    async def alone(session: Session[AppSession]) -> None: ...

    with pytest.raises(ImproperlyConfiguredException) as refused:
        build(alone, plugins=[])
    said = "Explicit dependency 'session' for 'alone' has no default value, or provided dependency"
    assert said in str(refused.value)
    page = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    assert f"`{said.replace('alone', 'NAME')}`" in page


def test_another_missing_dependency_is_refused_by_litestar() -> None:
    @get("/x")
    async def alone(tenant: NamedDependency[str]) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match="tenant"):
        build(alone)


@pytest.mark.parametrize("bypasses", [True], indirect=True)
@pytest.mark.parametrize("layer", ["handler", "controller", "router", "application"])
@pytest.mark.parametrize("public", [False, True])
def test_a_guard_without_the_plugin_is_refused_with_the_handler_and_the_fix(layer: str, public: bool) -> None:
    def at(name: str) -> list[Any]:
        return [requires_login] if layer == name else []

    class Area(Controller):
        guards = at("controller")

        @get("/x", guards=at("handler"), opt={"exclude_from_auth": public})
        async def alone(self) -> None: ...

    with pytest.raises(ConfigurationError) as refused:
        Litestar([Router("/area", route_handlers=[Area], guards=at("router"))], guards=at("application"))
    assert "alone has a guard of session_core, but the application has no SessionPlugin" in str(refused.value)
    assert "plugins=[SessionPlugin(SessionConfig(AppSession))]" in str(refused.value)


def test_the_guards_of_others_need_no_plugin() -> None:
    def open_to_all(connection: object, handler: object) -> None:
        del connection, handler

    @get("/x", guards=[open_to_all])
    async def alone() -> None: ...

    assert build(alone, plugins=[]).routes


@pytest.mark.parametrize(("guarded", "bypasses"), [(True, False), (False, False), (False, True)], indirect=["bypasses"])
async def test_a_guard_or_session_of_without_the_plugin_is_logged_with_the_handler_and_the_fix(guarded: bool) -> None:
    """Litestar answers 500 and logs nothing by default."""

    @get("/x", guards=[requires_login] if guarded else [])
    async def alone(request: Request[Any, Any, Any]) -> None:
        await session_of(request)

    with capture_logs() as logged:
        async with client_of(build(alone, plugins=[])) as client:
            assert (await client.get("/x")).status_code == 500
    (entry,) = [entry for entry in logged if entry["log_level"] == "error"]
    assert "alone uses the session" in entry["problem"]
    assert "plugins=[SessionPlugin(SessionConfig(AppSession))]" in entry["problem"]


def test_two_plugins_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two SessionPlugins"):
        build(plugins=[SessionPlugin(make_config()), SessionPlugin(make_config())])


@pytest.mark.parametrize("config", [ServerSideSessionConfig(), CookieBackendConfig(secret=b"x" * 16)])
@pytest.mark.parametrize("layer", ["application", "handler"])
def test_litestars_session_middleware_with_our_cookie_name_is_refused(config: Any, layer: str) -> None:
    @get("/x", middleware=[config.middleware] if layer == "handler" else None)
    async def both(session: Session[AppSession]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"cookie 'session'.*key="):
        build(
            both,
            middleware=[config.middleware] if layer == "application" else [],
            plugins=[SessionPlugin(make_config(cookie=CookieConfig(name="session")))],
        )


def test_litestars_session_middleware_has_another_name_by_default() -> None:
    @get("/x", middleware=[ServerSideSessionConfig().middleware])
    async def both(session: Session[AppSession]) -> None: ...

    assert build(both).routes


def test_litestars_session_middleware_with_another_cookie_name_is_accepted() -> None:
    @get("/x")
    async def both(session: Session[AppSession]) -> None: ...

    assert build(both, middleware=[ServerSideSessionConfig(key="theirs").middleware]).routes
