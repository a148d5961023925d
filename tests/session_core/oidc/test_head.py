"""HEAD wherever GET under /auth (RFC 9110 9.3.2), without the effects of the GET: link scanners and monitors send it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from litestar.routes import HTTPRoute
from starlette.applications import Starlette
from starlette.routing import Mount

from session_core.starlette import SessionMiddleware, StarletteSessions
from session_core.starlette.oidc import OidcRoutes
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import GET_PAGE, ISSUER, FakeOp, World
from tests.session_core.oidc.native_client import CLIENTS, LOOPBACK, Native
from tests.support.factories import ProviderFactory
from tests.support.sessions import make_config

pytestmark = pytest.mark.anyio

PUBLIC_URL = "https://app.example.org"
CROSS_SITE = {**GET_PAGE, "sec-fetch-site": "cross-site"}
NO_EFFECT = {"cache-control": "no-store", "referrer-policy": "no-referrer"}


class Site:
    """An application with every kind of provider, and a record of what it calls. `base`: its path, by `root_path`."""

    def __init__(self, framework: str, base: str) -> None:
        self.calls: list[str] = []
        self.base = base
        self.made: dict[str, FakeOp] = {}
        config = {"bearer": True, "observers": [self]}
        self.world = World(public_url=PUBLIC_URL, beside=self.others, native_clients=CLIENTS, config=config)
        self.store = self.world.sessions.store.inner
        if framework == "litestar":
            app: Any = self.world.app
            self.gets = {route.path for route in self.world.app.routes if isinstance(route, HTTPRoute) and "GET" in route.methods}
        else:
            shared = {"clock": self.world.clock, "on_event": [self.world.events.append], "store": self.store}
            sessions = StarletteSessions(make_config(public_url=PUBLIC_URL, **config, **shared))
            routes = OidcRoutes(sessions, self.world.oidc.config)
            app = SERVED[framework](routes, sessions)
            ends = {True: "/{provider_id:str}", False: ""}
            self.gets = {f"/auth{path}{ends[named]}" for method, path, named in routes._routes if method == "GET"}
        self.gets = {path for path in self.gets if path.startswith("/auth/")}

        async def served(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "root_path": base}, receive, send)

        self.world.app = served  # type: ignore[assignment]
        self.world.browser = self.browser = self.world.new_browser()

    def others(self, clock: FakeClock) -> list[tuple[Any, Any]]:
        made = []
        for name, mode in (("other", "query"), ("post", "form_post")):
            self.made[name] = FakeOp(clock, f"https://{name}.example")
            provider = ProviderFactory.build(id=name, issuer=f"https://{name}.example", response_mode=mode)
            made.append((provider, self.made[name]))
        return made

    def begin(self, name: str) -> Callable[[BaseException | None], None]:
        self.calls.append(name)
        return lambda _: None

    def state(self) -> Any:
        stored = {name: value for name, value in vars(self.store).items() if name.startswith("_") and isinstance(value, dict)}
        asked = [str(call.url) for op in (self.world.op, *self.made.values()) for call in op.calls]
        cookies = sorted((cookie.name, cookie.value) for cookie in self.browser.cookies.jar)
        return deepcopy((stored, asked, len(self.world.events), self.calls, cookies))

    async def request(self, method: str, address: str, **headers: str) -> httpx.Response:
        return await self.browser.request(method, f"{self.base}{address}", headers=headers)

    async def ask(self, method: str, address: str, *, cookies: bool, **headers: str) -> httpx.Response:
        """Send a request whose response does not change the browser's cookies."""
        async with self.world.new_browser() as client:
            if cookies:
                client.cookies.update(self.browser.cookies)
            return await client.request(method, f"{self.base}{address}", headers=headers)

    async def answer(self, name: str, link: str) -> tuple[str, dict[str, str]]:
        """Start a login; return the address and the parameters of the provider's response."""
        started = await self.request("GET", link, **GET_PAGE)
        op = self.made.get(name, self.world.op)
        address, params = op.respond(started.headers["location"])
        return urlsplit(address).path.removeprefix(self.base), params


def in_fastapi(routes: OidcRoutes, sessions: Any) -> Any:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)
    app.mount("/auth", routes)
    return app


def in_starlette(routes: OidcRoutes, sessions: Any) -> Any:
    return SessionMiddleware(Starlette(routes=[Mount("/auth", app=routes)]), sessions)


SERVED: dict[str, Callable[[OidcRoutes, Any], Any]] = {
    "fastapi": in_fastapi,
    "starlette": in_starlette,
    "plain ASGI": SessionMiddleware,
}


async def login_link(_: Site) -> tuple[str, dict[str, str]]:
    return "/auth/login?provider=default", GET_PAGE


async def login_link_of_provider(_: Site) -> tuple[str, dict[str, str]]:
    return "/auth/login/other", GET_PAGE


async def response(site: Site) -> tuple[str, dict[str, str]]:
    path, params = await site.answer("default", "/auth/login?provider=default")
    return f"{path}?{urlencode(params)}", CROSS_SITE


async def response_of_provider(site: Site) -> tuple[str, dict[str, str]]:
    path, params = await site.answer("other", "/auth/login/other")
    return f"{path}?{urlencode(params)}", CROSS_SITE


async def posted_response(site: Site) -> tuple[str, dict[str, str]]:
    path, params = await site.answer("post", "/auth/login/post")
    headers = {**CROSS_SITE, "origin": "https://post.example"}
    posted = await site.browser.post(f"{site.base}{path}", data=params, headers=headers)
    assert posted.status_code == 303, posted.text
    return posted.headers["location"].removeprefix(site.base), CROSS_SITE


async def frame(site: Site) -> tuple[str, dict[str, str]]:
    address, headers = await response(site)
    assert (await site.request("GET", address, **headers)).status_code == 303
    return f"/auth/frontchannel-logout?{urlencode({'iss': ISSUER, 'sid': site.world.op.sid})}", {}


async def frame_of_provider(site: Site) -> tuple[str, dict[str, str]]:
    address, headers = await response_of_provider(site)
    assert (await site.request("GET", address, **headers)).status_code == 303
    query = urlencode({"iss": "https://other.example", "sid": site.made["other"].sid})
    return f"/auth/frontchannel-logout/other?{query}", {}


Prepare = Callable[[Site], Awaitable[tuple[str, dict[str, str]]]]
WITH_EFFECTS: dict[str, tuple[Prepare, int]] = {
    "/auth/login": (login_link, 303),
    "/auth/login/{provider_id:str}": (login_link_of_provider, 303),
    "/auth/callback": (response, 303),
    "/auth/callback/{provider_id:str}": (response_of_provider, 303),
    "/auth/continue/{provider_id:str}": (posted_response, 303),
    "/auth/frontchannel-logout": (frame, 200),
    "/auth/frontchannel-logout/{provider_id:str}": (frame_of_provider, 200),
}
"""What makes a request for the route that has effects, and the status of the GET."""
SAFE = {
    "/auth/session": ["/auth/session"],
    "/auth/authorize": ["/auth/authorize", "/auth/authorize?client_id=desktop", "native"],
    "/auth/backchannel-logout": ["/auth/backchannel-logout"],
    "/auth/backchannel-logout/{provider_id:str}": ["/auth/backchannel-logout/other", "/auth/backchannel-logout/nowhere"],
}
"""The routes without effects, and requests for them."""


@pytest.fixture(params=[(each, base) for each in ("litestar", *SERVED) for base in ("", "/sub")], ids="".join)
def site(request: pytest.FixtureRequest) -> Site:
    return Site(*request.param)


async def test_every_get_is_listed_here(site: Site) -> None:
    assert site.gets == {*WITH_EFFECTS, *SAFE}


async def test_a_head_changes_nothing_and_the_get_works_after_it(site: Site) -> None:
    for prepare, status in WITH_EFFECTS.values():
        address, headers = await prepare(site)
        before = site.state()
        head = await site.request("HEAD", address, **headers)
        assert (head.status_code, dict(head.headers)) == (200, NO_EFFECT), address
        assert site.state() == before
        got = await site.request("GET", address, **headers)
        assert (got.status_code, "error" in got.headers.get("location", "")) == (status, False), got.text
        assert site.state() != before


async def test_a_head_discloses_nothing_about_what_it_presents(site: Site) -> None:
    """A valid and an invalid state, code, cookie, token or session of the provider get the same response."""
    token = await native_token(site)
    for prepare, _ in WITH_EFFECTS.values():
        address, headers = await prepare(site)
        path = address.partition("?")[0]
        for presented in ({}, {"authorization": f"Bearer {token}"}, {"authorization": "Bearer unknown"}):
            for query in (address, path, f"{path}?state=x&code=y&iss=z&sid=a"):
                for cookies in (False, not presented):  # a token beside a cookie is refused on every route
                    head = await site.ask("HEAD", query, cookies=cookies, **headers, **presented)
                    assert (head.status_code, dict(head.headers)) == (200, NO_EFFECT)
    unknown = await site.request("HEAD", "/auth/login/nowhere")
    assert unknown.status_code == 404


async def test_a_head_without_effects_is_answered_as_the_get(site: Site) -> None:
    token = await native_token(site)
    address, headers = await response(site)
    await site.request("GET", address, **headers)
    for addresses in SAFE.values():
        for wanted in addresses:
            asked = f"/auth/authorize?{urlencode(Native(site.world).params)}" if wanted == "native" else wanted
            for presented in ({}, {"cookies": "yes"}, {"authorization": f"Bearer {token}"}, {"authorization": "Bearer unknown"}):
                given: Any = {"cookies": bool(presented.pop("cookies", "")), **GET_PAGE, **presented}
                got, head = [await site.ask(method, asked, **given) for method in ("GET", "HEAD")]
                missing = {name for name in got.headers if name not in head.headers}
                assert (head.status_code, head.content) == (got.status_code, b""), asked
                assert dict(head.headers) == {name: value for name, value in got.headers.items() if name not in missing}
                assert not missing or (missing <= {"content-length", "content-type"} and got.content == b"")


async def test_a_post_route_refuses_a_head(site: Site) -> None:
    for path in ("/auth/logout", "/auth/token"):
        refused = await site.request("HEAD", path)
        assert refused.status_code == 405
        assert "HEAD" not in refused.headers["allow"]
    allowed = await site.browser.put(f"{site.base}/auth/login")
    assert (allowed.status_code, {"GET", "HEAD"} <= set(allowed.headers["allow"].split(", "))) == (405, True)


async def native_token(site: Site) -> str:
    native = Native(site.world)
    asked = await site.request("GET", f"/auth/authorize?{urlencode(native.params)}", **GET_PAGE)
    assert asked.status_code == 200, asked.text
    data = {**native.params, "provider": "default"}
    headers = {**GET_PAGE, "sec-fetch-site": "same-origin"}
    left = await site.browser.post(f"{site.base}/auth/authorize", data=data, headers={**headers, "accept": "*/*"})
    address, params = site.world.op.respond(left.headers["location"])
    path = urlsplit(address).path.removeprefix(site.base)
    back = await site.request("GET", f"{path}?{urlencode(params)}", **{**CROSS_SITE, "accept": "*/*"})
    code = httpx.URL(back.headers["location"]).params["code"]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": "desktop",
        "redirect_uri": LOOPBACK,
        "code_verifier": native.verifier,
    }
    async with site.world.new_browser() as client:
        redeemed = await client.post(f"{site.base}/auth/token", data=form)
    assert redeemed.status_code == 200, redeemed.text
    return str(redeemed.json()["access_token"])
