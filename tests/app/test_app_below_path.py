"""The application below a path, over real HTTP, and pages requested under another name of this machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from pydantic import SecretStr

from app.asgi import create_app
from app.settings.report import SettingsError
from app.settings.settings import Settings, load_settings
from auth_demo.op import DEMO_ACCOUNTS, OpSettings, RegisteredClient, create_op
from auth_demo.smoke import smoke
from auth_demo.visitor import follow, log_in, new_client
from tests.app.conftest import Start
from tests.support.thread_server import listen, served

pytestmark = pytest.mark.anyio

SECRET = "client-secret-of-the-tests"
CHROMIUM = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9"}


class Site:
    """A served application and its provider."""

    def __init__(self, url: str, issuer: str) -> None:
        self.url = url
        self.issuer = issuer


def stripping_proxy(prefix: str, upstream: str) -> Any:
    """A proxy with a minimal configuration: it strips the path, changes `Host` and sends no forwarding header."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = (await receive()).get("body", b"")
        path = scope["raw_path"].decode().removeprefix(prefix) or "/"
        headers = [(name, value) for name, value in scope["headers"] if name not in {b"host", b"connection"}]
        query = scope["query_string"].decode()
        async with httpx.AsyncClient(base_url=upstream, trust_env=False) as client:
            answer = await client.request(scope["method"], f"{path}?{query}" if query else path, headers=headers, content=body)
        kept = [(name, value) for name, value in answer.headers.raw if name.lower() not in {b"content-encoding", b"connection"}]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
        await send({"type": "http.response.body", "body": answer.content})

    return proxy


@pytest.fixture(params=["served itself", "behind a proxy"])
def site(request: pytest.FixtureRequest, make_settings: Callable[..., Settings]) -> Iterator[Site]:
    public, port = listen()
    provider, provider_port = listen()
    url, issuer = f"http://localhost:{port}/sub/app", f"http://127.0.0.1:{provider_port}"
    client = RegisteredClient(
        client_id="reference-app",
        client_secret=SECRET,
        client_name="below a path",
        redirect_uris=(f"{url}/auth/callback",),
        post_logout_redirect_uris=(f"{url}/",),
        backchannel_logout_uri=f"{url}/auth/backchannel-logout",
    )
    settings = make_settings(public_url=url, oidc_issuer=issuer, oidc_client_secret=SecretStr(SECRET))
    with ExitStack() as stack:
        stack.enter_context(served(create_op(OpSettings(issuer=issuer, clients=(client,), accounts=DEMO_ACCOUNTS)), provider))
        app = create_app(settings)
        if request.param == "served itself":
            stack.enter_context(served(app, public))
        else:
            inner, inner_port = listen()
            stack.enter_context(served(app, inner))
            stack.enter_context(served(stripping_proxy("/sub/app", f"http://127.0.0.1:{inner_port}"), public))
        yield Site(url, issuer)


async def test_login_sessions_and_logout_work(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    await smoke(site.url, site.issuer)
    assert "smoke: logged out" in capsys.readouterr().out


async def test_every_address_sent_to_a_browser_is_below_the_path(site: Site) -> None:
    async with new_client() as client:
        client.headers.update(CHROMIUM)
        counted = await client.post(f"{site.url}/session/visits")
        assert counted.headers["location"] == "/sub/app/?cookies=1"
        refused = await client.get(f"{site.url}/account/sessions?x=1")
        assert refused.headers["location"].startswith("/sub/app/auth/login?next=%2Fsub%2Fapp%2Faccount%2Fsessions%3Fx%3D1")
        await log_in(client, site.url, site.issuer, "admin")
        of_user = re.findall(r'(/admin/users/[^"]+)"', (await client.get(f"{site.url}/admin")).text)[0]
        pages = (
            "",
            "/",
            "/account",
            "/account/sessions",
            "/admin",
            "/admin/audit",
            of_user,
            "/nothing-here",
            "/auth/callback?state=x",
        )
        for page in pages:
            shown = await follow(client, f"{site.url}{page}")
            assert "text/html" in shown.headers["content-type"], page
            links = re.findall(r'(?:href|action|src)="([^"#]+)"', shown.text)
            assert links
            assert [link for link in links if not link.startswith(("/sub/app/", f"{site.url}/", site.issuer))] == [], page
            for asset in (link for link in links if "/static/" in link):
                assert (await client.get(f"{site.url.removesuffix('/sub/app')}{asset}")).status_code == 200
        theme = await client.post(f"{site.url}/session/theme", data={"theme": "dark", "back": "/account"})
        assert theme.headers["location"] == "/sub/app/account"
        ended = await client.post(f"{site.url}/account/sessions/end-others")
        assert ended.headers["location"] == "/sub/app/account/sessions"
        assert (await client.get(f"{site.url}/schema")).json()["servers"] == [{"url": "/sub/app/"}]
        for address in ("/health/live", "/health/ready", "/metrics"):
            assert (await client.get(f"{site.url}{address}")).status_code == 200


@pytest.mark.parametrize("path", ["/a b", "/a?b", "/a#b", "/../a", "/a//b", "/%2e", "/ä"])
def test_a_public_url_that_browsers_parse_differently_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLIC_URL", f"http://localhost:8000{path}")
    with pytest.raises(SettingsError, match="PUBLIC_URL"):
        load_settings(None)


# -- another name of this machine


@pytest.mark.parametrize(
    ("public", "opened"),
    [
        ("http://localhost:8000", "http://127.0.0.1:8000"),
        ("http://localhost:8000", "http://[::1]:8000"),
        ("http://127.0.0.1:8000", "http://localhost:8000"),
        ("http://app.localhost:8000/sub", "http://localhost:8000"),
        ("http://localhost", "http://127.0.0.1"),
        ("https://localhost:8443", "https://127.0.0.1:8443"),
    ],
)
async def test_pages_and_logins_redirect_to_the_public_url_first(start: Start, public: str, opened: str) -> None:
    async with start(public_url=public) as running, running.client() as client:
        for path in ("/", "/account?x=1&y=%20", "/auth/login?next=/account", "/nothing-here"):
            for method in ("GET",) if "login" in path else ("GET", "HEAD"):
                answer = await client.request(method, f"{opened}{path}")
                assert answer.status_code == 307
                assert answer.headers["location"] == f"{public}{path}"
                assert "set-cookie" not in answer.headers
        for path in ("/health/live", "/health/ready", "/metrics", "/api/session", "/schema"):
            assert (await client.get(f"{opened}{path}")).status_code == 200
        assert (await client.post(f"{opened}/session/visits")).status_code == 303
        assert (await client.post(f"{opened}/auth/backchannel-logout", data={"logout_token": "x"})).status_code == 400
        assert (await client.get(f"{opened}/auth/frontchannel-logout?iss=x&sid=y")).status_code == 400


@pytest.mark.parametrize(
    ("public", "opened"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000", "http://LOCALHOST:8000"),
        # A proxy may have changed `Host`; a redirect would then loop.
        ("http://localhost:8080", "http://127.0.0.1:8000"),
        ("http://localhost:8000", "http://app:8000"),
        ("https://app.example.org", "http://127.0.0.1:8000"),
        ("https://app.example.org", "https://www.example.org"),
    ],
)
async def test_a_request_with_a_rewritten_host_is_not_redirected(start: Start, public: str, opened: str) -> None:
    async with start(public_url=public) as running, running.client() as client:
        assert (await client.get(f"{opened}/")).status_code == 200


# -- cookies that the browser does not send back


async def test_a_page_reports_that_the_browser_did_not_keep_the_cookie(running: Any, start: Start) -> None:
    async with running.client(**CHROMIUM) as browser:
        counted = await browser.post("/session/visits")
        assert counted.headers["location"] == "/?cookies=1"
        kept = await browser.get(counted.headers["location"])
        assert "has not kept the cookie" not in kept.text
        browser.cookies.clear()
        lost = await browser.get(counted.headers["location"])
        assert "has not kept the cookie" in lost.text
        assert "http://localhost:8000" in lost.text
        assert "over plain http" not in lost.text
        same = await browser.post("/session/preferences", data={"language": "en", "note": ""})
        assert same.headers["location"] == "/"
        saved = await browser.post("/session/preferences", data={"language": "en", "note": "x"})
        assert saved.headers["location"] == "/?cookies=1"
        again = await browser.post("/session/preferences", data={"language": "en", "note": "y"})
        assert again.headers["location"] == "/"
    async with start(public_url="https://app.example.org") as secure, secure.client(**CHROMIUM) as browser:
        lost = await browser.get("http://app.example.org/?cookies=1")
        assert "open the site at" in lost.text
        assert "over plain http" in lost.text


async def test_a_failed_login_says_that_cookies_are_needed_and_where_to_start(running: Any) -> None:
    async with running.browser() as browser:
        page = await browser.get(f"/auth/callback?code=x&state={'s' * 43}")
        assert page.status_code == 400
        assert "Your browser sent no cookie" in page.text
        assert "http://localhost:8000" in page.text


async def test_a_form_over_plain_http_names_the_https_address(start: Start) -> None:
    async with start(public_url="https://app.example.org") as running, running.browser() as browser:
        del browser.headers["sec-fetch-site"]
        page = await browser.post("http://app.example.org/session/visits", headers={"origin": "http://app.example.org"})
        assert page.status_code == 403
        assert "opened over plain http" in page.text
        other = await browser.post("http://app.example.org/session/visits", headers={"origin": "http://evil.example"})
        assert "plain http" not in other.text


def test_the_provider_reports_a_form_without_its_cookie() -> None:
    listening, port = listen()
    issuer = f"http://127.0.0.1:{port}"
    client = RegisteredClient(
        client_id="app", client_secret=SECRET, client_name="app", redirect_uris=("http://localhost:8000/auth/callback",)
    )
    op = create_op(OpSettings(issuer=issuer, clients=(client,), accounts=DEMO_ACCOUNTS))
    with served(op, listening), httpx.Client(base_url=issuer, trust_env=False) as browser:
        query = {
            "client_id": "app", "redirect_uri": "http://localhost:8000/auth/callback", "response_type": "code", "scope": "openid",
            "state": "s", "nonce": "n", "code_challenge": "c" * 43, "code_challenge_method": "S256",
        }  # fmt: skip
        page = browser.get("/authorize", params=query)
        fields = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
        form = {name: value.replace("&amp;", "&") for name, value in fields.items()} | {"account": "alice"}
        wrong = browser.post("/login", data={**form, "csrf": "x"}, headers={"origin": issuer})
        assert (wrong.status_code, "needs cookies" in wrong.text) == (403, False)
        browser.cookies.clear()
        lost = browser.post("/login", data=form, headers={"origin": issuer})
        assert lost.status_code == 403
        assert "needs cookies" in lost.text
        assert issuer in lost.text
    assert parse_qs(fields["authorization"].replace("&amp;", "&"))["client_id"] == ["app"]
