"""Unneeded tokens are revoked at the provider; a logout neither waits for that nor fails."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import pytest
from litestar import get

from session_core import Session
from session_core.oidc import Tokens
from tests.session_core.oidc.fake_op import ISSUER, World
from tests.support.sessions import AppSession

pytestmark = pytest.mark.anyio


@get("/token-now")
async def token_now(session: Session[AppSession], tokens: Tokens) -> str:
    return await tokens.access_token(session)


async def logged_in(*, refreshable: bool = True, **oidc: Any) -> World:
    world = World(handlers=[token_now], **oidc)
    world.op.refreshable = refreshable
    world.op.metadata = {"revocation_endpoint": f"{ISSUER}/revoke"}
    world.op.replies["/revoke"] = lambda _: httpx2.Response(200)
    assert (await world.login()).status_code == 303
    return world


def revoked(world: World) -> list[dict[str, str]]:
    return [dict(parse_qsl(call.content.decode())) for call in world.op.calls if call.url.path == "/revoke"]


async def test_a_logout_revokes_the_refresh_token() -> None:
    world = await logged_in()
    token = world.op.refresh_token
    assert (await world.browser.post("/auth/logout")).headers["location"].startswith(f"{ISSUER}/end?")
    assert revoked(world) == [{"token": token, "token_type_hint": "refresh_token"}]
    call = next(call for call in world.op.calls if call.url.path == "/revoke")
    assert call.headers["authorization"].startswith("Basic ")
    assert call.method == "POST"


async def test_without_a_refresh_token_the_access_token_is_revoked() -> None:
    world = await logged_in(refreshable=False)
    await world.browser.post("/auth/logout")
    assert revoked(world) == [{"token": "at-1", "token_type_hint": "access_token"}]


async def test_the_session_ends_before_the_revocation_at_the_provider() -> None:
    world = await logged_in()
    seen: list[object] = []

    async def look(_: httpx2.Request) -> httpx2.Response:
        seen.extend([each async for each in world.sessions.store.scan()])
        return httpx2.Response(200)

    world.op.replies["/revoke"] = look
    await world.browser.post("/auth/logout")
    assert revoked(world)
    assert seen == []


@pytest.mark.attack("48")
@pytest.mark.parametrize("status", [400, 401, 404, 500, 503, 302])
async def test_a_provider_that_refuses_does_not_fail_the_logout(status: int) -> None:
    world = await logged_in()
    world.op.replies["/revoke"] = lambda _: httpx2.Response(status, json={"error": "unsupported_token_type"})
    assert (await world.browser.post("/auth/logout")).status_code == 303
    assert await world.subject() is None
    assert len(world.reasons("tokens.revocation_failed")) == 1


@pytest.mark.attack("48")
async def test_a_hanging_provider_delays_the_logout_only_briefly() -> None:
    world = await logged_in(http_timeout_seconds=0.5)

    async def never(_: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    world.op.replies["/revoke"] = never
    async with asyncio.timeout(30):
        assert (await world.browser.post("/auth/logout")).status_code == 303
    assert await world.subject() is None
    await world.oidc.tokens.close()
    assert world.reasons("tokens.revocation_failed") == ["revocation_timeout"]


async def test_a_provider_without_a_revocation_endpoint_is_not_called() -> None:
    world = await logged_in()
    world.op.metadata = {}
    fresh = World(handlers=[token_now])
    fresh.op.refreshable = True
    await fresh.login()
    assert (await fresh.browser.post("/auth/logout")).status_code == 303
    assert not revoked(fresh)
    assert not fresh.reasons("tokens.revocation_failed")


async def test_a_provider_that_treats_revocation_as_end_of_consent_is_not_called() -> None:
    world = World(handlers=[token_now], provider={"revoke_at_logout": False})
    world.op.refreshable = True
    world.op.metadata = {"revocation_endpoint": f"{ISSUER}/revoke"}
    await world.login()
    assert (await world.browser.post("/auth/logout")).status_code == 303
    assert await world.subject() is None
    assert not revoked(world)


async def test_a_session_ended_by_an_operator_keeps_its_grant() -> None:
    world = await logged_in()
    [summary] = [each async for each in world.sessions.sessions.all()]
    assert await world.sessions.sessions.revoke_any(summary.handle)
    assert not revoked(world)


@pytest.mark.attack("40")
async def test_tokens_that_arrive_after_the_logout_are_revoked() -> None:
    """A refresh was in progress at the logout; its result is discarded."""
    world = await logged_in()
    world.clock.advance(seconds=300)
    asked, go_on = world.op.hold()
    request = asyncio.create_task(world.browser.get("/token-now"))
    await asked.wait()
    old = world.op.refresh_token
    other = world.new_browser(cookies={"session-8000": world.browser.cookies["session-8000"]})
    assert (await other.post("/auth/logout")).status_code == 303
    go_on.set()
    assert (await request).status_code == 401
    assert [form["token"] for form in revoked(world)] == [old, world.op.refresh_token]
    assert old != world.op.refresh_token
