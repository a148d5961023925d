"""Decides whether a request was sent by a page of our own origin; pure functions over raw headers, no ASGI.

`Sec-Fetch-Site` decides where it is sent: scripts cannot forge it, and it is the browser's own comparison of the page's
origin with the requested one. Hence a request says `same-origin` also when the application is reached under another
host than the configured one (an internal name, a preview host), and passes although its `Origin` differs: the cookies
of such a request are those of that other host. Only without `Sec-Fetch-Site` (old browsers; plain http outside
localhost) is `Origin` compared with the configured origin. A client that sends neither is no browser, has no user's
cookies to abuse, and passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from session_core.urls import normalised_origin

__all__ = (
    "CrossSiteReason",
    "RawHeaders",
    "cross_site_reason",
    "cross_site_websocket_reason",
    "is_said_same_origin",
    "is_user_navigation",
)

RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Headers as in an ASGI scope: lower-case names, order and repetitions preserved."""

CrossSiteReason: TypeAlias = Literal[
    "sec_fetch_site_same_site",
    "sec_fetch_site_cross_site",
    "sec_fetch_site_invalid",
    "origin_mismatch",
    "origin_null",
    "origin_invalid",
    "origin_repeated",
]
"""Why a request is refused; stable, safe to log, holds nothing the client sent."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SAME_ORIGIN: Final = [b"same-origin"]
_SPECULATION: Final = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
_SPECULATIVE: Final = re.compile(rb"prefetch|prerender|preview", re.IGNORECASE)


def cross_site_reason(
    method: str,
    headers: RawHeaders,
    *,
    public_origin: str,
    trusted_origins: frozenset[str] = frozenset(),
) -> CrossSiteReason | None:
    """Return why a page of another origin must have sent this request, or `None` when it may pass.

    GET, HEAD and OPTIONS pass (they must not change state); every other method, TRACE included, is judged. The origins
    are given as `origin_of` returns them; a page of a trusted origin may send what our own pages may.
    """
    if method in _SAFE_METHODS:
        return None
    return _judge(headers, public_origin, trusted_origins)


def cross_site_websocket_reason(
    headers: RawHeaders,
    *,
    public_origin: str,
    trusted_origins: frozenset[str] = frozenset(),
) -> CrossSiteReason | None:
    """Return why a page of another origin must have opened this WebSocket, or `None` when it may pass.

    The handshake is a GET that the same-origin policy does not cover (cross-site WebSocket hijacking), so it is judged
    like a POST. Browsers always send `Origin` with it (RFC 6455 4.1): without one the client is no browser.
    """
    return _judge(headers, public_origin, trusted_origins)


def is_said_same_origin(headers: RawHeaders) -> bool:
    """Whether a browser says of a request, and nothing in it is said twice, that a page of the same origin sent it.

    It then passes by every rule. Nearly all requests do, and this takes a fifth of the time of the rules.
    """
    if not isinstance(headers, list):
        return False
    by_name = dict(headers)
    return by_name.get(b"sec-fetch-site") == b"same-origin" and len(by_name) == len(headers)


def is_user_navigation(headers: RawHeaders) -> bool:
    """Whether a GET is somebody going to the page: a top-level navigation, not an image, frame, fetch or prefetch.

    True too when no Sec-Fetch header is sent at all (old browsers, command-line clients) and nothing says prefetch.
    """
    fetch: dict[bytes, bytes] = {}
    for name, value in headers:
        if name.startswith(b"sec-fetch-"):
            # Repeated: joined into a value that no browser sends, so the request is no navigation.
            fetch[name] = fetch[name] + b"," + value if name in fetch else value
        elif name in _SPECULATION and _SPECULATIVE.search(value):
            return False
    if not fetch:
        return True
    return fetch.get(b"sec-fetch-mode") == b"navigate" and fetch.get(b"sec-fetch-dest") == b"document"


def _judge(headers: RawHeaders, ours: str, trusted: frozenset[str]) -> CrossSiteReason | None:
    headers = tuple(headers)
    sites = [value for name, value in headers if name == b"sec-fetch-site"]
    if sites == _SAME_ORIGIN:
        return None
    origins = [value for name, value in headers if name == b"origin"]
    if not sites:
        return _judge_origin(origins, trusted | {ours}) if origins else None
    refusal = _judge_site(sites)
    # The browser knows nothing of our trust in other origins: there, and only there, may Origin overrule it.
    if refusal in {"sec_fetch_site_same_site", "sec_fetch_site_cross_site"} and origins:
        return refusal if _judge_origin(origins, trusted) else None
    return refusal


def _judge_site(sites: list[bytes]) -> CrossSiteReason | None:
    if len(sites) > 1:
        return "sec_fetch_site_invalid"
    match sites[0]:
        case b"same-origin" | b"none":
            return None
        case b"same-site":
            return "sec_fetch_site_same_site"
        case b"cross-site":
            return "sec_fetch_site_cross_site"
        case _:
            return "sec_fetch_site_invalid"


def _judge_origin(origins: list[bytes], accepted: frozenset[str]) -> CrossSiteReason | None:
    if len(origins) > 1:
        return "origin_repeated"
    if origins[0] == b"null":
        # Sandboxed frames, data: pages and redirects across origins: anybody can be "null".
        return "origin_null"
    origin = normalised_origin(origins[0].decode("latin-1"))
    if origin is None:
        return "origin_invalid"
    return None if origin in accepted else "origin_mismatch"
