"""A cookie jar by RFC 6265bis: host, path, scheme and SameSite decide what is kept and sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

SameSite = Literal["strict", "lax", "none"]
_MAX_BYTES = 4096


class Context(NamedTuple):
    """The origin of a request, as far as cookies are concerned."""

    same_site: bool
    """Whether the initiator, all ancestor frames and all redirects are of the target's site."""
    top_level: bool
    """Whether it is a top-level navigation."""
    safe: bool
    """GET or HEAD."""


@dataclass
class Cookie:
    name: str
    value: str
    host: str
    host_only: bool
    path: str
    secure: bool
    http_only: bool
    same_site: SameSite
    expires_at: float | None
    created: int


def is_trustworthy(url: SplitResult) -> bool:
    """Whether a browser treats the URL as secure: https, or loopback."""
    host = url.hostname or ""
    return url.scheme == "https" or host in {"localhost", "127.0.0.1", "::1"} or host.endswith(".localhost")


def site_of(url: str) -> tuple[str, str]:
    """Scheme and registrable domain; for test hosts the last two labels."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme, host if host.replace(".", "").isdigit() else ".".join(host.split(".")[-2:])


class CookieJar:
    """The cookies of one browser. `now` is Unix time in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._cookies: dict[tuple[str, str, str, bool], Cookie] = {}
        self._count = 0
        self.ever: set[str] = set()
        """Every value that was ever stored."""
        self.refused: list[str] = []
        """Set-Cookie headers that the browser ignored."""

    def values(self, name: str) -> list[str]:
        return [cookie.value for cookie in self._live() if cookie.name == name]

    def names(self) -> list[str]:
        return [cookie.name for cookie in self._live()]

    def copy_to(self, other: CookieJar) -> None:
        """Copy all cookies to another browser, as a thief of the whole jar would."""
        other._cookies = dict(self._cookies)

    def set(self, header: str, url: str, context: Context) -> None:
        """Store or refuse a Set-Cookie header (6265bis 5.6)."""
        cookie = self._parse(header, urlsplit(url))
        taken = cookie is not None and (cookie.same_site == "none" or context.same_site or context.top_level)
        if cookie is None or not taken:
            self.refused.append(header)
            return
        key = (cookie.name, cookie.host, cookie.path, cookie.host_only)
        if cookie.expires_at is not None and cookie.expires_at <= self._now():
            self._cookies.pop(key, None)
            return
        self._cookies[key] = cookie
        self.ever.add(cookie.value)

    def toss(self, name: str, value: str, host: str, *, path: str = "/", host_only: bool = False) -> None:
        """Plant a cookie as a page of a sibling host can, without the checks on Set-Cookie of the own server."""
        self._count += 1
        planted = Cookie(name, value, host, host_only, path, False, False, "lax", None, self._count)
        self._cookies[name, host, path, host_only] = planted

    def header(self, url: str, context: Context) -> str:
        """The Cookie header of a request: longest path first, then the oldest (5.7.3)."""
        parts = urlsplit(url)
        host, path = parts.hostname or "", parts.path or "/"
        chosen = [each for each in self._live() if _fits(each, host, path) and (is_trustworthy(parts) or not each.secure)]
        chosen = [each for each in chosen if _may_go(each, context)]
        chosen.sort(key=lambda each: (-len(each.path), each.created))
        return "; ".join(f"{each.name}={each.value}" if each.name else each.value for each in chosen)

    def _live(self) -> list[Cookie]:
        now = self._now()
        return [each for each in self._cookies.values() if each.expires_at is None or now < each.expires_at]

    def _parse(self, header: str, url: SplitResult) -> Cookie | None:
        pair, *rest = header.split(";")
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            name, value = "", name
        given = {key.strip().lower(): text.strip() for key, _, text in (part.partition("=") for part in rest)}
        host = url.hostname or ""
        domain = given.get("domain", "").lstrip(".").lower()
        path = given.get("path", "")
        same_site: SameSite = {"strict": "strict", "none": "none"}.get(given.get("samesite", "").lower(), "lax")  # type: ignore[assignment]
        age = given.get("max-age")
        self._count += 1
        cookie = Cookie(
            name=name,
            value=value,
            host=domain or host,
            host_only=not domain,
            path=path if path.startswith("/") else (url.path.rpartition("/")[0] or "/"),
            secure="secure" in given,
            http_only="httponly" in given,
            same_site=same_site,
            expires_at=None if age is None else self._now() + int(age),
            created=self._count,
        )
        return cookie if self._is_allowed(cookie, host, url, pair) else None

    def _is_allowed(self, cookie: Cookie, host: str, url: SplitResult, pair: str) -> bool:
        if len(pair) > _MAX_BYTES or not (cookie.name or cookie.value) or not _domain_matches(host, cookie.host):
            return False
        if not cookie.host_only and "." not in cookie.host:
            return False  # a top-level domain cannot set cookies
        if (cookie.secure and not is_trustworthy(url)) or (cookie.same_site == "none" and not cookie.secure):
            return False
        # The prefixes apply in any case of letters, and when the name is empty and the value looks like one (5.6, 21).
        lead = (cookie.name or cookie.value).lower()
        if lead.startswith("__secure-") and not (cookie.name and cookie.secure):
            return False
        strict = cookie.secure and cookie.host_only and cookie.path == "/" and bool(cookie.name)
        if lead.startswith("__host-") and not strict:
            return False
        # "Leave secure cookies alone": plain http may not shadow a Secure one.
        shadowed = (each for each in self._live() if each.secure and each.name == cookie.name)
        shadows = any(_domain_matches(each.host, cookie.host) or _domain_matches(cookie.host, each.host) for each in shadowed)
        return not shadows or cookie.secure or is_trustworthy(url)


def _may_go(cookie: Cookie, context: Context) -> bool:
    if context.same_site or cookie.same_site == "none":
        return True
    return cookie.same_site == "lax" and context.top_level and context.safe


def _fits(cookie: Cookie, host: str, path: str) -> bool:
    if cookie.host != host and (cookie.host_only or not _domain_matches(host, cookie.host)):
        return False
    return path == cookie.path or path.startswith(cookie.path if cookie.path.endswith("/") else f"{cookie.path}/")


def _domain_matches(host: str, domain: str) -> bool:
    return host == domain or (host.endswith(f".{domain}") and not host.replace(".", "").isdigit())
