"""The kinds of work that each stack does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from benchmarks.client import Fixed, Jar, Lane, Outcome, counted, drive, exactly, request, round_robin
from benchmarks.payload import DARK, LIGHT
from benchmarks.results import Sample, percentile
from benchmarks.stacks import Stack

__all__ = (
    "CONNECTIONS",
    "LANES",
    "SESSIONS",
    "STEADY",
    "WORKS",
    "Amount",
    "Served",
    "Work",
    "log_in",
    "measure_waiting",
    "read_visits",
    "sample_of",
)

LANES: Final = 32
SESSIONS: Final = 200
CONNECTIONS: Final = (1, 32, 256)
"""The number of concurrent requests for response times, each with its own session."""
_LONGEST_SECONDS: Final = 1.0
"""Time limit for the increments of one session."""


@dataclass(frozen=True)
class Amount:
    """The size of one measurement."""

    seconds: float
    increments: int
    """Of one session."""


@dataclass
class Served:
    """A stack with running servers and logged-in sessions."""

    stack: Stack
    ports: list[int]
    cookies: list[bytes] = field(default_factory=list)
    login_lanes: list[Lane] = field(default_factory=list)
    """The users who log in repeatedly, with their cookies."""
    users: count[int] = field(default_factory=count)

    @property
    def port(self) -> int:
        """The id of its first process."""
        return self.ports[0]


@dataclass(frozen=True)
class Work:
    """One kind of work."""

    name: str
    title: str
    run: Callable[[Served, Amount], Sample]
    applies: Callable[[Served], bool] = lambda served: served.stack.sessions


def log_in(served: Served, number: int) -> list[bytes]:
    """Log this many new users in; return their session cookies."""
    if not served.stack.sessions:
        return [b"session=" + b"x" * 100] * number  # as long as the others' requests
    cookies: list[bytes] = []
    while len(cookies) < number:
        jars = [_login_lane(served, next(served.users)) for _ in range(min(LANES, number - len(cookies)))]
        drive(jars, [served.port], answers=len(jars))
        cookies += [jar.cookie for jar in jars]
    return cookies


def read_visits(served: Served, cookie: bytes) -> int:
    """The counter of `/increment` in the store."""
    found: list[bytes] = []

    def keep(body: bytes) -> bool:
        found.append(body)
        return counted(body)

    drive([Fixed([request("GET", "/visits", served.port, cookie)], keep)], [served.port], answers=1)
    return int(found[0].rpartition(b":")[2].rstrip(b"}"))


def _login_lane(served: Served, user: int, cookie: bytes = b"") -> Jar:
    fresh = served.stack.login == "new id" or not cookie
    answer = exactly(b'{"user":"%d"}' % user)
    return Jar("POST", f"/login?user={user}", served.port, answer, cookie=cookie, must_change=fresh)


def sample_of(outcome: Outcome, *, acknowledged: int = 0, kept: int = 0) -> Sample:
    """The sample of a drive."""
    ordered = sorted(outcome.latencies)
    p50, p99 = percentile(ordered, 0.5) / 1e6, percentile(ordered, 0.99) / 1e6
    return Sample(outcome.rate, p50, p99, acknowledged, kept)


def _read(served: Served) -> list[Lane]:
    return _reads(served, LANES)


def _reads(served: Served, lanes: int) -> list[Lane]:
    requests = [request("GET", "/read", served.port, cookie) for cookie in served.cookies[: max(SESSIONS, lanes)]]
    return [Fixed(part, exactly(DARK)) for part in round_robin(requests, lanes)]


def _increment(served: Served) -> list[Lane]:
    return _increments(served, LANES)


def _increments(served: Served, lanes: int) -> list[Lane]:
    requests = [request("POST", "/increment", served.port, cookie) for cookie in served.cookies[: max(SESSIONS, lanes)]]
    return [Fixed(part, counted) for part in round_robin(requests, lanes)]


def _public(served: Served) -> list[Lane]:
    return [Fixed([request("GET", "/public", served.port)], exactly(DARK)) for _ in range(LANES)]


def _visitor(served: Served) -> list[Lane]:
    answer = exactly(LIGHT if served.stack.sessions else DARK)
    return [Fixed([request("GET", "/read", served.port)], answer) for _ in range(LANES)]


def _for_a_while(lanes: Callable[[Served], list[Lane]]) -> Callable[[Served, Amount], Sample]:
    return lambda served, amount: sample_of(drive(lanes(served), [served.port], seconds=amount.seconds))


def _increment_one(served: Served, ports: list[int], amount: Amount) -> Sample:
    (cookie,) = log_in(served, 1)
    lanes = [Fixed([request("POST", "/increment", ports[at % len(ports)], cookie)], counted) for at in range(LANES)]
    outcome = drive(lanes, ports, answers=amount.increments, seconds=_LONGEST_SECONDS)
    return sample_of(outcome, acknowledged=outcome.answers, kept=read_visits(served, cookie))


def _log_in_again(served: Served) -> list[Lane]:
    if not served.login_lanes:
        served.login_lanes = [_login_lane(served, 10**6 + at, cookie) for at, cookie in enumerate(log_in(served, LANES))]
    return served.login_lanes


def measure_waiting(served: Served, work: str, connections: int, amount: Amount) -> Sample:
    """The response times of reads or increments with this many connections."""
    lanes = (_reads if work == "read" else _increments)(served, connections)
    return sample_of(drive(lanes, [served.port], seconds=amount.seconds))


WORKS: Final = (
    Work("read", "read one value of a session", _for_a_while(_read), lambda _: True),
    Work("public", "a page without session", _for_a_while(_public), lambda _: True),
    Work("visitor", "a page that reads the session, for a visitor without cookie", _for_a_while(_visitor)),
    Work("increment", "increment, 200 sessions", _for_a_while(_increment)),
    Work(
        "one", "increment of ONE session by 32 clients", lambda served, amount: _increment_one(served, served.ports[:1], amount)
    ),
    Work(
        "two",
        "the same, over two server processes",
        lambda served, amount: _increment_one(served, served.ports, amount),
        lambda served: len(served.ports) > 1,
    ),
    Work("login", "login callback", _for_a_while(_log_in_again)),
)

STEADY: Final = {"read": _read, "public": _public, "visitor": _visitor, "increment": _increment, "login": _log_in_again}
"""The requests of works that can be interrupted and continued, by name."""
