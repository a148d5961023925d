"""Reads a form body from an untrusted client: bounded, one content type. Does not parse parameters."""

# ruff: noqa: EM101 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from session_core.asgi.web import WebRequest
    from session_core.errors import OidcError

__all__ = ("read_form_body",)


async def read_form_body(request: WebRequest, error: type[OidcError], *, max_bytes: int) -> bytes:
    """Return the encoded body.

    Raises `error` for another content type, a body over the limit (the rest is not read) and a disconnected client.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise error("content_type")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise error("body_too_large")
    except ConnectionError:
        raise error("body_incomplete") from None
    return bytes(body)
