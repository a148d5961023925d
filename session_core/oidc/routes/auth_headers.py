"""What every answer under /auth has in common: headers that none may lack, cookies that also an error sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from session_core.asgi_types import Message, Scope, Send

__all__ = ("queued_cookies", "with_auth_headers")

_COOKIES_KEY: Final = "session_core.oidc.cookies"


def with_auth_headers(scope: Scope, send: Send) -> Send:
    """Return a `send` that adds to the answer, errors included, what none under /auth may lack, and the queued cookies."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
            if not any(name.lower() == b"cache-control" for name, _ in given):
                given.append((b"cache-control", b"no-store"))
            # The address of a callback holds a code: it must not be told to the next page.
            given = [(name, value) for name, value in given if name.lower() != b"referrer-policy"]
            given.append((b"referrer-policy", b"no-referrer"))
            given += [(b"set-cookie", value) for value in queued_cookies(scope)]
            message = {**message, "headers": given}
        await send(message)

    return send_with_headers


def queued_cookies(scope: Scope) -> list[bytes]:
    """Return the Set-Cookie values that the answer to this request will carry; append to it."""
    queued: list[bytes] = scope.setdefault(_COOKIES_KEY, [])
    return queued
