"""The application as servers and commands see it: a start that must not happen ends with one line. Knows no route."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from litestar import Litestar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ("Application",)

_ONLY_FOR_CHECK = "error: this application was built for `litestar check`, with stand-ins for what is unfit; it cannot serve"


class Application(Litestar):
    """Litestar, with a start that fails in one line: whatever prevents it raises `SystemExit` with that line in the lifespan."""

    only_for_check = False
    """Built from stand-ins, to show its routes. Such an application cannot serve, with or without a lifespan."""
    prepare: Callable[[], Awaitable[None]] | None = None
    """Awaited before anything else of the lifespan; what raises `SystemExit` inside of it would be wrapped in a group."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as Litestar's own
        """Serve one request, or the lifespan; the server gets the line of a failed start instead of a traceback."""
        if scope["type"] != "lifespan":
            if self.only_for_check:
                raise RuntimeError(_ONLY_FOR_CHECK)
            await super().__call__(scope, receive, send)
            return
        failed: list[Any] = []

        async def send_unless_failed(message: Any) -> None:  # noqa: ANN401 - a message of the lifespan
            if message["type"] == "lifespan.startup.failed":
                failed.append(message)
            else:
                await send(message)

        try:
            await super().__call__(scope, receive, send_unless_failed)
        except SystemExit as end:
            await send({"type": "lifespan.startup.failed", "message": str(end)})
        except BaseException:
            for message in failed:
                await send(message)
            raise

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None, None]:
        """Run what lives as long as the application."""
        if self.only_for_check:
            sys.exit(_ONLY_FOR_CHECK)
        if self.prepare is not None:
            await self.prepare()
        async with super().lifespan():
            yield
