"""A login whose response is posted by the provider's page, in Chromium: which cookies the POST and the next request carry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from litestar import Litestar, MediaType, Request, get
from playwright.sync_api import Browser

from session_core import Event, SessionPlugin, SystemClock
from session_core.oidc import OidcConfig, OidcPlugin, OidcProvider
from session_core.sealing import SealingKeys
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import CLIENT_ID, CLIENT_SECRET, FakeOp
from tests.support.sessions import HANDLERS, make_config
from tests.support.thread_server import listen, served

pytestmark = pytest.mark.e2e


class Site:
    """The application at localhost, the provider at 127.0.0.1: two sites for a browser."""

    def __init__(self, application_port: int, provider_port: int) -> None:
        self.url = f"http://localhost:{application_port}"
        self.seen: list[str] = []
        self.events: list[Event] = []
        issuer = f"http://127.0.0.1:{provider_port}"
        op = FakeOp(FakeClock(SystemClock().now()), issuer)

        @get("/authorize", media_type=MediaType.HTML)
        async def authorize(request: Request[Any, Any, Any]) -> str:
            action, params = op.respond(f"{issuer}/authorize?{request.scope['query_string'].decode()}")
            fields = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in params.items())
            script = "<script>document.forms[0].submit()</script>"
            return f'<form method="post" action="{escape(action)}">{fields}</form>{script}'

        async def note(request: Request[Any, Any, Any]) -> None:
            names = sorted(re.split(r"-[0-9]+", name)[0] for name in request.cookies)
            self.seen.append(f"{request.method} {request.url.path} {' '.join(names)}".strip())

        provider = OidcProvider(
            issuer=issuer, client_id=CLIENT_ID, client_secret=CLIENT_SECRET, allow_http=True, response_mode="form_post"
        )
        login = OidcConfig(
            providers=[provider],
            public_url=self.url,
            sealing=SealingKeys([b"k" * 32]),
            transport=httpx2.MockTransport(op.handle),
        )
        sessions = make_config(public_url=self.url, on_event=[self.events.append])
        self.provider = Litestar([authorize], openapi_config=None, logging_config=None)
        self.application = Litestar(
            HANDLERS,
            plugins=[SessionPlugin(sessions), OidcPlugin(login)],
            before_request=note,
            openapi_config=None,
            logging_config=None,
        )


@pytest.fixture
def site() -> Iterator[Site]:
    (application, application_port), (provider, provider_port) = listen(), listen()
    site = Site(application_port, provider_port)
    with served(site.application, application), served(site.provider, provider):
        yield site


def test_an_existing_session_survives_a_posted_response(browser: Browser, site: Site) -> None:
    context = browser.new_context(base_url=site.url)
    try:
        page = context.new_page()
        page.goto("/public")
        page.evaluate("""async () => await fetch("/assign", {
            method: "PATCH", headers: {"content-type": "application/json"}, body: JSON.stringify({note: "before"})})""")
        before = {each.get("name"): each.get("value") for each in context.cookies()}
        site.seen.clear()
        page.goto("/auth/login?next=/read")
        page.wait_for_url(f"{site.url}/read")
        assert '"subject":"alice"' in page.content()
        assert '"note":"before"' in page.content()
        after = {each.get("name"): each.get("value") for each in context.cookies(site.url)}
    finally:
        context.close()
    # The Lax session cookie is not sent with the cross-site POST, but with the GET after it.
    assert site.seen == [
        "GET /auth/login session",
        "POST /auth/callback login-post",
        "GET /auth/continue login-post login-reply session",
        "GET /read last-sign-in session",
    ]
    port = urlsplit(site.url).port
    assert set(after) == {f"session-{port}", f"last-sign-in-{port}"}
    assert after[f"session-{port}"] != before[f"session-{port}"]
    assert [event.name for event in site.events if event.name.startswith("login")] == ["login.started", "login.succeeded"]
