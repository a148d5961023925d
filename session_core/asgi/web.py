"""The HTTP request and response that the library's own routes use, in every framework. Independent of sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import Any, Final, Protocol

import msgspec

from session_core.asgi.bearer import presents_bearer
from session_core.asgi.limits import RateLimits
from session_core.asgi.middleware import SCOPE_KEY
from session_core.asgi_types import Headers, Message, Receive, Scope, Send
from session_core.config import SessionConfig
from session_core.errors import AmbiguousCredentialsError
from session_core.identity import Identity
from session_core.sessions.handle import SessionHandle

__all__ = ("HTML", "JSON", "PROBLEM", "TEXT", "HasHeaders", "Redirect", "Response", "WebRequest", "without_content")

HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
TEXT: Final = "text/plain; charset=utf-8"
_EMPTY: Final = (b"content-length", b"0")
_OF_CONTENT: Final = frozenset({b"content-length", b"content-type"})
_SEE_OTHER: Final = 303


class HasHeaders(Protocol):
    """A request or WebSocket of any framework."""

    @property
    def headers(self) -> Any:  # noqa: ANN401 - a mapping; the class differs per framework
        """The headers by lower-case name."""
        ...

    @property
    def scope(self) -> Any:  # noqa: ANN401 - likewise
        """The ASGI scope."""
        ...


class WebRequest:
    """One HTTP request. `client_address` is the client's address behind trusted proxies; `limits` are the application's.

    `bearer`: the application takes bearer tokens; `presents_token`: this request has one.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        *,
        client_address: str,
        limits: RateLimits,
        config: SessionConfig[Any],
    ) -> None:
        self.scope = scope
        self._config = config
        self.bearer = config.bearer
        self.presents_token = config.bearer and presents_bearer(scope["headers"])
        self.client_address = client_address
        self.limits = limits
        self._receive = receive

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers by lower-case name; of one that is repeated the first."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(self.scope["headers"])}

    def refuse_token(self) -> None:
        """Raise `AmbiguousCredentialsError` for a bearer token: a login in a browser has to set cookies."""
        if self.presents_token:
            raise AmbiguousCredentialsError

    async def stream(self) -> AsyncIterator[bytes]:
        """Iterate over the parts of the body. Raises `ConnectionError` when the client leaves before its end."""
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                msg = "the client has disconnected"
                raise ConnectionError(msg)
            yield message.get("body", b"")
            if not message.get("more_body"):
                return

    async def session(self) -> SessionHandle[Any]:
        """Return the loaded session of the request. Raises `StoreUnavailableError`."""
        handle: SessionHandle[Any] = self.scope[SCOPE_KEY]
        return await handle.load()

    async def lets_act(self, identity: Identity) -> bool:
        """Whether guards would let this user pass: known to the application, and active."""
        if self._config.load_user is not None and self.scope.get("user", identity) is None:
            return False
        return await self._config.lets_act(identity)


class Response:
    """A response. What is neither text nor bytes is encoded as JSON."""

    def __init__(
        self, content: object = b"", *, status_code: int = 200, media_type: str = TEXT, headers: Mapping[str, str] | None = None
    ) -> None:
        if isinstance(content, str):
            content = content.encode()
        self.body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        self.status_code = status_code
        self.media_type = media_type
        self.headers = dict(headers or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as an ASGI application."""
        del receive
        given = {"content-type": self.media_type, "content-length": str(len(self.body)), **self.headers}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]
        await send({"type": "http.response.start", "status": self.status_code, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


class Redirect(Response):
    """A 303 redirect (RFC 9110 15.4.4)."""

    def __init__(self, url: str, *, status_code: int = _SEE_OTHER, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status_code=status_code, headers={"location": url, **(headers or {})})


def without_content(send: Send) -> Send:
    """Return a `send` for the response to a HEAD: status and headers, then the end, also of a stream (RFC 9110 9.3.2).

    Without content from the handler, the length and the type are left out: those of the GET are not known (RFC 9110 8.6).
    """

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Headers = message.get("headers") or ()
            if _EMPTY in headers:
                message = {**message, "headers": [header for header in headers if header[0] not in _OF_CONTENT]}
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head
