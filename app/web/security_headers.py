"""Security headers for every response, errors included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from litestar.enums import ScopeType

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from app.settings.settings import Settings

__all__ = ("CONTENT_SECURITY_POLICY", "SecurityHeaders")


def _fixed_headers(settings: Settings) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"x-content-type-options", b"nosniff"),
        # Our own forms need the referrer to return to their page after a login; other sites get none.
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ]
    if settings.public_url.startswith("https://"):
        headers.append((b"strict-transport-security", b"max-age=63072000; includeSubDomains"))
    return headers


# Browsers apply `form-action` to redirects after a form, too: the library goes to the provider by a separate page.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The policy of our pages: resources from this origin only, nothing inline, no frames, forms only to this origin."""


class SecurityHeaders:
    """Outside Litestar, which answers 404 and 405 outside its own middleware."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._fixed = _fixed_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application and add missing headers to its response."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A copy: a cache may keep the message and send it again.
                given = list(message.get("headers") or ())
                names = {name.lower() for name, _ in given}
                given += [(name, value) for name, value in self._fixed if name not in names]
                if b"content-security-policy" not in names:
                    given += [(b"content-security-policy", CONTENT_SECURITY_POLICY.encode()), (b"x-frame-options", b"DENY")]
                message = cast("Message", {**message, "headers": given})
            await send(message)

        await self._app(scope, receive, send_with_headers)
