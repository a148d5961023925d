"""Connections to a server that fail at a chosen moment, and a certificate for TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class CuttingProxy:
    """A proxy whose connection can be cut after a command has reached the server and before its reply returns."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._cut_after: bytes | None = None
        self._meanwhile: Callable[[], Awaitable[object]] | None = None
        self.port = 0
        self.delay = 0.0
        """Delay of each reply in seconds."""

    def cut_after(self, part: bytes, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        """Deliver the next command that contains `part`, await `meanwhile`, then close the connection instead of the reply."""
        self._cut_after, self._meanwhile = part, meanwhile

    @property
    def waiting(self) -> bool:
        """Whether the command to cut after has not arrived yet."""
        return self._cut_after is not None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CuttingProxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection("127.0.0.1", self._to)
        cut = asyncio.Event()

        async def forward() -> None:
            while data := await reader.read(65536):
                if self._cut_after is not None and self._cut_after in data:
                    self._cut_after = None
                    cut.set()
                there.write(data)
            there.close()

        async def answer() -> None:
            while data := await back.read(65536):
                if cut.is_set():
                    if self._meanwhile is not None:
                        await self._meanwhile()
                    break
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
            writer.transport.abort()

        with suppress(ConnectionError, asyncio.CancelledError):  # cancelled when the test has ended meanwhile
            await asyncio.gather(forward(), answer())
        there.transport.abort()
        writer.transport.abort()


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[int]:
    """A server that answers TIME and sends one fixed reply to every other command; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                for command in data[1:].split(b"\r\n*"):
                    writer.write(b"*2\r\n$10\r\n2000000000\r\n$1\r\n0\r\n" if command.endswith(b"TIME\r\n") else reply)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def certificate_for_loopback(directory: Path) -> tuple[str, str]:
    """Write a self-signed certificate and its key; return both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    today = datetime.now(UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(addresses, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "certificate").write_bytes(certificate.public_bytes(pem))
    (directory / "key").write_bytes(private)
    return str(directory / "certificate"), str(directory / "key")
