"""Forms whose redirects reach a provider that redirects to a further origin, under `form-action 'self'`, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import httpx2
import pytest
from litestar import Litestar, MediaType, get, post
from litestar.enums import RequestEncodingType
from litestar.params import Body, FromQuery
from litestar.response import Redirect
from playwright.sync_api import Browser

from session_core import Identity, Session, SessionPlugin, SystemClock
from session_core.guards import requires_login
from session_core.oidc import OidcConfig, OidcPlugin, OidcProvider
from session_core.oidc.tokens.vault import TokenSet
from session_core.sealing import SealingKeys
from session_core.testing import FakeClock
from tests.e2e.test_browser_form_post import listen, served
from tests.session_core.oidc.fake_op import CLIENT_ID, CLIENT_SECRET, FakeOp
from tests.support.sessions import AppSession, make_config

pytestmark = pytest.mark.e2e
LONG = "x" * 9000
"""An ID token too long for some URL limits."""
STRICT = {"content-security-policy": "default-src 'self'; form-action 'self'"}


@get("/forms", media_type=MediaType.HTML)
async def forms() -> str:
    return """<form method="post" action="/auth/logout"><button>Log out</button></form>
        <form method="post" action="/guarded"><button>Send</button></form>
        <form method="get" action="/guarded"><button>Search</button></form>"""


@get("/guarded", guards=[requires_login])
async def guarded() -> str:
    return "guarded"


@post("/guarded", guards=[requires_login])
async def send_guarded() -> str:
    return "sent"


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    (application, application_port), (provider, provider_port) = listen(), listen()
    issuer, url = f"http://127.0.0.1:{provider_port}", f"http://localhost:{application_port}"
    op = FakeOp(FakeClock(SystemClock().now()), issuer)
    # The provider redirects to another origin, as a broker or a federated logout does.
    beyond = f"http://localhost:{provider_port}/beyond"

    @get(["/authorize", "/end"])
    async def hand_over() -> Redirect:
        return Redirect(beyond, status_code=302)

    @get("/beyond", media_type=MediaType.HTML)
    async def arrived() -> str:
        return "<title>beyond</title>"

    @post("/end")
    async def hand_over_posted(data: Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]) -> Redirect:
        return Redirect(beyond if data["id_token_hint"] == LONG else "/refused", status_code=302)

    @post("/sign-in")
    async def sign_in(session: Session[AppSession], long: FromQuery[bool] = False) -> None:
        user = Identity(issuer=issuer, subject="alice")
        tokens = TokenSet(access_token="at", id_token=LONG, provider="default")
        await session.login(user, vault=plugin.relying_parties.vault.seal(tokens, user) if long else b"")

    login = OidcConfig(
        providers=[OidcProvider(issuer=issuer, client_id=CLIENT_ID, client_secret=CLIENT_SECRET, allow_http=True)],
        public_url=url,
        sealing=SealingKeys([b"k" * 32]),
        transport=httpx2.MockTransport(op.handle),
    )
    plugin = OidcPlugin(login)
    app = Litestar(
        [forms, guarded, send_guarded, sign_in],
        plugins=[SessionPlugin(make_config(public_url=url)), plugin],
        response_headers=STRICT,
        openapi_config=None,
        logging_config=None,
    )
    at_provider = Litestar([hand_over, hand_over_posted, arrived], openapi_config=None, logging_config=None)
    with served(app, application), served(at_provider, provider):
        yield url


@pytest.mark.parametrize("button", ["Send", "Search"])
def test_a_form_that_needs_a_login_reaches_the_provider_behind_a_broker(browser: Browser, site: str, button: str) -> None:
    context = browser.new_context(base_url=site)
    try:
        page = context.new_page()
        page.goto("/forms")
        page.get_by_role("button", name=button).click()
        page.wait_for_url("**/beyond")
        assert page.title() == "beyond"
    finally:
        context.close()


@pytest.mark.parametrize("long", ["false", "true"], ids=["by address", "by form"])
def test_a_logout_reaches_the_provider_behind_a_broker(browser: Browser, site: str, long: str) -> None:
    context = browser.new_context(base_url=site)
    try:
        page = context.new_page()
        page.goto("/forms")
        assert page.evaluate("""async long => (await fetch(`/sign-in?long=${long}`, {method: "POST"})).status""", long) == 201
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/beyond")
    finally:
        context.close()
