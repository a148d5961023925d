"""Connections to the provider: a private certificate authority, a forward proxy, and log messages for network errors."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from session_core import ConfigurationError
from session_core.errors import DiscoveryError
from session_core.oidc import OidcConfig
from session_core.oidc.http import OpHttp, tls_context
from session_core.sealing import SealingKeys
from tests.support.certificates import make_certificate
from tests.support.factories import ProviderFactory
from tests.support.ports import free_port

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """The CA file, and the TLS context of a server for op.example."""
    chain, key = make_certificate(tmp_path, "op.example")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(chain, key)
    return chain, server


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on loopback and close remaining connections."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()

    async with listening(answer, tls) as port:
        yield port


class Proxy:
    """A forward proxy that connects every tunnel to one local port."""

    def __init__(self, target: int, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.target, self.answer = target, answer
        self.requests: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with listening(self._serve) as port:
            yield f"http://127.0.0.1:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.answer)
        await writer.drain()
        if self.answer.startswith(b"HTTP/1.1 200"):
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
            finally:
                inner_writer.close()
                await inner_writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def reason_of(http: OpHttp, url: str) -> str:
    try:
        with pytest.raises(DiscoveryError) as caught:
            await http.send("GET", url, what="discovery", error=DiscoveryError)
        assert caught.value.__context__ is None
        return caught.value.reason
    finally:
        await http.close()


async def status_of(http: OpHttp, url: str) -> int:
    try:
        return (await http.send("GET", url, what="discovery", error=DiscoveryError)).status
    finally:
        await http.close()


class TestReasons:
    async def test_an_unknown_host_is_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        assert await reason_of(OpHttp(timeout_seconds=5), "https://op.example/") == "discovery_dns"

    async def test_a_refused_connection_is_the_reason(self) -> None:
        assert await reason_of(OpHttp(timeout_seconds=5), f"http://127.0.0.1:{free_port()}/") == "discovery_refused"

    async def test_an_unknown_certificate_authority_is_the_reason(self, certificate: tuple[Path, ssl.SSLContext]) -> None:
        async with serving(certificate[1]) as port:
            assert await reason_of(OpHttp(timeout_seconds=5), f"https://127.0.0.1:{port}/") == "discovery_tls"

    async def test_a_certificate_of_another_host_is_the_reason(self, certificate: tuple[Path, ssl.SSLContext]) -> None:
        async with serving(certificate[1]) as port:
            http = OpHttp(timeout_seconds=5, tls=tls_context(certificate[0]))
            assert await reason_of(http, f"https://localhost:{port}/") == "discovery_tls"

    async def test_missing_tls_is_the_reason(self) -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(OK)
            await writer.drain()

        async with listening(plain) as port:
            assert await reason_of(OpHttp(timeout_seconds=5), f"https://127.0.0.1:{port}/") == "discovery_tls"

    async def test_a_refusing_proxy_is_the_reason(self) -> None:
        proxy = Proxy(0, b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        async with proxy.running() as address:
            assert await reason_of(OpHttp(timeout_seconds=5, proxy=address), "https://op.example/") == "discovery_proxy"


class TestPrivateAuthority:
    async def test_a_private_authority_is_trusted_by_option(self, certificate: tuple[Path, ssl.SSLContext]) -> None:
        async with serving(certificate[1]) as port:
            assert (
                await status_of(OpHttp(timeout_seconds=5, tls=tls_context(certificate[0])), f"https://127.0.0.1:{port}/") == 200
            )

    async def test_a_private_authority_is_trusted_by_environment(
        self, certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        async with serving(certificate[1]) as port:
            assert await status_of(OpHttp(timeout_seconds=5), f"https://127.0.0.1:{port}/") == 200

    def test_public_authorities_stay_trusted(self, certificate: tuple[Path, ssl.SSLContext], tmp_path: Path) -> None:
        usual = len(tls_context(certificate[0]).get_ca_certs())
        other, _ = make_certificate(tmp_path, "other.example")
        both = tmp_path / "both.pem"
        both.write_bytes(certificate[0].read_bytes() + other.read_bytes())
        assert len(tls_context(both).get_ca_certs()) > usual >= 1


class TestForwardProxy:
    @pytest.mark.parametrize("by", ["option", "environment"])
    async def test_a_tunnel_is_requested(
        self, certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, by: str
    ) -> None:
        async with serving(certificate[1]) as port:
            proxy = Proxy(port)
            async with proxy.running() as address:
                if by == "environment":
                    monkeypatch.setenv("HTTPS_PROXY", address)
                given = address.replace("//", "//user:pass@") if by == "option" else None
                http = OpHttp(timeout_seconds=5, proxy=given, tls=tls_context(certificate[0]))
                assert await status_of(http, "https://op.example/") == 200
        assert proxy.requests[0].startswith("CONNECT op.example:443 HTTP/1.1\r\n")
        assert ("proxy-authorization: basic" in proxy.requests[0].lower()) == (by == "option")

    @pytest.mark.parametrize("by", ["option", "environment"])
    async def test_a_loopback_host_needs_no_proxy(self, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
        async with serving() as port:
            proxy = Proxy(port)
            async with proxy.running() as address:
                if by == "environment":
                    monkeypatch.setenv("HTTP_PROXY", address)
                http = OpHttp(timeout_seconds=5, proxy=address if by == "option" else None)
                assert await status_of(http, f"http://127.0.0.1:{port}/") == 200
        assert proxy.requests == []


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp_path: {"ca_file": tmp_path / "absent.pem"},
        lambda tmp_path: {"ca_file": _written(tmp_path / "text.pem")},
        lambda _: {"proxy": "socks5://user:hunter2@proxy.example"},
        lambda _: {"proxy": "proxy.example:3128"},
        lambda _: {"proxy": "http://"},
        lambda _: {"proxy": "http://proxy.example:99999"},
        lambda _: {"proxy": "http://proxy example:3128"},
        lambda _: {"proxy": "http://user:hunter2@pröxy.example"},
        lambda _: {"proxy": "http://user:hunter2@proxy.example/path"},
        lambda _: {"proxy": "http://user:hunter2/@proxy.example"},
        lambda _: {"proxy": "http://user:hunter2\n@proxy.example"},
    ],
)
def test_invalid_options_are_refused(tmp_path: Path, make: Callable[[Path], dict[str, object]]) -> None:
    with pytest.raises(ConfigurationError, match="must be") as caught:
        OidcConfig(
            providers=[ProviderFactory.build()],
            public_url="https://app.example",
            sealing=SealingKeys([b"k" * 32]),
            **make(tmp_path),  # type: ignore[arg-type]
        )
    assert "hunter2" not in str(caught.value)


def _written(file: Path) -> Path:
    file.write_text("no certificate")
    return file
