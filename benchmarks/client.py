"""Sends requests over many keep-alive connections and checks every response, in one thread without an event loop.

The server is measured, so the client must cost little. It writes prepared requests. Of a response it checks status, length and
body, and in some works the cookie.
"""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import inf
from time import perf_counter_ns
from typing import Final, Protocol

from benchmarks.payload import COOKIE

__all__ = (
    "BrokenPromiseError",
    "Connections",
    "Fixed",
    "Jar",
    "Lane",
    "Outcome",
    "counted",
    "drive",
    "exactly",
    "request",
    "round_robin",
)

_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_SET_COOKIE: Final = re.compile(rb"(?i)\r\nset-cookie: *(%b=[^;\r]*)" % COOKIE.encode())
_COUNTED: Final = re.compile(rb'\{"visits":\d+\}')
_PATIENCE_SECONDS: Final = 15
_RECEIVE_BYTES: Final = 65536


class BrokenPromiseError(Exception):
    """A server gave a wrong response or none, which makes the run invalid."""


class Lane(Protocol):
    """The requests of one connection, in sequence."""

    def next(self) -> bytes:
        """The next request."""
        ...

    def took(self, head: bytes, body: bytes) -> None:
        """Check the response. Raises `BrokenPromiseError`."""
        ...


Check = Callable[[bytes], bool]


def exactly(body: bytes) -> Check:
    """Accept only this body."""
    return body.__eq__


def counted(body: bytes) -> bool:
    """Accept the response of `/increment`."""
    return _COUNTED.fullmatch(body) is not None


def request(method: str, target: str, port: int, cookie: bytes = b"") -> bytes:
    """One request, as a same-origin page sends it."""
    lines = [f"{method} {target} HTTP/1.1", f"host: 127.0.0.1:{port}", "user-agent: benchmarks", "accept: application/json"]
    if method != "GET":
        lines += ["sec-fetch-site: same-origin", f"origin: http://127.0.0.1:{port}", "content-length: 0"]
    head = "\r\n".join(lines).encode()
    return head + (b"\r\ncookie: " + cookie if cookie else b"") + b"\r\n\r\n"


class Fixed:
    """Sends the same requests repeatedly."""

    def __init__(self, requests: Sequence[bytes], check: Check) -> None:
        self._requests = requests
        self._check = check
        self._at = -1

    def next(self) -> bytes:
        """See `Lane.next`."""
        self._at = (self._at + 1) % len(self._requests)
        return self._requests[self._at]

    def took(self, head: bytes, body: bytes) -> None:
        """See `Lane.took`."""
        if not self._check(body):
            msg = f"a wrong body: {body[:200]!r} after {head[:300]!r}"
            raise BrokenPromiseError(msg)


class Jar:
    """Sends one request repeatedly, with the cookie of the latest response, as a browser does."""

    def __init__(self, method: str, target: str, port: int, check: Check, *, cookie: bytes = b"", must_change: bool) -> None:
        self._method, self._target, self._port = method, target, port
        self._check = check
        self._must_change = must_change
        self.cookie = cookie

    def next(self) -> bytes:
        """See `Lane.next`."""
        return request(self._method, self._target, self._port, self.cookie)

    def took(self, head: bytes, body: bytes) -> None:
        """See `Lane.took`."""
        found = _SET_COOKIE.search(head)
        if not self._check(body) or found is None or (self._must_change and found[1] == self.cookie):
            msg = f"a wrong answer to a login: {body[:200]!r} after {head[:300]!r}"
            raise BrokenPromiseError(msg)
        self.cookie = found[1]


def round_robin(items: Sequence[bytes], lanes: int) -> list[Sequence[bytes]]:
    """Assign items to lanes so that no item is in two lanes."""
    return [items[at::lanes] or items[:1] for at in range(lanes)]


@dataclass(frozen=True)
class Outcome:
    """The result of a drive: the number of responses, all correct; the seconds; each response's duration and start (ns)."""

    answers: int
    seconds: float
    latencies: list[int]
    begins: list[int]
    """By `perf_counter_ns`, which is one clock for all processes."""

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.answers / self.seconds


class _Connection:
    """The connection of one lane."""

    __slots__ = ("begun", "lane", "part", "socket")

    def __init__(self, lane: Lane, port: int) -> None:
        self.lane = lane
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.part = b""
        self.begun = 0

    def send(self, now: int) -> None:
        self.begun = now
        self.socket.sendall(self.lane.next())

    def received(self) -> bool:
        """Read available data; return whether the response is complete. Raises `BrokenPromiseError` for a wrong one."""
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            msg = f"the server closed the connection after {self.part[:300]!r}"
            raise BrokenPromiseError(msg)
        if self.part:
            data = self.part + data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if length is None:
            if end >= 0:
                msg = f"an answer without a length: {data[:300]!r}"
                raise BrokenPromiseError(msg)
            self.part = data
            return False
        missing = end + 4 + int(length[1]) - len(data)
        if missing > 0:
            self.part = data
            return False
        if missing or data[9:12] != b"200":
            msg = f"a wrong answer: {data[:600]!r}"
            raise BrokenPromiseError(msg)
        self.part = b""
        self.lane.took(data[: end + 2], data[end + 4 :])
        return True


class Connections:
    """A connection for each lane, kept across drives. Lanes are assigned to the servers in turn."""

    def __init__(self, lanes: Sequence[Lane], ports: Sequence[int]) -> None:
        connections = [_Connection(lane, ports[at % len(ports)]) for at, lane in enumerate(lanes)]
        self._connections = {connection.socket.fileno(): connection for connection in connections}
        self._wait = _waiter(list(self._connections))

    def drive(self, *, seconds: float = inf, answers: float = inf) -> Outcome:
        """Run all lanes at once for `seconds` or until there are `answers` responses, whichever is first.

        Raises `BrokenPromiseError` for the first wrong response.
        """
        connections, wait = self._connections, self._wait
        latencies: list[int] = []
        begins: list[int] = []
        begin = now = perf_counter_ns()
        end = begin + seconds * 1e9
        left = answers - len(connections)
        for connection in connections.values():
            connection.send(perf_counter_ns())
        flying = len(connections)
        while flying:
            events = wait()
            if not events:
                msg = f"no answer for {_PATIENCE_SECONDS} seconds"
                raise BrokenPromiseError(msg)
            for number, _ in events:
                connection = connections[number]
                if not connection.received():
                    continue
                now = perf_counter_ns()
                begins.append(connection.begun)
                latencies.append(now - connection.begun)
                if now < end and left > 0:
                    left -= 1
                    connection.send(now)
                else:
                    flying -= 1
        return Outcome(len(latencies), (now - begin) / 1e9, latencies, begins)

    def close(self) -> None:
        """Close them all."""
        for connection in self._connections.values():
            connection.socket.close()


def drive(lanes: Sequence[Lane], ports: Sequence[int], *, seconds: float = inf, answers: float = inf) -> Outcome:
    """Run all lanes at once, each on a new connection; see `Connections.drive`."""
    with closing(Connections(lanes, ports)) as connections:
        return connections.drive(seconds=seconds, answers=answers)


def _waiter(numbers: list[int]) -> Callable[[], list[tuple[int, int]]]:
    """A poller for readable sockets: epoll where available, else poll."""
    if hasattr(select, "epoll"):
        epoll = select.epoll()
        for number in numbers:
            epoll.register(number, select.EPOLLIN)
        return lambda: epoll.poll(_PATIENCE_SECONDS)
    poll = select.poll()
    for number in numbers:
        poll.register(number, select.POLLIN)
    return lambda: poll.poll(_PATIENCE_SECONDS * 1000)
