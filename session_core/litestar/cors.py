"""Finds differences between the application's CORS configuration and its trusted origins; changes neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from session_core.trusted_origins import native_origin
from session_core.urls import normalised_origin

if TYPE_CHECKING:
    from litestar.config.cors import CORSConfig

    from session_core.config import SessionConfig

__all__ = ("cors_disagreements",)

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ANY_SITE: Final = "https://any.site.invalid"


def cors_disagreements(cors: CORSConfig, config: SessionConfig[Any]) -> list[str]:
    """Return one line for each origin that one of the two accepts and the other refuses.

    Regular expressions and functions are tried only with the origins listed by the other.
    """
    found: list[str] = []
    if not set(cors.allow_methods) <= _SAFE:
        for allowed in cors.allow_origins:
            sample = _ANY_SITE if allowed == "*" else allowed.replace("*", "any")
            origin = normalised_origin(sample.removesuffix("/")) or native_origin(sample)
            if origin is not None and origin != config.base.origin and origin not in config.trusted:
                found.append(
                    f"CORSConfig.allow_origins has {allowed}, but its POST, PUT, PATCH and DELETE get 403: add it to "
                    'SessionConfig.trusted_origins, or give the routes opt={"cross_site": True}'
                )
    for origin in config.trusted.samples:
        if not cors.is_origin_allowed(origin):
            shown = origin.replace("://any.", "://*.")
            found.append(
                f"SessionConfig.trusted_origins has {shown}, but browsers show its scripts no response: add it to "
                "CORSConfig.allow_origins"
            )
        elif not cors.allow_credentials and not config.bearer:  # a bearer token is no credential in this sense
            found.append(
                f"SessionConfig.trusted_origins has {origin}, but browsers send its requests without the session cookie: "
                "CORSConfig(allow_credentials=True)"
            )
    return found
