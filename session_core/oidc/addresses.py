"""Which URLs of a provider are acceptable: https, or http on this very machine in development; fetches nothing."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

__all__ = ("is_provider_url", "origin_of_url")


def is_provider_url(url: str, *, allow_http: bool) -> bool:
    """Whether `url` is an absolute https URL without user name and fragment.

    `allow_http` admits http for loopback hosts, and only these: on any other host, development or not, whoever is on the
    path could answer as the provider.
    """
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or "#" in url:
        return False
    return parts.scheme == "https" or (allow_http and parts.scheme == "http" and _is_loopback(host))


def origin_of_url(url: str) -> str:
    """Return scheme, host and port of a URL that `is_provider_url` accepted."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
