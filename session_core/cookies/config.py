"""Name and attributes of a cookie, checked once at start. Independent of requests.

A browser silently drops a cookie whose attributes do not fit its name or the site, and deletes one only by the attributes it was
set with. So both are checked here, before the first response.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import Final, Literal, NoReturn

import msgspec

from session_core.cookies.encoding import encode_component
from session_core.errors import ConfigurationError, check_choices
from session_core.ids import MAX_ID_CHARS
from session_core.urls import BaseUrl, base_url_of, ip_of, is_loopback

__all__ = ("LONGEST_SECONDS", "CookieConfig", "ResolvedCookie", "cookie_name")

_MAX_HEADER_BYTES: Final = 4096
LONGEST_SECONDS: Final = 400 * 86_400
"""Browsers keep a cookie for no longer, whatever its Max-Age (RFC 6265bis 5.5)."""
_LONGEST_VALUE: Final = "s:" + "x" * MAX_ID_CHARS + "." + "/" * 43
"""Of a session cookie: the signature is base64, and its marks are percent-encoded."""
_MAX_FORMER: Final = 4
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_DOMAIN: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*\Z")
_PATH: Final = re.compile(r"/[!-+\--:<-~]*\Z")
"""Printable ASCII without space, comma and semicolon: nothing that could end the attribute or the header."""
_SAME_SITE: Final = {"lax": "Lax", "strict": "Strict", "none": "None"}


class CookieConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The cookie settings; `resolve` completes them for one public URL."""

    name: str | None = None
    """`None`: `__Host-session` on https, `session-8000` with the port on http (Safari takes no Secure cookie from
    http://localhost, and browsers send a cookie to all ports of a host); a path of the public URL is added."""
    domain: str | None = None
    """`None`: this host only, which is safest. A domain shares the cookie with every one of its subdomains."""
    path: str = "/"
    """Not a security boundary: a page under any other path of the host can obtain the cookie."""
    secure: bool | None = None
    """`None`: true for an https public URL."""
    http_only: bool = True
    """Keeps scripts from reading the cookie."""
    same_site: Literal["lax", "strict", "none"] = "lax"
    """`strict` would lose the session on the way back from the identity provider."""
    persistent: bool = True
    """`False` sends no Max-Age: the cookie ends with the browser's session. The server's timeouts hold either way."""
    partitioned: bool = False
    """A separate cookie jar per embedding site (CHIPS)."""
    former_domains: Sequence[str] = ()
    """Former values of `domain`. A browser keeps the former cookie beside the new one until a response deletes it: a response
    that sets the cookie (a login), or the response to a request with both. For the latter, a former cookie without a domain need
    not be named."""
    former_paths: Sequence[str] = ()
    """Former values of `path`. A cookie with a longer path is not sent with every request, so it must be named here."""

    def __post_init__(self) -> None:
        """Refuse values that a Set-Cookie header cannot hold."""
        if self.name is not None and not _NAME.match(self.name):
            _refuse("a cookie name is an RFC 9110 token", 'name="__Host-session"')
        if not all(_DOMAIN.match(domain.lower()) for domain in (self.domain, *self.former_domains) if domain is not None):
            _refuse("a cookie domain is a plain host name without leading dot", 'domain="example.com"')
        if not all(map(_PATH.match, (self.path, *self.former_paths))):
            _refuse("a cookie path begins with / and has no space, comma or semicolon", 'path="/"')
        if any(isinstance(former, str) for former in (self.former_domains, self.former_paths)):
            _refuse("former domains and paths are lists", 'former_domains=["example.com"]')
        if len({*self.former_domains}) > _MAX_FORMER or len({*self.former_paths}) > _MAX_FORMER:
            _refuse(f"at most {_MAX_FORMER} former domains and paths are deleted", 'former_domains=["example.com"]')
        check_choices(CookieConfig, self)

    def resolve(self, public_url: str) -> ResolvedCookie:
        """Return the complete cookie for the site at `public_url`.

        Raises `ConfigurationError` for every combination that a browser would drop or that weakens the cookie.
        """
        base = base_url_of(public_url)
        https = base.origin.startswith("https:")
        cookie = ResolvedCookie(
            name=self.name or cookie_name("session", public_url),
            domain=None if self.domain is None else self.domain.lower(),
            path=self.path,
            secure=https if self.secure is None else self.secure,
            http_only=self.http_only,
            same_site=self.same_site,
            persistent=self.persistent,
            partitioned=self.partitioned,
        )
        _check_site(cookie, base, https=https)
        _check_attributes(cookie)
        _check_prefix(cookie)
        # The longest session cookie, checked now so that no header is too long during a request.
        cookie.set_header(_LONGEST_VALUE, LONGEST_SECONDS)
        former = tuple(self._former(cookie))
        for each in former:
            _check_site(msgspec.structs.replace(each, path=cookie.path), base, https=https)  # any page may delete at any path
            _check_prefix(each)
        return msgspec.structs.replace(cookie, former=former, known_former=bool(self.former_domains or self.former_paths))

    def _former(self, cookie: ResolvedCookie) -> Iterator[ResolvedCookie]:
        """Yield every former cookie of this name that a browser may still have."""
        domains = dict.fromkeys((None, cookie.domain, *map(str.lower, self.former_domains)))
        paths = dict.fromkeys((cookie.path, *self.former_paths))
        for domain, path, partitioned in product(domains, paths, (False, True) if cookie.secure else (False,)):
            if (domain, path, partitioned) != (cookie.domain, cookie.path, cookie.partitioned):
                yield msgspec.structs.replace(cookie, domain=domain, path=path, partitioned=partitioned)


class ResolvedCookie(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One cookie of one site, with all attributes. Made by `CookieConfig.resolve`.

    `former`: the cookies of this name that a browser may have from the time before the settings were changed. `known_former`:
    whether the settings name some of them, so that they are deleted before a browser has sent any.
    """

    name: str
    domain: str | None
    path: str
    secure: bool
    http_only: bool
    same_site: Literal["lax", "strict", "none"]
    persistent: bool
    partitioned: bool
    former: tuple[ResolvedCookie, ...] = ()
    known_former: bool = False

    def set_header(self, value: str, max_age_seconds: int | None, *, persistent: bool | None = None) -> bytes:
        """Return the value of the Set-Cookie header that sets the cookie; `value` is percent-encoded here.

        `max_age_seconds` is ignored if the cookie is not persistent (`persistent`, else the configuration). `None` means "until
        the browser closes", a negative number "expired". Raises `ConfigurationError` above 4096 bytes, which every browser stores
        (RFC 6265 6.1), and for lone surrogates.
        """
        encoded = encode_component(value)
        if encoded is None:
            msg = f"the value for cookie {self.name} is not encodable as UTF-8"
            raise ConfigurationError(msg)
        kept = self.persistent if persistent is None else persistent
        age = "" if max_age_seconds is None or not kept else f"; Max-Age={min(max(0, max_age_seconds), LONGEST_SECONDS)}"
        header = f"{self.name}={encoded}{age}{self._attributes}".encode("ascii")
        if len(header) > _MAX_HEADER_BYTES:
            msg = (
                f"the Set-Cookie header of {self.name} has {len(header)} bytes, browsers keep at most "
                f"{_MAX_HEADER_BYTES}; keep less in the cookie, or shorten its domain and path"
            )
            raise ConfigurationError(msg)
        return header

    def delete_header(self) -> bytes:
        """Return the value of the Set-Cookie header that deletes the cookie, with the attributes it was set with."""
        past = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        return f"{self.name}={past}{self._attributes}".encode("ascii")

    @cached_property
    def _attributes(self) -> str:
        parts = [f"Path={self.path}"]
        if self.domain is not None:
            parts.append(f"Domain={self.domain}")
        flags = (("Secure", self.secure), ("HttpOnly", self.http_only), ("Partitioned", self.partitioned))
        parts += [flag for flag, wanted in flags if wanted]
        parts.append(f"SameSite={_SAME_SITE[self.same_site]}")
        return "".join(f"; {part}" for part in parts)


def cookie_name(base: str, public_url: str) -> str:
    """Return the safest name a cookie of this application can have: `__Host-` + base on https, base and port on http.

    Only the host itself can set a `__Host-` cookie, over https and for the whole host: neither a subdomain nor a
    network attacker can plant one (RFC 6265bis 4.1.3.2). Cookies do not know ports (RFC 6265 8.5), and several applications
    run on the ports of one `localhost`; where the public URL has a path, several may run on one port.
    """
    site = base_url_of(public_url)
    below = site.path.replace("/", "+")
    return f"__Host-{base}{below}" if site.origin.startswith("https:") else f"{base}-{site.port}{below}"


def _check_site(cookie: ResolvedCookie, base: BaseUrl, *, https: bool) -> None:
    host = base.host
    if https and not cookie.secure:
        _refuse("a cookie of an https site must be Secure, or it also travels in the clear", "secure=None")
    if cookie.secure and not https and not is_loopback(host):
        _refuse("browsers take no Secure cookie from an http site", 'a public URL of "https://app.example.com"')
    if not f"{base.path}/".startswith(cookie.path.rstrip("/") + "/") and base.path:
        _refuse("a browser sends the cookie to no page of the public URL, which is outside the cookie's path", 'path="/"')
    inside = ip_of(host) is None and host.endswith(f".{cookie.domain}")
    if cookie.domain is not None and host != cookie.domain and not inside:
        _refuse("a cookie domain is the public URL's host or a parent domain of it", "domain=None")


def _check_attributes(cookie: ResolvedCookie) -> None:
    if cookie.same_site == "none" and not cookie.secure:
        _refuse("SameSite=None needs a Secure cookie, and so https", 'same_site="lax"')
    if cookie.partitioned and not cookie.secure:
        _refuse("a Partitioned cookie must be Secure, and so needs https", "partitioned=False")
    if cookie.partitioned and cookie.same_site != "none":
        _refuse(
            "a Partitioned cookie is for pages embedded in other sites, where browsers send SameSite=None alone",
            'partitioned=True, same_site="none"',
        )


def _check_prefix(cookie: ResolvedCookie) -> None:
    # Browsers compare the prefix case-insensitively (RFC 6265bis 5.7), and drop cookies that do not meet its rules.
    name = cookie.name.lower()
    if name.startswith(("__secure-", "__host-", "__http-")) and not cookie.secure:
        _refuse(f"the cookie name {cookie.name} needs Secure, and so https", 'name="session"')
    if name.startswith("__host-") and (cookie.path != "/" or cookie.domain is not None):
        _refuse(f'the cookie name {cookie.name} needs path="/" and no domain', 'name="__Secure-session"')
    if name.startswith(("__http-", "__host-http-")) and not cookie.http_only:
        _refuse(f"the cookie name {cookie.name} needs HttpOnly", "http_only=True")


def _refuse(problem: str, example: str) -> NoReturn:
    msg = f"{problem}; for example {example}"
    raise ConfigurationError(msg)
