"""Shows each call to the store and to a provider to those who measure or trace them; names and errors alone, no ids or tokens.

Without observers nothing is wrapped, and a call costs what it cost before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from session_core.errors import OidcError, SessionCoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

__all__ = ("CallEnd", "CallObserver", "Calls", "failure_of")

T = TypeVar("T")

CallEnd: TypeAlias = "Callable[[BaseException | None], None]"


class CallObserver(Protocol):
    """Measures or traces calls, by names that are stable.

    `store.` and a method of `SessionStore`: `store.load`, `store.replace`, `store.rotate` and so on. `provider.` and what is
    asked for: `provider.discovery`, `provider.jwks`, `provider.token`, `provider.userinfo` and so on. `tokens.refresh` is around
    all that one refresh takes.
    """

    def begin(self, name: str) -> CallEnd:
        """Note that a call begins in the running context; return what is called with its exception, or None, when it is over."""
        ...


class Calls:
    """The observers of one application."""

    def __init__(self, observers: Sequence[CallObserver] = ()) -> None:
        self._observers = tuple(observers)

    def observed(self, name: str, call: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Return a call that the observers are shown."""
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
    """Return a stable word for a call that failed; None where the other side answered, if only with a conflict or a refusal."""
    if not isinstance(error, Exception):  # over, or the client has left
        return None
    if isinstance(error, SessionCoreError) and not isinstance(error, StoreUnavailableError | OidcError):
        return None
    if isinstance(error, OidcError):
        return error.reason
    return error.code if isinstance(error, SessionCoreError) else type(error).__name__
