"""The origins that may send state-changing requests: exact ones, patterns of subdomains, native applications, a function."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from inspect import iscoroutinefunction
from typing import Any, Final, TypeAlias

from session_core.errors import ConfigurationError
from session_core.urls import is_loopback, normalised_origin

__all__ = ("OriginRule", "TrustedOrigins", "native_origin")

OriginRule: TypeAlias = Callable[[str], bool]
"""A function that gets an origin as browsers serialise it, and returns True for one that is trusted."""

_NATIVE: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{1,31})://[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?(?::[0-9]{1,5})?\Z")
_NOT_NATIVE: Final = frozenset({"http", "https", "ws", "wss", "ftp", "file", "data", "blob", "about", "javascript", "filesystem"})
"""Schemes whose pages can be of any site, or whose origin browsers give otherwise."""
_WILDCARD: Final = "://*."
_FEWEST_LABELS: Final = 2


def native_origin(origin: str) -> str | None:
    """Return the origin of a native application or a browser extension, for example `capacitor://localhost`, or None."""
    match = _NATIVE.match(origin) if origin.isascii() else None
    return None if match is None or match["scheme"] in _NOT_NATIVE else origin


class TrustedOrigins:
    """The trusted origins of an application; `in` says whether one is. Raises `ConfigurationError` for invalid origins.

    `https://*.example.com` is every host below example.com, however deep, and not example.com itself.
    """

    def __init__(self, given: Iterable[str | OriginRule] | OriginRule) -> None:
        rules = _listed(given)
        self._rules = [rule for rule in rules if not isinstance(rule, str)]
        patterns = [rule for rule in rules if isinstance(rule, str) and "*" in rule]
        self._below = [_pattern(pattern) for pattern in patterns]
        self.exact = frozenset(_exact(rule) for rule in rules if isinstance(rule, str) and "*" not in rule)
        """The origins that were given without a pattern."""
        self.samples = [*sorted(self.exact), *(pattern.replace("*", "any") for pattern in patterns)]
        """One origin for each that was given, a made-up subdomain for a pattern."""

    def __contains__(self, origin: object) -> bool:
        """Whether an origin, as `normalised_origin` or `native_origin` returns it, is trusted."""
        if not isinstance(origin, str):
            return False
        if origin in self.exact:
            return True
        scheme, _, authority = origin.partition("://")
        if any(scheme == wanted and authority.endswith(below) and authority != below for wanted, below in self._below):
            return True
        # Exactly True: a function that returns another truthy value by mistake must not trust every site.
        return any(rule(origin) is True for rule in self._rules)


def _listed(given: object) -> list[Any]:
    """Return the strings and functions that were given. Raises `ConfigurationError` for anything else."""
    rules = [given] if callable(given) else list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [None]
    if not all(isinstance(rule, str) or callable(rule) for rule in rules):
        msg = 'trusted_origins is a list, for example trusted_origins=["https://admin.example.org"], or a function'
        raise ConfigurationError(msg)
    if any(iscoroutinefunction(rule) or iscoroutinefunction(getattr(rule, "__call__", None)) for rule in rules):  # noqa: B004
        msg = "a function in trusted_origins is not awaited, so it must not be async: it could never return True"
        raise ConfigurationError(msg)
    return rules


def _exact(given: str) -> str:
    origin = normalised_origin(given.removesuffix("/")) or native_origin(given)
    if origin is None:
        msg = (
            f"trusted_origins has {_shown(given)!r}, which is no origin; for example https://admin.example.org, "
            "https://*.example.org, capacitor://localhost"
        )
        raise ConfigurationError(msg)
    return origin


def _shown(given: str) -> str:
    return given.rpartition("@")[2]  # without a password


def _pattern(given: str) -> tuple[str, str]:
    """Return the scheme of a pattern, and what the host and port of an origin must end with."""
    scheme, wildcard, rest = given.partition(_WILDCARD)
    origin = normalised_origin(f"{scheme}://{rest}") if wildcard and "*" not in rest else None
    authority = (origin or "").partition("://")[2]
    host = authority.partition(":")[0]
    if origin is None or not (host.count(".") + 1 >= _FEWEST_LABELS or is_loopback(host)) or host.replace(".", "").isdigit():
        msg = (
            f"trusted_origins has {_shown(given)!r}; a pattern is https://*. and a domain of two labels or more, for example "
            "https://*.example.org"
        )
        raise ConfigurationError(msg)
    return origin.partition("://")[0], f".{authority}"
