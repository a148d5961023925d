"""A small scripted provider and a browser that logs in with it; shares no code with the relying party."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import httpx2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from litestar import Litestar

from session_core import Event, SessionPlugin
from session_core.oidc import OidcConfig, OidcPlugin, OidcProvider
from session_core.sealing import SealingKeys
from session_core.stores import SessionStore
from session_core.testing import FakeClock
from tests.support.sessions import HANDLERS, make_config

ISSUER = "https://op.example"
CLIENT_ID = "app"
CLIENT_SECRET = "s3cret:with%odd+chars"
PUBLIC_URL = "http://127.0.0.1:8000"
GET_PAGE = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html"}
GONE = object()
"""The value of a claim that is omitted."""

RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = Ed25519PrivateKey.generate()


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def b64_json(value: object) -> str:
    return b64(json.dumps(value).encode())


def number(value: int, length: int | None = None) -> str:
    return b64(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


def public_jwk(key: Any, kid: str | None = None, **members: Any) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        jwk: dict[str, Any] = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        jwk = {"kty": "EC", "crv": "P-256", "x": number(point.x, 32), "y": number(point.y, 32)}
    else:
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
    return {**jwk, **({"kid": kid} if kid else {}), **members}


def sign(header: dict[str, Any], claims: dict[str, Any] | str, key: Any) -> str:
    payload = claims if isinstance(claims, str) else json.dumps(claims)
    text = f"{b64_json(header)}.{b64(payload.encode())}"
    return f"{text}.{b64(signature(header['alg'], text.encode(), key))}"


def signature(alg: str, text: bytes, key: Any) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        pad: Any = padding.PKCS1v15() if alg.startswith("RS") else padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        return key.sign(text, pad, hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return key.sign(text)  # type: ignore[no-any-return]


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


def by_basic(request: httpx2.Request, form: dict[str, str]) -> None:
    basic = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
    assert basic == "app:s3cret%3Awith%25odd%2Bchars"
    assert not {"client_secret", "client_assertion"} & set(form)


class FakeOp:
    """A changed attribute applies from the next request on."""

    def __init__(self, clock: FakeClock, issuer: str = ISSUER) -> None:
        self.clock = clock
        self.issuer = issuer
        self.client_auth: Callable[[httpx2.Request, dict[str, str]], None] = by_basic
        self.pushed: dict[str, dict[str, str]] = {}
        self.key: Any = RSA_KEY
        self.alg = "RS256"
        self.kid: str | None = "k1"
        self.jwks: list[Any] = [public_jwk(RSA_KEY, "k1", alg="RS256", use="sig")]
        self.metadata: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.forge: Callable[[dict[str, Any], dict[str, Any]], str] | None = None
        self.answer: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.replies: dict[str, Callable[[httpx2.Request], httpx2.Response | Awaitable[httpx2.Response]]] = {}
        self.response_params: dict[str, str | None] = {}
        self.calls: list[httpx2.Request] = []
        self.codes: dict[str, dict[str, str]] = {}
        self.subject = "alice"
        self.sid = "op-session-1"
        self.access_tokens = 0
        self.auth_time: int | None = None
        self.refreshable = False
        self.refresh_token = ""

    # -- the browser's side ----------------------------------------------------------------------------------

    def authorize(self, url: str) -> str:
        """Consent as the user; return the URL of the callback."""
        redirect_uri, params = self.respond(url)
        return f"{redirect_uri}?{httpx.QueryParams(params)}"

    def respond(self, url: str) -> tuple[str, dict[str, str]]:
        """Consent as the user; return the URL and the parameters of the response."""
        asked = dict(parse_qsl(urlsplit(url).query))
        if "request_uri" in asked:
            assert set(asked) == {"client_id", "request_uri"}
            asked = self.pushed.pop(asked["request_uri"])
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        params: dict[str, str | None] = {"code": code, "state": asked["state"], "iss": self.issuer, **self.response_params}
        return asked["redirect_uri"], {name: value for name, value in params.items() if value is not None}

    # -- the relying party's side ----------------------------------------------------------------------------

    def count(self, path: str) -> int:
        return sum(call.url.path == path for call in self.calls)

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        response = await self.reply(request)
        if not response.is_stream_consumed:
            return response
        # As from a network: the body is not read yet.
        return httpx2.Response(response.status_code, headers=response.headers, content=pieces(response.content))

    async def reply(self, request: httpx2.Request) -> httpx2.Response:
        self.calls.append(request)
        path = request.url.path
        if path in self.replies:
            reply = self.replies[path](request)
            return reply if isinstance(reply, httpx2.Response) else await reply
        if path == "/.well-known/openid-configuration":
            return httpx2.Response(200, json=self.configuration())
        if path == "/jwks":
            return httpx2.Response(200, json={"keys": self.jwks})
        if path in {"/token", "/par"}:
            return self.token(request) if path == "/token" else self.push(request)
        if path == "/userinfo":
            assert request.headers["authorization"].startswith("Bearer at-")
            return httpx2.Response(200, json=self.changed({"sub": self.subject, "name": "Alice"}, self.userinfo))
        return httpx2.Response(404)

    def configuration(self) -> dict[str, Any]:
        known = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/end",
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA", "none", "HS256"],
            "authorization_response_iss_parameter_supported": True,
            "mtls_endpoint_aliases": {"token_endpoint": f"{self.issuer}/mtls-token"},
        }
        return self.changed(known, self.metadata)

    def form_of(self, request: httpx2.Request) -> dict[str, str]:
        """The parameters of a request by our client."""
        form = parse_qs(request.content.decode(), strict_parsing=True)
        assert all(len(values) == 1 for values in form.values())
        given = {name: values[0] for name, values in form.items()}
        self.client_auth(request, given)
        return given

    def push(self, request: httpx2.Request) -> httpx2.Response:
        given = self.form_of(request)
        assert "request_uri" not in given
        request_uri = f"urn:ietf:params:oauth:request_uri:{secrets.token_urlsafe(16)}"
        self.pushed[request_uri] = given
        return httpx2.Response(201, json={"request_uri": request_uri, "expires_in": 60})

    def hold(self, path: str = "/token") -> tuple[asyncio.Event, asyncio.Event]:
        """Make an endpoint wait. Returns two events: the first is set by a request, the second lets the endpoint respond."""
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def slow(request: httpx2.Request) -> httpx2.Response:
            asked.set()
            await go_on.wait()
            return self.token(request) if path == "/token" else httpx2.Response(200, json={"sub": self.subject})

        self.replies[path] = slow
        return asked, go_on

    def token(self, request: httpx2.Request) -> httpx2.Response:
        given = self.form_of(request)
        if given["grant_type"] == "authorization_code":
            asked = self.codes.pop(given["code"], None)
            challenge = b64(hashlib.sha256(given["code_verifier"].encode()).digest())
            if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != given["redirect_uri"]:
                return httpx2.Response(400, json={"error": "invalid_grant", "error_description": "<script>"})
            nonce = {"nonce": asked["nonce"]}
        else:
            if given["refresh_token"] != self.refresh_token:
                return httpx2.Response(400, json={"error": "invalid_grant"})
            nonce = {}
        if self.refreshable:
            # Rotated with every use; the old one is invalid at once.
            self.refresh_token = f"rt-{secrets.token_urlsafe(8)}"
        self.access_tokens += 1
        access_token = f"at-{self.access_tokens}"
        answer = {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": self.id_token(nonce, access_token),
            "scope": "openid",
        }
        if self.refreshable:
            answer["refresh_token"] = self.refresh_token
        return httpx2.Response(200, json=self.changed(answer, self.answer))

    def id_token(self, nonce: dict[str, str], access_token: str) -> str:
        now = self.clock.now() // 1000
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        claims = {
            "iss": self.issuer, "sub": self.subject, "aud": CLIENT_ID, "exp": now + 300, "iat": now, "sid": self.sid,
            "at_hash": b64(half), **nonce,
        }  # fmt: skip
        if self.auth_time is not None:
            claims["auth_time"] = self.auth_time
        return self.signed(self.changed(claims, self.claims))

    def signed(self, claims: dict[str, Any], **header: Any) -> str:
        given = {"alg": self.alg, "typ": "JWT", **({"kid": self.kid} if self.kid else {}), **header}
        given = self.changed(given, self.header)
        return self.forge(given, claims) if self.forge else sign(given, claims, self.key)

    def logout_token(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        now = self.clock.now() // 1000
        claims = {
            "iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 120, "jti": secrets.token_urlsafe(8), "sid": self.sid,
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        }  # fmt: skip
        given = {"alg": self.alg, "kid": self.kid, "typ": "logout+jwt", **(header or {})}
        given = {name: value for name, value in given.items() if value is not GONE and value is not None}
        return sign(given, self.changed(claims, changes), self.key)

    @staticmethod
    def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**values, **changes}.items() if value is not GONE}


class World:
    """The application, the provider and one browser, in one event loop."""

    def __init__(
        self,
        *,
        public_url: str = PUBLIC_URL,
        provider: dict[str, Any] | None = None,
        handlers: Sequence[Any] = (),
        sharing: World | None = None,
        clock: FakeClock | None = None,
        store: str | SessionStore = "memory://",
        beside: Callable[[FakeClock], Sequence[tuple[Any, Any]]] = lambda _: (),
        config: dict[str, Any] | None = None,
        **oidc: Any,
    ) -> None:
        """With `sharing`, this is another process of that application and uses the same store, clock and provider.

        With `sharing`, a `clock` and a `store`, it is on another node: it has its own clock and opens the store itself.

        `beside`: returns further providers, each with its scripted counterpart. `config`: options of `SessionConfig`.
        """
        self.clock = clock or (sharing.clock if sharing else FakeClock())
        self.op = sharing.op if sharing else FakeOp(self.clock)
        self.events: list[Event] = []
        self.public_url = public_url
        self.sessions = SessionPlugin(
            make_config(
                public_url=public_url,
                clock=self.clock,
                on_event=[self.events.append],
                store=sharing.sessions.store.inner if sharing and clock is None else store,
                **(config or {}),
            )
        )
        given: dict[str, Any] = {"issuer": ISSUER, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, **(provider or {})}
        others = beside(self.clock)
        self.ops: dict[str, Any] = {urlsplit(other.issuer).hostname or "": other for _, other in others}
        oidc.setdefault("transport", httpx2.MockTransport(self.reach))
        self.oidc = OidcPlugin(
            OidcConfig(
                providers=[OidcProvider(**given), *(each for each, _ in others)],
                public_url=public_url,
                sealing=SealingKeys([b"k" * 32]),
                http_timeout_seconds=oidc.pop("http_timeout_seconds", 30),
                **oidc,
            )
        )
        self.app = Litestar([*HANDLERS, *handlers], plugins=[self.sessions, self.oidc], openapi_config=None, logging_config=None)
        self.browser = self.new_browser()
        self.planted: str | None = None

    async def reach(self, request: httpx2.Request) -> httpx2.Response:
        """The network: each provider at its host; other hosts go to the first provider."""
        return await self.ops.get(request.url.host, self.op).handle(request)  # type: ignore[no-any-return]

    def new_browser(self, **options: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url=self.public_url, **options)

    async def start(self, browser: httpx.AsyncClient | None = None, **params: str) -> str:
        """Follow the login link; return the address at the provider."""
        response = await (browser or self.browser).get("/auth/login", params=params, headers=GET_PAGE)
        assert response.status_code == 303, response.text
        return response.headers["location"]

    async def come_back(self, url: str, browser: httpx.AsyncClient | None = None) -> httpx.Response:
        """Follow the provider's redirect to the callback."""
        headers = {**GET_PAGE, "sec-fetch-site": "cross-site"}
        return await (browser or self.browser).get(url, headers=headers)

    async def login(self, browser: httpx.AsyncClient | None = None, **params: str) -> httpx.Response:
        """Log in from the link to the callback's response."""
        return await self.come_back(self.op.authorize(await self.start(browser, **params)), browser)

    async def subject(self, browser: httpx.AsyncClient | None = None) -> str | None:
        """The logged-in user by the application's response."""
        return (await (browser or self.browser).get("/read")).json()["subject"]  # type: ignore[no-any-return]

    async def raw_status(
        self, path: str, query: bytes, headers: dict[str, str], *, method: str = "GET", body: Iterable[bytes] = ()
    ) -> int:
        """Send a request that no HTTP client would send, and return the status."""
        sent: list[Any] = []
        chunks = iter(body)
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": query, "root_path": "", "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000), "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip

        async def receive() -> Any:
            chunk = next(chunks, None)
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)  # type: ignore[arg-type]
        return int(sent[0]["status"])

    async def plant(self) -> None:
        """Give the browser a session before the login, to check that a rejected login leaves it unchanged."""
        response = await self.browser.patch("/assign", json={"note": "before"})
        assert response.status_code == 200
        self.planted = self.browser.cookies.get("session-8000")
        assert self.planted

    async def assert_rejected(self, response: httpx.Response, reason: str) -> None:
        """Assert a complete rejection: a generic error, no login, the old session unchanged, one event."""
        assert 400 <= response.status_code < 600
        assert self.reasons() == [reason]
        assert "set-cookie" not in response.headers or "session-8000=" not in response.headers["set-cookie"]
        assert self.browser.cookies.get("session-8000") == self.planted
        state = (await self.browser.get("/read")).json()
        assert (state["subject"], state["data"]["note"]) == (None, "before")
        for text in ("script", "at-", "op.example", reason):
            assert text not in response.text

    async def send_logout(self, token: str, **options: Any) -> httpx.Response:
        """Deliver a logout token as the provider does: no cookies, no browser headers."""
        async with self.new_browser() as provider:
            return await provider.post("/auth/backchannel-logout", data={"logout_token": token}, **options)

    def reasons(self, name: str = "login.failed") -> list[str | None]:
        return [event.reason for event in self.events if event.name == name]
