"""A callback whose store response was lost: reloading the page continues the login, once."""

from __future__ import annotations

import asyncio

import pytest

from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import World
from tests.support.lost_answers import Fault, LosingStore

pytestmark = pytest.mark.anyio

LOST: list[Fault] = ["applied", "not applied", "applied later"]


class LosingWorld(World):
    def __init__(self) -> None:
        clock = FakeClock()
        self.store = LosingStore(clock=clock)
        super().__init__(clock=clock, store=self.store)

    async def lose(self, url: str, fault: Fault, *, after: int = 0) -> None:
        """Return from the provider and get no response."""
        self.store.fail("claim", fault, after=after)
        assert (await self.come_back(url)).status_code == 503
        assert self.op.count("/token") == 0
        self.store.recover()


@pytest.fixture
def world() -> LosingWorld:
    return LosingWorld()


@pytest.mark.parametrize("fault", [*LOST, "refused"])
async def test_a_reload_after_a_lost_claim_logs_in(world: LosingWorld, fault: Fault) -> None:
    url = world.op.authorize(await world.start())
    await world.lose(url, fault)
    await world.store.apply_what_is_late()
    assert (await world.come_back(url)).status_code == 303
    assert await world.subject() == "alice"


@pytest.mark.parametrize("first", LOST)
@pytest.mark.parametrize("second", LOST)
async def test_several_lost_claims_in_a_row_still_log_in(world: LosingWorld, first: Fault, second: Fault) -> None:
    url = world.op.authorize(await world.start())
    await world.lose(url, first)
    await world.lose(url, second)
    await world.store.apply_what_is_late()
    assert (await world.come_back(url)).status_code == 303
    assert await world.subject() == "alice"


@pytest.mark.attack("2")
@pytest.mark.parametrize("fault", LOST)
async def test_after_a_lost_claim_only_one_of_many_reloads_continues(world: LosingWorld, fault: Fault) -> None:
    url = world.op.authorize(await world.start())
    await world.lose(url, fault)
    await world.store.apply_what_is_late()
    cookies = dict(world.browser.cookies)
    browsers = [world.new_browser(cookies=cookies) for _ in range(20)]
    answers = await asyncio.gather(*(world.come_back(url, browser) for browser in browsers))
    assert sorted(answer.status_code for answer in answers) == [303] + [400] * 19
    assert world.op.count("/token") == 1


@pytest.mark.attack("2")
async def test_an_attacker_with_the_earlier_cookie_cannot_continue(world: LosingWorld) -> None:
    """Only the browser that got the 503 knows the claim's id."""
    url = world.op.authorize(await world.start())
    before = dict(world.browser.cookies)
    await world.lose(url, "applied")
    assert dict(world.browser.cookies) != before
    async with world.new_browser(cookies=before) as thief:
        assert (await world.come_back(url, thief)).status_code == 400
    assert (await world.come_back(url)).status_code == 303
    assert world.op.count("/token") == 1


@pytest.mark.attack("2")
async def test_a_claim_of_another_request_is_not_mistaken_for_the_lost_one(world: LosingWorld) -> None:
    """The lost claim was never applied, and a second tab has continued. The code is used and must not be sent again."""
    url = world.op.authorize(await world.start())
    before = dict(world.browser.cookies)
    await world.lose(url, "not applied")
    async with world.new_browser(cookies=before) as other_tab:
        assert (await world.come_back(url, other_tab)).status_code == 303
    assert (await world.come_back(url)).status_code == 400
    assert world.reasons()[-1] == "state_replayed"
    assert world.op.count("/token") == 1


async def test_the_number_of_retries_is_bounded(world: LosingWorld) -> None:
    url = world.op.authorize(await world.start())
    for number in range(6):
        await world.lose(url, "applied", after=number)
    assert (await world.come_back(url)).status_code == 400
