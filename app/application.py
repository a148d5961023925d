"""The ASGI application for servers and commands: a failed start is one line, a stop is graceful. Independent of routes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

from litestar import Litestar
from litestar.plugins import ReceiveRoutePlugin
from litestar.routes import BaseRoute, HTTPRoute

from session_core.asgi.web import without_content

if TYPE_CHECKING:
    from app.ops.stopping import GracefulStop

__all__ = ("Application", "HeadRoutes")

_ONLY_FOR_CHECK = (
    "error: this application was built for `litestar check`, with placeholders for invalid settings; it cannot serve"
)


class HeadRoutes(ReceiveRoutePlugin):
    """Answers HEAD with the handler of GET (RFC 9110 9.3.2), except on routes with a handler for HEAD.

    A GET with effects needs one: link scanners and monitors send HEAD.
    """

    def receive_route(self, route: BaseRoute) -> None:
        """Add HEAD to the methods of the route."""
        if isinstance(route, HTTPRoute) and "GET" in route.methods and "HEAD" not in route.methods:
            handler, parameters = route.route_handler_map["GET"]
            unlisted = copy(handler)
            unlisted._resolved_include_in_schema = False  # noqa: SLF001 - Litestar has resolved it on registration
            route.methods.add("HEAD")
            route.route_handler_map["HEAD"] = (unlisted, parameters)


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
        else:
            is_head = scope["type"] == "http" and scope["method"] == "HEAD"
            await super().__call__(scope, receive, without_content(send) if is_head else send)

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
