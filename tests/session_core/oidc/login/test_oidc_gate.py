"""Guards on the whole application leave login, callback and logout routes open."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from litestar import Litestar, get
from litestar.params import FromPath

from session_core import SessionPlugin
from session_core.guards import requires, requires_acr, requires_login, requires_recent_login, requires_role
from session_core.oidc import BatchRefresh, OidcPlugin
from tests.session_core.oidc.fake_op import GET_PAGE, ISSUER, World
from tests.support.sessions import HANDLERS, AppSession, client_of

pytestmark = pytest.mark.anyio
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@get("/open", opt={"exclude_from_auth": True})
async def open_to_all() -> str:
    return "open"


def gated(*guards: Any, **oidc: Any) -> World:
    """A world whose application has guards on all routes."""
    world = World(**oidc)
    plugins = [SessionPlugin(world.sessions.config), OidcPlugin(world.oidc.config)]
    handlers = [*HANDLERS, open_to_all, any_page]
    world.app = Litestar(handlers, guards=list(guards), plugins=plugins, openapi_config=None, logging_config=None)
    world.browser = world.new_browser()
    return world


@get("/any/{rest:path}")
async def any_page(rest: FromPath[str]) -> str:
    return rest


GUARDS = {
    "login": requires_login,
    "role": requires_role("no-such-role"),
    "recent": requires_recent_login(minutes=1),
    "acr": requires_acr("never"),
    "predicate": requires(AppSession, lambda _: False),
}


@pytest.mark.parametrize("guard", GUARDS)
async def test_login_and_logout_work_behind_a_gate(guard: str) -> None:
    world = gated(GUARDS[guard])
    assert (await world.browser.get("/public")).status_code == 401
    assert (await world.browser.get("/open")).text == "open"
    assert (await world.login()).status_code == 303
    if guard == "login":
        assert await world.subject() == "alice"
    else:
        assert (await world.browser.get("/read")).status_code in {401, 403}
    assert (await world.browser.post("/auth/logout", headers=SAME_ORIGIN)).status_code == 303
    assert (await world.browser.get("/public")).status_code == 401


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/any/50%25", "x[]=1&y={a}|^`"),
        ("/any/x(1)!;v=2@%5B%5D", "q=10%C2%A0km&path=C:\\temp"),
        ("/any/%F0%9F%98%80/%D9%85%E2%80%8C%DB%8C", "q=%E6%9D%B1%E3%80%80%E4%BA%AC&empty&=&&"),
        ("/any/.github/ci.yml", "filter[a]=1&" * 169),
        ("/any/x", "[]" * 1020),
        ("/any/" + "(x)" * 680, ""),
    ],
)
async def test_a_login_returns_to_the_page_behind_a_gate(path: str, query: str) -> None:
    """The addresses are as browsers send them, with 2,048 characters at most."""
    world = gated(requires_login)
    asked = path + (f"?{query}" if query else "")
    assert len(asked) <= 2048
    url = httpx.URL(world.public_url).copy_with(raw_path=asked.encode())
    refused = await world.browser.get(url, headers=GET_PAGE)
    sent = await world.browser.get(refused.headers["location"], headers=GET_PAGE)
    back = await world.come_back(world.op.authorize(sent.headers["location"]))
    assert unquote(back.headers["location"]) == unquote(asked)
    led_to = httpx.URL(world.public_url).copy_with(raw_path=back.headers["location"].encode())
    assert (await world.browser.get(led_to, headers=GET_PAGE)).status_code == 200


async def test_back_channel_logout_works_behind_a_gate() -> None:
    world = gated(requires_login)
    await world.login()
    assert (await world.send_logout(world.op.logout_token())).status_code == 200
    assert (await world.browser.get("/read")).status_code == 401
    assert (await world.send_logout("no token")).status_code == 400
    async with client_of(world.app) as stranger:
        assert (await stranger.get("/auth/frontchannel-logout", params={"iss": ISSUER, "sid": "x"})).status_code == 200
        assert (await stranger.get("/auth/backchannel-logout")).status_code == 405


async def test_the_batch_route_needs_only_its_key() -> None:
    world = gated(requires_login, batch_refresh=BatchRefresh(key="k" * 32))
    async with client_of(world.app) as operator:
        assert (await operator.post("/auth/refresh-tokens")).status_code == 401
        answer = await operator.post("/auth/refresh-tokens", headers={"authorization": f"Bearer {'k' * 32}"})
    assert answer.status_code == 200
