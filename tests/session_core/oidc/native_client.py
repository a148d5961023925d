"""A native client for tests and its user's browser; shares no code with the relying party."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from session_core.oidc import NativeClient
from tests.session_core.oidc.fake_op import GET_PAGE, World, b64
from tests.support.form_fields import Fields

LOOPBACK = "http://127.0.0.1:51004/callback"
DESKTOP = NativeClient("desktop", ["http://127.0.0.1/callback", "http://[::1]/callback"], title="Desk & Top")
MOBILE = NativeClient("mobile", ["com.example.app:/login", "https://app.example.com/login"])
CLIENTS = (DESKTOP, MOBILE)
JSON = {"accept": "application/json"}


def world_of(**options: Any) -> World:
    options.setdefault("native_clients", CLIENTS)
    return World(config={"bearer": True, **options.pop("config", {})}, **options)


class Native:
    """One login of a native client."""

    def __init__(self, world: World, *, client_id: str = "desktop", redirect_uri: str = LOOPBACK, **params: str | None) -> None:
        self.world = world
        self.verifier = secrets.token_urlsafe(32)
        self.client_id, self.redirect_uri = client_id, redirect_uri
        asked = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "state": "native state",
            "code_challenge": b64(hashlib.sha256(self.verifier.encode()).digest()),
            "code_challenge_method": "S256",
            **params,
        }
        self.params = {name: value for name, value in asked.items() if value is not None}

    async def ask(self, browser: httpx.AsyncClient | None = None, **headers: str) -> httpx.Response:
        """Open the page that asks for confirmation."""
        return await (browser or self.world.browser).get("/auth/authorize", params=self.params, headers={**GET_PAGE, **headers})

    async def agree(self, browser: httpx.AsyncClient | None = None, **headers: str) -> httpx.Response:
        """Press the button of that page."""
        page = await self.ask(browser)
        assert page.status_code == 200, page.text
        form = Fields(page.text)
        given = {**GET_PAGE, "sec-fetch-site": "same-origin", "accept": "*/*", **headers}
        data = {**form.fields, "provider": form.buttons[0]}
        return await (browser or self.world.browser).post("/auth/authorize", data=data, headers=given)

    async def answer(self, browser: httpx.AsyncClient | None = None) -> dict[str, str]:
        """Log in at the provider; return the parameters received at the client's redirect URI."""
        left = await self.agree(browser)
        assert left.status_code == 303, left.text
        headers = {**GET_PAGE, "sec-fetch-site": "cross-site", "accept": "*/*"}
        back = await (browser or self.world.browser).get(self.world.op.authorize(left.headers["location"]), headers=headers)
        assert back.status_code == 303, back.text
        location = back.headers["location"]
        assert location.startswith(f"{self.redirect_uri}?")
        heard = dict(parse_qsl(urlsplit(location).query, strict_parsing=True))
        assert heard.pop("state") == "native state"
        return heard

    async def code(self) -> str:
        heard = await self.answer()
        assert list(heard) == ["code"]
        return heard["code"]

    async def redeem(self, given: str, *, headers: dict[str, str] | None = None, **changes: str | None) -> httpx.Response:
        """Redeem the code without a cookie jar."""
        form = {
            "grant_type": "authorization_code",
            "code": given,
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
            **changes,
        }
        data = {name: value for name, value in form.items() if value is not None}
        async with self.world.new_browser() as client:
            response = await client.post("/auth/token", data=data, headers={**JSON, **(headers or {})})
        assert "set-cookie" not in response.headers
        assert "no-store" in response.headers["cache-control"]
        return response

    async def token(self) -> str:
        response = await self.redeem(await self.code())
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])


async def ask(world: World, path: str, token: str, method: str = "GET", **options: Any) -> httpx.Response:
    """Send a request with a token and without cookies."""
    async with world.new_browser() as client:
        headers = {**JSON, "authorization": f"Bearer {token}", **options.pop("headers", {})}
        response = await client.request(method, path, headers=headers, **options)
    assert "set-cookie" not in response.headers
    return response


async def subject(world: World, token: str) -> str | None:
    """The user by the application's response; None when it refuses the token."""
    response = await ask(world, "/read", token)
    assert response.status_code in {200, 401}
    return response.json()["subject"] if response.status_code == 200 else None  # type: ignore[no-any-return]
