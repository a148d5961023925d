"""After a login at a certified provider: refreshed, stolen and revoked tokens, and every kind of logout."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from session_core.oidc.logout.revocation import Revocation
from tests.interop.application import BY_KEY, OFFLINE, PUBLIC, SECRET, Application
from tests.interop.conftest import StartApplication
from tests.interop.provider_process import Provider
from tests.support.hostile_op.browser import Browser, Page, Tab

pytestmark = pytest.mark.anyio

LIFE = 20
"""Lifetime of the provider's access tokens in seconds."""


async def confirm_logout(tab: Tab, page: Page) -> Page:
    """Press the button of the provider's page that confirms the logout there."""
    form = re.search(r'action="([^"]*)".*?name="xsrf" value="([^"]*)"', page.text)
    assert form is not None, page.text
    return await tab.submit(form[1], {"xsrf": form[2], "logout": "yes"})


async def log_out_at_the_provider(application: Application, browser: Browser) -> Page:
    """Log out on the provider's own page, without a request to the application."""
    tab = browser.tab()
    page = await confirm_logout(tab, await tab.open(f"{application.provider.issuer}/session/end"))
    assert page.status == 200
    return page


async def refresh_after_a_logout(application: Application) -> httpx.Response:
    """The provider's response to the refresh token of a session that has ended in the application only."""
    browser = application.browser()
    await application.login(browser)
    token = (await application.held(browser)).refresh_token
    assert token is not None
    # The browser does not follow to the provider's logout, which would revoke the token too.
    browser.stop_at = application.provider.issuer
    await application.home(browser).submit("/auth/logout")
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return await application.provider.post("/token", form, application.client_id, SECRET)


async def refreshes(provider: Provider) -> int:
    return len(await provider.events("grant.success", grant_type="refresh_token"))


async def test_access_tokens_are_refreshed_and_each_refresh_token_is_used_once(
    start: StartApplication, provider: Provider
) -> None:
    async with start("signs-ES256", **OFFLINE) as application:
        browser = application.browser()
        assert (await application.login(browser)).status == 200
        before = await refreshes(provider)
        held = [await application.held(browser)]
        for _ in range(2):
            application.clock.ahead_seconds += LIFE
            tabs = [application.home(browser).fetch("/token") for _ in range(8)]
            answers = {(page.status, page.text) for page in await asyncio.gather(*tabs)}
            held.append(await application.held(browser))
            assert answers == {(200, held[-1].access_token)}
            # The provider accepts the fresh token.
            assert (await application.home(browser).fetch("/userinfo")).json()["sub"] == "alice"
        assert len({tokens.access_token for tokens in held}) == 3
        assert len({tokens.refresh_token for tokens in held}) == 3
        # Each came with an ID token that was valid.
        assert len({tokens.id_token for tokens in held}) == 3
        assert await refreshes(provider) == before + 2
        assert application.reasons("tokens.refresh_failed") == []


@pytest.mark.parametrize(("client_id", "options"), [("by-key", {**BY_KEY, **OFFLINE}), ("public", {**PUBLIC, **OFFLINE})])
async def test_a_public_client_refreshes_without_a_secret(
    start: StartApplication, client_id: str, options: dict[str, Any]
) -> None:
    async with start(client_id, **options) as application:
        browser = application.browser()
        assert (await application.login(browser)).status == 200
        first = (await application.held(browser)).access_token
        application.clock.ahead_seconds += LIFE
        page = await application.home(browser).fetch("/token")
        assert page.status == 200
        assert page.text != first


async def test_refresh_token_reuse_by_a_thief_ends_the_login(start: StartApplication, provider: Provider) -> None:
    async with start(**OFFLINE) as application:
        browser = application.browser()
        await application.login(browser)
        stolen = (await application.held(browser)).refresh_token
        application.clock.ahead_seconds += LIFE
        assert (await application.home(browser).fetch("/token")).status == 200
        # The thief uses it second: the provider revokes both tokens.
        form = {"grant_type": "refresh_token", "refresh_token": stolen or ""}
        answer = await provider.post("/token", form, "by-secret", SECRET)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert await application.who(browser) == "alice"
        application.clock.ahead_seconds += LIFE
        assert (await application.home(browser).fetch("/token")).status == 401
        assert await application.who(browser) is None
        assert application.reasons("login.failed") == ["refresh_invalid_grant"]


async def test_a_logout_ends_both_the_local_and_the_providers_session(start: StartApplication, provider: Provider) -> None:
    async with start() as application:
        browser = application.browser()
        await application.login(browser)
        tab = application.home(browser)
        page = await tab.submit("/auth/logout")
        params = parse_qs(urlsplit(page.url).query)
        assert page.url.startswith(f"{provider.issuer}/session/end?")
        assert {"client_id", "id_token_hint", "post_logout_redirect_uri", "state"} == set(params)
        # Before the provider has asked for confirmation.
        assert await application.who(browser) is None
        back = await confirm_logout(tab, page)
        assert back.url == f"{application.url}/public?state={params['state'][0]}"
        assert back.status == 200
        # The provider's session has ended too: it would have to ask for the user.
        await application.login(browser, "&prompt=none")
        assert application.reasons("login.silent_failed") == ["login_required"]


async def test_a_logout_is_accepted_with_a_refreshed_id_token_as_its_hint(start: StartApplication) -> None:
    async with start("signs-ES256", **OFFLINE) as application:
        browser = application.browser()
        await application.login(browser)
        first = (await application.held(browser)).id_token
        application.clock.ahead_seconds += LIFE
        await application.home(browser).fetch("/token")
        tab = application.home(browser)
        page = await tab.submit("/auth/logout")
        assert parse_qs(urlsplit(page.url).query)["id_token_hint"] != [first]
        assert (await confirm_logout(tab, page)).url.startswith(f"{application.url}/public?state=")


async def test_tokens_are_revoked_at_a_logout(start: StartApplication) -> None:
    async with start(**OFFLINE) as application:
        answer = await refresh_after_a_logout(application)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert application.reasons("tokens.revocation_failed") == []


async def test_a_logout_that_revokes_nothing_is_detected(start: StartApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*args: Any, **options: Any) -> None:
        pass

    monkeypatch.setattr(Revocation, "revoke", nothing)
    async with start(**OFFLINE) as application:
        assert (await refresh_after_a_logout(application)).status_code == 200


@pytest.mark.parametrize(("client_id", "by"), [("by-secret", "sid"), ("logouts-by-user", "sub")])
async def test_a_logout_at_the_provider_ends_its_local_sessions(
    start: StartApplication, provider: Provider, client_id: str, by: str
) -> None:
    async with start(client_id) as application:
        browser, copied, other = application.browser(), application.browser(), application.browser()
        await application.login(browser)
        # Another local session of the same provider session, and an unrelated one.
        host = urlsplit(provider.issuer).hostname
        for cookie in browser.jar._live():
            if cookie.host == host:
                copied.jar.toss(cookie.name, cookie.value, cookie.host, path=cookie.path, host_only=True)
        await application.login(copied, "&prompt=none")
        await application.login(other, "&login_hint=bob")
        assert [await application.who(each) for each in (browser, copied, other)] == ["alice", "alice", "bob"]
        told = len(await provider.events("backchannel.success"))
        await log_out_at_the_provider(application, browser)
        assert [await application.who(each) for each in (browser, copied, other)] == [None, None, "bob"]
        assert application.reasons("logout.backchannel") == [by]
        assert application.reasons("logout.rejected") == []
        assert len(await provider.events("backchannel.success")) == told + 1
        assert await provider.events("backchannel.error", client=client_id) == []
