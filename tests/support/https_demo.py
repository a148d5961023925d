"""The demo behind https as a separate process: both servers, and a TLS proxy in front of the application.

Arguments: port of the application, port of the provider, port of the front, files of the certificate and its key.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from auth_demo.servers import Addresses, DemoServers
from tests.app.processes import clean_environment
from tests.support.certificates import make_certificate
from tests.support.ports import free_ports

_START_SECONDS = 120


@contextmanager
def running_https_demo(directory: Path) -> Iterator[str]:
    """The address of such a demo, running during the block."""
    ports = free_ports(3)
    chain, key = make_certificate(directory)
    process = subprocess.Popen(
        [sys.executable, __file__, *map(str, ports), str(chain), str(key)],
        cwd=directory,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", ports[2]), timeout=5):
                break
            assert process.poll() is None, "the demo behind https ended"
            assert time.monotonic() < deadline, "the demo behind https did not start"
            time.sleep(0.05)
        yield f"https://localhost:{ports[2]}"
    finally:
        process.terminate()
        process.wait(timeout=30)


async def main(port: int, op_port: int, front_port: int, certificate: str, key: str) -> None:
    addresses = Addresses(port, op_port)
    addresses.app_url = f"https://localhost:{front_port}"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_app, from_app = None, None
        with suppress(OSError):
            from_app, to_app = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pass_on(reader, to_app), _pass_on(from_app, writer))
        for each in (writer, to_app):
            if each is not None:
                each.close()

    async with DemoServers(addresses, store=None, pages=()).running():
        server = await asyncio.start_server(connect, "127.0.0.1", front_port, ssl=tls)
        async with server:
            await server.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


if __name__ == "__main__":
    first, second, third, certificate, key = sys.argv[1:]
    asyncio.run(main(int(first), int(second), int(third), certificate, key))
