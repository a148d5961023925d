"""A hostile HTTP service on loopback: responses that are too large, too slow, malformed, or missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

HTML = b"<!doctype html><title>Sign in</title>"


@dataclass
class HostileHttp:
    """`answer` returns the bytes for a request line; None means no response."""

    answer: Callable[[str], bytes | None]
    drip: float = 0.0
    """Seconds between the bytes of the answer."""
    port: int = 0
    requests: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            self.requests.append(head.partition("\r\n")[0])
            answer = self.answer(self.requests[-1])
            if answer is None:
                await reader.read()
                return
            for start in range(0, len(answer), 1 if self.drip else 65536):
                writer.write(answer[start : start + (1 if self.drip else 65536)])
                await writer.drain()
                await asyncio.sleep(self.drip)
        writer.close()


def http(status: int, body: bytes, media_type: str = "text/html", *headers: str) -> bytes:
    """A complete response."""
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}", "connection: close", *headers]
    if media_type:
        lines.append(f"content-type: {media_type}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def hostile(answer: Callable[[str], bytes | None], *, drip: float = 0.0) -> AsyncIterator[HostileHttp]:
    """Run the service."""
    service = HostileHttp(answer, drip)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await service.serve(reader, writer)
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
