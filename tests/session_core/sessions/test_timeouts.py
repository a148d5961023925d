"""Arithmetic of lifetimes: when the use of a session is written."""

from __future__ import annotations

import pytest

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
