"""Reports each call to the store or a provider to observers, for metrics and traces; only names and errors, no ids or tokens.

Without observers calls are not wrapped and cost nothing extra.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from session_core.errors import OidcError, SessionCoreError, StoreUnavailableError

__all__ = ("CallEnd", "CallObserver", "Calls", "failure_of")

T = TypeVar("T")

CallEnd: TypeAlias = "Callable[[BaseException | None], None]"


class CallObserver(Protocol):
    """Measures or traces calls, by names that are stable.

    `store.` and a method of `SessionStore`: `store.load`, `store.replace`, `store.rotate` and so on. `provider.` and the
    endpoint: `provider.discovery`, `provider.jwks`, `provider.token`, `provider.userinfo` and so on. `tokens.refresh` spans a
    whole refresh.
    """

    def begin(self, name: str) -> CallEnd:
        """Called when a call begins, in its context; return a function that is called at its end, with its exception or None."""
        ...


class Calls:
    """The observers of one application."""

    def __init__(self, observers: Sequence[CallObserver] = ()) -> None:
        self._observers = tuple(observers)

    def observed(self, name: str, call: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Return `call`, wrapped so that the observers see it."""
        return self._show(name, call) if self._observers else call

    async def _show(self, name: str, call: Coroutine[Any, Any, T]) -> T:
        ends = [observer.begin(name) for observer in self._observers]
        error: BaseException | None = None
        try:
            return await call
        except BaseException as raised:
            error = raised
            raise
        finally:
            for end in reversed(ends):
                end(error)


def failure_of(error: BaseException | None) -> str | None:
    """Return a stable slug for a failed call; None if the other side answered, even with a conflict or a refusal."""
    if not isinstance(error, Exception):  # success, or cancelled
        return None
    if isinstance(error, SessionCoreError) and not isinstance(error, StoreUnavailableError | OidcError):
        return None
    if isinstance(error, OidcError):
        return error.reason
    return error.code if isinstance(error, SessionCoreError) else type(error).__name__
