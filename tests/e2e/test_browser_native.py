"""The login of a native client in real browsers: button, provider, loopback redirect; a script that tries to read the code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from litestar import Litestar, MediaType, Request, get
from litestar.response import Redirect
from playwright.sync_api import Browser

from session_core import SessionPlugin, SystemClock
from session_core.oidc import NativeClient, OidcConfig, OidcPlugin, OidcProvider
from session_core.sealing import SealingKeys
from session_core.testing import FakeClock
from tests.e2e.test_browser_form_post import listen, served
from tests.session_core.oidc.fake_op import CLIENT_ID, CLIENT_SECRET, FakeOp
from tests.support.browsers.window import Browser as AnyBrowser
from tests.support.sessions import make_config

pytestmark = pytest.mark.e2e


class Site(NamedTuple):
    url: str
    client: str
    """The native client's loopback address."""

    def address(self, redirect_uri: str) -> str:
        asked = {
            "response_type": "code",
            "client_id": "desktop",
            "redirect_uri": redirect_uri,
            "code_challenge": "x" * 43,
            "code_challenge_method": "S256",
        }
        return f"{self.url}/auth/authorize?{urlencode(asked)}"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    (application, application_port), (provider, provider_port), (client, client_port) = listen(), listen(), listen()
    issuer, url = f"http://127.0.0.1:{provider_port}", f"http://localhost:{application_port}"
    op = FakeOp(FakeClock(SystemClock().now()), issuer)

    @get("/authorize")
    async def agree(request: Request[Any, Any, Any]) -> Redirect:
        return Redirect(op.authorize(str(request.url)), status_code=302)

    @get("/callback", media_type=MediaType.HTML)
    async def received_code() -> str:
        return "<title>received_code</title>"

    @get("/page", media_type=MediaType.HTML)
    async def page() -> str:
        return "<title>a page of ours</title>"

    config = OidcConfig(
        providers=[OidcProvider(issuer=issuer, client_id=CLIENT_ID, client_secret=CLIENT_SECRET, allow_http=True)],
        public_url=url,
        sealing=SealingKeys([b"k" * 32]),
        transport=httpx2.MockTransport(op.handle),
        native_clients=[NativeClient("desktop", ["http://127.0.0.1/callback", "com.example.app:/login"])],
    )
    plugins = [SessionPlugin(make_config(public_url=url, bearer=True)), OidcPlugin(config)]
    app = Litestar([page], plugins=plugins, openapi_config=None, logging_config=None)
    at_provider = Litestar([agree], openapi_config=None, logging_config=None)
    at_client = Litestar([received_code], openapi_config=None, logging_config=None)
    with served(app, application), served(at_provider, provider), served(at_client, client):
        yield Site(url, f"http://127.0.0.1:{client_port}/callback")


def test_the_code_arrives_on_loopback(any_browser: AnyBrowser, site: Site) -> None:
    with any_browser.window() as window:
        window.open(site.address(site.client))
        assert "Log in to desktop?" in window.text
        window.click("button")
        window.wait_for("return document.title === 'received_code'")
        assert list(parse_qs(urlsplit(window.url).query)) == ["code"]
        assert "Log in" not in window.text


@pytest.mark.attack("91")
def test_a_script_in_an_own_page_cannot_read_the_code(browser: Browser, site: Site) -> None:
    """The script opens the login in a new window, presses the button there, and reads the page that redirects to the client."""
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"{site.url}/page")
        with page.expect_popup() as opened:
            page.evaluate("address => { window.other = window.open(address) }", site.address("com.example.app:/login"))
        popup = opened.value
        popup.wait_for_selector("button")
        page.evaluate("other.document.querySelector('button').click()")
        popup.wait_for_url("**/auth/callback?**")
        popup.wait_for_selector("a")
        assert "com.example.app:/login?code=" in (popup.locator("a").get_attribute("href") or "")
        read = "() => { try { return other.document.body.innerHTML } catch (error) { return error.name } }"
        assert page.evaluate(read) == "SecurityError"
    finally:
        context.close()
