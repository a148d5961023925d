"""Validates URLs of a provider: https, or http on loopback in development. Fetches nothing."""

from __future__ import annotations

import re
from typing import Final

from session_core.urls import is_loopback, party_origin

__all__ = ("is_provider_url", "origin_of_url")

_PORT: Final = re.compile(r":[0-9]+\Z")


def is_provider_url(url: str, *, allow_http: bool) -> bool:
    """Whether `url` is an absolute https URL by the grammar of `party_origin`, without user name and fragment.

    `allow_http` admits http for loopback hosts only: elsewhere a network attacker could impersonate the provider, in development
    too.
    """
    scheme, _, authority = (party_origin(url) or "").partition("://")
    return scheme == "https" or (allow_http and scheme == "http" and is_loopback(_PORT.sub("", authority).strip("[]")))


def origin_of_url(url: str) -> str:
    """Return scheme, host and port of a URL. Raises `ValueError` for one that `is_provider_url` would not accept."""
    origin = party_origin(url)
    if origin is None:
        msg = "not the address of a provider"
        raise ValueError(msg)
    return origin
