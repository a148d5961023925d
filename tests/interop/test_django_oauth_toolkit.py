"""Login, refresh, step-up and logout at django-oauth-toolkit, which supports neither back-channel nor front-channel logout."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tests.interop.application import SECRET, Application, serve
from tests.interop.conftest import url_of
from tests.interop.provider_process import Provider, running_program

pytestmark = pytest.mark.anyio
Start = Callable[..., AbstractAsyncContextManager[Application]]


@pytest.fixture(scope="module")
def django(address: socket.socket) -> Iterator[Provider]:
    url = url_of(address)
    client = {
        "client_id": "app",
        "client_secret": SECRET,
        "redirect_uris": f"{url}/auth/callback",
        "post_logout_redirect_uris": f"{url}/public",
    }
    with running_program("django_provider.py", [client], path="/o") as provider:
        yield provider


@pytest.fixture
def start(django: Provider, address: socket.socket) -> Start:
    def started(**options: Any) -> AbstractAsyncContextManager[Application]:
        options.setdefault("scopes", ("openid", "email"))
        return serve(Application(url_of(address), django, "app", **options), address)

    return started


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_login_sets_the_users_claims(start: Start, method: str) -> None:
    async with start(token_endpoint_auth_method=method) as application:
        browser = application.browser()
        page = await application.login(browser)
        assert (page.url, page.status) == (f"{application.url}/me", 200), page.text
        assert await application.who(browser) == page.json()["subject"]
        assert (await application.home(browser).fetch("/userinfo")).json()["sub"] == page.json()["subject"]


async def test_a_refresh_works_before_and_after_a_login_in_another_browser(start: Start) -> None:
    async with start() as application:
        browser, other = application.browser(), application.browser()
        await application.login(browser)
        first = await application.held(browser)
        # A new login changes the `auth_time` in refreshed ID tokens of every session of the user.
        await application.login(other)
        application.clock.ahead_seconds += (first.lifetime or 0) + 1
        token = await application.home(browser).fetch("/token")
        assert token.status == 200, token.text
        assert token.text not in {first.access_token, ""}
        second = await application.held(browser)
        assert second.refresh_token not in {first.refresh_token, None}
        assert await application.who(browser) == await application.who(other)
        assert "tokens.refreshed" in [event.name for event in application.events]


async def test_a_step_up_asks_for_the_password_again(start: Start) -> None:
    async with start(step_up_prompt=True) as application:
        browser = application.browser()
        await application.login(browser)
        browser.stop_at = f"{application.provider.issuer.removesuffix('/o')}/sign-in"
        page = await application.login(browser, "&max_age=60")
        assert "/sign-in" in page.url


async def test_a_local_logout_ends_the_providers_session(start: Start) -> None:
    async with start() as application:
        browser = application.browser()
        await application.login(browser)
        there = application.provider.issuer.removesuffix("/o")
        assert (await browser.tab(there).follow(f"{there}/signed-in")).text == "alice"
        page = await application.home(browser).submit("/auth/logout")
        assert page.url.partition("?")[0] == f"{application.url}/public"
        assert (await browser.tab(there).follow(f"{there}/signed-in")).text == ""
        assert await application.who(browser) is None
