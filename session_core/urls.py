"""Origins and addresses: one grammar for every URL that is compared, configured or sent in a header."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from session_core.errors import ConfigurationError

__all__ = (
    "PATH_MARKS", "QUERY_MARKS", "BaseUrl", "base_url_of", "encoded_query", "ip_of", "is_loopback", "is_provider_url",
    "network_of", "normalised_origin", "origin_of", "packed", "party_origin", "unpacked",
)  # fmt: skip

PATH_MARKS: Final = "-._~!$&'()*+,=:"
"""Characters that a path may have unencoded besides letters, digits and slashes; no `;` and `@`, which some servers interpret."""
QUERY_MARKS: Final = "-._~!$&'()*+,=:/?@;"
"""Characters that a query may have unencoded besides letters and digits (RFC 3986 3.4)."""
_ENCODED_MARK: Final = re.compile(r"%(?:5[BDE]|60|7[BCD])", re.IGNORECASE)
_UNENCODED_MARK: Final = re.compile(r"[\[\]^`{|}]")
"""Browsers send these as they are, although RFC 3986 has them encoded."""
_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_ORIGIN_PORT: Final = re.compile(r":([0-9]+)\Z")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535
_MAX_HOST: Final = 253
_MAX_URL: Final = 2048
_IPV6_PREFIX: Final = 64
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = rf"{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\]"
_ORIGIN: Final = re.compile(rf"(?P<scheme>https?)://(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?\Z")
_REST: Final = re.compile(r"(?:[/?](?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?\Z")
"""Path and query (RFC 3986 3.3 and 3.4)."""
_NUMERIC: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z")
_BASE_PATH: Final = re.compile(r"(?:/(?!\.)[A-Za-z0-9._~-]+)*\Z")
"""Unreserved characters (RFC 3986 2.3), no empty segment, none that begins with a dot."""


class BaseUrl(NamedTuple):
    """The URL of the application for browsers: `path` is empty, or the prefix of its addresses, for example `/shop`."""

    origin: str
    path: str

    @property
    def url(self) -> str:
        """Scheme, host, port and path, without a slash at the end."""
        return self.origin + self.path

    @property
    def port(self) -> int:
        """The port, also if it is the scheme's default."""
        scheme, _, authority = self.origin.partition("://")
        given = _ORIGIN_PORT.search(authority)
        return int(given[1]) if given else _DEFAULT_PORTS[scheme]

    @property
    def host(self) -> str:
        """The host, without brackets."""
        return _ORIGIN_PORT.sub("", self.origin.partition("://")[2]).strip("[]")

    def of(self, path: str) -> str:
        """Return the path in browsers for a path of the application, which begins with a slash."""
        return self.path + path

    def local(self, path: str) -> str:
        """Return a path in browsers without the application's prefix; another path unchanged."""
        if self.path and path.startswith(self.path) and path[len(self.path) :][:1] in {"", "/", "?", "#"}:
            rest = path[len(self.path) :]
            return rest if rest.startswith("/") else f"/{rest}"
        return path

    def at(self, scope: Any) -> BaseUrl:  # noqa: ANN401 - a scope with the keys of servers and of Litestar
        """Return the base URL at which a request reached the application.

        A configured path wins. Without one it is what the server says (`root_path`), and what an application in front of this
        one has taken off the path (`raw_path` still has it). A path outside the grammar is left out.
        """
        if self.path:
            return self
        root = scope.get("root_path", "").rstrip("/")
        raw = unquote((scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")).rstrip("/")
        routed = scope["path"].rstrip("/")
        taken = raw[: len(raw) - len(routed)].rstrip("/") if raw.endswith(routed) else ""
        path = taken if taken == root or taken.startswith(f"{root}/") else root + taken
        # Litestar(path="/shop") puts all routes below a path.
        own = getattr(scope.get("litestar_app"), "path", "").rstrip("/")
        path += "" if path.endswith(own) else own
        return BaseUrl(self.origin, path) if _BASE_PATH.match(path) else self

    def elsewhere(self, scope: Any) -> str | None:  # noqa: ANN401 - likewise
        """Return the URL to redirect a browser to that uses another name of this machine, or None.

        It keeps the cookies of `127.0.0.1` and `localhost` apart, so a login that begins at one fails at the other. None for a
        method that is not safe, where the request came to the right name, and where neither is sure: a proxy may have changed
        `Host`. It has its own port, so names of this machine with the same port are not set by a proxy.
        """
        if scope["method"] not in _SAFE_METHODS or not is_loopback(self.host):
            return None
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        scheme = self.origin.partition("://")[0]
        opened = normalised_origin(f"{scheme}://{hosts[0].decode('latin-1')}") if len(hosts) == 1 else None
        if opened is None or opened == self.origin:
            return None
        other = BaseUrl(opened, "")
        return self.origin + self.page(scope) if other.port == self.port and is_loopback(other.host) else None

    def page(self, scope: Any) -> str:  # noqa: ANN401 - likewise
        """Return the path in a browser, percent-encoded, and the query of a request that has reached this base URL."""
        own = getattr(scope.get("litestar_app"), "path", "").rstrip("/")
        path = quote(self.of(self.local(scope["path"]).removeprefix(own) or "/"), safe=PATH_MARKS + "/")
        query = encoded_query(scope["query_string"].decode(errors="surrogateescape"))
        return f"{path}?{query}" if query else path


def base_url_of(url: str) -> BaseUrl:
    """Return a public URL in its parts. Raises `ConfigurationError` where browsers would not understand it as it is meant."""
    origin = origin_of(url)
    path = url.partition("://")[2].partition("/")[2].rstrip("/")
    path = f"/{path}" if path else ""
    if not _BASE_PATH.match(path) or "?" in url or "#" in url:
        msg = (
            "a public URL may have a path of letters, digits and -._~, without query and fragment, for example "
            "https://example.com/shop"
        )
        raise ConfigurationError(msg)
    return BaseUrl(origin, path)


def origin_of(url: str) -> str:
    """Return the origin of an http(s) URL as browsers serialise it: lower case, without the scheme's default port.

    Raises `ConfigurationError` (RFC 6454 4; the URL is not repeated in it: it may hold a password).
    """
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    origin = normalised_origin(f"{scheme}://{authority}") if separator else None
    if origin is None:
        msg = (
            "a public URL is http(s)://host[:port] with an ASCII host name (xn--... for international names) and no "
            "user name, for example https://app.example.com"
        )
        raise ConfigurationError(msg)
    return origin


def party_origin(url: str) -> str | None:
    """Return the origin of another party's URL, or None unless every character of the URL may go into a header.

    Such addresses come from outside (a provider's metadata) and end in `Location` and in the source lists of a
    Content-Security-Policy, where `;`, `,`, `*`, quotes and spaces would be read as syntax. The URL is absolute, http or https,
    without user name and fragment, at most 2048 characters; its host is an ASCII host name (RFC 1123 2.1, `xn--` for other
    scripts), an IPv4 or an IPv6 address.
    """
    scheme, separator, rest = url.partition("://")
    end = next((index for index, char in enumerate(rest) if char in "/?#"), len(rest))
    if not separator or len(url) > _MAX_URL or not _REST.match(rest[end:]):
        return None
    return normalised_origin(f"{scheme}://{rest[:end]}")


def is_provider_url(url: str, *, allow_http: bool) -> bool:
    """Whether `url` is an absolute https URL of an OpenID provider, by the grammar of `party_origin`.

    `allow_http` admits http for loopback hosts only: elsewhere a network attacker could impersonate the provider, in development
    too.
    """
    scheme, _, authority = (party_origin(url) or "").partition("://")
    return scheme == "https" or (allow_http and scheme == "http" and is_loopback(_ORIGIN_PORT.sub("", authority).strip("[]")))


def normalised_origin(origin: str) -> str | None:
    """Return an http(s) origin as browsers serialise it, or None where it is no origin."""
    # A lone ASCII check first: str.lower() folds the Kelvin sign and its like into ASCII letters.
    match = _ORIGIN.match(origin.lower()) if origin.isascii() else None
    if match is None or not _is_host(match["host"]):
        return None
    scheme, host, port = match["scheme"], match["host"], int(match["port"] or _DEFAULT_PORTS[match["scheme"]])
    if port == _DEFAULT_PORTS[scheme]:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}" if 0 < port <= _MAX_PORT else None


def is_loopback(host: str) -> bool:
    """Whether a host, in lower case and without brackets, is a loopback host."""
    address = ip_of(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback)


def _is_host(host: str) -> bool:
    if host.startswith("["):
        return isinstance(ip_of(host[1:-1]), IPv6Address)
    # A browser reads every host that ends in a number as an IPv4 address (WHATWG URL 3.5): `127.1`, `0x7f.1`, `2130706433`.
    if _NUMERIC.match(host.rpartition(".")[2]):
        return isinstance(ip_of(host), IPv4Address)
    return len(host) <= _MAX_HOST


def ip_of(text: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address in a text, or None."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def network_of(client: str) -> str:
    """Return a client's address, of IPv6 the network of one subscriber, who could otherwise use another for each request."""
    address = ip_of(client) if ":" in client else None
    return str(ip_network((address, _IPV6_PREFIX), strict=False)) if isinstance(address, IPv6Address) else client


def encoded_query(query: str) -> str:
    """Return a query as RFC 3986 writes it: browsers also send `[]^`{|}` and a lone `%` without encoding them.

    Bytes that are not UTF-8 are given as `surrogateescape` decodes them. Raises `UnicodeError` for other surrogates.
    """
    return quote(_STRAY_PERCENT.sub("%25", query), safe=QUERY_MARKS + "%", errors="surrogateescape")


def packed(target: str) -> str:
    """Return an encoded path and query with `[]^`{|}` unencoded: as long as browsers send it, up to three times shorter."""
    return _ENCODED_MARK.sub(lambda found: unquote(found[0]), target)


def unpacked(target: str) -> str:
    """Reverse `packed`."""
    return _UNENCODED_MARK.sub(lambda found: quote(found[0]), target)
