"""The session as a dependency: the annotations of handler parameters, and the provider that Litestar calls."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from session_core.errors import ConfigurationError
from session_core.sessions.handle import SessionHandle
from session_core.sessions.manager import SessionManager

__all__ = ("CURRENT", "Session", "Sessions", "provide_session")

D = TypeVar("D", bound=msgspec.Struct)

Session: TypeAlias = SkipValidation[NamedDependency[SessionHandle[D]]]
"""Annotates the parameter of a handler: `async def handler(session: Session[AppSession])`. It must be named `session`."""

Sessions: TypeAlias = NamedDependency[SessionManager]
"""Annotates the parameter of a handler: `async def handler(sessions: Sessions)`. It must be named `sessions`."""

CURRENT: Final[ContextVar[SessionHandle[Any] | None]] = ContextVar("session_core.session", default=None)
"""The session of the current request, if it is not injected directly (`session_core.litestar.internals`)."""


async def provide_session() -> SessionHandle[Any]:
    """Return the loaded session of the current request, for injection. Raises what `session_of` raises."""
    handle = CURRENT.get()
    # A server may start the next request of a connection in the context of the last one, whose session must not be used.
    if handle is None or handle.response_started:
        msg = "this route does not use the session: inject it, guard the route, or give the handler opt={'session': True}"
        raise ConfigurationError(msg)
    return handle if handle.loaded else await handle.load()
