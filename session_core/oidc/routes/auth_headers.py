"""Headers that every response under /auth has, and cookies that error responses set too. A HEAD gets no content."""

from __future__ import annotations

from typing import Final

from session_core.asgi.web import without_content
from session_core.asgi_types import Message, Scope, Send

__all__ = ("queued_cookies", "with_auth_headers")

_COOKIES_KEY: Final = "session_core.oidc.cookies"


def with_auth_headers(scope: Scope, send: Send) -> Send:
    """Return a `send` that adds the common headers and the queued cookies to every response, errors included."""
    if scope["method"] == "HEAD":
        send = without_content(send)

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
            if not any(name.lower() == b"cache-control" for name, _ in given):
                given.append((b"cache-control", b"no-store"))
            # The URL of a callback contains a code, which the next page must not get as its referrer.
            given = [(name, value) for name, value in given if name.lower() != b"referrer-policy"]
            given.append((b"referrer-policy", b"no-referrer"))
            given += [(b"set-cookie", value) for value in queued_cookies(scope)]
            message = {**message, "headers": given}
        await send(message)

    return send_with_headers


def queued_cookies(scope: Scope) -> list[bytes]:
    """Return the list of Set-Cookie values for the response to this request; append to it."""
    queued: list[bytes] = scope.setdefault(_COOKIES_KEY, [])
    return queued
