"""`/api/session...`: the typed data of one session over HTTP, as the reference of the interface lists it."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.session_data import AppSession
from session_core import StoreUnavailableError
from session_core.stores.base import StoredSession
from tests.app.conftest import Running

pytestmark = pytest.mark.anyio

HOUR, DAY = 3600, 86_400


async def test_a_visitor_gets_defaults_and_no_session(running: Running, client: httpx.AsyncClient) -> None:
    response = await client.get("/api/session")
    assert response.status_code == 200
    assert (
        response.json().items()
        >= {
            "theme": "light",
            "language": "en",
            "note": "",
            "visits": 0,
            "cart": [],
            "theme_chosen": False,
            "authenticated": False,
            "created_at": None,
            "idle_expires_at": None,
            "absolute_expires_at": None,
        }.items()
    )
    assert "set-cookie" not in response.headers
    assert (await running.plugin.sessions.stats()).total == 0


async def test_a_patch_stores_the_given_fields_and_starts_a_session(running: Running, client: httpx.AsyncClient) -> None:
    response = await client.patch("/api/session", json={"theme": "dark", "note": "milk"})
    assert response.status_code == 200
    assert (response.json()["theme"], response.json()["note"], response.json()["language"]) == ("dark", "milk", "en")
    now = running.clock.now() // 1000
    again = (await client.get("/api/session")).json()
    assert (again["theme"], again["note"]) == ("dark", "milk")
    assert again["authenticated"] is False
    assert again["created_at"] == now
    assert again["idle_expires_at"] == now + HOUR
    assert again["absolute_expires_at"] == now + DAY


INVALID: list[tuple[str, object]] = [
    ("theme", "purple"),
    ("theme", 1),
    ("language", 7),
    ("language", "no language at all"),
    ("note", ["a"]),
    ("note", "x" * 501),
    ("visits", 1000),
    ("authenticated", True),
]


async def test_an_invalid_value_is_refused_with_the_name_of_its_field(running: Running, client: httpx.AsyncClient) -> None:
    for field, value in INVALID:
        response = await client.patch("/api/session", json={field: value})
        assert response.status_code == 400, (field, value)
        assert response.headers["content-type"] == "application/problem+json"
        assert field in response.text
        assert (await running.plugin.sessions.stats()).total == 0, (field, value)


async def test_a_body_that_is_not_an_object_is_a_400(client: httpx.AsyncClient) -> None:
    for body in (b"", b"{", b"[]", b"\xff", b"null", b'{"theme":' + b"[" * 5000):
        response = await client.patch("/api/session", content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400, body[:20]
        assert response.json()["status"] == 400


async def test_concurrent_writes_of_one_field_conflict_and_of_different_fields_merge(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, both_have_read, reading = running.plugin.store.inner, asyncio.Barrier(2), 0
    load = store.load

    async def load_together(key: str) -> StoredSession | None:
        nonlocal reading
        stored, reading = await load(key), reading + 1
        if reading <= 2:  # wait only the first time: the retry reads again
            await both_have_read.wait()
        return stored

    async with running.client() as one, running.client() as two:
        await running.log_in(one)
        two.cookies = one.cookies
        monkeypatch.setattr(store, "load", load_together)
        both = await asyncio.gather(
            one.patch("/api/session", json={"note": "first"}), two.patch("/api/session", json={"language": "de"})
        )
        assert [response.status_code for response in both] == [200, 200]
        monkeypatch.undo()
        reading = 0
        stored = (await one.get("/api/session")).json()
        assert (stored["note"], stored["language"]) == ("first", "de")

        monkeypatch.setattr(store, "load", load_together)
        clash = await asyncio.gather(
            one.patch("/api/session", json={"note": "mine"}), two.patch("/api/session", json={"note": "yours"})
        )
        assert sorted(response.status_code for response in clash) == [200, 409]
        refused = next(response for response in clash if response.status_code == 409)
        assert refused.json()["code"] == "session_conflict"
        assert refused.json()["fields"] == ["note"]


async def test_concurrent_visits_are_all_counted(client: httpx.AsyncClient) -> None:
    first = await client.post("/api/session/visits")
    assert (first.status_code, first.json()) == (200, {"visits": 1})
    assert "session-8000=" in first.headers["set-cookie"]
    await asyncio.gather(*(client.post("/api/session/visits") for _ in range(49)))
    assert (await client.get("/api/session")).json()["visits"] == 50


async def test_regenerate_sets_a_new_cookie_and_invalidates_the_old_one(running: Running, client: httpx.AsyncClient) -> None:
    await client.post("/api/session/visits")
    old = client.cookies.get("session-8000")
    response = await client.post("/api/session/regenerate")
    assert response.status_code == 204
    assert client.cookies.get("session-8000") != old
    assert (await client.get("/api/session")).json()["visits"] == 1
    async with running.client() as thief:
        thief.cookies.set("session-8000", old or "", domain="localhost.local")
        assert (await thief.get("/api/session")).json()["visits"] == 0


async def test_a_session_ends_when_idle_and_after_a_day_at_the_latest(running: Running, client: httpx.AsyncClient) -> None:
    await client.post("/api/session/visits")
    running.clock.advance(minutes=59)
    assert (await client.get("/api/session")).json()["visits"] == 1
    running.clock.advance(minutes=61)
    assert (await client.get("/api/session")).json()["visits"] == 0

    await client.post("/api/session/visits")
    for _ in range(24):
        running.clock.advance(minutes=59)
        assert (await client.get("/api/session")).json()["visits"] == 1
    running.clock.advance(minutes=30)
    assert (await client.get("/api/session")).json()["visits"] == 0


@pytest.mark.attack("62")
async def test_a_store_outage_is_a_503_and_leaves_the_cookie(
    running: Running, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.post("/api/session/visits")

    async def down(*_: object, **__: object) -> None:
        raise StoreUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(running.plugin.store.inner, "load", down)
        response = await client.get("/api/session")
        assert response.status_code == 503
        assert response.json()["code"] == "store_unavailable"
        assert response.headers["retry-after"] == "1"
        assert "set-cookie" not in response.headers
        assert (await client.get("/health/live")).status_code == 200
    assert (await client.get("/api/session")).json()["visits"] == 1


@pytest.mark.attack("60")
async def test_a_change_from_another_site_is_refused(client: httpx.AsyncClient) -> None:
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        response = await client.post("/api/session/visits", headers=headers)
        assert response.status_code == 403
        assert response.json()["code"] == "cross_site_request"
        assert "set-cookie" not in response.headers


@pytest.mark.attack("59")
@pytest.mark.attack("asvs-14.3.2")
async def test_responses_that_depend_on_a_session_are_not_cacheable(running: Running, client: httpx.AsyncClient) -> None:
    await running.log_in(client, data=AppSession(note="private"))
    response = await client.get("/api/session")
    assert response.json()["note"] == "private"
    assert response.headers["cache-control"] == "private, no-store"
    assert "Cookie" in response.headers["vary"]
