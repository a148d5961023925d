"""Measures the memory growth of a server process per open WebSocket."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks.client import BrokenPromiseError
from benchmarks.results import Results
from benchmarks.works import Served

__all__ = ("allow_sockets", "measure_sockets")

_COUNTS: Final = (500, 2_500)
_SPARE_FILES: Final = 500


def measure_sockets(served: Served, process: int, results: Results, say: Callable[[str], None]) -> None:
    """Open many WebSockets to `served`, whose server is `process`; the cost of the first ones is not counted."""
    opened: list[socket.socket] = []
    weights = []
    for count in _COUNTS:
        say(f"{count:,} WebSockets")
        opened += [_open(served, served.cookies[at % len(served.cookies)]) for at in range(len(opened), count)]
        weights.append(sum(map(_bytes_of, _tree(process))))
    for each in opened:
        each.close()
    results.socket_bytes[served.stack.name] = (weights[1] - weights[0]) / (_COUNTS[1] - _COUNTS[0])


def allow_sockets() -> None:
    """Raise the limit of open files for this process and its children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(_COUNTS) + _SPARE_FILES), hard))


def _open(served: Served, cookie: bytes) -> socket.socket:
    """Return a WebSocket that the server has accepted (RFC 6455, 4.1) and sent a first message on."""
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=15)
    lines = ["GET /socket HTTP/1.1", f"host: 127.0.0.1:{served.port}", f"origin: http://127.0.0.1:{served.port}"]
    lines += ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"]
    lines += ["sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==", "sec-fetch-site: same-origin"]
    connection.sendall("\r\n".join(lines).encode() + b"\r\ncookie: " + cookie + b"\r\n\r\n")
    seen = b""
    while not seen.endswith(b"ready"):
        part = connection.recv(4096)
        if not part:
            msg = f"a WebSocket was refused: {seen[:300]!r}"
            raise BrokenPromiseError(msg)
        seen += part
    return connection


def _tree(process: int) -> Iterator[int]:
    """The process and all its descendants."""
    yield process
    for child in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split():
        yield from _tree(int(child))


def _bytes_of(process: int) -> int:
    """Its memory, with its share of shared pages."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
