"""ASGI types, independent of frameworks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

__all__ = ("ASGIApp", "Headers", "Message", "Receive", "Scope", "Send")

# These are mappings, but each framework types them differently and incompatibly.
Scope: TypeAlias = Any
"""The ASGI connection scope: a `dict` that middleware may write to."""
Message: TypeAlias = Any
"""A `dict` with a `type`, for example `http.response.start`."""
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Raw headers; names in a scope are lower case, order and repetitions are kept."""
