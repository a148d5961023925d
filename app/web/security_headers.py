"""The headers that tell a browser what our answers may do; added to every answer, errors included."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from litestar.enums import ScopeType

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from app.settings.settings import Settings

__all__ = ("SecurityHeaders", "content_security_policy")


def _fixed_headers(settings: Settings) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"x-content-type-options", b"nosniff"),
        # Our own forms need the referrer to find back to their page after a login; nobody else gets any.
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ]
    if settings.public_url.startswith("https://"):
        headers.append((b"strict-transport-security", b"max-age=63072000; includeSubDomains"))
    return headers


def content_security_policy(form_targets: frozenset[str]) -> str:
    """Return the policy of our pages: everything from here, nothing inline, no frames, forms to us and to the provider."""
    policy = (
        "default-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        # Browsers hold the redirects after a form post to this as well: a logout, or a form that needs a fresh login, ends there.
        " ".join(("form-action 'self'", *sorted(form_targets))),
        "frame-ancestors 'none'",
    )
    return "; ".join(policy)


class SecurityHeaders:
    """Outermost but one: Litestar answers 404 and 405 outside its own middleware.

    `form_targets` tells the origins of the provider, which may be others than its name's once its metadata are known.
    """

    def __init__(self, app: ASGIApp, settings: Settings, form_targets: Callable[[], frozenset[str]]) -> None:
        self._app = app
        self._form_targets = form_targets
        self._fixed = _fixed_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, adding what an answer does not say itself."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A copy: the message may be kept by a cache and be sent again.
                given = list(message.get("headers") or ())
                names = {name.lower() for name, _ in given}
                given += [(name, value) for name, value in self._fixed if name not in names]
                if b"content-security-policy" not in names:
                    given += [(b"content-security-policy", self._policy()), (b"x-frame-options", b"DENY")]
                message = cast("Message", {**message, "headers": given})
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _policy(self) -> bytes:
        return content_security_policy(self._form_targets()).encode()
