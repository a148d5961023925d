"""A login below a path: of the public URL, of the server (`root_path`), or of a mounting application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from litestar import Litestar, asgi, get
from starlette.applications import Starlette
from starlette.routing import Mount

from session_core import SessionPlugin
from session_core.guards import requires_login
from session_core.oidc import OidcConfig, OidcPlugin
from tests.session_core.oidc.fake_op import GET_PAGE, ISSUER, World
from tests.support.sessions import HANDLERS, make_config

pytestmark = pytest.mark.anyio

ORIGIN = "http://127.0.0.1:8000"
BASE = "/shop"
PAGE = {**GET_PAGE, "sec-fetch-site": "same-origin"}


@get("/page", guards=[requires_login])
async def page() -> str:
    return "page"


def strips(app: Any) -> Any:
    """A proxy that strips the path and sends no header about it."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].removeprefix(BASE) or "/"
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    return proxy


def strips_and_sets_root_path(app: Any) -> Any:
    """A proxy that strips the path, and a server that restores it: uvicorn's `--root-path`."""

    async def server(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": BASE}, receive, send)

    return server


def only_sets_root_path(app: Any) -> Any:
    """A server whose `root_path` is not in `path`: Granian's `--url-path-prefix`."""

    async def server(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].removeprefix(BASE) or "/"
        await app({**scope, "path": path, "raw_path": path.encode(), "root_path": BASE}, receive, send)

    return server


def mounted_in_litestar(app: Any) -> Any:
    return Litestar([asgi(BASE, is_mount=True, copy_scope=True)(app)], openapi_config=None, logging_config=None)


def mounted_in_starlette(app: Any) -> Any:
    return Starlette(routes=[Mount(BASE, app=app)])


WAYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a path of the public URL, taken off by a proxy": (BASE, strips),
    "a path of the public URL, and root_path": (BASE, strips_and_sets_root_path),
    "a path of the public URL, and root_path beside the path": (f"{BASE}/", only_sets_root_path),
    "a path of the public URL, mounted": (BASE, mounted_in_litestar),
    "root_path": ("", strips_and_sets_root_path),
    "root_path beside the path": ("", only_sets_root_path),
    "mounted in Litestar": ("", mounted_in_litestar),
    "mounted in Starlette": ("", mounted_in_starlette),
    "below a separate path": ("", lambda app: app),
    "below a separate path, as in the public URL": (BASE, lambda app: app),
}


@pytest.fixture(params=WAYS)
def world(request: pytest.FixtureRequest) -> World:
    path, serve = WAYS[request.param]
    world = World(public_url=ORIGIN)
    config = OidcConfig(
        providers=world.oidc.config.providers,
        public_url=ORIGIN + path,
        sealing=world.oidc.config.sealing,
        transport=world.oidc.config.transport,
    )
    world.sessions = SessionPlugin(make_config(public_url=ORIGIN + path, clock=world.clock, on_event=[world.events.append]))
    world.oidc = OidcPlugin(config)
    world.app = Litestar(
        [*HANDLERS, page],
        path=BASE if request.param.startswith("below") else "",
        plugins=[world.sessions, world.oidc],
        openapi_config=None,
        logging_config=None,
    )
    transport = httpx.ASGITransport(serve(world.app), raise_app_exceptions=False)
    world.browser = httpx.AsyncClient(transport=transport, base_url=ORIGIN)
    return world


async def test_a_login_returns_to_the_guarded_page_below_the_path(world: World) -> None:
    refused = await world.browser.get(f"{BASE}/page?a=1", headers=PAGE)
    assert refused.status_code == 303
    login = urlsplit(refused.headers["location"])
    assert login.path == f"{BASE}/auth/login"
    assert parse_qs(login.query)["next"] == [f"{BASE}/page?a=1"]
    started = await world.browser.get(f"{login.path}?{login.query}".replace("page=1", ""), headers=PAGE)
    assert parse_qs(urlsplit(started.headers["location"]).query)["redirect_uri"] == [f"{ORIGIN}{BASE}/auth/callback"]
    done = await world.come_back(world.op.authorize(started.headers["location"]))
    assert (done.status_code, done.headers["location"]) == (303, f"{BASE}/page?a=1")
    redeemed = next(call for call in world.op.calls if call.url.path == "/token")
    assert parse_qs(redeemed.content.decode())["redirect_uri"] == [f"{ORIGIN}{BASE}/auth/callback"]
    assert all("; Path=/;" in f"{cookie};" for cookie in done.headers.get_list("set-cookie"))
    assert (await world.browser.get(f"{BASE}/page")).text == "page"


LED: list[tuple[dict[str, str], str]] = [
    ({}, f"{BASE}/"),
    ({"next": "/page"}, f"{BASE}/page"),
    ({"next": f"{BASE}/page?x=1"}, f"{BASE}/page?x=1"),
    ({"next": BASE}, f"{BASE}/"),
    ({"next": f"{BASE}?x=1"}, f"{BASE}/?x=1"),
    ({"next": f"{BASE}ping"}, f"{BASE}{BASE}ping"),
    ({"next": f"{BASE}/auth/logout"}, f"{BASE}/"),
    ({"next": "/auth/login"}, f"{BASE}/"),
    ({"next": f"{BASE}//evil.example"}, f"{BASE}/"),
    ({"next": f"{BASE}/../x"}, f"{BASE}/"),
    ({"next": "//evil.example"}, f"{BASE}/"),
    ({"iss": ISSUER, "target_link_uri": f"{ORIGIN}{BASE}/page"}, f"{BASE}/page"),
    ({"iss": ISSUER, "target_link_uri": f"{ORIGIN}/page"}, f"{BASE}/"),
    ({"iss": ISSUER, "target_link_uri": f"{ORIGIN}{BASE}ping/page"}, f"{BASE}/"),
]


async def test_a_login_redirects_to_no_page_outside_the_path(world: World) -> None:
    for asked, led in LED:
        started = await world.browser.get(f"{BASE}/auth/login", params=asked, headers=PAGE)
        done = await world.come_back(world.op.authorize(started.headers["location"]))
        assert (done.status_code, done.headers["location"]) == (303, led), asked


async def test_logout_and_error_links_stay_below_the_path(world: World) -> None:
    started = await world.browser.get(f"{BASE}/auth/login", headers=PAGE)
    await world.come_back(world.op.authorize(started.headers["location"]))
    out = await world.browser.post(f"{BASE}/auth/logout")
    assert parse_qs(urlsplit(out.headers["location"]).query)["post_logout_redirect_uri"] == [f"{ORIGIN}{BASE}/"]
    assert (await world.browser.get(f"{BASE}/page")).status_code == 401
    out = await world.browser.post(f"{BASE}/auth/logout")
    assert out.headers["location"] == f"{BASE}/"
    failed = await world.browser.get(f"{BASE}/auth/callback?state=x", headers=PAGE)
    assert f'href="{BASE}/"' in failed.text
    form = {"iss": ISSUER, "target_link_uri": f"{ORIGIN}{BASE}/page"}
    initiated = await world.browser.post(f"{BASE}/auth/login", data=form)
    assert initiated.headers["location"].startswith(f"{BASE}/auth/login?iss=")


async def test_a_root_path_that_could_be_another_origin_is_ignored() -> None:
    world = World(public_url=ORIGIN)

    async def server(scope: Any, receive: Any, send: Any) -> None:
        await world.app({**scope, "root_path": "//evil.example", "raw_path": b""}, receive, send)  # type: ignore[arg-type]

    transport = httpx.ASGITransport(server, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as browser:
        out = await browser.post("/auth/logout")
    assert out.headers["location"] == "/"
