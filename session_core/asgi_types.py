"""The types of ASGI, named for readers; no framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

__all__ = ("ASGIApp", "Headers", "Message", "Receive", "Scope", "Send")

# Mappings, each; but every framework types them in a way of its own, and none of these fits the others.
Scope: TypeAlias = Any
"""What a server says about a connection: a `dict` that middleware may write to."""
Message: TypeAlias = Any
"""A `dict` with a `type`, for example `http.response.start`."""
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Raw headers; names in a scope are lower case, order and repetitions are kept."""
