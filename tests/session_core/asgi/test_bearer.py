"""Sessions by bearer token: which carrier a request uses, what its response contains, and the same-origin rules."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest
from litestar import Litestar, WebSocket, get, post, websocket
from litestar.config.cors import CORSConfig
from litestar.params import FromPath
from litestar.testing import TestClient

from session_core import Identity, Impersonation, Session, SessionPlugin, Timeouts, session_of
from session_core.cookies import CookieSigner, sign_cookie
from session_core.events import Event
from session_core.guards import forbids_impersonation, requires, requires_login
from session_core.ids import new_session_id
from session_core.litestar.posture import cors_disagreements
from session_core.testing import FakeClock
from tests.support.live_wire import CLOSED, open_socket
from tests.support.sessions import HANDLERS, ISSUER, SECRET, AppSession, act_as, act_as_myself, make_config, plugin_in

pytestmark = pytest.mark.anyio

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 2.1."""
OTHER_SECRET = "fedcba9876543210fedcba9876543210-other"
JSON = {"accept": "application/json"}


@post("/native/{subject:str}", opt={"exclude_from_auth": True})
async def native_login(session: Session[AppSession], subject: FromPath[str]) -> dict[str, Any]:
    session.use_bearer()
    await session.login(Identity(issuer=ISSUER, subject=subject, auth_time=1_700_000_000))
    return {"token": session.new_token}


@get("/new-token")
async def new_token(session: Session[AppSession]) -> dict[str, Any]:
    return {"token": session.new_token}


@get("/own", guards=[forbids_impersonation])
async def own() -> str:
    return "own"


@get("/me", guards=[requires_login])
async def me(session: Session[AppSession]) -> str:
    return session.identity.subject if session.identity else ""


@get("/admin", guards=[requires(AppSession, lambda session: "admin" in session.data.roles)])
async def admin() -> str:
    return "admin"


@websocket("/socket", guards=[requires_login])
async def echo(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    await socket.accept()
    while True:
        await socket.send_text(f"{session.identity and session.identity.subject}: {await socket.receive_text()}")


class Site:
    """An application that accepts tokens, and its clients."""

    def __init__(self, *, cors: CORSConfig | None = None, **options: Any) -> None:
        self.clock = options.get("clock", FakeClock())
        self.events: list[Event] = []
        config = make_config(**{"bearer": True, "clock": self.clock, "on_event": [self.events.append], **options})
        self.app = Litestar(
            [*HANDLERS, native_login, act_as, act_as_myself, new_token, own, me, admin, echo],
            plugins=[SessionPlugin(config)],
            cors_config=cors,
            openapi_config=None,
            logging_config=None,
        )
        self.client = self.new_client()

    def new_client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")

    async def token(self, subject: str = "alice") -> str:
        response = await self.client.post(f"/native/{subject}")
        assert response.status_code == 201, response.text
        assert response.headers["session-token"] == response.json()["token"]
        assert "set-cookie" not in response.headers
        return str(response.json()["token"])

    async def send(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        headers = {**JSON, **({"authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
        response = await self.client.request(method, path, headers=headers, **options)
        if token:
            assert "set-cookie" not in response.headers
        return response

    async def who(self, token: str) -> str | None:
        response = await self.send("GET", "/me", token)
        return response.text if response.status_code == 200 else None


@pytest.fixture
async def site() -> Site:
    return Site()


def cookie_of(response: httpx.Response) -> str:
    return response.headers["set-cookie"].partition(";")[0].partition("=")[2]


async def test_a_token_opens_the_session_and_its_responses_set_no_cookie(site: Site) -> None:
    token = await site.token()
    assert TOKEN.fullmatch(token)
    assert await site.who(token) == "alice"
    assert [(await site.send("POST", "/visit", token)).json()["visits"] for _ in range(3)] == [1, 2, 3]
    assert (await site.send("PATCH", "/assign", token, json={"note": "kept"})).status_code == 200
    read = await site.send("GET", "/read", token)
    assert (read.json()["data"]["note"], read.json()["subject"]) == ("kept", "alice")
    assert read.headers["cache-control"] == "private, no-store"
    assert {part.strip() for part in read.headers["vary"].split(",")} >= {"Cookie", "Authorization"}
    assert "session-token" not in read.headers


async def test_the_store_contains_only_the_digest_of_a_token(site: Site) -> None:
    token = await site.token()
    store = plugin_in(site.app).store
    stored = [each async for each in store.scan()]
    assert len(stored) == 1
    assert token[:43] not in stored[0].key
    assert token[:43].encode() not in stored[0].entry.data
    assert token[:43] not in repr([site.events, stored])


async def test_a_visitor_without_a_token_gets_a_cookie_as_before(site: Site) -> None:
    assert (await site.send("GET", "/read")).json()["exists"] is False
    response = await site.send("POST", "/visit")
    assert "session-token" not in response.headers
    assert response.headers["set-cookie"].startswith("session-8000=")


async def test_regeneration_and_login_issue_a_new_token_and_invalidate_the_old_one(site: Site) -> None:
    first = await site.token()
    await site.send("POST", "/visit", first)
    second = (await site.send("POST", "/regenerate", first)).headers["session-token"]
    assert (await site.who(first), await site.who(second)) == (None, "alice")
    third = (await site.send("POST", "/login/bob", second)).headers["session-token"]
    assert (await site.who(second), await site.who(third)) == (None, "bob")
    assert len({first, second, third}) == 3
    assert (await site.send("GET", "/new-token", third)).json() == {"token": None}


async def test_concurrent_regenerations_leave_one_valid_token(site: Site) -> None:
    token = await site.token()
    responses = await asyncio.gather(*(site.send("POST", "/regenerate", token) for _ in range(20)))
    given = [response.headers["session-token"] for response in responses if "session-token" in response.headers]
    alive = [each for each in given if await site.who(each) == "alice"]
    assert len(alive) == 1
    assert await site.who(token) is None


async def test_a_logout_ends_the_token_without_cookie_headers(site: Site) -> None:
    token = await site.token()
    response = await site.send("POST", "/logout", token)
    assert (response.status_code, "session-token" in response.headers) == (201, False)
    assert await site.who(token) is None


async def test_sessions_by_token_are_revoked_and_limited_like_others() -> None:
    site = Site(max_sessions_per_user=2)
    tokens: list[str] = []
    for _ in range(3):
        tokens.append(await site.token())
        site.clock.advance(seconds=1)
    assert [await site.who(token) for token in tokens] == [None, "alice", "alice"]
    sessions = plugin_in(site.app).sessions
    listed = await sessions.list_for(Identity(issuer=ISSUER, subject="alice"))
    assert {each.device.user_agent.partition("/")[0] for each in listed} == {"python-httpx"}
    await sessions.revoke_all(Identity(issuer=ISSUER, subject="alice"))
    assert [await site.who(token) for token in tokens] == [None, None, None]


async def test_timeouts_apply_to_tokens() -> None:
    site = Site(timeouts=Timeouts(idle=100, absolute=250))
    token = await site.token()
    for _ in range(2):
        site.clock.advance(seconds=90)
        assert await site.who(token) == "alice"
    site.clock.advance(seconds=80)
    assert await site.who(token) is None
    idle = await site.token()
    site.clock.advance(seconds=101)
    assert await site.who(idle) is None


@pytest.mark.attack("90")
@pytest.mark.parametrize("path", ["/me", "/read", "/visit", "/logout", "/public"])
async def test_a_token_and_a_cookie_in_one_request_are_refused(site: Site, path: str) -> None:
    token = await site.token()
    cookie = cookie_of(await site.new_client().post("/login/mallory"))
    method = "POST" if path in {"/visit", "/logout"} else "GET"
    for value in (cookie, "junk", ""):
        response = await site.send(method, path, token, headers={"cookie": f"other=1; session-8000={value}"})
        if path == "/public":  # a route without a session reads neither
            assert response.status_code == 200
            continue
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
        assert response.headers["www-authenticate"].startswith('Bearer error="invalid_request"')
        assert response.headers["content-type"] == "application/problem+json"
    assert await site.who(token) == "alice"
    assert (await site.send("GET", "/me", headers={"cookie": f"session-8000={cookie}"})).text == "mallory"


@pytest.mark.attack("90")
@pytest.mark.parametrize("spelling", ["bearer {}", "BEARER {}", "Bearer  {}", "Bearer", "Bearer ", "Bearer\t{}", "bEaReR x y"])
async def test_every_case_of_the_bearer_scheme_is_accepted(site: Site, spelling: str) -> None:
    given = spelling.format(await site.token())
    cookie = cookie_of(await site.new_client().post("/login/mallory"))
    response = await site.send("GET", "/me", headers={"authorization": given, "cookie": f"session-8000={cookie}"})
    assert response.status_code == 400


@pytest.mark.attack("90")
async def test_two_tokens_in_one_request_are_refused(site: Site) -> None:
    one, two = await site.token(), await site.token("bob")
    for given in ((one, two), (one, one), (one, "junk")):
        headers = [("accept", "application/json"), *(("authorization", f"Bearer {each}") for each in given)]
        assert (await site.client.get("/me", headers=headers)).status_code == 400
    mixed = [("authorization", "Basic YTpi"), ("authorization", f"Bearer {one}")]
    assert (await site.client.get("/me", headers=mixed)).status_code == 400


async def test_other_authorization_schemes_are_ignored(site: Site) -> None:
    cookie = cookie_of(await site.new_client().post("/login/carol"))
    for given in ("Basic YTpi", "Bearertoken x", "DPoP x", "Bearer-Ext x"):
        response = await site.send("GET", "/me", headers={"authorization": given, "cookie": f"session-8000={cookie}"})
        assert (response.status_code, response.text) == (200, "carol")


@pytest.mark.attack("97")
async def test_a_token_in_the_query_or_the_body_is_refused(site: Site) -> None:
    token = await site.token()
    assert (await site.send("GET", f"/me?access_token={token}")).status_code == 401
    form = {"access_token": token}
    assert (await site.send("POST", "/visit", data=form)).json() == {"visits": 1}  # a new visitor's
    assert (await site.send("GET", f"/me?a=1&access_token={token}", token)).status_code == 400


@pytest.mark.parametrize(
    "junk", ["", "x", "x" * 600, "s:abc.def", "a" * 46 + "." + "b" * 43, "~", "%00", "é".encode().decode("latin-1")]
)
async def test_an_invalid_token_is_401_and_starts_no_session(site: Site, junk: str) -> None:
    for method, path in (("GET", "/me"), ("GET", "/read"), ("POST", "/visit"), ("POST", "/logout"), ("POST", "/regenerate")):
        response = await site.client.request(method, path, headers={**JSON, "authorization": f"Bearer {junk}".encode("latin-1")})  # type: ignore[dict-item]
        assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
        assert response.headers["www-authenticate"].startswith('Bearer error="invalid_token", error_description="')
        assert "set-cookie" not in response.headers
        assert "session-token" not in response.headers
    assert [each async for each in plugin_in(site.app).store.scan()] == []
    assert {event.name for event in site.events} == {"token.rejected"}


async def test_a_token_with_any_part_changed_is_invalid(site: Site) -> None:
    token = await site.token()
    for index, char in enumerate(token):
        changed = token[:index] + ("A" if char != "A" else "B") + token[index + 1 :]
        assert await site.who(changed) is None, index
    for other in (token[:-1], token + "A", token + "=", token.swapcase(), token.replace(".", "~")):
        assert await site.who(other) is None
    assert await site.who(token) == "alice"


@pytest.mark.attack("90")
async def test_a_cookie_value_is_no_token_and_a_token_no_cookie_value(site: Site) -> None:
    token = await site.token()
    session_id = token.partition(".")[0]
    cookie = cookie_of(await site.new_client().post("/login/carol"))
    plain = cookie.replace("%3A", ":").replace("%2B", "+").replace("%2F", "/")
    for given in (plain, plain.removeprefix("s:"), sign_cookie(session_id, SECRET).removeprefix("s:")):
        assert await site.who(given) is None
    for value in (token, f"s:{token}"):
        encoded = value.replace(":", "%3A").replace("+", "%2B").replace("/", "%2F")
        assert (await site.send("GET", "/me", headers={"cookie": f"session-8000={encoded}"})).status_code == 401


async def test_a_token_of_an_older_secret_works_and_is_reissued() -> None:
    before = Site()
    token = await before.token()
    after = Site(secrets=(OTHER_SECRET, SECRET), store=plugin_in(before.app).store.inner, clock=before.clock)
    response = await after.send("GET", "/me", token)
    assert response.text == "alice"
    again = response.headers["session-token"]
    assert (again != token, again.partition(".")[0]) == (True, token.partition(".")[0])
    assert "session-token" not in (await after.send("GET", "/me", again)).headers
    retired = Site(secrets=(OTHER_SECRET,), store=plugin_in(before.app).store.inner, clock=before.clock)
    assert (await retired.who(token), await retired.who(again)) == (None, "alice")


async def test_the_challenge_names_the_error_only_to_clients_with_a_token(site: Site) -> None:
    token = await site.token()
    none = await site.send("GET", "/me")
    assert (none.status_code, none.headers["www-authenticate"]) == (401, "Bearer")
    poor = await site.send("GET", "/admin", token)
    assert poor.status_code == 403
    assert poor.headers["www-authenticate"].startswith('Bearer error="insufficient_scope"')
    browser = await site.client.get(
        "/me", headers={"accept": "text/html,application/xhtml+xml", "authorization": f"Bearer {token}x"}
    )
    assert browser.status_code == 401  # no redirect to the login


@pytest.mark.attack("93")
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "none", "origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
async def test_a_cross_origin_request_is_judged_the_same_with_or_without_a_token(site: Site, headers: dict[str, str]) -> None:
    token = await site.token()
    cookie = {"cookie": f"session-8000={cookie_of(await site.new_client().post('/login/carol'))}"}
    for given in (
        {},
        cookie,
        {"authorization": f"Bearer {token}"},
        {"authorization": "Bearer junk", **cookie},
        {"authorization": "Bearer"},
    ):
        response = await site.client.post("/visit", headers={**JSON, **headers, **given})
        assert (response.status_code, response.json()["code"]) == (403, "cross_site_request")
    assert (await site.send("POST", "/visit", token)).json() == {"visits": 1}


@pytest.mark.attack("93")
async def test_a_trusted_page_may_send_a_token() -> None:
    site = Site(trusted_origins=["https://app.example.org"])
    token = await site.token()
    headers = {"sec-fetch-site": "cross-site", "origin": "https://app.example.org"}
    assert (await site.send("POST", "/visit", token, headers=headers)).json() == {"visits": 1}


@pytest.mark.attack("93")
async def test_a_cross_origin_page_sends_a_token_only_with_cors() -> None:
    """The token causes a preflight request; the same-origin rule judges the request that follows."""
    page, evil = "https://app.example.org", "https://evil.example"
    cors = CORSConfig(allow_origins=[page], allow_methods=["POST"], allow_headers=["authorization"])
    site = Site(cors=cors, trusted_origins=[page])
    token = await site.token()
    for origin, allowed in ((page, True), (evil, False)):
        asked = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        preflight = await site.client.options("/visit", headers=asked)
        assert (preflight.headers.get("access-control-allow-origin") == origin) is allowed
        sent = await site.send("POST", "/visit", token, headers={"sec-fetch-site": "cross-site", "origin": origin})
        assert sent.status_code == (201 if allowed else 403)
        assert (sent.headers.get("access-control-allow-origin") == origin) is allowed
        read = await site.send("GET", "/me", token, headers={"sec-fetch-site": "cross-site", "origin": origin})
        assert (
            read.headers.get("access-control-allow-origin") == origin
        ) is allowed  # otherwise the browser withholds the response
    assert cors_disagreements(cors, make_config(bearer=True, trusted_origins=[page])) == []


async def test_without_the_setting_the_header_is_ignored() -> None:
    site = Site(bearer=False)
    cookie = cookie_of(await site.client.post("/login/alice"))
    response = await site.client.get("/me", headers={"authorization": "Bearer x", "cookie": f"session-8000={cookie}"})
    assert (response.status_code, response.text) == (200, "alice")
    assert "Authorization" not in response.headers["vary"]
    refused = await site.new_client().get("/me", headers={**JSON, "authorization": "Bearer x"})
    assert (refused.status_code, "www-authenticate" in refused.headers) == (401, False)
    assert (await site.new_client().post("/native/alice")).status_code == 500
    page = {"accept": "text/html", "authorization": "Bearer x"}  # sent by a browser behind a proxy that adds its own token
    assert (await site.new_client().get("/me", headers=page)).headers["location"] == "/auth/login?next=%2Fme"


@pytest.mark.attack("90")
async def test_a_browser_with_a_cookie_gets_no_token(site: Site) -> None:
    cookie = cookie_of(await site.new_client().post("/login/alice"))
    for value in (cookie, "junk"):
        response = await site.send("POST", "/native/alice", headers={"cookie": f"session-8000={value}"})
        assert response.status_code == 400
        assert "session-token" not in response.headers


async def test_outer_middleware_sees_the_same_carrier() -> None:
    seen: list[Any] = []

    async def before_send(message: Any, scope: Any) -> None:
        if message["type"] == "http.response.start" and scope["path"] == "/missing":
            try:
                found = (await session_of(scope)).identity
                seen.append(found.subject if found else None)
            except Exception as error:  # noqa: BLE001 - what a hook would see
                seen.append(type(error).__name__)

    plugin = SessionPlugin(make_config(bearer=True))
    app = Litestar([native_login], plugins=[plugin], before_send=[before_send], openapi_config=None, logging_config=None)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        token = (await client.post("/native/alice")).json()["token"]
        bearer = {"authorization": f"Bearer {token}"}
        for headers in (bearer, {}, {"authorization": "Bearer x"}, {**bearer, "cookie": "session-8000=x"}):
            response = await client.get("/missing", headers=headers)
            assert (response.status_code, "set-cookie" in response.headers) == (404, False)
    assert seen == ["alice", None, "InvalidTokenError", "AmbiguousCredentialsError"]


def test_a_websocket_opens_by_token_and_closes_with_its_session() -> None:
    site = Site()
    with TestClient(site.app, base_url="http://127.0.0.1:8000") as client:
        token = client.post("/native/alice").json()["token"]
        headers = {"authorization": f"Bearer {token}"}
        with client.websocket_connect("/socket", headers=headers) as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "alice: hello"
            assert client.post("/logout", headers=headers).status_code == 201
            with pytest.raises(Exception, match=r"4401|session ended"):
                socket.receive_text(timeout=60)
        for wrong, code in (({"authorization": f"Bearer {token}"}, 4401), ({**headers, "cookie": "session-8000=x"}, 4400)):
            with pytest.raises(Exception) as refused, client.websocket_connect("/socket", headers=wrong):  # noqa: PT011
                pass
            assert getattr(refused.value, "code", None) == code


@pytest.mark.attack("80")
@pytest.mark.attack("82")
@pytest.mark.attack("84")
async def test_a_native_client_acts_as_a_user_by_tokens_of_one_session() -> None:
    site = Site(clock=FakeClock(1_700_000_000_000), impersonation=Impersonation(allow=lambda actor, _: actor.subject == "root"))
    roots = await site.token("root")

    async def moved(path: str, token: str) -> str:
        answer = await site.send("POST", path, token)
        assert answer.status_code == 201, answer.text
        assert await site.who(token) is None  # the former token opens nothing
        return answer.headers["session-token"]

    as_bob = await moved("/act-as/bob", roots)
    assert await site.who(as_bob) == "bob"
    refused = await site.send("GET", "/own", as_bob)
    assert (refused.status_code, refused.json()["code"]) == (403, "impersonation_forbidden")
    again = await moved("/regenerate", as_bob)
    back = await moved("/act-as-myself", again)
    assert (await site.who(back), (await site.send("GET", "/own", back)).text) == ("root", "own")
    for end in ("logout", "revoked", "expired"):
        token = await moved("/act-as/bob", await site.token("root"))
        wire = await open_socket(site.app, site.client, "/socket", token=token)
        match end:
            case "logout":
                assert (await site.send("POST", "/logout", token)).status_code == 201
            case "revoked":
                await plugin_in(site.app).sessions.revoke_all(Identity(issuer=ISSUER, subject="root"))
            case _:
                site.clock.advance(seconds=900)
        assert await wire.closed() == CLOSED
        assert await site.who(token) is None
    told = [(event.reason, event.actor and event.actor.subject) for event in site.events if event.name == "impersonation.ended"]
    assert told == [(reason, "root") for reason in ("stopped", "logout", "revoked", "expired")]


def test_the_schema_has_both_security_schemes_on_guarded_routes_only() -> None:
    app = Litestar([me, native_login], plugins=[SessionPlugin(make_config(bearer=True))], logging_config=None)
    schema = app.openapi_schema.to_schema()
    assert schema["components"]["securitySchemes"]["bearer"] | {"description": ""} == {
        "type": "http", "scheme": "bearer", "description": "",
    }  # fmt: skip
    assert schema["paths"]["/me"]["get"]["security"] == [{"session": []}, {"bearer": []}]
    assert schema["paths"]["/native/{subject}"]["post"]["security"] == []
    plain = Litestar([me], plugins=[SessionPlugin(make_config())], logging_config=None).openapi_schema.to_schema()
    assert "bearer" not in plain["components"]["securitySchemes"]


def test_tokens_are_signed_with_separate_keys() -> None:
    config = make_config(bearer=True)
    assert config.token_signer is not None
    session_id = new_session_id()
    assert config.token_signer.sign(session_id) not in {
        config.signer.sign(session_id),
        CookieSigner.for_cookie("x", [SECRET]).sign(session_id),
    }
    assert SECRET not in repr(config)
    assert make_config().token_signer is None
