"""Pushed authorization requests (RFC 9126): the browser carries only a reference; a failed push fails the login."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.session_core.oidc.fake_op import CLIENT_ID, GET_PAGE, GONE, ISSUER, World

pytestmark = pytest.mark.anyio

OFFERED: dict[str, Any] = {"pushed_authorization_request_endpoint": f"{ISSUER}/par"}
REQUIRED: dict[str, Any] = {**OFFERED, "require_pushed_authorization_requests": True}


def world_of(metadata: dict[str, Any], **provider: Any) -> World:
    world = World(provider=provider)
    world.op.metadata = metadata
    return world


async def assert_refused(world: World, status: int, reason: str) -> None:
    """No request was sent to the provider, and no login is left open."""
    response = await world.browser.get("/auth/login", headers=GET_PAGE)
    assert (response.status_code, world.reasons()) == (status, [reason])
    assert "set-cookie" not in response.headers
    assert "<script" not in response.text


@pytest.mark.parametrize(
    ("metadata", "option"),
    [(OFFERED, "auto"), (REQUIRED, "auto"), (OFFERED, "required"), (REQUIRED, "off")],
)
async def test_a_login_with_a_pushed_request_succeeds(metadata: dict[str, Any], option: str) -> None:
    world = world_of(metadata, pushed_authorization_requests=option)
    url = await world.start(next="/account", login_hint="alice@example.org", max_age="60")
    asked = parse_qs(urlsplit(url).query)
    assert set(asked) == {"client_id", "request_uri"}
    assert asked["client_id"] == [CLIENT_ID]
    (pushed,) = world.op.pushed.values()
    assert (pushed["login_hint"], pushed["max_age"], pushed["code_challenge_method"]) == ("alice@example.org", "60", "S256")
    assert len(pushed["nonce"]) == 43
    world.op.auth_time = world.clock.now() // 1000
    assert (await world.come_back(world.op.authorize(url))).headers["location"] == "/account"
    assert await world.subject() == "alice"


@pytest.mark.parametrize(("metadata", "option"), [({}, "auto"), (OFFERED, "off")])
async def test_a_login_without_pushing_goes_through_the_browser(metadata: dict[str, Any], option: str) -> None:
    world = world_of(metadata, pushed_authorization_requests=option)
    assert "code_challenge" in await world.start()
    assert world.op.count("/par") == 0


@pytest.mark.parametrize(
    ("metadata", "option"),
    [({}, "required"), ({"require_pushed_authorization_requests": True}, "auto")],
)
async def test_a_provider_without_a_required_push_endpoint_is_refused(metadata: dict[str, Any], option: str) -> None:
    await assert_refused(world_of(metadata, pushed_authorization_requests=option), 503, "par_missing")


def answer(**changes: Any) -> httpx2.Response:
    given = {"request_uri": "urn:ietf:params:oauth:request_uri:1", "expires_in": 60, **changes}
    return httpx2.Response(201, json={name: value for name, value in given.items() if value is not GONE})


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (httpx2.Response(400, json={"error": "invalid_request", "error_description": "<script>"}), "par_invalid_request"),
        (httpx2.Response(401, json={"error": "invalid_client"}), "par_invalid_client"),
        (httpx2.Response(400, json={"error": "<script>"}), "par_status"),
        (httpx2.Response(200, json={"request_uri": "urn:x", "expires_in": 60}), "par_status"),
        (httpx2.Response(302, headers={"location": "https://evil.example"}), "par_status"),
        (httpx2.Response(500, text="<script>"), "par_status"),
        (httpx2.Response(201, text="{}"), "par_malformed"),
        (httpx2.Response(201, json=[]), "par_malformed"),
        (answer(request_uri=GONE), "par_malformed"),
        (answer(request_uri=""), "par_malformed"),
        (answer(request_uri=5), "par_malformed"),
        (answer(request_uri="no uri"), "par_malformed"),
        (answer(request_uri="urn:a b"), "par_malformed"),
        (answer(request_uri="urn:a\r\nset-cookie: x=1"), "par_malformed"),
        (answer(request_uri="urn:é"), "par_malformed"),
        (answer(request_uri="urn:" + "x" * 1025), "par_malformed"),
        (answer(expires_in=GONE), "par_malformed"),
        (answer(expires_in=0), "par_malformed"),
        (answer(expires_in=-1), "par_malformed"),
        (answer(expires_in=True), "par_malformed"),
        (answer(expires_in="60"), "par_malformed"),
        (answer(request_uri="urn:" + "x" * 2_000_000), "par_too_large"),
    ],
)
async def test_malformed_responses_are_refused(reply: httpx2.Response, reason: str) -> None:
    world = world_of(OFFERED)
    world.op.replies["/par"] = lambda _: reply
    await assert_refused(world, 502, reason)


async def test_a_request_uri_is_percent_encoded_in_the_url() -> None:
    world = world_of(OFFERED)
    world.op.replies["/par"] = lambda _: answer(request_uri="urn:x&client_id=evil#f")
    query = parse_qs(urlsplit(await world.start()).query)
    assert query == {"client_id": [CLIENT_ID], "request_uri": ["urn:x&client_id=evil#f"]}


@pytest.mark.attack("34")
async def test_a_hanging_endpoint_fails_the_login() -> None:
    async def hang(_: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    world = World(http_timeout_seconds=0.5)
    world.op.metadata = OFFERED
    world.op.replies["/par"] = hang
    await assert_refused(world, 502, "par_timeout")


@pytest.mark.attack("33")
async def test_an_endpoint_without_tls_is_refused() -> None:
    world = world_of({"pushed_authorization_request_endpoint": "http://op.example/par"})
    await assert_refused(world, 503, "discovery_insecure_endpoint")


async def test_a_failed_push_is_not_followed_by_a_request_through_the_browser() -> None:
    world = world_of(OFFERED)
    world.op.replies["/par"] = lambda _: httpx2.Response(503)
    await assert_refused(world, 502, "par_status")
    assert world.op.count("/par") == 1
