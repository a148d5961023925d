"""The interface of a database connection for the SQL store, for every driver, and the clock of its server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from session_core.stores.announcements import Heard
    from session_core.stores.sql.statements import Statement

__all__ = ("Driver", "Late", "Link", "ServerClock", "TakenError")

_MEASURE_EVERY: Final = 60.0
"""Seconds. Clocks are set now and then."""
_CLOSE_ENOUGH: Final = 0.05
_MEASUREMENTS: Final = 3


class Late(Exception):  # noqa: N818 - what is so, not what went wrong
    """The deadline has passed by the server's clock: nothing was done, or it was rolled back."""


class TakenError(Exception):
    """A row with this key already exists."""


class ServerClock:
    """The time at a server, compared with `time.monotonic()` of this process."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._measured_at = -_MEASURE_EVERY

    @property
    def is_unknown(self) -> bool:
        """Whether it has to be measured before it is used."""
        return monotonic() - self._measured_at >= _MEASURE_EVERY

    def forget(self) -> None:
        """Discard the measurement: the server's clock was set."""
        self._measured_at = -_MEASURE_EVERY

    def at(self, instant: float) -> float:
        """Return the server's time, in seconds since 1970, at an instant of this process.

        It is never later than the server's clock, and at most one round trip earlier, so a deadline is never exceeded.
        """
        return instant + self._offset

    async def measure(self, ask: Callable[[], Awaitable[float]]) -> None:
        """Ask for the server's time up to three times, until an answer is fast, and use the fastest."""
        best = float("inf")
        for _ in range(_MEASUREMENTS):
            asked = monotonic()
            time = await ask()
            answered = monotonic()
            if answered - asked < best:
                best = answered - asked
                self._offset = time - answered
            if best <= _CLOSE_ENOUGH:
                break
        self._measured_at = monotonic()


class Link(Protocol):
    """One connection. Errors of the driver pass through; `Late` and `TakenError` are the same for all drivers."""

    dialect: str
    opened_at: float
    """In the time of `time.monotonic`, as `deadline`."""
    clock: ServerClock
    deadline: float
    """The deadline of the work on this connection."""
    answered_at: float
    """The time of the server's last answer."""

    @property
    def is_open(self) -> bool:
        """Whether it may still be used."""
        ...

    async def measure_clock(self) -> None:
        """Compare the server's clock with this process's."""
        ...

    async def rows(self, statement: Statement, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Return the rows that a statement selects, or returns."""
        ...

    async def count(self, statement: Statement, values: Mapping[str, Any]) -> int:
        """Return how many rows a statement has changed."""
        ...

    async def script(self, text: str) -> None:
        """Run statements that take no values and return nothing."""
        ...

    async def begin(self) -> None:
        """Begin a transaction whose server-side waits end at the deadline."""
        ...

    def announce(self, names: Sequence[str]) -> None:
        """Announce with the commit of the current transaction that sessions ended or were rotated, where there is a channel."""
        ...

    async def commit(self) -> None:
        """Commit, unless the deadline has passed by the server's own clock: then raise `Late`."""
        ...

    async def rollback(self) -> None:
        """Undo the transaction."""
        ...

    async def close(self, seconds: float) -> None:
        """Close the connection gracefully, within so many seconds."""
        ...

    def terminate(self) -> None:
        """Close the connection at once. Pending calls fail as lost."""
        ...


class Driver(Protocol):
    """Opens connections to one database."""

    dialect: str
    pool_size: int | None
    """How many connections the URL allows."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """The exceptions of its connections for a failing database."""
        ...

    async def connect(self, seconds: float) -> Link:
        """Open a connection within so many seconds."""
        ...

    async def listen(self, heard: Heard, seconds: float) -> None:
        """Open a connection and call `heard` with announcements, until it breaks (`RevocationFeed.listen`)."""
        ...

    @property
    def pushes(self) -> bool:
        """Whether `listen` receives announcements."""
        ...
