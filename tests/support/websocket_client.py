"""A minimal WebSocket client (RFC 6455) for text messages and close codes."""

from __future__ import annotations

import asyncio
import base64
import os
from contextlib import suppress
from urllib.parse import urlsplit


class WebSocketClient:
    """One connection, as a browser of the same origin would open it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, url: str, cookie: str) -> WebSocketClient:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", f"Cookie: {cookie}", "", ""]
        writer.write("\r\n".join(lines).encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        client = cls(reader, writer)
        if b" 101 " not in answer.partition(b"\r\n")[0]:
            await client.close()
            raise ConnectionRefusedError(answer)
        return client

    def send(self, text: str) -> None:
        self._send(0x1, text.encode())

    async def receive(self) -> str | int:
        """The next text, or the server's close code (0 when the connection ended without a close frame)."""
        while True:
            try:
                first, size = await self._reader.readexactly(2)
                if size == 126:
                    size = int.from_bytes(await self._reader.readexactly(2))
                payload = await self._reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                return 0
            match first & 0x0F:
                case 0x1:
                    return payload.decode()
                case 0x8:
                    self._send(0x8, payload)
                    return int.from_bytes(payload[:2])
                case 0x9:
                    self._send(0xA, payload)

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    def _send(self, kind: int, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self._writer.write(bytes([0x80 | kind, 0x80 | len(payload)]) + mask + masked)
