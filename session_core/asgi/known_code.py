"""Whether the private code of Litestar that is bypassed is the code we know; where it is not, Litestar does its own work.

A bypass relies on what that code does, which no version number promises. So its text is compared: any difference, also one that
would go unnoticed at first, switches the bypass off. Requests are then served the ordinary way, a little slower.
"""

from __future__ import annotations

import inspect
from functools import cache
from hashlib import sha256
from importlib import import_module
from typing import Any, Final

__all__ = ("ERROR_HANDLING", "INJECTION", "digest_of", "is_known")

_KWARGS: Final = "litestar._kwargs"
_ERRORS: Final = "litestar.middleware._internal.exceptions.middleware"
INJECTION: Final = {
    f"{_KWARGS}.kwargs_model:KwargsModel.to_kwargs": {"e65fc434b8fe07d7"},
    f"{_KWARGS}.kwargs_model:KwargsModel.resolve_dependencies": {"f5e60119abf69eff"},
    f"{_KWARGS}.dependencies:DependencyContainer.__init__": {"aa6c79ecdd9d9a76"},
    f"{_KWARGS}.dependencies:DependencyContainer.__hash__": {"9081408882fe7919"},
    f"{_KWARGS}.dependencies:resolve_dependency": {"93389036f84284c2"},
    "litestar.routes.http:HTTPRoute.handle": {"8ccd0dea281aef89"},
    "litestar.routes.http:HTTPRoute.create_handler_map": {"905d5adef71f63eb"},
    "litestar.routes.http:HTTPRoute._get_response_for_request": {"d9fe1e4def5f4330"},
    "litestar.routes.http:HTTPRoute._call_handler_function": {"1c16959270a85413"},
    "litestar.routes.websocket:WebSocketRoute.handle": {"50d8e3e37a719dfc"},
}
"""What the bypass of the injection relies on, with the digests of known texts. Added to when a new Litestar was looked at."""
ERROR_HANDLING: Final = {
    f"{_ERRORS}:ExceptionHandlerMiddleware.__init__": {"5ed9397cb34da00c"},
    f"{_ERRORS}:ExceptionHandlerMiddleware.__call__": {"a579d936179fdd30"},
    f"{_ERRORS}:ExceptionHandlerMiddleware.handle_request_exception": {"018570234ce274e4"},
    f"{_ERRORS}:ExceptionHandlerMiddleware.handle_websocket_exception": {"7719540ee6d69c79"},
}
"""What the bypass of the exception middleware relies on."""


def is_known(relied_on: dict[str, set[str]]) -> bool:
    """Whether all code that a bypass relies on is known."""
    return all(digest_of(name) in digests for name, digests in relied_on.items())


def digest_of(name: str) -> str | None:
    """Return the digest of the text of a function, `module:path`, or None: there is no such function, or no text."""
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return _digest(found)


@cache
def _digest(function: Any) -> str | None:  # noqa: ANN401 - whatever has that name
    try:
        return sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return None
