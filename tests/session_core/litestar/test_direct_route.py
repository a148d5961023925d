"""Handlers called directly respond exactly as through Litestar, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import pytest
from litestar import Litestar, MediaType, Request, Response, get, head, post
from litestar.background_tasks import BackgroundTask
from litestar.connection import ASGIConnection
from litestar.datastructures import CacheControlHeader, Cookie, ResponseHeader
from litestar.di import NamedDependency, Provide
from litestar.dto import DataclassDTO, DTOConfig
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromQuery, JSONBody
from litestar.response import Redirect, Stream
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Empty, Receive, Scope, Send

from session_core import Session, SessionPlugin, session_of
from session_core.litestar import internals
from session_core.litestar.internals import HANDLING, call_directly
from tests.support.sessions import AppSession, client_of, make_config

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("bypasses", [True], indirect=True),
]  # the tests set the switch themselves


class Answer(msgspec.Struct):
    theme: str


class Awaited(msgspec.Struct):
    theme: str

    def __await__(self) -> Any:
        yield from ()
        return {"awaited": self.theme}


@dataclass
class Person:
    name: str
    secret: str = "not shown"


class PersonDTO(DataclassDTO[Person]):
    config = DTOConfig(exclude={"secret"})


class Odd:
    """A type that only the application's encoder supports."""


class Other(Response[Any]):
    """The application's own response class."""


ran: list[str] = []


@get("/dict")
async def a_dict(session: Session[AppSession]) -> dict[str, Any]:
    return {"theme": session.data.theme, "é": [1, None, True]}


@get("/sync", sync_to_thread=False)
def synchronous(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/thread", sync_to_thread=True)
def in_a_thread(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/list")
async def a_list(session: Session[AppSession]) -> list[str]:
    return [session.data.theme]


@get("/struct")
async def a_struct(session: Session[AppSession]) -> Answer:
    return Answer(session.data.theme)


@get("/awaited")
async def awaited(session: Session[AppSession]) -> Any:
    return Awaited(session.data.theme)


@get("/dataclass")
async def a_dataclass(session: Session[AppSession]) -> Person:
    return Person(session.data.theme)


@get("/dto", return_dto=PersonDTO)
async def by_dto(session: Session[AppSession]) -> Person:
    return Person(session.data.theme)


@get("/text")
async def a_text(session: Session[AppSession]) -> str:
    return session.data.theme


@get("/bytes", media_type="application/json")
async def some_bytes(session: Session[AppSession]) -> bytes:
    return b'{"theme":"%s"}' % session.data.theme.encode()


@get("/empty", media_type=MediaType.TEXT)
async def empty(session: Session[AppSession]) -> dict[str, str]:
    del session
    return {}


@get("/problem", media_type="application/problem+json", status_code=409)
async def a_problem(session: Session[AppSession]) -> dict[str, str]:
    return {"title": session.data.theme}


@get("/msgpack", media_type=MediaType.MESSAGEPACK)
async def packed(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/none")
async def none(session: Session[AppSession]) -> None:
    del session


@get("/status", status_code=204)
async def without_body(session: Session[AppSession]) -> None:
    del session


@head("/head")
async def heads(session: Session[AppSession]) -> None:
    del session


@get("/response")
async def a_response(session: Session[AppSession]) -> Response[dict[str, str]]:
    return Response({"theme": session.data.theme}, status_code=418, headers={"x-made": "here"})


@get("/redirect")
async def redirects(session: Session[AppSession]) -> Redirect:
    return Redirect(f"/{session.data.theme}")


@get("/stream")
async def streams(session: Session[AppSession]) -> Stream:
    return Stream(iter([session.data.theme.encode(), b"!"]))


@get("/asgi")
async def an_application(session: Session[AppSession]) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await Response({"app": session.data.theme}).to_asgi_response(app=None, request=Request(scope))(scope, receive, send)

    return answer


@get(
    "/headers", response_headers=[ResponseHeader(name="X-Frame", value="none"), ResponseHeader(name="x", documentation_only=True)]
)
async def with_headers(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/typed", response_headers={"Content-Type": "application/json; odd"})
async def with_type(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/cached", cache_control=CacheControlHeader(max_age=5))
async def with_cache_control(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/cookies", response_cookies=[Cookie(key="shown", value="1"), Cookie(key="told", documentation_only=True)])
async def with_cookies(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/background", background=BackgroundTask(ran.append, "background"))
async def with_background(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/class", response_class=Other)
async def by_class(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/encoders", type_encoders={Odd: lambda _: "odd"})
async def with_encoders(session: Session[AppSession]) -> dict[str, Any]:
    return {"theme": session.data.theme, "odd": Odd()}


@get("/unknown")
async def of_unknown_type(session: Session[AppSession]) -> dict[str, Any]:
    return {"theme": session.data.theme, "odd": Odd()}


async def before(request: Request[Any, Any, Any]) -> dict[str, str] | None:
    ran.append("before")
    return {"instead": request.url.path} if "stop" in request.query_params else None


async def after(response: Response[Any]) -> Response[Any]:
    response.headers["x-after"] = "1"
    return response


async def later(request: Request[Any, Any, Any]) -> None:
    ran.append(f"later {request.url.path}")


@get("/before", before_request=before)
async def with_hook_before(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/after", after_request=after)
async def with_hook_after(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/later", after_response=later)
async def with_hook_later(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


async def theme_of(session: Session[AppSession]) -> str:
    return session.data.theme


@get("/dependency", dependencies={"theme": Provide(theme_of)})
async def with_dependency(session: Session[AppSession], theme: NamedDependency[str]) -> list[str]:
    return [session.data.theme, theme]


async def only_dark(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    session = await session_of(connection)
    if session.data.theme != "dark":
        raise NotAuthorizedException


@get("/guarded", guards=[only_dark])
async def guarded(session: Session[AppSession]) -> dict[str, str]:
    return {"theme": session.data.theme}


@get("/no-parameter", guards=[only_dark])
async def without_parameters() -> list[int]:
    return [1]


@post("/body")
async def with_body(session: Session[AppSession], data: JSONBody[Answer], q: FromQuery[int] = 1) -> dict[str, Any]:
    session.data.theme = "dark" if data.theme == "dark" else "light"
    return {"theme": data.theme, "q": q}


@post("/form")
async def with_form(session: Session[AppSession], request: Request[Any, Any, Any]) -> dict[str, Any]:
    form = await request.form()
    return {"theme": session.data.theme, "content": (await form["file"].read()).decode(), "name": form["file"].filename}


@get("/refuses")
async def refuses(session: Session[AppSession], code: FromQuery[int] = 1) -> dict[str, int]:
    raise NotAuthorizedException(session.data.theme * code)


@get("/fails")
async def fails(session: Session[AppSession]) -> dict[str, int]:
    raise RuntimeError(session.data.theme)


HANDLERS: list[Any] = [
    a_dict, synchronous, in_a_thread, a_list, a_struct, awaited, a_dataclass, by_dto, a_text, some_bytes, empty, a_problem,
    packed, none, without_body, heads, a_response, redirects, streams, an_application, with_headers, with_type,
    with_cache_control, with_cookies, with_background, by_class, with_encoders, of_unknown_type, with_hook_before,
    with_hook_after, with_hook_later, with_dependency, guarded, without_parameters, with_body, with_form, refuses, fails,
]  # fmt: skip
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    *(("GET", path, {}) for handler in HANDLERS for path in handler.paths if "GET" in handler.http_methods),
    ("HEAD", "/head", {}), ("OPTIONS", "/dict", {}), ("PUT", "/dict", {}), ("GET", "/before?stop=1", {}),
    ("GET", "/refuses?code=2", {}), ("GET", "/refuses?code=x", {}),
    ("POST", "/body?q=7", {"json": {"theme": "dark"}}), ("POST", "/body?q=x", {"json": {"theme": "dark"}}),
    ("POST", "/body", {"content": b"{", "headers": {"content-type": "application/json"}}),
    ("POST", "/body", {"json": {"theme": 1}}),
    ("POST", "/form", {"files": {"file": ("name.txt", b"content")}}),
]  # fmt: skip


async def _answers(**options: Any) -> list[Any]:
    for handler in HANDLERS:  # copies of a handler, one for each application, share the state created for the first
        handler._response_handler_mapping = {"default_handler": Empty, "response_type_handler": Empty}
    app = Litestar(HANDLERS, plugins=[SessionPlugin(make_config())], openapi_config=None, logging_config=None, **options)
    found: list[Any] = []
    ran.clear()
    async with client_of(app) as client:
        for _ in range(2):  # as a visitor, and with a session whose theme is dark
            for method, path, given in REQUESTS:
                got = await client.request(method, path, **given)
                headers = [(name, value) for name, value in got.headers.raw if name != b"set-cookie"]
                cookies = [value.partition("=")[0] for value in got.headers.get_list("set-cookie")]
                found.append((method, path, got.status_code, headers, cookies, got.content))
    return [*found, *ran]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"response_headers": {"x-everywhere": "1", "X-Other": "é"}, "type_encoders": {Odd: lambda _: "an odd one"}},
        {"after_request": after, "response_cookies": {"everywhere": "1"}},
        {"response_class": Other, "guards": [only_dark]},
    ],
)
async def test_every_handler_responds_as_through_litestar(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    directly = await _answers(**options)
    monkeypatch.setattr(internals, "enabled", False)
    by_litestar = await _answers(**options)
    for mine, theirs in zip(directly, by_litestar, strict=True):
        assert mine == theirs


def _routes(app: Litestar) -> dict[str, HTTPRoute]:
    return {route.path: route for route in app.routes if isinstance(route, HTTPRoute)}


def test_the_locked_litestar_is_bypassed() -> None:
    """Which handlers are called directly with the locked version."""
    app = Litestar(HANDLERS, plugins=[SessionPlugin(make_config())], openapi_config=None, logging_config=None)
    routes = _routes(app)
    served: list[Any] = [route.handle for route in routes.values()]
    assert not [each for each in served if call_directly(each) is each]
    plans = {path: routes[path].route_handler_map["GET"] for path in ("/dict", "/struct", "/headers", "/guarded", "/dependency")}
    assert all(internals._encoder_of(handler)({"a": 1}) == b'{"a":1}' for handler, _ in plans.values())
    called = {path: internals._call_of(handler, model) is not None for path, (handler, model) in plans.items()}
    assert called == {"/dict": True, "/struct": True, "/headers": True, "/guarded": True, "/dependency": False}


@pytest.mark.parametrize("name", [name for name in HANDLING if name not in internals.INJECTION])
def test_any_difference_in_litestar_disables_the_bypass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANDLING, name, {"0"})
    app = Litestar([a_dict], plugins=[SessionPlugin(make_config())], openapi_config=None, logging_config=None)
    route = _routes(app)["/dict"]
    served: Any = route.handle
    assert call_directly(served) is served


@pytest.mark.parametrize("app", [object(), partial(print), "text".upper])
def test_objects_other_than_routes_are_left_unchanged(app: Any) -> None:
    assert call_directly(app) is app
