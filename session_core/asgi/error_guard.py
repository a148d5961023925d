"""Calls in Litestar's exception handler when something was raised, and not before.

Litestar puts one around every route, and one more inside the middleware of the route. To pass through that costs each request a
coroutine, a closure, and a call for each message it sends.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from litestar.enums import ScopeType
from litestar.exceptions import LitestarException

from session_core.asgi.known_code import ERROR_HANDLING, is_known

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

__all__ = ("ErrorGuard", "error_guard_of")


class ErrorGuard:
    """The exception handler around `app`."""

    def __init__(self, handler: Any) -> None:  # noqa: ANN401 - Litestar's own, and private
        self._handler = handler
        self.app: ASGIApp = handler.app

    async def answer(self, error: Exception, scope: Scope, receive: Receive, send: Send, *, started: bool) -> None:
        """Answer what `app` has raised, as the exception handler does. Raises what it raises.

        `started`: a response has begun. The handler would have seen that; middleware outside may be holding the response back.
        """
        if started and scope["type"] == ScopeType.HTTP:
            msg = "Exception caught after response started"
            raise LitestarException(msg) from error

        raised = [error]

        async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
            # Taken out: the traceback of an error holds the frame that raised it, which would hold the error, and everything of
            # the request with it.
            raise raised.pop()

        handler = copy(self._handler)
        handler.app = fail
        await handler(scope, receive, send)


def error_guard_of(app: ASGIApp) -> ErrorGuard | None:
    """Return the guard that `app` is, or None: it is another middleware, or Litestar differs in anything this relies on."""
    kind = type(app)
    if (
        kind.__name__ != "ExceptionHandlerMiddleware"
        or not kind.__module__.startswith("litestar.")
        or not is_known(ERROR_HANDLING)
    ):
        return None
    return ErrorGuard(app) if callable(getattr(app, "app", None)) else None
