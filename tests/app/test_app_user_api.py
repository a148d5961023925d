"""`/api/me` and `/api/sessions`: the logged-in user and the user's other sessions."""

from __future__ import annotations

import httpx
import pytest

from app.routes.account import RECENT_MINUTES
from tests.app.conftest import ISSUER, Running

pytestmark = pytest.mark.anyio


async def test_me_needs_a_login(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/me")
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem.pop("request_id") == response.headers["x-request-id"]
    assert problem == {"type": "about:blank", "title": "Login required", "status": 401, "code": "login_required"}


async def test_me_returns_the_logged_in_user(running: Running, client: httpx.AsyncClient) -> None:
    identity = await running.log_in(client, "admin", roles=("user", "admin"))
    response = await client.get("/api/me")
    assert response.status_code == 200
    assert response.json() == {
        "issuer": ISSUER,
        "subject": "admin",
        "name": "Admin",
        "email": "admin@example.org",
        "roles": ["admin", "user"],
        "auth_time": identity.auth_time,
    }


@pytest.mark.attack("63")
@pytest.mark.attack("asvs-7.4.2")
@pytest.mark.parametrize("path", ["/api/me", "/api/sessions", "/account", "/account/sessions"])
async def test_a_disabled_user_is_refused_on_the_next_request(running: Running, client: httpx.AsyncClient, path: str) -> None:
    identity = await running.log_in(client)
    assert (await client.get(path)).status_code == 200
    await running.services.users.set_disabled(identity.user_key, disabled=True)
    assert (await client.get(path)).status_code == 403
    assert (await client.get("/api/session")).json()["authenticated"] is False


@pytest.mark.attack("63")
async def test_a_removed_role_is_gone_on_the_next_request(running: Running, client: httpx.AsyncClient) -> None:
    identity = await running.log_in(client, "admin", roles=("user", "admin"))
    assert (await client.get("/admin")).status_code == 200
    await running.services.users.remember(identity, {"roles": ["user"]})
    assert (await client.get("/admin")).status_code == 403


@pytest.mark.attack("64")
@pytest.mark.attack("asvs-6.8.1")
async def test_the_same_subject_of_another_issuer_is_another_user(running: Running, client: httpx.AsyncClient) -> None:
    identity = await running.log_in(client)
    other = type(identity)(issuer="https://elsewhere.example", subject=identity.subject)
    assert await running.services.users.find(other.user_key) is None
    await running.services.users.remember(other, {"name": "Another user"})
    assert (await client.get("/api/me")).json()["name"] == "Alice"


@pytest.mark.attack("asvs-7.5.2")
async def test_sessions_are_listed_without_ids_or_keys(running: Running, client: httpx.AsyncClient) -> None:
    async with running.client() as phone, running.client() as stranger:
        await running.log_in(client)
        await running.log_in(phone)
        await running.log_in(stranger, "bob")
        response = await client.get("/api/sessions")
        assert response.status_code == 200
        items = response.json()
        assert [set(item) for item in items] == [{"handle", "current", "created_at", "last_seen_at", "ip", "user_agent"}] * 2
        assert sorted(item["current"] for item in items) == [False, True]
        assert {item["ip"] for item in items} == {"192.0.2.7"}
        async for stored in running.plugin.store.scan():
            assert stored.key not in response.text
        for http in (client, phone):
            assert (http.cookies.get("session-8000") or "none")[6:40] not in response.text


@pytest.mark.attack("asvs-7.5.2")
async def test_a_handle_ends_one_session_of_the_own_user_only(running: Running, client: httpx.AsyncClient) -> None:
    async with running.client() as phone, running.client() as stranger:
        await running.log_in(client)
        await running.log_in(phone)
        await running.log_in(stranger, "bob")
        foreign = next(item["handle"] for item in (await stranger.get("/api/sessions")).json())
        other = next(item["handle"] for item in (await client.get("/api/sessions")).json() if not item["current"])

        assert (await client.delete(f"/api/sessions/{foreign}")).status_code == 404
        assert (await client.delete("/api/sessions/unknown")).status_code == 404
        assert (await stranger.get("/api/me")).status_code == 200

        assert (await client.delete(f"/api/sessions/{other}")).status_code == 204
        assert (await phone.get("/api/me")).status_code == 401
        assert (await client.get("/api/me")).status_code == 200


@pytest.mark.attack("asvs-7.4.3")
async def test_signing_out_everywhere_else_keeps_the_current_session(running: Running, client: httpx.AsyncClient) -> None:
    async with running.client() as phone:
        await running.log_in(client)
        await running.log_in(phone)
        assert (await client.delete("/api/sessions")).status_code == 204
        assert (await client.get("/api/me")).status_code == 200
        assert (await phone.get("/api/me")).status_code == 401


async def test_sessions_are_ended_only_after_a_recent_login(running: Running, client: httpx.AsyncClient) -> None:
    await running.log_in(client)
    (own,) = [item["handle"] for item in (await client.get("/api/sessions")).json()]
    running.clock.advance(seconds=RECENT_MINUTES * 60 + 1)
    for path in ("/api/sessions", f"/api/sessions/{own}"):
        refused = await client.delete(path)
        assert (refused.status_code, refused.json()["code"]) == (401, "step_up_required")
    assert len((await client.get("/api/sessions")).json()) == 1


async def test_signing_out_everywhere_ends_the_current_session_too(running: Running, client: httpx.AsyncClient) -> None:
    await running.log_in(client)
    response = await client.delete("/api/sessions?include_current=true")
    assert response.status_code == 204
    assert "session-8000=" in response.headers["set-cookie"]
    assert "Max-Age=0" in response.headers["set-cookie"]
    assert (await client.get("/api/me")).status_code == 401


@pytest.mark.attack("43")
@pytest.mark.attack("asvs-7.1.2")
async def test_a_login_above_the_limit_ends_the_oldest_session(start: object) -> None:
    async with start(session_max_per_user=2) as running:  # type: ignore[operator]
        clients = [running.client() for _ in range(3)]
        sessions = running.plugin.lifecycle
        assert sessions is not None
        for http in clients:
            await running.log_in(http)
            running.clock.advance(seconds=1)
        assert [(await http.get("/api/me")).status_code for http in clients] == [401, 200, 200]
