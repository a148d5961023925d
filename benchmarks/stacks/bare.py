"""Litestar with nothing added: what a session's cost is measured against."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, get


@get(["/read", "/public"])
async def page(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Take the request, as a page without a session does."""
    del request
    return {"theme": "dark"}


def create() -> Litestar:
    """The application."""
    return Litestar([page], openapi_config=None)
