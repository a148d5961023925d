"""What every answer under /auth has in common: headers that none may lack, cookies that also an error sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware

from session_core.stores.deadlines import open_request_time

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ("AuthHeaders", "queued_cookies")

_COOKIES_KEY: Final = "session_core.oidc.cookies"


class AuthHeaders(ASGIMiddleware):
    """Adds to every answer under /auth, errors included, what none of them may lack, and the queued cookies."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass on with a wrapped send."""
        open_request_time()  # a logout of the provider's takes several store calls, and no session

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given: list[tuple[bytes, bytes]] = list(cast("dict[str, Any]", message).get("headers") or ())
                names = {name.lower() for name, _ in given}
                if b"cache-control" not in names:
                    given.append((b"cache-control", b"no-store"))
                # The address of a callback holds a code: it must not be told to the next page.
                given = [(name, value) for name, value in given if name.lower() != b"referrer-policy"]
                given.append((b"referrer-policy", b"no-referrer"))
                given += [(b"set-cookie", value) for value in queued_cookies(scope)]
                message = cast("Message", {**message, "headers": given})
            await send(message)

        await next_app(scope, receive, send_with_headers)


def queued_cookies(scope: Scope) -> list[bytes]:
    """Return the Set-Cookie values that the answer to this request will carry; append to it."""
    queued: list[bytes] = cast("dict[str, Any]", scope).setdefault(_COOKIES_KEY, [])
    return queued
