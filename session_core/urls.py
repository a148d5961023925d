"""Origins and addresses: one grammar for every URL that is compared, configured or sent in a header."""

from __future__ import annotations

import re
from typing import Final

from session_core.errors import ConfigurationError

__all__ = ("normalised_origin", "origin_of")

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_MAX_PORT: Final = 65535
_ORIGIN: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?\Z"
)


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


def normalised_origin(origin: str) -> str | None:
    """Return an http(s) origin as browsers serialise it, or None where it is no origin."""
    # A lone ASCII check first: str.lower() folds the Kelvin sign and its like into ASCII letters.
    match = _ORIGIN.match(origin.lower()) if origin.isascii() else None
    if match is None:
        return None
    scheme, host, port = match["scheme"], match["host"], match["port"]
    if port is None or int(port) == int(_DEFAULT_PORTS[scheme]):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}" if 0 < int(port) <= _MAX_PORT else None
