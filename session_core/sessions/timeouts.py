"""Idle and absolute timeout, computed in Unix milliseconds. Independent of stores and requests."""

from __future__ import annotations

import msgspec

from session_core.errors import ConfigurationError

__all__ = ("Timeouts",)

_SECOND = 1000
_LONGEST = 10 * 366 * 86400


class Timeouts(msgspec.Struct, frozen=True):
    """How long a session lives; all three in seconds.

    `idle`: ends after this long without a request, never later than `absolute`. `absolute`: ends this long after it began,
    even if used. `touch_interval`: a request extends the idle timeout only when it moves the expiry by at least this much, so
    that most reads write nothing and most writes leave the index of the expiries alone.
    """

    idle: int = 3600
    absolute: int = 86400
    touch_interval: int = 60

    def __post_init__(self) -> None:
        """Refuse invalid combinations."""
        if self.idle <= 0 or self.absolute <= 0:
            msg = "idle and absolute timeouts must be positive seconds, for example idle=3600, absolute=86400"
            raise ConfigurationError(msg)
        if self.absolute > _LONGEST:
            msg = "the absolute timeout must not exceed ten years of seconds, for example absolute=86400"
            raise ConfigurationError(msg)
        if self.touch_interval < 0:
            msg = "the touch interval must not be negative, for example touch_interval=60"
            raise ConfigurationError(msg)

    def with_idle(self, idle: int) -> Timeouts:
        """Return these timeouts with the idle timeout of one login; 0 stands for the configured one."""
        return msgspec.structs.replace(self, idle=idle) if idle else self

    def absolute_expiry(self, now: int) -> int:
        """Return the absolute expiry of a session that begins `now`."""
        return now + self.absolute * _SECOND

    def expiry(self, now: int, absolute_expires_at: int) -> int:
        """Return the expiry of a session used `now`: idle, capped by absolute."""
        return min(now + self.idle * _SECOND, absolute_expires_at)

    def touch_due(self, now: int, expires_at: int, absolute_expires_at: int) -> bool:
        """Whether a use `now` moves the stored expiry by at least the touch interval."""
        interval = self.idle * _SECOND - self.touch_before
        return self.expiry(now, absolute_expires_at) - expires_at >= max(interval, 1)

    @property
    def touch_before(self) -> int:
        """How long before the stored expiry a use is first worth a write; milliseconds."""
        # At most half the idle timeout: otherwise the session of an active user could expire.
        return self.idle * _SECOND - min(self.touch_interval * _SECOND, self.idle * (_SECOND // 2))

    def last_seen(self, expires_at: int) -> int:
        """Return when the session was last used, exact to the touch interval; constant in the last idle period."""
        return expires_at - self.idle * _SECOND
