"""The session of a request outside of our middleware: in outer middleware, in hooks, on error pages.

It is created when code asks for it. Then the messages of the response are changed as they leave the application.
"""

from __future__ import annotations

from typing import Any, Final

from litestar.types import Message, Scope

from session_core.asgi.exchange import STARTS, Exchange, SessionServices
from session_core.asgi.middleware import SCOPE_KEY
from session_core.errors import ConfigurationError
from session_core.sessions.handle import SessionHandle

__all__ = ("CACHED_KEY", "TOUCH", "OutsideSessions")

CACHED_KEY: Final = "session_core.litestar.cached"
"""Scope key of a request whose response goes into the response cache."""
TOUCH: Final = "touch"
"""The route option that, set to False, makes reading not count as use."""
_KEY: Final = "session_core.litestar.outside"
_STARTED_KEY: Final = "session_core.litestar.started"


class OutsideSessions:
    """Sessions that begin outside of our middleware."""

    def __init__(self, services: SessionServices) -> None:
        self._services = services

    def begin(self, scope: Scope) -> SessionHandle[Any]:
        """Put a session into the scope of a request; our middleware reuses it if it runs later."""
        state: Any = scope
        if CACHED_KEY in state:
            msg = "the response is about to be stored in the response cache for all visitors: ask for the session earlier"
            raise ConfigurationError(msg)
        exchange = _OutsideExchange(self._services, scope)
        exchange.handle.served = False
        if (handler := state.get("route_handler")) is not None and handler.opt.get(TOUCH) is False:
            exchange.handle.extends = False
        exchange.handle.response_started = _STARTED_KEY in state
        state[_KEY] = exchange
        state[SCOPE_KEY] = exchange.handle
        return exchange.handle

    async def amend(self, message: Message, scope: Scope) -> None:
        """Save the session before a message that starts the response, and write cookie and caching headers into it."""
        state: Any = scope
        exchange: _OutsideExchange | None = state.get(_KEY)
        if exchange is not None:
            await exchange.amend(message)
        elif message["type"] in STARTS:
            state[_STARTED_KEY] = True


class _OutsideExchange(Exchange):
    """Changes the messages that other code sends."""

    __slots__ = ("_body", "_messages")

    def __init__(self, services: SessionServices, scope: Scope) -> None:
        self._messages: list[Any] = []
        self._body = b""
        super().__init__(services, scope, _receive_nothing, self._keep)

    def __del__(self) -> None:
        self._store_time.over = True
        # The request is over. Changes by outer middleware after the response can only be detected here.
        if self.handle.response_started and self.has_unsaved_changes():
            self._services.lifecycle.events.emit_soon("session.unsaved", handle=self.handle.handle, reason="response_sent")

    async def amend(self, message: Any) -> None:  # noqa: ANN401 - a message of any kind
        """Change a message as our middleware would: in place, since the server already has it."""
        kind = message["type"]
        if self._replaced:
            # An error response has replaced another one, whose messages still arrive.
            if kind == "http.response.body":
                message["body"], self._body = self._body, b""
        elif kind in STARTS and not self.handle.response_started:
            start: Any = dict(message)
            await self.send_durable(start)
            start, *rest = self._messages
            self._body = b"".join(part.get("body", b"") for part in rest)
            message.clear()
            message.update(start)

    async def _keep(self, message: Message) -> None:
        self._messages.append(message)


async def _receive_nothing() -> Any:  # noqa: ANN401 - what ASGI says
    return {"type": "http.disconnect"}
