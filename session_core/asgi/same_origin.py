"""Refuses state-changing requests and WebSockets that a page of another site sent (CSRF, cross-site WebSocket hijacking).

Browsers name the sender in two headers that scripts cannot set. A request passes with

- `Sec-Fetch-Site: same-origin`, whatever well-formed `Origin` it has: `null` under `Referrer-Policy: no-referrer`, another
  host where the application is reached under a second name. The cookies of such a request are those of that host.
- `Sec-Fetch-Site: none`, or no `Sec-Fetch-Site` (old browsers; plain http outside localhost), and our or a trusted `Origin`.
  `none` alone proves nothing: Firefox sends it, with `Origin: null`, for a form that a no-referrer page of another site posts
  to itself and redirects here with 307.
- `Sec-Fetch-Site: same-site` or `cross-site`, and a trusted `Origin`.
- a WebSocket with `Origin` alone (Chromium), where that is the host it was sent to, as in an application with many hosts: a
  browser names the host itself, and sends it the cookies of that host alone.
- neither header: the client is no browser and has no user's cookies to abuse.

Everything else is refused, also repeated or malformed headers. The page "Requests of other sites" of the documentation
lists what browsers send.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

from session_core.asgi.exchange import Framework
from session_core.asgi_types import Receive, Scope, Send
from session_core.config import SessionConfig
from session_core.errors import CrossSiteRequestError, PlainHttpRequestError
from session_core.events import Events
from session_core.trusted_origins import native_origin
from session_core.urls import base_url_of, is_loopback, normalised_origin

__all__ = (
    "CrossSiteReason",
    "RawHeaders",
    "SameOriginRule",
    "cross_site_reason",
    "cross_site_websocket_reason",
    "is_plainly_same_origin",
    "is_speculative",
    "is_user_navigation",
    "sent_origin",
)

RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Headers as in an ASGI scope: lower-case names, order and repetitions preserved."""

CrossSiteReason: TypeAlias = Literal[
    "sec_fetch_site_same_site",
    "sec_fetch_site_cross_site",
    "sec_fetch_site_none",
    "sec_fetch_site_invalid",
    "origin_mismatch",
    "origin_null",
    "origin_invalid",
    "origin_repeated",
]
"""Why a request is refused; stable, safe to log, without data of the client."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NULL: Final = b"null"
"""The origin of sandboxed frames, data: pages, no-referrer pages and some redirects of any site."""
_SITES: Final[dict[bytes, CrossSiteReason | None]] = {
    b"same-origin": None,
    b"same-site": "sec_fetch_site_same_site",
    b"cross-site": "sec_fetch_site_cross_site",
    b"none": "sec_fetch_site_none",
}
"""Why a request with this `Sec-Fetch-Site` and no `Origin` is refused."""
_MAX_ORIGIN_BYTES: Final = 300
"""More than the longest scheme, host name (RFC 1035 2.3.4) and port together."""
_SPECULATION: Final = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
_SPECULATIVE: Final = re.compile(rb"prefetch|prerender|preview", re.IGNORECASE)


class SameOriginRule:
    """The rule for the requests of one application; one instance serves all."""

    def __init__(self, config: SessionConfig[Any], events: Events, framework: Framework) -> None:
        self._origin = config.base.origin
        self._trusted = config.trusted
        self._events = events
        self._framework = framework

    def reason(self, scope: Scope) -> CrossSiteReason | None:
        """Return why a request is refused, or None."""
        headers = scope["headers"]
        if is_plainly_same_origin(headers):
            return None
        if scope["type"] == "http":
            return cross_site_reason(scope["method"], headers, public_origin=self._origin, trusted_origins=self._trusted)
        return cross_site_websocket_reason(headers, public_origin=self._origin, trusted_origins=self._trusted)

    async def refuse(self, scope: Scope, receive: Receive, send: Send, reason: CrossSiteReason) -> None:
        """Answer 403 without reading the request."""
        origin = sent_origin(scope["headers"])
        if origin is None:
            await self._events.emit("request.cross_site", reason=reason)
        else:
            await self._events.emit("request.cross_site", reason=reason, origin=origin, setting="trusted_origins")
        if scope["type"] == "http":
            plain = origin == "http" + self._origin.removeprefix("https")
            error = PlainHttpRequestError() if plain else CrossSiteRequestError()
            await self._framework.answer_error(scope, receive, send, error)
        else:
            # Closing before accepting is an HTTP 403 to the browser.
            await receive()
            await send({"type": "websocket.close", "code": 4403, "reason": CrossSiteRequestError.title})


def cross_site_reason(
    method: str,
    headers: RawHeaders,
    *,
    public_origin: str,
    trusted_origins: Container[str] = frozenset(),
) -> CrossSiteReason | None:
    """Return why this request must come from another origin, or `None` when it is accepted.

    GET, HEAD and OPTIONS are accepted (they must not change state); every other method, TRACE included, is checked. The origins
    are given as `origin_of` returns them; trusted origins have the same rights as ours.
    """
    if method in _SAFE_METHODS:
        return None
    return _judge(headers, public_origin, trusted_origins)


def cross_site_websocket_reason(
    headers: RawHeaders,
    *,
    public_origin: str,
    trusted_origins: Container[str] = frozenset(),
) -> CrossSiteReason | None:
    """Return why this WebSocket must come from another origin, or `None` when it is accepted.

    The handshake is a GET that the same-origin policy does not cover (cross-site WebSocket hijacking), so it is checked like a
    POST. Browsers always send `Origin` with it (RFC 6455 4.1): without one the client is no browser.
    """
    headers = list(headers)
    reason = _judge(headers, public_origin, trusted_origins)
    return None if reason == "origin_mismatch" and _is_of_its_own_host(headers, public_origin) else reason


def sent_origin(headers: RawHeaders) -> str | None:
    """Return the `Origin` of a request, if there is one; safe to log."""
    sent = [value for name, value in headers if name == b"origin"]
    if len(sent) != 1:
        return None
    (origin,) = sent
    return _normalised(origin) or _native(origin)


def _is_of_its_own_host(headers: list[tuple[bytes, bytes]], public_origin: str) -> bool:
    """Whether a WebSocket that has only an `Origin` header goes to the host of that origin.

    The origin must have the scheme of the public URL, because a network attacker controls plain http pages. On loopback, other
    host names are refused, because DNS may resolve them to this machine (DNS rebinding).
    """
    by_name = dict(headers)
    if b"sec-fetch-site" in by_name or len([name for name, _ in headers if name == b"host"]) != 1:
        return False
    base = base_url_of(public_origin)
    scheme = base.origin.partition("://")[0]
    origin = normalised_origin(f"{scheme}://{by_name[b'host'].decode('latin-1')}")
    if origin is None or origin != _normalised(by_name[b"origin"]):
        return False
    return is_loopback(base_url_of(origin).host) or not is_loopback(base.host)


def is_plainly_same_origin(headers: RawHeaders) -> bool:
    """Whether a request passes by `Sec-Fetch-Site: same-origin`, so that no other header has to be checked.

    A fast path for nearly every browser request; after `False` the rules decide.
    """
    if not isinstance(headers, list):
        return False
    by_name = dict(headers)
    if by_name.get(b"sec-fetch-site") != b"same-origin" or len(by_name) != len(headers):
        return False
    return (origin := by_name.get(b"origin")) is None or _is_well_formed(origin)


def is_speculative(headers: RawHeaders) -> bool:
    """Whether a browser fetches a page ahead of the user: prefetch, prerender, preview (`Sec-Purpose`)."""
    return any(name in _SPECULATION and _SPECULATIVE.search(value) for name, value in headers)


def is_user_navigation(headers: RawHeaders) -> bool:
    """Whether a GET is a user opening the page: a top-level navigation, not an image, frame, fetch or prefetch.

    Also true without any Sec-Fetch header (old browsers, command-line clients), unless a header marks a prefetch.
    """
    fetch: dict[bytes, bytes] = {}
    for name, value in headers:
        if name.startswith(b"sec-fetch-"):
            # Repeated headers are joined into a value that no browser sends, so the request is no navigation.
            fetch[name] = fetch[name] + b"," + value if name in fetch else value
        elif name in _SPECULATION and _SPECULATIVE.search(value):
            return False
    if not fetch:
        return True
    return fetch.get(b"sec-fetch-mode") == b"navigate" and fetch.get(b"sec-fetch-dest") == b"document"


def _judge(headers: RawHeaders, ours: str, trusted: Container[str]) -> CrossSiteReason | None:
    sites: list[bytes] = []
    origins: list[bytes] = []
    for name, value in headers:
        if name == b"sec-fetch-site":
            sites.append(value)
        elif name == b"origin":
            origins.append(value)
    if len(sites) > 1 or (sites and sites[0] not in _SITES):
        return "sec_fetch_site_invalid"
    if len(origins) > 1:
        return "origin_repeated"
    refusal = _SITES[sites[0]] if sites else None
    if not origins:
        return refusal
    (origin,) = origins
    if not _is_well_formed(origin):
        # The scheme of a native application, or no origin.
        native = _native(origin)
        return None if native is not None and native in trusted else "origin_invalid"
    if sites and refusal is None:
        return None
    return _judge_origin(origin, refusal, ours, trusted)


def _judge_origin(sent: bytes, refusal: CrossSiteReason | None, ours: str, trusted: Container[str]) -> CrossSiteReason | None:
    origin = _normalised(sent)
    if origin is not None and origin in trusted:
        return None
    if refusal in {"sec_fetch_site_same_site", "sec_fetch_site_cross_site"}:
        return refusal
    if origin == ours:
        return None
    return "origin_null" if sent == _NULL else "origin_mismatch"


def _is_well_formed(origin: bytes) -> bool:
    return origin == _NULL or _normalised(origin) is not None


def _native(origin: bytes) -> str | None:
    return native_origin(origin.decode("latin-1"))


def _normalised(origin: bytes) -> str | None:
    # Check the length before the cache: a client must not control how much memory its origins take.
    return _parsed(origin) if len(origin) <= _MAX_ORIGIN_BYTES else None


@lru_cache(maxsize=256)
def _parsed(origin: bytes) -> str | None:
    return normalised_origin(origin.decode("latin-1"))
