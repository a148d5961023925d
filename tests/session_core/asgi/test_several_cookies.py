"""Several valid session cookies in one request: left by a change of the cookie's domain or path, or planted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.cookiejar import Cookie
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from session_core import ConfigurationError, CookieConfig
from session_core.cookies.encoding import encode_component
from session_core.ids import UncertainId, new_session_id, session_key
from session_core.stores import MemoryStore
from session_core.stores.opening import open_store
from session_core.testing import FakeClock, log_in, log_in_sync
from tests.support.redis_servers import _valkey, valkey
from tests.support.sessions import Recorder, client_of, make_app, plugin_in

__all__ = ("_valkey", "valkey")

pytestmark = pytest.mark.anyio

SITE = "http://app.example.test"


@pytest.fixture(params=["memory", "sqlite", "valkey"])
async def store(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Any]:
    """Each of these stores reports the successor of a rotated id in its own way."""
    clock = FakeClock()
    if request.param == "memory":
        yield MemoryStore(clock=clock)
        return
    url = f"sqlite:///{tmp_path}/sessions.db" if request.param == "sqlite" else request.getfixturevalue("valkey").url
    opened = open_store(url, clock=clock)
    await opened.open()
    yield opened
    await opened.close()


def application(store: Any, **options: Any) -> tuple[Litestar, Recorder]:
    recorder = Recorder()
    cookie = CookieConfig(name="session", **options)
    app = make_app(
        store=store, public_url=SITE, cookie=cookie, on_event=(recorder,), clock=getattr(store, "clock", None) or FakeClock()
    )
    return app, recorder


class Sender:
    """Sends the cookies that a test sets, and stores none."""

    def __init__(self, app: Litestar, client: httpx.AsyncClient) -> None:
        self.plugin = plugin_in(app)
        self.client = client

    async def __call__(self, method: str, path: str, *ids: str | UncertainId) -> httpx.Response:
        texts = [each if isinstance(each, str) else each.text() for each in ids]
        pairs = [f"session={encode_component(self.plugin.config.signer.sign(text))}" for text in texts]
        self.client.cookies.clear()
        return await self.client.request(method, path, headers={"cookie": "; ".join(pairs)} if pairs else {})

    async def login(self, subject: str, *ids: str) -> str:
        """Log in; return the new id."""
        response = await self("POST", f"/login/{subject}", *ids)
        assert response.status_code == 201
        return self.given(response)

    def given(self, response: httpx.Response) -> str:
        """The id that the response sets, in its last Set-Cookie."""
        value = response.headers.get_list("set-cookie")[-1].partition(";")[0].partition("=")[2]
        unsigned = self.plugin.config.signer.unsign(httpx.QueryParams(f"v={value}")["v"])
        assert unsigned is not None
        return unsigned.value

    async def subject(self, *ids: str | UncertainId) -> Any:
        response = await self("GET", "/read", *ids)
        assert response.status_code == 200
        return response.json()["subject"]


@asynccontextmanager
async def sending(store: Any, **options: Any) -> AsyncIterator[tuple[Sender, Recorder]]:
    app, recorder = application(store, **options)
    async with client_of(app, base_url=SITE) as client:
        yield Sender(app, client), recorder


def headers_of(response: httpx.Response) -> list[str]:
    return response.headers.get_list("set-cookie")


@pytest.mark.parametrize("options", [{}, {"domain": "example.test"}, {"path": "/read"}])
async def test_the_live_one_of_two_cookies_is_used_and_the_other_deleted(store: Any, options: dict[str, str]) -> None:
    async with sending(store, **options) as (send, recorder):
        live = await send.login("alice")
        dead = new_session_id()
        for ids in ((live, dead), (dead, live)):
            response = await send("GET", "/read", *ids)
            assert response.json()["subject"] == "alice"
            assert send.given(response) == live
        deleted = [header for header in headers_of(response) if "Max-Age=0" in header]
        assert len(deleted) == len(headers_of(response)) - 1
        assert all(header.startswith("session=;") for header in deleted)
        assert ("cookie.rejected", "ambiguous") not in [(event.name, event.reason) for event in recorder.events]


async def test_every_former_cookie_is_deleted_before_the_new_one_is_set() -> None:
    async with sending(MemoryStore(), domain="example.test", former_domains=["app.example.test"], former_paths=["/app"]) as (
        send,
        _,
    ):
        live = await send.login("alice")
        *deleted, last = headers_of(await send("GET", "/read", live, new_session_id()))
        assert "Domain=example.test" in last
        assert "Path=/;" in last
        assert "Max-Age=0" not in last
        assert {header.partition("GMT; ")[2].replace("; HttpOnly; SameSite=Lax", "") for header in deleted} == {
            "Path=/", "Path=/app", "Path=/; Domain=app.example.test", "Path=/app; Domain=app.example.test",
            "Path=/app; Domain=example.test",
        }  # fmt: skip
        # A response without a session cookie adds no header; one with it also deletes the former ones, because not all are
        # always sent.
        assert headers_of(await send("GET", "/read", live)) == []
        assert len(headers_of(await send("POST", "/login/bob", live))) == len(headers_of(await send("POST", "/logout"))) == 6


async def test_the_id_from_before_a_login_leads_to_the_same_session(store: Any) -> None:
    """A change of the domain: the login sets the new cookie, and the former cookie still contains the rotated id."""
    async with sending(store) as (send, _):
        first = send.given(await send("POST", "/visit"))
        second = await send.login("alice", first)
        third = send.given(await send("POST", "/regenerate", second))
        for ids in ((first, third), (third, second), (first, second, third)):
            assert await send.subject(*ids) == "alice"
        # The old ids alone open no session.
        assert await send.subject(first, second) is None


async def test_an_unknown_cookie_beside_one_of_its_ids_is_resolved(store: Any) -> None:
    async with sending(store) as (send, _):
        live = await send.login("alice")
        uncertain = UncertainId((new_session_id(after=session_key(live)),), live)
        for cookies in ((uncertain, live), (live, uncertain), (uncertain, new_session_id())):
            response = await send("GET", "/read", *cookies)
            assert response.json()["subject"] == "alice"
            assert send.given(response) == live


@pytest.mark.attack("53")
async def test_an_attackers_live_session_never_replaces_a_live_one(store: Any) -> None:
    async with sending(store) as (send, recorder):
        victim, attacker = await send.login("victim"), await send.login("attacker")
        for ids in ((victim, attacker), (attacker, victim)):
            assert await send.subject(*ids) is None
        assert [event.reason for event in recorder.events if event.name == "cookie.rejected"] == ["ambiguous"] * 2
        response = await send("PATCH", "/assign", victim, attacker)
        assert response.status_code < 500
        assert await send.subject(victim) == "victim"
        assert await send.subject(attacker) == "attacker"


@pytest.mark.attack("53")
async def test_an_attackers_session_never_replaces_one_just_rotated(store: Any) -> None:
    """A concurrent request sends the old id; the store knows that it leads to another live session."""
    async with sending(store) as (send, _):
        before, attacker = await send.login("victim"), await send.login("attacker")
        await send("POST", "/regenerate", before)
        for ids in ((before, attacker), (attacker, before)):
            assert await send.subject(*ids) is None


@pytest.mark.attack("53")
async def test_a_planted_dead_cookie_does_not_lock_the_victim_out(store: Any) -> None:
    async with sending(store) as (send, _):
        victim = await send.login("victim")
        planted = await send.login("attacker")
        await send("POST", "/logout", planted)
        assert await send.subject(planted, victim) == "victim"


async def test_a_login_replaces_every_cookie_the_browser_sends(store: Any) -> None:
    async with sending(store) as (send, _):
        one, two = await send.login("alice"), await send.login("bob")
        assert await send.subject(one, two) is None
        response = await send("POST", "/login/carol", one, two)
        carol = send.given(response)
        assert any("Max-Age=0" in header for header in headers_of(response)) == bool(send.plugin.config.resolved_cookie.former)
        # Whichever of the cookies remains in the browser.
        assert await send.subject(one, carol) == await send.subject(carol, two) == await send.subject(one, two, carol) == "carol"
        assert (await send("GET", "/read", carol)).json()["data"]["visits"] == 0


async def test_a_logout_ends_every_session_the_browser_sends(store: Any) -> None:
    async with sending(store, domain="example.test") as (send, _):
        one, two = await send.login("alice"), await send.login("bob")
        response = await send("POST", "/logout", one, two)
        assert all("Max-Age=0" in header for header in headers_of(response))
        assert len(headers_of(response)) == 2
        assert await send.subject(one) is await send.subject(two) is None


@pytest.mark.attack("54")
async def test_the_number_of_store_lookups_is_bounded() -> None:
    asked: list[str] = []

    class Counting(MemoryStore):
        async def load(self, key: str) -> Any:
            asked.append(key)
            return await super().load(key)

        async def trace(self, keys: Any) -> Any:
            asked.extend(keys)
            return await super().trace(keys)

    async with sending(Counting()) as (send, recorder):
        live = await send.login("alice")
        asked.clear()
        assert await send.subject(live, *(new_session_id() for _ in range(4))) is None
        assert asked == []
        assert recorder.events[-1].reason == "ambiguous"
        assert await send.subject(live, *(new_session_id() for _ in range(3))) == "alice"
        assert len(asked) == 5


async def test_an_outage_is_a_503_without_a_cookie() -> None:
    class Failing(MemoryStore):
        async def trace(self, keys: Any) -> Any:
            raise OSError

    async with sending(Failing()) as (send, _):
        live = await send.login("alice")
        response = await send("GET", "/read", live, new_session_id())
        assert (response.status_code, headers_of(response)) == (503, [])


# -- cookies kept by the browser --------------------------------------------------------------------------------------


def domains(client: Any) -> Iterator[tuple[str, str, str]]:
    for cookie in client.cookies.jar:
        assert isinstance(cookie, Cookie)
        yield cookie.name, cookie.domain, cookie.path


@pytest.mark.parametrize(
    ("before", "after"), [(None, "example.test"), ("example.test", None), ("app.example.test", "example.test")]
)
async def test_a_browser_stays_logged_in_through_a_change_of_the_domain(before: str | None, after: str | None) -> None:
    store = MemoryStore()
    old, _ = application(store, domain=before)
    new, _ = application(store, domain=after, former_domains=[] if before is None else [before])
    async with client_of(old, base_url=SITE) as client:
        await client.post("/login/alice")
        jar = client.cookies
    async with client_of(new, base_url=SITE, cookies=jar) as client:
        assert (await client.get("/read")).json()["subject"] == "alice"
        await client.post("/login/bob")
        assert len(list(domains(client))) == (2 if before is None else 1)
        for _ in range(2):
            assert (await client.get("/read")).json()["subject"] == "bob"
            assert len(list(domains(client))) == 1
        await client.post("/logout")
        assert (await client.get("/read")).json()["subject"] is None


@pytest.mark.parametrize("base_url", ["http://testserver.local", "http://127.0.0.1:8000"])
def test_a_synchronous_test_client_keeps_one_cookie(base_url: str) -> None:
    with TestClient(make_app(), base_url=base_url) as client:
        log_in_sync(client, "alice")
        log_in_sync(client, "carol")
        for _ in range(2):
            assert client.post("/login/bob").status_code == 201
            assert client.get("/read").json()["subject"] == "bob"
        assert len(list(domains(client))) == 1


@pytest.mark.parametrize("options", [{}, {"domain": "example.test"}, {"path": "/read"}])
async def test_a_test_client_keeps_one_cookie(options: dict[str, str]) -> None:
    app, _ = application(MemoryStore(), **options)
    async with client_of(app, base_url=SITE) as client:
        await log_in(client, app, "alice")
        assert (await client.get("/read")).json()["subject"] == "alice"
        kept = list(domains(client))
        await client.post("/login/bob")
        assert list(domains(client)) == kept
        assert (await client.get("/read")).json()["subject"] == "bob"


async def test_a_host_name_without_a_dot_has_one_cookie_too() -> None:
    app = make_app()
    async with client_of(app, base_url="http://localhost:8000") as client:
        await log_in(client, app, "alice")
        await client.post("/login/bob")
        assert len(list(domains(client))) == 1


async def test_a_client_with_a_plain_mapping_of_cookies_is_logged_in_too() -> None:
    class Client:
        def __init__(self) -> None:
            self.cookies: dict[str, str] = {}

    client = Client()
    await log_in(client, make_app(), "alice")
    assert client.cookies["session-8000"].startswith("s%3A")


@pytest.mark.parametrize(
    "options",
    [
        {"former_domains": ["evil.test"]},
        {"former_domains": ["a b"]},
        {"former_domains": "example.test"},
        {"former_paths": ["app"]},
        {"former_domains": [f"{number}.example.test" for number in range(5)]},
        {"name": "__Host-session", "former_domains": ["example.test"]},
    ],
)
def test_an_impossible_former_cookie_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        CookieConfig(**options).resolve("https://app.example.test")
