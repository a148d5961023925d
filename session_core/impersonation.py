"""Who may act as another user, and for how long; independent of sessions and requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from session_core.errors import ConfigurationError
from session_core.identity import Identity

__all__ = ("Impersonation",)

_LONGEST: Final = 3600


@dataclass(frozen=True, kw_only=True)
class Impersonation:
    """Lets administrators act as other users: `SessionConfig(impersonation=Impersonation(allow=...))`.

    Raises `ConfigurationError` when built with times that cannot work.
    """

    allow: Callable[[Identity, Identity], bool | Awaitable[bool]]
    """Called with the administrator and the user: whether the first may act as the second. Only True allows it. Asked when an
    impersonation begins and in each of its requests, so that a role that was taken away ends it. Refuse users who are
    administrators themselves here."""
    seconds: int = 900
    """When an impersonation ends in any case; no use extends it. An hour at most."""
    login_within: int = 300
    """How many seconds ago the administrator may have proved who they are (`auth_time`)."""

    def __post_init__(self) -> None:
        """Refuse times that make no sense."""
        if not 0 < self.seconds <= _LONGEST or self.login_within <= 0:
            msg = "an impersonation lasts between 1 and 3600 seconds, for example Impersonation(allow=..., seconds=900)"
            raise ConfigurationError(msg)
