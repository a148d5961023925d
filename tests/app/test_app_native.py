"""The example native client with the reference application, a Starlette application and the embedded provider."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from app.asgi import create_app
from app.settings.settings import Settings
from auth_demo.op.app import create_op
from auth_demo.op.settings import OpSettings, RegisteredClient
from auth_demo.visitor import _sign_in, follow, new_client
from session_core import SessionConfig
from session_core.oidc import NativeClient, OidcConfig, OidcProvider
from session_core.sealing import SealingKeys
from session_core.starlette import SessionMiddleware, StarletteSessions
from session_core.starlette.oidc import OidcRoutes
from tests.support.application_state import KEY, SECRET
from tests.support.child_process import end_with_parent
from tests.support.form_fields import Fields
from tests.support.thread_server import listen, served

pytestmark = pytest.mark.anyio

CLIENT = Path(__file__).parents[2] / "examples" / "native_client" / "client.py"
KNOWN = NativeClient("example", ["http://127.0.0.1/callback"])


class AppSession(msgspec.Struct):
    visits: int = 0


def starlette_app(url: str, provider: OidcProvider) -> Any:
    sessions = StarletteSessions(SessionConfig(AppSession, public_url=url, bearer=True))
    config = OidcConfig(
        providers=[provider], public_url=url, sealing=SealingKeys([secrets.token_bytes(32)]), native_clients=[KNOWN]
    )
    app = Starlette()
    app.mount("/auth", OidcRoutes(sessions, config))
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


def reference_app(url: str, provider: OidcProvider, folder: Path) -> Any:
    settings: dict[str, Any] = {
        "public_url": url,
        "session_store": f"sqlite:///{folder}/sessions.db",
        "database_url": f"sqlite+aiosqlite:///{folder}/app.db",
        "session_secrets": (SecretStr(SECRET),),
        "session_encryption_keys": (SecretStr(KEY),),
        "oidc_issuer": provider.issuer,
        "oidc_client_id": provider.client_id,
        "oidc_client_secret": SecretStr(str(provider.client_secret)),
        "native_clients": "example http://127.0.0.1/callback",
    }
    return create_app(Settings(**settings))


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The address of each application."""
    (at_op, op_port), (one, one_port), (two, two_port) = listen(), listen(), listen()
    issuer, secret = f"http://127.0.0.1:{op_port}", secrets.token_urlsafe(32)
    found = {"reference": f"http://127.0.0.1:{one_port}", "starlette": f"http://127.0.0.1:{two_port}"}
    client = RegisteredClient(
        client_id="web",
        client_secret=secret,
        redirect_uris=tuple(f"{url}/auth/callback" for url in found.values()),
        post_logout_redirect_uris=tuple(f"{url}/" for url in found.values()),
    )
    provider = OidcProvider(issuer=issuer, client_id="web", client_secret=secret, allow_http=True)
    folder = tmp_path_factory.mktemp("native")
    with ExitStack() as stack:
        stack.enter_context(served(create_op(OpSettings(issuer=issuer, clients=(client,))), at_op))
        stack.enter_context(served(reference_app(found["reference"], provider, folder), one))
        stack.enter_context(served(starlette_app(found["starlette"], provider), two))
        yield found


async def agree(browser: httpx2.AsyncClient, address: str) -> httpx2.Response:
    """Press the button on the application's page, then log in as alice at the provider."""
    page = await follow(browser, address)
    form = Fields(page.text)
    data = {**form.fields, "provider": form.buttons[0]}
    at_provider = await follow(browser, address.partition("?")[0], method="POST", data=data)
    return await _sign_in(browser, at_provider, "alice")


@pytest.mark.attack("95")
@pytest.mark.parametrize("name", ["reference", "starlette"])
async def test_the_example_logs_in_by_browser_and_loopback(urls: dict[str, str], name: str) -> None:
    running = subprocess.Popen(  # noqa: ASYNC220 - it waits for nothing yet
        [sys.executable, "-I", str(CLIENT), urls[name]],
        env={"PATH": os.environ["PATH"], "BROWSER": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509
    )
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line.startswith(f"Log in at {urls[name]}/auth/authorize?"), line
        async with new_client() as browser:
            shown = await agree(browser, line.removeprefix("Log in at ").strip())
            assert "You may close this page" in shown.text
            # The browser itself is not logged in.
            assert (await browser.get(f"{urls[name]}/auth/session")).status_code == 401
        written, errors = running.communicate(timeout=120)
    finally:
        running.kill()
        running.wait(30)
    assert errors == ""
    said = written.splitlines()
    assert said[0] == "logged in as alice"
    assert said[1].startswith("logged out at http://127.0.0.1:")
    assert said[2].startswith('and then 401 Bearer error="invalid_token"')


@pytest.mark.attack("95")
async def test_the_reference_application_accepts_a_token_on_every_route(urls: dict[str, str]) -> None:
    """Its routes: user, devices, regeneration, a change, sign-out of this device."""
    url = urls["reference"]
    async with new_client() as browser, new_client() as client:
        token = await _token(browser, client, url)

        async def send(method: str, path: str, **options: Any) -> httpx2.Response:
            headers = {"accept": "application/json", "authorization": f"Bearer {token}", "user-agent": "Desk/1.0"}
            response = await client.request(method, f"{url}{path}", headers=headers, **options)
            assert "set-cookie" not in response.headers
            return response

        assert (await send("GET", "/api/me")).json()["subject"] == "alice"
        assert (await send("PATCH", "/api/session", json={"note": "native"})).json()["note"] == "native"
        assert (await send("POST", "/api/session/visits")).json()["visits"] == 1
        assert (await send("GET", "/account")).status_code == 200
        [device] = [each for each in (await send("GET", "/api/sessions")).json() if each["current"]]
        before, answer = token, await send("POST", "/api/session/regenerate")
        token = answer.headers["session-token"]
        assert (await send("GET", "/api/session")).json()["note"] == "native"
        dead = await client.get(f"{url}/api/me", headers={"authorization": f"Bearer {before}"})
        assert (dead.status_code, dead.headers["content-type"]) == (401, "application/problem+json")
        assert dead.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
        assert (await send("GET", "/admin")).headers["www-authenticate"].startswith('Bearer error="insufficient_scope"')
        assert device["user_agent"]
        [now] = [each for each in (await send("GET", "/api/sessions")).json() if each["current"]]
        assert (await send("DELETE", f"/api/sessions/{now['handle']}")).status_code == 204
        assert (await send("GET", "/api/me")).status_code == 401
        schema = (await client.get(f"{url}/schema")).json()
        assert schema["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
        assert {"bearer": []} in schema["paths"]["/api/me"]["get"]["security"]


class _AnsweredError(Exception):
    """Raised where the browser would open the native client."""


async def _stop_at(redirect_uri: str, response: httpx2.Response) -> None:
    location = response.headers.get("location", "")
    if location.startswith(f"{redirect_uri}?"):
        raise _AnsweredError(location)


async def _token(browser: httpx2.AsyncClient, client: httpx2.AsyncClient, url: str) -> str:
    verifier, redirect_uri = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "http://127.0.0.1:9/callback"
    query = httpx2.QueryParams(
        response_type="code",
        client_id="example",
        redirect_uri=redirect_uri,
        code_challenge=urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode(),
        code_challenge_method="S256",
    )
    browser.event_hooks = {"response": [partial(_stop_at, redirect_uri)]}
    with pytest.raises(_AnsweredError) as answered:  # nothing listens on that port
        await agree(browser, f"{url}/auth/authorize?{query}")
    code = httpx2.URL(str(answered.value)).params["code"]
    form = {"grant_type": "authorization_code", "code": code, "client_id": "example", "redirect_uri": redirect_uri}
    response = await client.post(f"{url}/auth/token", data={**form, "code_verifier": verifier})
    assert response.status_code == 200, response.text
    return str(response.json()["access_token"])
