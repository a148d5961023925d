"""The ASGI application for servers and commands: a failed start is one line, a stop is graceful. Independent of routes."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from litestar import Litestar

if TYPE_CHECKING:
    from app.ops.stopping import GracefulStop

__all__ = ("Application",)

_ONLY_FOR_CHECK = (
    "error: this application was built for `litestar check`, with placeholders for invalid settings; it cannot serve"
)


_NO_HEAD = re.compile(r"/auth/(?!session\b)")
"""A HEAD must not begin or finish a login or a logout."""


def _without_body(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Answer a HEAD as the GET is answered, headers and length included, without the content (RFC 9110 9.3.2)."""

    async def send_head(message: Any) -> None:  # noqa: ANN401 - as ASGI's own
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head


class Application(Litestar):
    """Litestar, with a failed start in one line and a stop that does not wait for streams.

    A failed start raises `SystemExit` with that line in the lifespan.
    """

    only_for_check = False
    """Built with placeholders, to show its routes. Such an application cannot serve, with or without a lifespan."""
    prepare: Callable[[], Awaitable[None]] | None = None
    """Awaited before the rest of the lifespan, where a `SystemExit` would be wrapped in an exception group."""
    graceful_stop: GracefulStop
    """Ends what is open when a signal comes."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as Litestar's own
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif self.only_for_check:
            raise RuntimeError(_ONLY_FOR_CHECK)
        elif scope["type"] == "http" and scope["method"] == "HEAD" and not _NO_HEAD.search(scope["path"]):
            as_get: Any = {**scope, "method": "GET"}
            await super().__call__(as_get, receive, _without_body(send))
        else:
            await super().__call__(scope, receive, send)

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - likewise
        """Run the lifespan; the server gets the line of a failed start instead of a traceback."""
        failed: list[Any] = []

        async def send_unless_failed(message: Any) -> None:  # noqa: ANN401 - a message of the lifespan
            if message["type"] == "lifespan.startup.failed":
                failed.append(message)
            else:
                await send(message)

        try:
            await super().__call__(scope, self._until_stop(receive), send_unless_failed)
            self.graceful_stop.leave()
        except SystemExit as end:
            await send({"type": "lifespan.startup.failed", "message": str(end)})
        except BaseException:
            for message in failed:
                await send(message)
            raise

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None, None]:
        """Run the lifespan's context managers."""
        if self.only_for_check:
            sys.exit(_ONLY_FOR_CHECK)
        if self.prepare is not None:
            await self.prepare()
        async with super().lifespan():
            yield

    def _until_stop(self, receive: Any) -> Callable[[], Awaitable[Any]]:  # noqa: ANN401 - likewise
        """Return a `receive` for the lifespan that does not wait for the server once a stop has ended what was open."""
        stop = self.graceful_stop
        startup = True

        async def receive_or_stop() -> Any:  # noqa: ANN401 - a message of the lifespan
            nonlocal startup
            if startup:
                startup = False
                return await receive()
            told, ended = asyncio.ensure_future(receive()), asyncio.ensure_future(stop.ended())
            await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if told.done():
                return told.result()
            told.cancel()
            return {"type": "lifespan.shutdown"}

        return receive_or_stop
