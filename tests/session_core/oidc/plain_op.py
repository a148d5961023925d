"""A scripted provider of plain OAuth 2.0, modelled on GitHub; shares no code with the relying party."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import httpx2

from session_core.oidc import OAuth2Provider
from tests.session_core.oidc.fake_op import b64, pieces

PLAIN_ISSUER = "https://git.example/login/oauth"
HOST = "https://git.example"


def plain_provider(**changes: Any) -> OAuth2Provider:
    given: dict[str, Any] = {
        "id": "git",
        "issuer": PLAIN_ISSUER,
        "client_id": "git-app",
        "client_secret": "git-secret",
        "token_endpoint_auth_method": "client_secret_post",
        "authorization_endpoint": f"{HOST}/login/oauth/authorize",
        "token_endpoint": f"{HOST}/login/oauth/access_token",
        "userinfo_endpoint": f"{HOST}/api/user",
        "scopes": ("read:user", "user:email"),
    }
    return OAuth2Provider(**{**given, **changes})


class PlainOp:
    """A changed attribute applies from the next request on."""

    issuer = HOST

    def __init__(self) -> None:
        self.user: Any = {"id": 583231, "login": "octocat", "name": "Octo"}
        self.user_reply: httpx2.Response | None = None
        self.token_reply: httpx2.Response | None = None
        self.answer: dict[str, Any] = {"access_token": "gho_1", "token_type": "bearer", "scope": "read:user,user:email"}
        self.response_params: dict[str, str] = {}
        self.calls: list[httpx2.Request] = []
        self.codes: dict[str, dict[str, str]] = {}

    def authorize(self, url: str) -> str:
        asked = dict(parse_qsl(urlsplit(url).query))
        code = secrets.token_hex(10)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{httpx.QueryParams({'code': code, 'state': asked['state'], **self.response_params})}"

    def count(self, path: str) -> int:
        return sum(call.url.path == path for call in self.calls)

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        response = self.reply(request)
        # As from a network: the body is not read yet.
        return httpx2.Response(response.status_code, headers=response.headers, content=pieces(response.content))

    def reply(self, request: httpx2.Request) -> httpx2.Response:
        self.calls.append(request)
        path = request.url.path
        if path == "/login/oauth/access_token":
            return self.token_reply or self.token(request)
        if path == "/api/user":
            assert request.headers["authorization"] == f"Bearer {self.answer['access_token']}"
            return self.user_reply or httpx2.Response(200, json=self.user)
        if path == "/api/user/emails":
            assert request.headers["authorization"] == f"Bearer {self.answer['access_token']}"
            return httpx2.Response(200, json=[{"email": "octo@example.org", "primary": True, "verified": True}])
        return httpx2.Response(404)

    def token(self, request: httpx2.Request) -> httpx2.Response:
        form = dict(parse_qsl(request.content.decode(), strict_parsing=True))
        assert (form["client_id"], form["client_secret"]) == ("git-app", "git-secret")
        assert request.headers["accept"] == "application/json"
        asked = self.codes.pop(form["code"], None)
        challenge = b64(hashlib.sha256(form["code_verifier"].encode()).digest())
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            # GitHub sends errors with status 200.
            return httpx2.Response(200, json={"error": "bad_verification_code", "error_description": "<script>"})
        return httpx2.Response(200, json=self.answer)
