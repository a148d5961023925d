"""How tokens are refreshed in batches, checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from session_core.errors import ConfigurationError

__all__ = ("BatchRefresh",)

_MIN_KEY_BYTES: Final = 32
_MAX_CONCURRENCY: Final = 100


@dataclass(frozen=True, kw_only=True)
class BatchRefresh:
    """Sessions are noted by when their access tokens expire, so that those that are due can be refreshed all at once.

    The notes cost a call to the store for each login, and two for each refresh. Raises `ConfigurationError` for unfit values.
    """

    horizon_seconds: int = 300
    """A session is due when its access token expires within this time: more than the time between two runs."""
    concurrency: int = 8
    """How many sessions are refreshed at once."""
    max_sessions: int = 10_000
    """How many sessions one run refreshes at most; the next one goes on."""
    key: str | None = field(default=None, repr=False)
    """What `POST /auth/refresh-tokens` must be called with, 32 bytes or more; without a key there is no such route."""

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
