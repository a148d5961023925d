"""`GET /auth/session`: who is logged in and for how long, without being a use of the session."""

from __future__ import annotations

import pytest

from session_core import Identity
from tests.session_core.oidc.fake_op import ISSUER, World

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world() -> World:
    return World()


async def test_it_says_who_and_for_how_long_and_extends_nothing(world: World) -> None:
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
    for _ in range(4):  # asked again and again, it ends all the same
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
async def test_a_user_who_may_not_act_is_not_reported(world: World) -> None:
    """What guards refuse must not be shown as logged in; whatever but True the application answers."""
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
async def test_nor_is_one_whom_the_application_does_not_know(known: bool, status: int) -> None:
    world = World(config={"load_user": lambda identity, _: identity if known else None})
    await world.login()
    assert (await world.browser.get("/auth/session")).status_code == status


async def test_a_logout_by_fetch_answers_with_the_address_of_the_provider(world: World) -> None:
    await world.login()
    answer = await world.browser.post("/auth/logout", headers={"accept": "application/json"})
    assert answer.status_code == 200
    assert "location" not in answer.headers
    assert answer.json()["logout_url"].startswith(ISSUER)
    assert (await world.browser.get("/auth/session")).status_code == 401
    again = await world.browser.post("/auth/logout", headers={"accept": "application/json"})
    assert again.json() == {"logout_url": None}
