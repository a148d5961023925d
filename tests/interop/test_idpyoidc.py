"""Login, refresh and every kind of logout at idpyoidc."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.interop.application import OFFLINE, Application, serve
from tests.interop.conftest import url_of
from tests.interop.provider_process import Provider, running_program
from tests.support.hostile_op.browser import Browser, Page

pytestmark = pytest.mark.anyio
# It compares the client's secret without the form decoding of RFC 6749 2.3.1.
SECRET = "a-secret-without-any-character-to-encode"
Start = Callable[..., AbstractAsyncContextManager[Application]]


@pytest.fixture(scope="module")
def idpyoidc(address: socket.socket) -> Iterator[Provider]:
    url = url_of(address)
    common: dict[str, Any] = {
        "client_secret": SECRET,
        "redirect_uris": [[f"{url}/auth/callback", {}]],
        "post_logout_redirect_uri": [[f"{url}/public", None]],
        "response_types": ["code"],
        "allowed_scopes": ["openid", "profile", "email", "offline_access"],
    }
    clients = [
        {**common, "client_id": "back", "backchannel_logout_uri": f"{url}/auth/backchannel-logout"},
        {
            **common,
            "client_id": "front",
            "frontchannel_logout_uri": f"{url}/auth/frontchannel-logout",
            "frontchannel_logout_session_required": True,
        },
    ]
    with running_program("idpyoidc_provider.py", clients) as provider:
        yield provider


@pytest.fixture
def start(idpyoidc: Provider, address: socket.socket) -> Start:
    def started(client_id: str, **options: Any) -> AbstractAsyncContextManager[Application]:
        return serve(
            Application(
                url_of(address),
                idpyoidc,
                client_id,
                **{**OFFLINE, "client_secret": SECRET, "logout_token_typ": "if_present", **options},
            ),
            address,
        )

    return started


async def log_out_at_the_provider(application: Application, browser: Browser, hint: str | None) -> Page:
    """Log out on the provider's own pages, without a request to the application."""
    tab = browser.tab()
    page = await tab.open(f"{application.provider.issuer}/session?id_token_hint={hint}")
    jwt = re.search(r'name="sjwt" value="([^"]*)"', page.text)
    assert jwt is not None, page.text
    return await tab.submit("/rp_logout", {"sjwt": jwt[1]})


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_login_sets_the_users_claims(start: Start, method: str) -> None:
    async with start("back", token_endpoint_auth_method=method) as application:
        browser = application.browser()
        page = await application.login(browser)
        assert (page.url, page.status) == (f"{application.url}/me", 200), page.text
        assert (await application.home(browser).fetch("/userinfo")).json()["sub"] == page.json()["subject"]


async def test_refresh_tokens_are_used_once(start: Start) -> None:
    async with start("back") as application:
        browser = application.browser()
        await application.login(browser)
        held = [await application.held(browser)]
        for _ in range(2):
            application.clock.ahead_seconds += (held[-1].lifetime or 0) + 1
            token = await application.home(browser).fetch("/token")
            assert token.status == 200, token.text
            held.append(await application.held(browser))
        assert len({tokens.access_token for tokens in held}) == 3
        assert len({tokens.refresh_token for tokens in held}) == 3
        assert application.reasons("tokens.refresh_failed") == []


async def test_a_back_channel_logout_of_the_provider_ends_the_session(start: Start) -> None:
    async with start("back") as application:
        browser, other = application.browser(), application.browser()
        await application.login(browser)
        hint = (await application.held(browser)).id_token
        await log_out_at_the_provider(application, browser, hint)
        assert application.reasons("logout.rejected") == []
        assert application.reasons("logout.backchannel") == ["sid"]
        assert await application.who(browser) is None
        await application.login(other)
        assert await application.who(other) is not None


async def test_a_front_channel_logout_of_the_provider_ends_the_session(start: Start) -> None:
    async with start("front") as application:
        browser = application.browser()
        await application.login(browser)
        hint = (await application.held(browser)).id_token
        page = await log_out_at_the_provider(application, browser, hint)
        address = re.search(r'<iframe src="([^"]*)"', page.text)
        assert address is not None, page.text
        frame = await browser.tab(page.url).frame(unescape(address[1]))
        assert frame.status == 200
        assert application.reasons("logout.frontchannel") == ["sid"]
        assert await application.who(browser) is None


async def test_a_local_logout_redirects_to_the_provider_and_back(start: Start) -> None:
    async with start("back") as application:
        browser = application.browser()
        await application.login(browser)
        tab = application.home(browser)
        page = await tab.submit("/auth/logout")
        assert await application.who(browser) is None
        jwt = re.search(r'name="sjwt" value="([^"]*)"', page.text)
        assert jwt is not None, page.text
        back = await tab.submit("/rp_logout", {"sjwt": jwt[1]})
        assert (back.url.partition("?")[0], back.status) == (f"{application.url}/public", 200)
        assert set(parse_qs(urlsplit(back.url).query)) == {"state"}
