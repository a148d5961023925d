"""What carries a session id in a request: the cookie. Reads the request, loads no session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from session_core.sessions.record import Device

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from session_core.asgi.exchange import SessionServices
    from session_core.asgi_types import Scope
    from session_core.ids import UncertainId

__all__ = ("CookieCarrier",)

_MAX_USER_AGENT: Final = 256


class CookieCarrier:
    """The request of a session, whose id is in the signed cookie (a `SessionSource`)."""

    # Instance slots: CPython 3.11 takes five times as long to read a class attribute.
    __slots__ = ("_client", "_headers", "_scope", "_services", "needs_resign", "on_websocket")

    # The headers, not the scope: the scope holds the handle, which holds this, and reference cycles are freed late.
    def __init__(self, services: SessionServices, scope: Scope) -> None:
        self._services = services
        self._headers = scope["headers"]
        self._client = scope.get("client")
        self._scope: Any = scope if services.device is not None else None
        self.needs_resign = False
        """Whether an older secret has signed the cookie; known when the id was read."""
        self.on_websocket = scope["type"] == "websocket"

    def is_bare(self) -> bool:
        """Whether the request has no cookie at all."""
        return b"cookie" not in dict(self._headers)

    def read_session_id(self) -> str | UncertainId | tuple[str | UncertainId, ...] | Awaitable[None] | None:
        """Return the verified session id, several of them, or None; a bad cookie is reported as an event, never raised."""
        reading = self._services.cookies.read(self._headers)
        if reading.several:
            return reading.several
        if reading.rejected:
            return self._services.lifecycle.events.emit("cookie.rejected", reason=reading.rejected)
        if reading.needs_resign:
            self.needs_resign = True
        return reading.session_id

    def read_device(self) -> Device:
        """Return the address and the User-Agent of the client."""
        services = self._services
        if services.device is not None:
            return services.device(services.framework.connection_of(self._scope))
        agent = next((value for name, value in self._headers if name == b"user-agent"), b"")
        return Device(ip=self._client[0] if self._client else "", user_agent=agent.decode("latin-1")[:_MAX_USER_AGENT])
