"""Every kind of login at a certified provider: `oidc-provider` from npm."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from session_core import Identity
from tests.interop.application import BY_KEY, PUBLIC
from tests.interop.conftest import ALGORITHMS, StartApplication
from tests.interop.provider_process import API, Provider

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("client_id", "options"),
    [
        ("by-secret", {}),
        ("by-secret", {"pushed_authorization_requests": "off"}),
        ("by-secret", {"response_mode": "form_post"}),
        ("by-post", {"token_endpoint_auth_method": "client_secret_post"}),
        ("by-key", BY_KEY),
        ("by-key", {**BY_KEY, "client_assertion_audience": "token_endpoint"}),
        ("public", PUBLIC),
        *((f"signs-{name}", {"signing_algorithms": (name,)}) for name in ALGORITHMS),
    ],
)
async def test_a_login_sets_the_users_claims(start: StartApplication, client_id: str, options: dict[str, Any]) -> None:
    async with start(client_id, **options) as application:
        browser = application.browser()
        tab = application.home(browser)
        page = await tab.follow("/auth/login?next=/me&login_hint=bob")
        if options.get("response_mode") == "form_post":
            page = await tab.submit_shown_form()
        assert (page.url, page.status) == (f"{application.url}/me", 200), page.text
        assert page.json()["subject"] == "bob"
        assert page.json()["sid"]
        # Only the userinfo endpoint has these claims; ID tokens do not.
        assert application.claims["email"] == "bob@example.org"
        assert application.claims["name"] == "bob of the provider"
        asked = await tab.fetch("/userinfo")
        assert asked.json() == {
            "sub": "bob",
            "name": "bob of the provider",
            "email": "bob@example.org",
            "email_verified": True,
        }


async def test_pushed_login_parameters_leave_only_a_reference_in_the_url(start: StartApplication, provider: Provider) -> None:
    async with start() as application:
        browser = application.browser()
        browser.stop_at = provider.issuer
        page = await application.login(browser)
        names = [name for name, _ in parse_qsl(urlsplit(page.url).query)]
        assert sorted(names) == ["client_id", "request_uri"]
        browser.stop_at = None
        assert (await browser.tab(application.url).follow(page.url)).url == f"{application.url}/me"


@pytest.mark.attack("8")
async def test_a_response_without_the_providers_issuer_is_refused(start: StartApplication, provider: Provider) -> None:
    async with start() as application:
        browser = application.browser()
        browser.stop_at = f"{application.url}/auth/callback"
        answer = urlsplit((await application.login(browser)).url)
        browser.stop_at = None
        params = parse_qs(answer.query)
        assert params.pop("iss") == [provider.issuer]
        page = await browser.tab(provider.issuer).follow(answer._replace(query=urlencode(params, doseq=True)).geturl())
        assert page.status == 400
        assert application.reasons("login.failed") == ["iss_missing"]
        assert await application.who(browser) is None


async def test_an_access_token_for_an_api(start: StartApplication) -> None:
    # The provider's userinfo endpoint refuses a token for another resource server (RFC 8707).
    options = {"scopes": ("openid", "read"), "authorization_params": {"resource": API}, "use_userinfo": False}
    async with start(**options) as application:
        browser = application.browser()
        assert (await application.login(browser)).status == 200
        page = await application.home(browser).fetch("/token")
        assert page.status == 200
        assert page.text.count(".") == 2


async def test_a_fresh_login_is_requested_where_needed(start: StartApplication, provider: Provider) -> None:
    async with start("says-when") as application:
        browser = application.browser()
        tab = application.home(browser)
        # The provider's session is an hour old.
        assert (await tab.follow("/auth/login?next=/me&login_hint=alice%203600")).status == 200
        asked = len(await provider.events("interaction.started"))
        page = await tab.follow("/recent")
        assert (page.url, page.text) == (f"{application.url}/recent", "recent")
        assert len(await provider.events("interaction.started")) == asked + 1
        # The second request is not asked again.
        assert (await tab.follow("/recent")).hops == (f"{application.url}/recent",)


async def test_a_stronger_login_is_requested_where_needed(start: StartApplication, provider: Provider) -> None:
    async with start() as application:
        browser = application.browser()
        page = await application.login(browser)
        assert page.json()["acr"] is None
        tab = application.home(browser)
        page = await tab.follow("/strong")
        assert (page.url, page.text) == (f"{application.url}/strong", "strong")
        assert (await tab.fetch("/me")).json()["acr"] == "phr"


async def test_a_silent_login_needs_no_user_interaction(start: StartApplication, provider: Provider) -> None:
    async with start() as application:
        browser = application.browser()
        page = await application.home(browser).follow("/auth/login?prompt=none&next=/public?tried=1")
        assert (page.url, page.status) == (f"{application.url}/public?tried=1", 200)
        assert application.reasons("login.silent_failed") == ["login_required"]
        assert application.reasons("login.failed") == []
        assert await application.who(browser) is None
        assert (await application.login(browser)).status == 200
        alice = Identity(issuer=provider.issuer, subject="alice")
        await application.sessions.sessions.revoke_all(alice)
        assert await application.who(browser) is None
        assert (await application.login(browser, "&prompt=none")).json()["subject"] == "alice"
