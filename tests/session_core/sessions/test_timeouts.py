"""Arithmetic of lifetimes: when the use of a session is written."""

from __future__ import annotations

import pytest

from session_core.errors import ConfigurationError
from session_core.sessions.timeouts import Timeouts

IDLE = 3_600_000
NOW = 1_700_000_000_000
FAR = NOW + 30 * 86_400_000


@pytest.mark.parametrize(("interval", "least"), [(60, 60_000), (1, 1000), (0, 1), (7200, 1_800_000)])
def test_a_use_is_written_when_it_extends_the_expiry_by_the_touch_interval(interval: int, least: int) -> None:
    """At most half the idle timeout, or a long interval would let an active user expire; at least a millisecond."""
    timeouts = Timeouts(touch_interval=interval)
    expires_at = NOW + IDLE
    assert timeouts.touch_due(NOW + least, expires_at, FAR)
    assert not timeouts.touch_due(NOW + least - 1, expires_at, FAR)


@pytest.mark.parametrize(("interval", "least"), [(60, 60_000), (1, 1000), (0, 1), (7200, 1_800_000)])
def test_near_the_absolute_timeout_few_uses_are_written(interval: int, least: int) -> None:
    """In the last minutes of a session not every request costs a write."""
    timeouts = Timeouts(touch_interval=interval)
    expires_at = NOW + IDLE
    assert timeouts.touch_due(expires_at - 1, expires_at, expires_at + least)
    assert not timeouts.touch_due(expires_at - 1, expires_at, expires_at + least - 1)


@pytest.mark.parametrize("interval", [0, 1, 59, 60, 1800, 1801, 7200])
def test_no_use_is_written_earlier_than_touch_before(interval: int) -> None:
    """Requests before that time skip the exact check."""
    timeouts = Timeouts(touch_interval=interval)
    assert timeouts.touch_before == IDLE - min(interval * 1000, IDLE // 2)
    expires_at = NOW + IDLE
    assert not timeouts.touch_due(expires_at - timeouts.touch_before - 1, expires_at, FAR)
    assert timeouts.touch_due(expires_at - timeouts.touch_before + 1, expires_at, FAR)


def test_long_after_its_last_use_a_use_is_written() -> None:
    assert Timeouts().touch_due(NOW + IDLE - 1, NOW + IDLE, FAR)


def test_the_expiries_are_those_of_the_two_timeouts() -> None:
    timeouts = Timeouts(idle=10, absolute=25)
    assert timeouts.absolute_expiry(NOW) == NOW + 25_000
    assert timeouts.expiry(NOW, NOW + 25_000) == NOW + 10_000
    assert timeouts.expiry(NOW + 20_000, NOW + 25_000) == NOW + 25_000
    assert timeouts.last_seen(NOW + 10_000) == NOW


def test_a_login_can_have_its_own_idle_timeout() -> None:
    timeouts = Timeouts(idle=10, absolute=25)
    assert timeouts.with_idle(7) == Timeouts(idle=7, absolute=25)
    assert timeouts.with_idle(0) is timeouts


def test_the_defaults_are_an_hour_a_day_and_a_minute() -> None:
    assert Timeouts() == Timeouts(idle=3600, absolute=86_400, touch_interval=60)
    with pytest.raises(AttributeError):
        Timeouts().idle = 1  # type: ignore[misc]


def test_the_smallest_and_the_largest_times_are_accepted() -> None:
    assert Timeouts(idle=1, absolute=1, touch_interval=0).absolute_expiry(0) == 1000
    ten_years = 10 * 366 * 24 * 60 * 60
    assert Timeouts(absolute=ten_years).absolute_expiry(0) == ten_years * 1000


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"idle": 0}, "positive"), ({"idle": -1}, "positive"), ({"absolute": 0}, "positive"), ({"absolute": -1}, "positive"),
        ({"absolute": 10 * 366 * 24 * 60 * 60 + 1}, "ten years"), ({"absolute": 2**40}, "ten years"),
        ({"touch_interval": -1}, "touch interval"),
    ],
)  # fmt: skip
def test_times_out_of_range_are_refused(changes: dict[str, int], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Timeouts(**changes)
