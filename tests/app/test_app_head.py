"""HEAD wherever GET (RFC 9110 9.3.2): as the GET, without content; without effects where the GET has some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, unquote

import pytest
from litestar import get
from litestar.response import ServerSentEvent
from litestar.routes import HTTPRoute

from session_core import Session
from session_core.cookies import sign_cookie
from tests.app.conftest import Running, Start

pytestmark = pytest.mark.anyio

PAGE = {"accept": "text/html,*/*;q=0.8", "sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
WITH_EFFECTS = {"/auth/login", "/auth/callback", "/auth/frontchannel-logout", "/api/userinfo"}
"""Their GET starts a login, uses up a code, ends a session, or refreshes a token at the provider."""
CHANGING = {"x-request-id"}
MEASURED = {"/metrics"}
"""Their content depends on the requests before."""


def get_paths(running: Running) -> list[str]:
    paths = []
    for route in running.app.routes:
        if isinstance(route, HTTPRoute) and "GET" in route.methods:
            assert "HEAD" in route.route_handler_map, route.path
            paths.append(route.path)
    assert len(paths) > 20
    return paths


async def messages_of(running: Running, method: str, path: str, headers: dict[str, str]) -> list[Any]:
    """What a server is sent: an HTTP client would drop the content of a HEAD itself."""
    given, _, query = path.partition("?")
    scope: Any = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": given,
        "raw_path": given.encode(), "query_string": query.encode(), "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("localhost", 8000), "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    sent: list[Any] = []
    received = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(received, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    await running.app(scope, receive, send)
    return sent


async def test_every_get_route_answers_a_head_with_its_status_and_headers(running: Running) -> None:
    async with running.client() as browser:
        user = await running.log_in(browser, "admin", roles=("admin", "user"))
        other = await running.log_in(browser, "bob")
        await running.log_in(browser, "admin", roles=("admin", "user"))
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        (summary, *_) = await running.plugin.sessions.list_for(user)
        names = {"{key:str}": other.user_key, "{name:str}": "app.css", "{handle:str}": summary.handle}
        for template in get_paths(running):
            path = template
            for name, value in names.items():
                path = path.replace(name, value)
            if template in WITH_EFFECTS:
                continue
            for headers in (PAGE, {"host": "localhost:8000", "cookie": cookie, **PAGE}, {"accept": "application/json"}):
                got, *_ = await messages_of(running, "GET", path, headers)
                head, *ends = await messages_of(running, "HEAD", path, headers)
                assert ends == [{"type": "http.response.body", "body": b"", "more_body": False}], path
                assert head["status"] == got["status"], path
                of_get, of_head = (fields(message, CHANGING) for message in (got, head))
                if of_get.get("content-length") == "0" or path in MEASURED:
                    of_get.pop("content-length", None)
                    of_head.pop("content-length", None)
                    of_get.pop("content-type", None)
                    of_head.pop("content-type", None)
                assert of_head == of_get, path


def fields(start: Any, without: set[str]) -> dict[str, str]:
    given = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return {name: value for name, value in given.items() if name not in without}


async def test_a_head_has_no_effect_where_the_get_has_one(running: Running) -> None:
    async with running.client(**PAGE) as browser:
        await running.log_in(browser)
        me = (await browser.get("/api/session")).json()
        for path in sorted(WITH_EFFECTS):
            for query in ("", "?state=x&code=y&iss=z&sid=op-alice"):
                head = await browser.head(path + query)
                assert (head.status_code, head.content, "no-store" in head.headers["cache-control"]) == (200, b"", True), path
                assert not {"set-cookie", "location", "content-length"} & set(head.headers)
        assert (await browser.get("/api/session")).json() == me
    async with running.client() as visitor:
        assert (await visitor.head("/api/userinfo")).status_code == 401


async def test_a_head_extends_the_session_as_a_get_does(running: Running) -> None:
    async with running.client() as browser:
        await running.log_in(browser)
        for _ in range(3):
            running.clock.advance(seconds=2400)
            assert (await browser.head("/account")).status_code == 200
        assert (await browser.get("/api/me")).status_code == 200
        for _ in range(3):
            running.clock.advance(seconds=2400)
            await browser.head("/auth/session")
        assert (await browser.get("/api/me")).status_code == 401


async def test_a_head_renews_the_cookie_as_a_get_does(start: Start) -> None:
    new, old = "n" * 40, "o" * 40
    async with start(session_secrets=[new, old]) as running, running.client() as browser:
        await running.log_in(browser)
        (cookie,) = browser.cookies.jar
        session_id = unquote(cookie.value or "").removeprefix("s:").rpartition(".")[0]
        renewed = []
        for method in ("GET", "HEAD"):
            browser.cookies.set(cookie.name, quote(sign_cookie(session_id, old), safe=""), domain="localhost.local")
            renewed.append((await browser.request(method, "/")).headers["set-cookie"])
        assert renewed[0] == renewed[1]


async def test_a_head_of_a_page_does_not_use_up_its_message(running: Running) -> None:
    async with running.browser() as browser:
        await browser.post("/session/visits")
        head = await browser.head("/")
        assert (head.status_code, "set-cookie" in head.headers) == (200, False)
        assert "Your visit is counted." in (await browser.get("/")).text
        assert "Your visit is counted." not in (await browser.get("/")).text


async def test_a_head_of_an_event_stream_ends_it(running: Running) -> None:
    async def events() -> AsyncIterator[str]:
        yield "first"
        await asyncio.Event().wait()

    @get("/events", include_in_schema=False)
    async def stream(session: Session) -> ServerSentEvent:
        del session
        return ServerSentEvent(events())

    running.app.register(stream)
    async with running.client() as browser, asyncio.timeout(30):
        await running.log_in(browser)
        head = await browser.head("/events")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"].startswith("text/event-stream")
