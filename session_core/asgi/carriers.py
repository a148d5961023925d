"""What carries a session id in a request and its response: the cookie, or a bearer token. Reads the request, loads no session."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

from session_core.asgi.bearer import TOKEN_HEADER, BearerTokens
from session_core.errors import AmbiguousCredentialsError, ConfigurationError
from session_core.sessions.record import Device

if TYPE_CHECKING:
    from session_core.asgi.exchange import SessionServices
    from session_core.asgi_types import Headers, Scope
    from session_core.ids import UncertainId
    from session_core.sessions.handle import SessionHandle

__all__ = ("BearerCarrier", "CookieCarrier")

_MAX_USER_AGENT: Final = 256


class CookieCarrier:
    """The request of a session, whose id is in the signed cookie (a `SessionSource`)."""

    # Instance slots: CPython 3.11 takes five times as long to read a class attribute.
    __slots__ = ("_by_token", "_client", "_headers", "_scope", "_services", "needs_resign", "on_websocket", "presents_token")

    # The headers, not the scope: the scope holds the handle, which holds this, and reference cycles are freed late.
    def __init__(self, services: SessionServices, scope: Scope) -> None:
        self._services = services
        self._headers = scope["headers"]
        self._client = scope.get("client")
        self._scope: Any = scope if services.device is not None else None
        self._by_token = False
        self.needs_resign = False
        """Whether an older secret has signed the id; known when it was read."""
        self.on_websocket = scope["type"] == "websocket"
        self.presents_token = False
        """Whether it is a bearer token, which opens a session or is refused."""

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

    def answer_by_token(self) -> None:
        """Give the client a bearer token in place of a cookie.

        Raises `AmbiguousCredentialsError` for a request with a session cookie: a script must not get the id that HttpOnly hides.
        """
        if self._tokens.presents_cookie(self._headers):
            raise AmbiguousCredentialsError
        self._by_token = True

    def token_of(self, text: str) -> str | None:
        """Return the bearer token for the response; None where the client gets a cookie."""
        return self._tokens.sign(text) if self._by_token else None

    def with_id(self, headers: Headers, handle: SessionHandle[Any]) -> Headers:
        """Return the headers of a response with what `handle.cookie_action` asks for."""
        if self._by_token:
            token = handle.new_token
            return headers if token is None else [*headers, (TOKEN_HEADER, token.encode("ascii"))]
        services = self._services
        cookie = services.cookie
        if handle.cookie_action == "delete":
            if services.cookies.read(self._headers).is_foreign:
                return headers
            last = cookie.delete_header()
        elif (held := handle.cookie()) is not None:
            last = services.set_cookie(*held)
        else:
            return headers
        # The former ones first: a browser that treats them as the same cookie keeps the last one.
        former = cookie.former if handle.presents_several or cookie.known_former else ()
        return [*headers, *((b"set-cookie", each.delete_header()) for each in former), (b"set-cookie", last)]

    @property
    def _tokens(self) -> BearerTokens:
        tokens = self._services.tokens
        if tokens is None:
            msg = "bearer tokens are switched off; set SessionConfig(bearer=True)"
            raise ConfigurationError(msg)
        return tokens


class BearerCarrier(CookieCarrier):
    """The request of a native client, whose id is in a signed bearer token. Its response sets no cookie."""

    __slots__ = ("_ambiguous",)

    def __init__(self, services: SessionServices, scope: Scope, *, ambiguous: bool) -> None:
        super().__init__(services, scope)
        self._by_token = self.presents_token = True
        self._ambiguous = ambiguous

    def is_bare(self) -> bool:
        """Whether the request presents nothing."""
        return False

    def read_session_id(self) -> str | UncertainId | Awaitable[None] | None:
        """Return the verified session id, or None with an event. Raises `AmbiguousCredentialsError`."""
        if self._ambiguous:
            raise AmbiguousCredentialsError
        session_id, self.needs_resign = self._tokens.read(self._headers)
        if session_id is None:
            return self._services.lifecycle.events.emit("token.rejected", reason="bad_token")
        return session_id
