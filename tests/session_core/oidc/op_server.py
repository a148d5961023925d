"""The provider of the tests on a real socket, for relying parties in separate processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2

from tests.session_core.oidc.fake_op import ISSUER, FakeOp


@asynccontextmanager
async def serving(op: FakeOp) -> AsyncIterator[int]:
    """Serve `op` on loopback; yield the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            response = await op.reply(await _read(reader))
            head = f"HTTP/1.1 {response.status_code} OK\r\ncontent-type: {response.headers.get('content-type', 'text/plain')}\r\n"
            head += f"content-length: {len(response.content)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + response.content)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has been killed
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(answer(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> httpx2.Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    length = int({name.lower(): value for name, value in headers.items()}.get("content-length", "0"))
    return httpx2.Request(method, ISSUER + target, headers=headers, content=await reader.readexactly(length))
