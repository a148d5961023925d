"""`POST /auth/refresh-tokens` accepts only callers with the key."""

from __future__ import annotations

import pytest

from session_core import ConfigurationError
from session_core.oidc import BatchRefresh
from tests.session_core.oidc.batch_world import KEY, new_world, post_to, result, stay_in_use, world_in_use
from tests.session_core.oidc.fake_op import World

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world() -> World:
    return await world_in_use()


async def test_the_route_refreshes_and_counts(world: World) -> None:
    await stay_in_use(world, 55)
    answer = await post_to(world, KEY)
    assert (answer.status_code, answer.json()) == (200, result(due=1, refreshed=1))
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("key", [None, "", "x", KEY[:-1], KEY + "x", KEY.upper(), "\u00e9" * 40])
async def test_without_the_key_the_request_is_refused(world: World, key: str | None) -> None:
    await stay_in_use(world, 55)
    header = {} if key is None else {b"authorization": b"Bearer " + key.encode()}
    async with world.new_browser() as machine:
        answer = await machine.post("/auth/refresh-tokens", headers=header)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert world.op.count("/token") == 1
    assert world.reasons("access.denied") == ["refresh_tokens_key"]


async def test_a_users_cookie_is_no_key(world: World) -> None:
    assert (await world.browser.post("/auth/refresh-tokens")).status_code == 401


async def test_a_get_is_refused(world: World) -> None:
    assert (await world.browser.get("/auth/refresh-tokens", headers={"authorization": f"Bearer {KEY}"})).status_code == 405


async def test_runs_are_limited_to_one_in_ten_seconds(world: World) -> None:
    other = new_world(sharing=world)
    assert (await post_to(world, KEY)).status_code == 200
    refused = await post_to(other, KEY)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
    world.clock.advance(seconds=10)
    assert (await post_to(other, KEY)).status_code == 200


async def test_without_a_configured_key_the_route_does_not_exist() -> None:
    assert (await post_to(new_world(batch_refresh=BatchRefresh()), KEY)).status_code == 404


@pytest.mark.parametrize("key", ["", "short", "x" * 31, "\u00e9" * 32, "x" * 31 + "\n"])
def test_a_weak_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="32"):
        BatchRefresh(key=key)


@pytest.mark.parametrize("values", [{"horizon_seconds": 0}, {"concurrency": 0}, {"concurrency": 101}, {"max_sessions": 0}])
def test_invalid_values_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        BatchRefresh(**values)  # type: ignore[arg-type]


def test_the_key_is_not_in_the_repr() -> None:
    assert KEY not in repr(BatchRefresh(key=KEY))
