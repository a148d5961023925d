"""A provider with a fake clock, recorded back-channel requests and a driver for the code flow."""

import base64
import hashlib
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from litestar import Litestar
from litestar.testing import TestClient

from auth_demo.op import EmbeddedOp, Lifetimes, OpSettings, RegisteredClient, create_op, op_of

ISSUER = "http://127.0.0.1:9000"
CALLBACK = "http://localhost:8000/auth/callback"
HOME = "http://localhost:8000/"
SECRET = "a-secret-of-the-reference-application"
VERIFIER = "v3rifier-" * 6


def s256(verifier: str) -> str:
    """The S256 challenge, computed independently of the provider."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class FakeClock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Recorder(httpx2.AsyncBaseTransport):
    """Replaces the clients' back-channel endpoints: responses from `answers`, then 200."""

    def __init__(self) -> None:
        self.answers: list[int | Exception] = []
        self.requests: list[tuple[str, dict[str, str]]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        self.requests.append((str(request.url), dict(parse_qsl(body.decode()))))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer)


@dataclass
class Flow:
    """Drives the code flow as a relying party and a browser do."""

    http: TestClient[Litestar]
    op: EmbeddedOp
    parameters: dict[str, str] = field(
        default_factory=lambda: {
            "response_type": "code",
            "client_id": "app",
            "redirect_uri": CALLBACK,
            "scope": "openid profile email",
            "state": "state-1",
            "nonce": "nonce-1",
            "code_challenge": s256(VERIFIER),
            "code_challenge_method": "S256",
        }
    )

    def authorize(self, **changes: str | None) -> Any:
        """GET /authorize; a value of None omits the parameter."""
        query = {name: value for name, value in (self.parameters | changes).items() if value is not None}
        return self.http.get("/authorize", params=query)

    @staticmethod
    def hidden(page: Any) -> dict[str, str]:
        """The hidden fields of a page."""
        return {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', page.text)}

    def submit(self, page: Any, **fields: str) -> Any:
        """Submit the sign-in form of `page`."""
        own = {name: value for name, value in self.hidden(page).items() if name in {"csrf", "authorization"}}
        return self.http.post("/login", data={**own, **fields})

    def sign_in(self, username: str = "alice", **changes: str | None) -> Any:
        """Click a demo user if the page is shown; return the response that goes to the client."""
        page = self.authorize(**changes)
        return self.submit(page, account=username) if page.status_code == 200 else page

    @staticmethod
    def reply(response: Any) -> dict[str, str]:
        """The parameters sent to the client, each exactly once."""
        assert response.status_code == 303, response.text
        query = parse_qs(urlsplit(response.headers["location"]).query, strict_parsing=True)
        assert all(len(values) == 1 for values in query.values())
        return {name: values[0] for name, values in query.items()}

    def code(self, username: str = "alice", **changes: str | None) -> str:
        """Sign in and return the code."""
        return self.reply(self.sign_in(username, **changes))["code"]

    def redeem(self, code: str, **changes: Any) -> Any:
        """POST the code to /token; `auth` changes the credentials."""
        auth = changes.pop("auth", ("app", SECRET))
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
        } | changes
        return self.http.post("/token", data={k: v for k, v in form.items() if v is not None}, auth=auth)

    def tokens(self, username: str = "alice", **changes: str | None) -> dict[str, Any]:
        """Run the whole flow and return the token response."""
        response = self.redeem(self.code(username, **changes))
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens

    def refresh(self, refresh_token: str, **changes: Any) -> Any:
        """POST a refresh token to /token."""
        auth = changes.pop("auth", ("app", SECRET))
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token} | changes
        return self.http.post("/token", data=form, auth=auth)

    def userinfo(self, access_token: str) -> Any:
        """GET /userinfo with a bearer token."""
        return self.http.get("/userinfo", headers={"Authorization": f"Bearer {access_token}"})

    def verify(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Verify a JWT with the published keys; returns header and claims."""
        keys = KeySet.import_key_set(self.http.get("/jwks.json").json())
        decoded = jwt.decode(token, keys, algorithms=["ES256"])
        return decoded.header, decoded.claims


@pytest.fixture
def clock() -> FakeClock:
    """The provider takes a function that returns seconds, in place of the clock of all other tests."""
    return FakeClock()


@pytest.fixture
def back_channel() -> Recorder:
    return Recorder()


@pytest.fixture
def settings() -> OpSettings:
    return OpSettings(
        issuer=ISSUER,
        lifetimes=Lifetimes(),
        logout_retry_seconds=0,
        clients=(
            RegisteredClient(
                client_id="app",
                client_secret=SECRET,
                client_name="Reference application",
                redirect_uris=(CALLBACK,),
                post_logout_redirect_uris=(HOME,),
                backchannel_logout_uri="http://localhost:8000/auth/backchannel-logout",
            ),
            RegisteredClient(
                client_id="post",
                client_secret="another-secret",
                redirect_uris=(CALLBACK,),
                token_endpoint_auth_method="client_secret_post",
                backchannel_logout_uri="http://localhost:8001/backchannel",
            ),
            RegisteredClient(client_id="public", redirect_uris=(CALLBACK,), token_endpoint_auth_method="none"),
            RegisteredClient(
                client_id="framed",
                client_secret=SECRET,
                redirect_uris=(CALLBACK,),
                post_logout_redirect_uris=("http://localhost:8002/bye?a=b",),
                frontchannel_logout_uri="http://localhost:8002/frontchannel",
            ),
        ),
    )


@pytest.fixture
def http(settings: OpSettings, clock: FakeClock, back_channel: Recorder) -> Iterator[TestClient[Litestar]]:
    app = create_op(settings, clock=clock, transport=back_channel)
    with TestClient(app, base_url=ISSUER) as client:
        client.follow_redirects = False
        yield client


@pytest.fixture
def op(http: TestClient[Litestar]) -> EmbeddedOp:
    return op_of(http.app)


@pytest.fixture
def flow(http: TestClient[Litestar], op: EmbeddedOp) -> Flow:
    return Flow(http, op)
