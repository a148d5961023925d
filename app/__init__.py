"""The reference application, built on `session_core`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litestar import Litestar

    from app.settings.settings import Settings

__all__ = ("NAME", "create_app")

NAME = "session_core"
"""The displayed name of this application; `just rename NAME` changes it."""


def create_app(settings: Settings | None = None) -> Litestar:
    """Return the application; defined here so that `litestar run` finds it. Imports late, so that `import app` is cheap."""
    from app.asgi import create_app as create  # noqa: PLC0415 - see above

    return create(settings)
