"""The single-page example in Chromium: login by navigation and popup, detection of the session's end, logout by fetch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from litestar import Litestar, MediaType, Request, get
from litestar.response import Redirect
from playwright.sync_api import Browser, Page, expect

from examples.single_page.app import AppSession, create_app
from session_core import SessionConfig, SystemClock
from session_core.oidc import OidcConfig, OidcProvider
from session_core.sealing import SealingKeys
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import CLIENT_ID, CLIENT_SECRET, FakeOp
from tests.support.thread_server import listen, served

pytestmark = pytest.mark.e2e


class Site:
    """The application at localhost, the provider at 127.0.0.1: two sites for a browser."""

    def __init__(self, application_port: int, provider_port: int) -> None:
        self.url = f"http://localhost:{application_port}"
        issuer = f"http://127.0.0.1:{provider_port}"
        op = self.op = FakeOp(FakeClock(SystemClock().now()), issuer)
        self.ended = 0

        @get("/authorize")
        async def authorize(request: Request[Any, Any, Any]) -> Redirect:
            return Redirect(op.authorize(f"{issuer}/authorize?{request.scope['query_string'].decode()}"))

        @get("/end", media_type=MediaType.HTML)
        async def end_session(request: Request[Any, Any, Any]) -> str:
            self.ended += 1
            return f'<a href="{request.query_params["post_logout_redirect_uri"]}">Back</a>'

        login = OidcConfig(
            providers=[OidcProvider(issuer=issuer, client_id=CLIENT_ID, client_secret=CLIENT_SECRET, allow_http=True)],
            public_url=self.url,
            sealing=SealingKeys([b"k" * 32]),
            transport=httpx2.MockTransport(op.handle),
        )
        self.provider = Litestar([authorize, end_session], openapi_config=None, logging_config=None)
        self.application = create_app(SessionConfig(AppSession, public_url=self.url, sweep_interval=0), login)
        self.issuer = issuer


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    (application, application_port), (provider, provider_port) = listen(), listen()
    site = Site(application_port, provider_port)
    with served(site.application, application), served(site.provider, provider):
        yield site


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    context = browser.new_context(base_url=site.url)
    try:
        page = context.new_page()
        page.goto("/")
        expect(page.locator("#status")).to_have_text("Not logged in")
        yield page
    finally:
        context.close()


def test_log_in_by_navigation_use_the_api_and_log_out_by_fetch(page: Page, site: Site) -> None:
    page.click("#login")
    expect(page.locator("#status")).to_contain_text("Logged in as alice")
    page.click("#add")
    page.click("#add")
    expect(page.locator("#notes li")).to_have_text(["note 1", "note 2"])
    page.click("#logout")
    page.wait_for_url(f"{site.issuer}/**")
    assert site.ended == 1
    page.goto(site.url)
    expect(page.locator("#status")).to_have_text("Not logged in")


def test_log_in_by_popup(page: Page) -> None:
    with page.expect_popup() as opened:
        page.click("#popup")
    expect(page.locator("#status")).to_contain_text("Logged in as alice")
    if not opened.value.is_closed():
        opened.value.wait_for_event("close")


def test_the_page_detects_the_end_of_the_session(page: Page, site: Site) -> None:
    page.click("#login")
    expect(page.locator("#status")).to_contain_text("Logged in as alice")
    ended = page.request.post("/auth/backchannel-logout", form={"logout_token": site.op.logout_token()})
    assert ended.status == 200
    expect(page.locator("#status")).to_have_text("Not logged in")
