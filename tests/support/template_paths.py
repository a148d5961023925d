"""The operations of the reference application's API, to which the owner of a clone adds others."""

from __future__ import annotations

from typing import Final

__all__ = ("is_of_the_template",)

_PATHS: Final = (
    "/api/me", "/api/session", "/api/session/regenerate", "/api/session/visits",
    "/api/sessions", "/api/sessions/{handle}", "/api/userinfo",
)  # fmt: skip


def is_of_the_template(path: str) -> bool:
    """Whether the template documents the responses of this path; an added route may leave that to Litestar."""
    return path in _PATHS or path.startswith(("/auth/", "/health/"))
