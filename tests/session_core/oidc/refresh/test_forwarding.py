"""Calls to an API on behalf of the user: the `httpx2` authentication, and the forwarding route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import msgspec
import pytest
from litestar import Litestar, get
from litestar.exceptions import NotFoundException
from litestar.params import FromQuery

from session_core import ConfigurationError, Session, SessionPlugin
from session_core.guards import requires_login
from session_core.oidc import ForwardPlugin, OidcConfig, OidcPlugin, Tokens, Upstream
from session_core.sealing import SealingKeys
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import GET_PAGE, FakeOp
from tests.support.factories import ProviderFactory
from tests.support.sessions import HANDLERS, AppSession, client_of, make_config

pytestmark = pytest.mark.anyio
API = "https://api.example"
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}
MANY = 120
"""More than an `httpx2` client's own limit of connections."""


class Api:
    """An API that accepts the provider's newest access token."""

    def __init__(self) -> None:
        self.calls: list[httpx2.Request] = []
        self.refused: set[str] = set()
        self.answer = httpx2.Response(200, json={"orders": [1]}, headers={"etag": '"1"', "set-cookie": "api=1", "server": "x"})
        self.fails: Exception | None = None

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.calls.append(request)
        if self.fails is not None:
            raise self.fails
        if request.headers.get("authorization", "").removeprefix("Bearer ") in {"", *self.refused}:
            return httpx2.Response(401)
        return httpx2.Response(self.answer.status_code, headers=self.answer.headers, content=self.answer.content)


class Site:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.op, self.api = FakeOp(self.clock), Api()
        self.op.refreshable = True
        config = OidcConfig(
            providers=[ProviderFactory.build()],
            public_url="http://127.0.0.1:8000",
            sealing=SealingKeys([b"k" * 32]),
            transport=httpx2.MockTransport(self.op.handle),
        )
        transport = httpx2.MockTransport(self.api.handle)
        orders = Upstream(path="/api/orders", url=f"{API}/v1", methods=["GET", "POST"])

        self.shared = httpx2.AsyncClient(transport=transport)

        @get("/shared")
        async def shared(session: Session[AppSession], tokens: Tokens) -> int:
            return (await self.shared.get(f"{API}/orders", auth=tokens.auth(session, API))).status_code

        @get("/call")
        async def call(session: Session[AppSession], tokens: Tokens, where: FromQuery[str] = API) -> int:
            async with httpx2.AsyncClient(transport=transport, auth=tokens.auth(session, API)) as client:
                return (await client.get(f"{where}/orders")).status_code

        self.app = Litestar(
            [*HANDLERS, call, shared],
            plugins=[
                SessionPlugin(make_config(clock=self.clock, public_url="http://127.0.0.1:8000")),
                OidcPlugin(config),
                ForwardPlugin([orders], guards=[requires_login], transport=transport),
            ],
            openapi_config=None,
            logging_config=None,
        )

    async def log_in(self, client: httpx.AsyncClient) -> None:
        started = await client.get("/auth/login", headers=GET_PAGE)
        answer = self.op.authorize(started.headers["location"])
        assert (await client.get(answer, headers={**GET_PAGE, "sec-fetch-site": "cross-site"})).status_code == 303


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(site.app) as client:
        await site.log_in(client)
        yield client


async def test_the_token_is_refreshed_once_after_a_401(site: Site, browser: httpx.AsyncClient) -> None:
    assert (await browser.get("/call")).json() == 200
    old = site.api.calls[-1].headers["authorization"].removeprefix("Bearer ")
    site.api.refused.add(old)
    assert (await browser.get("/call")).json() == 200
    assert len(site.api.calls) == 3
    assert site.api.calls[-1].headers["authorization"] != f"Bearer {old}"


async def test_an_api_that_refuses_every_token_is_called_twice(site: Site, browser: httpx.AsyncClient) -> None:
    site.api.answer = httpx2.Response(401)
    assert (await browser.get("/call")).json() == 401
    assert len(site.api.calls) == 2


@pytest.mark.attack("77")
async def test_the_token_is_sent_to_its_own_origin_only(site: Site, browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/call", params={"where": "https://evil.example"})
    assert answer.status_code == 500
    assert site.api.calls == []


async def test_a_request_is_forwarded_with_the_token_and_without_the_cookie(site: Site, browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/api/orders/7", params={"full": "1"}, headers={**SAME_ORIGIN, "x-own": "1", "accept": "text/csv"})
    assert (answer.status_code, answer.json()) == (200, {"orders": [1]})
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert "set-cookie" not in answer.headers
    assert "server" not in answer.headers
    sent = site.api.calls[-1]
    assert str(sent.url) == f"{API}/v1/7?full=1"
    assert sent.headers["authorization"].startswith("Bearer ")
    assert sent.headers["accept"] == "text/csv"
    assert {"cookie", "x-own", "sec-fetch-site", "origin"}.isdisjoint(sent.headers)


@pytest.mark.parametrize("path", ["/shared", "/api/orders"])
async def test_a_cookie_of_the_api_reaches_no_other_user(site: Site, browser: httpx.AsyncClient, path: str) -> None:
    """The client is shared; an API that sets a session cookie would take the next user for the first one."""
    await site.log_in(browser)
    async with client_of(site.app) as other:
        await site.log_in(other)
        for each in (browser, other, browser):
            assert (await each.get(path, headers=SAME_ORIGIN)).status_code == 200
    assert len(site.api.calls) == 3
    assert [call.headers.get("cookie") for call in site.api.calls] == [None] * 3


async def test_a_body_is_forwarded_and_other_methods_are_refused(site: Site, browser: httpx.AsyncClient) -> None:
    await browser.post("/api/orders", json={"item": 1}, headers=SAME_ORIGIN)
    assert msgspec.json.decode(site.api.calls[-1].content) == {"item": 1}
    assert str(site.api.calls[-1].url) == f"{API}/v1"
    assert (await browser.delete("/api/orders/7", headers=SAME_ORIGIN)).status_code == 405


@pytest.mark.attack("77")
@pytest.mark.parametrize(
    "path",
    [
        "/../admin", "/%2e%2e/admin", "/a/%2e%2e%2f%2e%2e/x", "/a%5c..%5cx", "/%252e%252e/x", "/a%00", "/a%2Fb", "/a%2fb?x=%2f",
        "/..;/admin", "/..;x=1/admin", "/%2e%2e%3bx/admin", "/a/.;/x", "/a/;x/b", "/..%20/x", "/..%C2%A0/x", "/a/.../x",
        "/%EF%BC%8E%EF%BC%8E/x", "/%E2%80%A5/x", "/a%EF%BC%8Fb", "/a%EF%BC%BCb",
    ],
)  # fmt: skip
async def test_no_path_leaves_the_prefix(site: Site, browser: httpx.AsyncClient, path: str) -> None:
    url = httpx.URL("http://127.0.0.1:8000").copy_with(raw_path=f"/api/orders{path}".encode())
    answer = await browser.get(url, headers=SAME_ORIGIN)
    assert answer.status_code in {404, 405}
    assert site.api.calls == []


@pytest.mark.attack("77")
@pytest.mark.parametrize("query", [b"a=\xff", b"a=b#c", b"a b", b"a=b\r\nx: y", b"a\x00"])
def test_a_query_that_no_client_sends_is_refused(query: bytes) -> None:
    upstream = Upstream(path="/api/orders", url=API)
    with pytest.raises(NotFoundException):
        upstream.target("/api/orders/1", query)


@pytest.mark.parametrize("path", ["/a.b/..c/d..", "/a;b=1/c", "/...x", "/%C3%A9", "/a b", "/a?b=%00&c=d/../e"])
async def test_an_unusual_path_is_forwarded(site: Site, browser: httpx.AsyncClient, path: str) -> None:
    assert (await browser.get(f"/api/orders{path}", headers=SAME_ORIGIN)).status_code == 200
    assert site.api.calls[-1].url == httpx2.URL(f"{API}/v1{path}")


@pytest.mark.attack("77")
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "none", "origin": "null"},
    ],
)
async def test_other_sites_cannot_reach_the_api(site: Site, browser: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await browser.get("/api/orders", headers=headers)).status_code == 403
    assert site.api.calls == []


async def test_a_visitor_cannot_reach_the_api(site: Site) -> None:
    async with client_of(site.app) as client:
        assert (await client.get("/api/orders", headers=SAME_ORIGIN)).status_code == 401
    assert site.api.calls == []


@pytest.mark.attack("77")
async def test_a_redirect_of_the_api_is_not_followed(site: Site, browser: httpx.AsyncClient) -> None:
    site.api.answer = httpx2.Response(302, headers={"location": "https://evil.example/"})
    answer = await browser.get("/api/orders", headers=SAME_ORIGIN)
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream")
    assert len(site.api.calls) == 1


@pytest.mark.parametrize(("fault", "status"), [(httpx2.ConnectError("x"), 502), (httpx2.ReadTimeout("x"), 504)])
async def test_an_api_that_is_down_is_a_gateway_error(
    site: Site, browser: httpx.AsyncClient, fault: Exception, status: int
) -> None:
    site.api.fails = fault
    assert (await browser.get("/api/orders", headers=SAME_ORIGIN)).status_code == status


async def test_an_api_that_hangs_does_not_delay_another(site: Site) -> None:
    waiting: list[asyncio.StreamWriter] = []
    hung = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.append(writer)
        if len(waiting) == MANY:
            hung.set()
        await reader.read()
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as one, await asyncio.start_server(answer, "127.0.0.1", 0) as two:
        urls = [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in (one, two)]
        forward = ForwardPlugin([Upstream(path=path, url=url) for path, url in zip(("/slow", "/fast"), urls, strict=True)])
        plugins = [site.app.plugins.get(SessionPlugin), site.app.plugins.get(OidcPlugin), forward]
        app = Litestar(plugins=plugins, openapi_config=None, logging_config=None)
        async with client_of(app) as client:
            await site.log_in(client)
            calls = [asyncio.ensure_future(client.get("/slow", headers=SAME_ORIGIN)) for _ in range(MANY)]
            async with asyncio.timeout(60):
                await hung.wait()
            assert (await client.get("/fast", headers=SAME_ORIGIN)).status_code == 204
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.gather(*(writer.wait_closed() for writer in waiting))


async def test_fifty_concurrent_calls_refresh_once(site: Site, browser: httpx.AsyncClient) -> None:
    await browser.get("/api/orders", headers=SAME_ORIGIN)
    site.api.refused.add(site.api.calls[-1].headers["authorization"].removeprefix("Bearer "))
    before = site.op.count("/token")
    answers = await asyncio.gather(*(browser.get("/api/orders", headers=SAME_ORIGIN) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert site.op.count("/token") == before + 1


MALFORMED = [
    "", "api.example", "ftp://api.example", "https://", "https://user:password@api.example", "https://api.example/?q",
    "https://api.example/#f", "https://api.example/v1/vä", "https://äpi.example", "https://api.example/a b",
    "https://api.example/a%20b", "https://api.example/%2e%2e/x", "https://api.example/../x", "https://api.example/a\\b",
    "https://api.example/a\r\nX: y", "https://api.example/\udcff", "https://[::1", "https://api.example:", "https://api.example:99999",
    "https://api..example", "https://*.example",
]  # fmt: skip


@pytest.mark.parametrize("url", ["http://orders:8080", "https://[::1]:1/a-b/~c.d_e/f;g@h:i/", "HTTPS://API.example/"])
def test_the_url_of_an_upstream_is_what_requests_are_sent_to(url: str) -> None:
    upstream = Upstream(path="/api/orders", url=url)
    assert str(upstream.target("/api/orders/1", b"q=2")) == str(httpx2.URL(url)).rstrip("/") + "/1?q=2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "api"}, "plain path"),
        ({"path": "/api/../x"}, "plain path"),
        *(({"url": url}, "url of the upstream /api/orders is http") for url in MALFORMED),
        ({"methods": ["TRACE"]}, "methods must be"),
        ({"request_headers": ["Cookie"]}, "cannot be forwarded"),
        ({"response_headers": ["set-cookie"]}, "cannot be forwarded"),
    ],
)
def test_unsafe_options_are_refused_at_start(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"path": "/api/orders", "url": API, **change}
    with pytest.raises(ConfigurationError, match=message) as refused:
        Upstream(**given)
    assert "password" not in str(refused.value)
