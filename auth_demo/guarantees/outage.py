"""Takes the session store away from single sessions, for a while; all other sessions keep it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NoReturn

from session_core import Clock, StoreUnavailableError

if TYPE_CHECKING:
    from session_core.stores.guarded import GuardedStore

__all__ = ("OUTAGE_SECONDS", "Outages")

OUTAGE_SECONDS: Final = 20
_BY_KEY: Final = ("load", "create", "replace", "rotate", "touch", "delete")
_MAX_OUTAGES: Final = 1000
_REMEMBERED_MS: Final = 60_000


class Outages:
    """The sessions whose store calls fail now. Each outage ends by itself after `OUTAGE_SECONDS`."""

    def __init__(self, store: GuardedStore, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, int] = {}
        # Below the deadlines and the reports of outages, so that a failed call takes the way that a driver's error takes.
        for name in _BY_KEY:
            setattr(store.inner, name, self._failing(getattr(store.inner, name)))

    def begin(self, key: str) -> None:
        """Fail all calls for one session key from now on. A running outage is not prolonged."""
        now = self._clock.now()
        self._until = {each: until for each, until in self._until.items() if until > now - _REMEMBERED_MS}
        if len(self._until) >= _MAX_OUTAGES:
            del self._until[next(iter(self._until))]
        if not self.is_out(key):
            self._until[key] = now + OUTAGE_SECONDS * 1000

    def end(self, key: str) -> None:
        """Let the calls for one session key pass again."""
        if self.is_out(key):
            self._until[key] = self._clock.now()

    def is_out(self, key: str) -> bool:
        """Whether calls for a session key fail now."""
        return self._until.get(key, 0) > self._clock.now()

    def was_out(self, key: str) -> bool:
        """Whether they failed within the last minute, or fail now."""
        return self._until.get(key, 0) > self._clock.now() - _REMEMBERED_MS

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def called(key: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the store's own
            return _fail() if self.is_out(key) else call(key, *arguments, **options)

        return called


async def _fail() -> NoReturn:
    msg = "the demo has taken the session store away"
    raise StoreUnavailableError(msg, not_applied=True, kind="demo")
