"""`GET /auth/session` returns the user and the remaining lifetime without extending the session."""

from __future__ import annotations

import pytest

from session_core import Identity
from tests.session_core.oidc.fake_op import ISSUER, World

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world() -> World:
    return World()


async def test_the_state_has_user_and_lifetime_and_extends_nothing(world: World) -> None:
    await world.login()
    browser = world.browser
    first = (await browser.get("/auth/session")).json()
    assert (first["authenticated"], first["issuer"], first["subject"]) == (True, ISSUER, "alice")
    world.clock.advance(seconds=600)
    later = await browser.get("/auth/session")
    assert first["expires_in"] - later.json()["expires_in"] == 600
    assert first["absolute_expires_in"] - later.json()["absolute_expires_in"] == 600
    assert later.headers["cache-control"] == "private, no-store"
    assert "set-cookie" not in later.headers
    for _ in range(4):  # repeated requests do not prevent the timeout
        world.clock.advance(seconds=first["expires_in"] // 4)
        answer = await browser.get("/auth/session")
    assert answer.status_code == 401


@pytest.mark.parametrize("accept", ["application/json", "text/html,application/xhtml+xml", "*/*"])
async def test_a_visitor_gets_401_and_never_a_redirect(world: World, accept: str) -> None:
    answer = await world.browser.get("/auth/session", headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.json()["code"] == "login_required"
    assert "set-cookie" not in answer.headers


@pytest.mark.attack("63")
async def test_a_user_refused_by_guards_is_not_reported_as_logged_in(world: World) -> None:
    """Any result of the application's check except True refuses the user."""
    await world.login()
    config = world.sessions.config
    for answer in (False, None, "yes", 1):
        config.is_active = lambda _, answer=answer: answer  # type: ignore[misc]
        state = await world.browser.get("/auth/session")
        assert (state.status_code, state.json()["code"]) == (401, "login_required")
        assert "set-cookie" not in state.headers

    async def is_active(identity: Identity) -> bool:
        return identity.subject == "alice"

    config.is_active = is_active
    assert (await world.browser.get("/auth/session")).json()["subject"] == "alice"


@pytest.mark.parametrize(("known", "status"), [(True, 200), (False, 401)])
async def test_a_user_unknown_to_the_application_is_not_reported(known: bool, status: int) -> None:
    world = World(config={"load_user": lambda identity, _: identity if known else None})
    await world.login()
    assert (await world.browser.get("/auth/session")).status_code == status


async def test_a_logout_by_fetch_returns_the_providers_logout_url(world: World) -> None:
    await world.login()
    answer = await world.browser.post("/auth/logout", headers={"accept": "application/json"})
    assert answer.status_code == 200
    assert "location" not in answer.headers
    assert answer.json()["logout_url"].startswith(ISSUER)
    assert (await world.browser.get("/auth/session")).status_code == 401
    again = await world.browser.post("/auth/logout", headers={"accept": "application/json"})
    assert again.json() == {"logout_url": None}
