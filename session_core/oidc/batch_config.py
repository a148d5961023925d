"""Configuration of the batch refresh, checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from session_core.errors import ConfigurationError

__all__ = ("BatchRefresh",)

_MIN_KEY_BYTES: Final = 32
_MAX_CONCURRENCY: Final = 100


@dataclass(frozen=True, kw_only=True)
class BatchRefresh:
    """Records when the access tokens of sessions expire, so that all due ones can be refreshed in one run.

    This costs one store call for each login and two for each refresh. Raises `ConfigurationError` for invalid values.
    """

    horizon_seconds: int = 300
    """A session is due when its access token expires within this time; set it above the time between two runs."""
    concurrency: int = 8
    """How many sessions are refreshed at once."""
    max_sessions: int = 10_000
    """The most sessions that one run refreshes; the next one continues."""
    key: str | None = field(default=None, repr=False)
    """The bearer key of `POST /auth/refresh-tokens`, 32 bytes or more; without a key there is no such route."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.horizon_seconds <= 0 or self.max_sessions <= 0 or not 0 < self.concurrency <= _MAX_CONCURRENCY:
            msg = f"horizon_seconds and max_sessions must be positive, concurrency 1 to {_MAX_CONCURRENCY}"
            raise ConfigurationError(msg)
        if self.key is not None and (len(self.key) < _MIN_KEY_BYTES or not self.key.isascii() or not self.key.isprintable()):
            msg = (
                f"the key for /auth/refresh-tokens must be {_MIN_KEY_BYTES} printable ASCII characters or more; "
                'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
            raise ConfigurationError(msg)
