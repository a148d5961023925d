"""The results of a run as values, without servers, clocks or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.stacks import Stack

__all__ = ("Cell", "Results", "Sample", "Scale", "Sweep", "percentile")


def percentile(ordered: Sequence[int], share: float) -> float:
    """The value that `share` of all do not exceed; `ordered` ascends."""
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))]) if ordered else 0.0


@dataclass(frozen=True)
class Sample:
    """One stack at one work in one round. Times in milliseconds."""

    rate: float
    """Answers per second."""
    p50: float
    p99: float
    acknowledged: int = 0
    """Increments of one session that got a 200."""
    kept: int = 0
    """The number of them in the session afterwards."""


@dataclass
class Cell:
    """One stack at one work, by round."""

    samples: list[Sample] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median rate."""
        return median(sample.rate for sample in self.samples)

    @property
    def slowest(self) -> float:
        """The rate of the worst round."""
        return min(sample.rate for sample in self.samples)

    @property
    def fastest(self) -> float:
        """The rate of the best round."""
        return max(sample.rate for sample in self.samples)

    @property
    def p50(self) -> float:
        """The median of the rounds' medians."""
        return median(sample.p50 for sample in self.samples)

    @property
    def p99(self) -> float:
        """The median of the rounds' 99th percentiles."""
        return median(sample.p99 for sample in self.samples)

    @property
    def acknowledged(self) -> int:
        """All acknowledged increments."""
        return sum(sample.acknowledged for sample in self.samples)

    @property
    def kept(self) -> int:
        """The increments that were not lost."""
        return sum(sample.kept for sample in self.samples)


@dataclass(frozen=True)
class Scale:
    """Listing and revoking the `per_user` sessions of a user among `sessions` in one store; medians in microseconds."""

    engine: str
    sessions: int
    per_user: int
    list_us: float
    revoke_us: float


@dataclass(frozen=True)
class Sweep:
    """A sweep of expired rows during requests. Times in milliseconds."""

    rows: int
    seconds: float
    answers: int
    longest: float
    """The longest request during the sweep."""
    within: float
    """The longest time within one request in which statements of the sweep ran: an upper limit of its wait for
    them. Work left to later statements (a log that the next commit writes, pages that are written later) is not included."""
    longest_before: float
    """The longest request of the same clients without it, before and after."""
    longest_step: float
    """The longest statement of the sweep, which bounds how long it holds locks."""

    @property
    def request_delay(self) -> float:
        """The longest delay of a request: the sweep's statements within it, or its extra time, whichever is longer."""
        return max(self.within, self.longest - self.longest_before)


@dataclass
class Results:
    """All results of a run."""

    date: str
    rounds: int
    seconds: float
    """The duration of each timed measurement."""
    machine: Mapping[str, str]
    stacks: Sequence[Stack]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    """By work and stack."""
    turns: dict[tuple[str, str], Cell] = field(default_factory=dict)
    """The same for the works compared by the targets, in many short turns."""
    waiting: dict[tuple[str, str, int], Cell] = field(default_factory=dict)
    """By work, stack and number of connections."""
    commands: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By stack: commands that Redis gets for a read and for an increment."""
    memory: dict[str, float] = field(default_factory=dict)
    """By stack: bytes per session in Redis, indexes included."""
    stored_bytes: int | None = None
    """The Redis memory of a 300-byte session of a user and a provider session, both indexes included."""
    scales: list[Scale] = field(default_factory=list)
    scale_bytes: dict[str, float] = field(default_factory=dict)
    """By engine: bytes per session, indexes included, at the largest scale."""
    socket_bytes: dict[str, float] = field(default_factory=dict)
    """By stack: the memory growth of a server process per open WebSocket."""
    sweep: Sweep | None = None
    left_out: list[str] = field(default_factory=list)
    """What could not be measured, and why."""

    def cell(self, work: str, stack: str) -> Cell | None:
        """The result of a stack at a work, or None."""
        return self.cells.get((work, stack))

    def compared(self, work: str, stack: str) -> Cell | None:
        """The same for comparisons: from turns where available, else from rounds."""
        return self.turns.get((work, stack)) or self.cell(work, stack)
