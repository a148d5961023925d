"""The claim that lets one request continue a login: how long it is kept, and whose it is."""

from __future__ import annotations

from typing import Any

import pytest

from session_core.clock import TOLERATED_SKEW_MS
from session_core.errors import LoginExpiredError, StoreUnavailableError
from session_core.oidc.login.single_use import _CLAIM_MS, use_up
from session_core.oidc.login.transaction import LoginTransaction
from session_core.testing import FakeClock
from tests.support.lost_answers import LosingStore

pytestmark = pytest.mark.anyio


def store_of(clock: FakeClock) -> Any:
    return LosingStore(clock=clock)


def transaction(**changes: Any) -> LoginTransaction:
    return LoginTransaction(provider="p", seed=b"seed", return_to="/page", started_at=0, **changes)


@pytest.mark.attack("2")
async def test_a_claim_is_kept_longer_than_the_login_can_be_accepted() -> None:
    """A minute more than ten minutes, and the clock differences of two nodes; its end is different in every request."""
    assert _CLAIM_MS == 660_000 + 2 * TOLERATED_SKEW_MS
    ends = set()
    now = 2**41 - 1 - _CLAIM_MS
    for _ in range(50):
        store = store_of(FakeClock())
        lost: list[LoginTransaction] = []
        store.fail("claim", "applied")
        with pytest.raises(StoreUnavailableError):
            await use_up(store, transaction(), now, lost.append)
        ends.add(lost[0].claimed_until)
    assert all(now + _CLAIM_MS <= end < now + 2 * _CLAIM_MS for end in ends)
    assert len(ends) > 45


@pytest.mark.attack("2")
@pytest.mark.parametrize("difference", [-1, 1])
async def test_a_claim_of_another_request_is_refused(difference: int) -> None:
    """Whether it ends earlier or later."""
    clock = FakeClock()
    lost: list[LoginTransaction] = []
    store, until = store_of(clock), clock.now() + 10_000
    ours = transaction(lost_claims=1, claimed_until=until)
    assert await store.claim(f"login-{ours.state_digest}", until + difference)
    with pytest.raises(LoginExpiredError) as refused:
        await use_up(store, ours, clock.now(), lost.append)
    assert not lost
    assert (refused.value.reason, refused.value.return_to) == ("state_replayed", "/page")


@pytest.mark.parametrize(("already", "again"), [(0, True), (4, True), (5, False)])
async def test_after_five_lost_answers_the_login_must_start_again(already: int, again: bool) -> None:
    clock = FakeClock()
    store, lost = store_of(clock), list[LoginTransaction]()
    until = clock.now() + 10_000
    before = transaction(lost_claims=already, claimed_until=until)
    store.fail("claim", "applied", after=already)
    with pytest.raises(StoreUnavailableError):
        await use_up(store, before, clock.now(), lost.append)
    assert lost == ([transaction(lost_claims=already + 1, claimed_until=until)] if again else [])
