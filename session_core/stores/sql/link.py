"""What the SQL store needs of one connection to a database, whichever driver it is of, and the clock of its server."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from session_core.stores.announcements import Heard
    from session_core.stores.sql.statements import Statement

__all__ = ("Driver", "Late", "Link", "ServerClock", "TakenError")

_MEASURE_EVERY: Final = 60.0
"""Seconds. Clocks are set now and then."""
_CLOSE_ENOUGH: Final = 0.05
_MEASUREMENTS: Final = 3


class Late(Exception):  # noqa: N818 - what is so, not what went wrong
    """By the server's clock the deadline has passed: it has done nothing, or undone it."""


class TakenError(Exception):
    """A row with this name is there already."""


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
        """Measure again before it is used: the server's clock is not what was believed."""
        self._measured_at = -_MEASURE_EVERY

    def at(self, instant: float) -> float:
        """Return the server's time, in seconds since 1970, at an instant of this process.

        It is never later than the server's clock shows then, and earlier by one round trip at most: what must not happen after a
        deadline does not happen after it.
        """
        return instant + self._offset

    async def measure(self, ask: Callable[[], Awaitable[float]]) -> None:
        """Ask for the server's time until an answer came quickly, three times at most, and believe the quickest."""
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
    """When the work on this connection must have taken effect."""
    answered_at: float
    """When the server has last answered."""

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
        """Begin a transaction in which the server waits no longer than until the deadline."""
        ...

    async def commit(self) -> None:
        """Commit, unless the deadline has passed by the server's own clock: then raise `Late`."""
        ...

    async def rollback(self) -> None:
        """Undo the transaction."""
        ...

    async def close(self, seconds: float) -> None:
        """Say goodbye and close the connection, within so many seconds."""
        ...

    def terminate(self) -> None:
        """Close the connection at once. Whatever waits for it fails as lost."""
        ...


class Driver(Protocol):
    """Opens connections to one database."""

    dialect: str
    pool_size: int | None
    """How many connections the URL allows."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """Everything that its connections may raise for a database that does not do what it is asked."""
        ...

    async def connect(self, seconds: float) -> Link:
        """Open a connection within so many seconds."""
        ...

    async def listen(self, heard: Heard, seconds: float) -> None:
        """Open a connection and call `heard` with what is announced on it, until it breaks (`RevocationFeed.listen`)."""
        ...

    @property
    def pushes(self) -> bool:
        """Whether `listen` hears anything."""
        ...
