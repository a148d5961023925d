"""Rules of guards: only `True` allows access, and times are exact to the second."""

from __future__ import annotations

from typing import Any

import pytest

from session_core.asgi.rules import acr_rule, check, login_rule, predicate_rule, recent_login_rule
from session_core.errors import ConfigurationError, ForbiddenError, StepUpRequiredError
from session_core.events import Events
from session_core.identity import Identity
from session_core.sessions.handle import SessionHandle
from session_core.testing import FakeClock
from tests.support.sessions import ISSUER, make_config

pytestmark = pytest.mark.anyio


class LoggedIn:
    """The parts of a session that a rule reads."""

    handle = "handle"
    actor = None

    def __init__(self, auth_time: int | None = None) -> None:
        self.identity = Identity(issuer=ISSUER, subject="alice", auth_time=auth_time)


async def passes(rule: Any, *, auth_time: int | None = None, **options: Any) -> bool:
    config = make_config(**options)
    session: SessionHandle[Any] = LoggedIn(auth_time)  # type: ignore[assignment]
    try:
        await check(session, rule, config, Events(config.clock))
    except (ForbiddenError, StepUpRequiredError):
        return False
    return True


@pytest.mark.parametrize("answer", [1, 2, -1, "yes", [0], False, None, 0])
async def test_only_true_allows_access(answer: Any) -> None:
    """A predicate that returns a coroutine or an object by mistake must not allow every user."""
    assert await passes(predicate_rule(lambda session: True))
    assert not await passes(predicate_rule(lambda session: answer))
    assert await passes(login_rule, is_active=lambda identity: True)
    assert not await passes(login_rule, is_active=lambda identity: answer)


@pytest.mark.parametrize(("time", "most"), [((0, 90), 90), ((1, 0), 60), ((1.5, 0), 90), ((1, 30), 90), ((1, 60), 120)])
async def test_a_login_is_recent_for_the_sum_of_minutes_and_seconds(time: tuple[float, float], most: int) -> None:
    clock = FakeClock()
    rule, max_age = recent_login_rule(*time)
    assert max_age == most
    now = clock.now() // 1000
    clock.advance(seconds=0.999)
    for age in (0, 1, most):
        assert await passes(rule, auth_time=now - age, clock=clock)
    assert not await passes(rule, auth_time=now - most - 1, clock=clock)


@pytest.mark.parametrize("time", [(0, 0), (0, 0.5), (-1, 0), (-1, 59)])
def test_a_recent_login_of_zero_time_is_refused(time: tuple[float, float]) -> None:
    with pytest.raises(ConfigurationError):
        recent_login_rule(*time)


def test_the_shortest_recent_login_is_one_second() -> None:
    assert recent_login_rule(0, 1)[1] == 1


@pytest.mark.parametrize("value", ["", "a b", "phr ", "phr\n", 'phr"', "phr\\", "ph\xe9", "a" * 256])
def test_an_acr_value_that_is_no_single_word_is_refused(value: str) -> None:
    """Values are sent in a space-separated list in a quoted header."""
    for values in ((value,), ("phr", value)):
        with pytest.raises(ConfigurationError):
            acr_rule(values)
    acr_rule(("phr", "urn:mace:incommon:iap:silver", "a" * 255))
