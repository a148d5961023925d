"""Reads a value from the claims by its path. Independent of providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from session_core.errors import ConfigurationError

__all__ = ("check_claim_path", "claim_at", "names_at")

_MAX_PATH = 255


def claim_at(claims: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - any JSON
    """Return the value at `path`, or None.

    `path` is the name of a claim, or names of members joined by dots: `realm_access.roles`. Names may have dots themselves
    (`https://app.example.org/roles`): at every level the longest name that exists is taken.
    """
    if path in claims:
        return claims[path]
    end = path.rfind(".")
    while end > 0:
        inner = claims.get(path[:end])
        if isinstance(inner, Mapping):
            return claim_at(inner, path[end + 1 :])
        end = path.rfind(".", 0, end)
    return None


def names_at(claims: Mapping[str, Any], path: str) -> list[Any]:
    """Return the items of the list at `path`, or the keys of the object; anything else gives no names.

    A key whose value is false or null is left out: `{"admin": false}` gives no role.
    """
    value = claim_at(claims, path)
    if isinstance(value, Mapping):
        return [key for key, given in value.items() if given is not None and given is not False]
    return list(value) if isinstance(value, list | tuple) else []


def check_claim_path(path: str, name: str) -> None:
    """Raise `ConfigurationError` unless `path` can lead to a claim; `name` is the option that holds it."""
    if not 0 < len(path) <= _MAX_PATH or not path.isprintable() or path != path.strip() or not all(path.split(".")):
        msg = f"{name} is the path of a claim, for example realm_access.roles or https://app.example.org/roles"
        raise ConfigurationError(msg, option=name)
