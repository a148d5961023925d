"""What must be reached, and whether it was: every target of the project, from one run; a miss is a miss."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from benchmarks.results import Cell, Results
from benchmarks.stacks import BARE, EXPRESS, LITESTAR, NEAR_CACHE, OURS_REDIS, STARSESSIONS

__all__ = ("TARGETS", "Target", "Verdict", "ratio", "verdicts")

_SAME_COST: Final = 1.5
"""Listing at a hundred times as many sessions may take this much longer, and still depends on the user's own alone."""
_MOST_BYTES: Final = 700
_MOST_MS: Final = 50


@dataclass(frozen=True)
class Target:
    """The rate of one stack at a work, as a multiple of another's."""

    name: str
    work: str
    stack: str
    other: str
    least: float


@dataclass(frozen=True)
class Verdict:
    """One target, what was reached, and whether that is enough; None where it was not measured."""

    name: str
    reached: str
    target: str
    met: bool | None

    @property
    def word(self) -> Literal["yes", "no", "not measured"]:
        """For people."""
        return "not measured" if self.met is None else "yes" if self.met else "no"


TARGETS: Final = (
    Target("read, of a page without sessions", "read", OURS_REDIS.name, BARE.name, 0.45),
    Target("read, of a page without sessions, with the near-cache", "read", NEAR_CACHE, BARE.name, 0.75),
    Target("read, of Litestar's own sessions", "read", OURS_REDIS.name, LITESTAR.name, 3),
    Target("read, of starsessions", "read", OURS_REDIS.name, STARSESSIONS.name, 2),
    Target("read, of express-session", "read", OURS_REDIS.name, EXPRESS.name, 2),
    Target("increment over 200 sessions, of Litestar's own", "increment", OURS_REDIS.name, LITESTAR.name, 2.5),
    Target("increment of ONE session, of Litestar's own", "one", OURS_REDIS.name, LITESTAR.name, 2),
    Target("a page that uses no session, of bare Litestar", "public", OURS_REDIS.name, BARE.name, 0.97),
)


def ratio(ours: Cell, other: Cell) -> float:
    """The median of the ratios within each round or turn: what disturbs the machine for a while disturbs both."""
    return median(mine.rate / theirs.rate for mine, theirs in zip(ours.samples, other.samples, strict=True))


def verdicts(results: Results) -> list[Verdict]:
    """Judge a run."""
    judged = [_judge(results, target) for target in TARGETS]
    return [*judged, _kept(results), _round_trips(results), _bytes(results), *_scales(results), _sweep(results)]


def _judge(results: Results, target: Target) -> Verdict:
    ours, other = results.compared(target.work, target.stack), results.compared(target.work, target.other)
    wanted = f">= {target.least:g}x"
    if ours is None or other is None:
        return Verdict(target.name, "", wanted, None)
    reached = ratio(ours, other)
    return Verdict(target.name, f"{reached:.2f}x", wanted, reached >= target.least)


def _kept(results: Results) -> Verdict:
    cell = results.cell("two", OURS_REDIS.name)
    name = "acknowledged increments of ONE session that are kept, over two processes"
    if cell is None:
        return Verdict(name, "", "all", None)
    return Verdict(name, f"{cell.kept} of {cell.acknowledged}", "all", cell.kept == cell.acknowledged)


def _round_trips(results: Results) -> Verdict:
    name = "Redis commands of a read, and of an increment (load and save)"
    counted = results.commands.get(OURS_REDIS.name)
    if counted is None:
        return Verdict(name, "", "<= 1 and <= 2", None)
    read, increment = counted
    return Verdict(name, f"{read} and {increment}", "<= 1 and <= 2", read <= 1 and increment <= 1 + 1)


def _bytes(results: Results) -> Verdict:
    name = "bytes in Redis of 300 bytes that the store is given, both indexes included"
    taken = results.stored_bytes
    wanted = f"<= {_MOST_BYTES}"
    return Verdict(name, "", wanted, None) if taken is None else Verdict(name, f"{taken:.0f}", wanted, taken <= _MOST_BYTES)


def _scales(results: Results) -> list[Verdict]:
    """The cost at the most sessions as a multiple of the cost at the fewest, for every number of sessions per user."""
    wanted = f"<= {_SAME_COST:g}x"
    sizes = sorted({scale.sessions for scale in results.scales})
    names = ("list a user's sessions", "revoke a user's sessions")
    if len(sizes) < 1 + 1:
        return [Verdict(name, "", wanted, None) for name in names]
    few = {scale.per_user: scale for scale in results.scales if scale.sessions == sizes[0]}
    many = {scale.per_user: scale for scale in results.scales if scale.sessions == sizes[-1]}
    worst = (
        max(many[k].list_us / few[k].list_us for k in few),
        max(many[k].revoke_us / few[k].revoke_us for k in few),
    )
    sessions = f"among {sizes[-1]:,} sessions, of the same among {sizes[0]:,}"
    return [
        Verdict(f"{name} {sessions}", f"{reached:.2f}x", wanted, reached <= _SAME_COST)
        for name, reached in zip(names, worst, strict=True)
    ]


def _sweep(results: Results) -> Verdict:
    wanted = f"<= {_MOST_MS} ms"
    name = "the longest that a sweep of expired SQL rows delayed a request"
    if results.sweep is None:
        return Verdict(name, "", wanted, None)
    name = name.replace("expired", f"{results.sweep.rows:,} expired")
    return Verdict(name, f"{results.sweep.in_the_way:.1f} ms", wanted, results.sweep.in_the_way <= _MOST_MS)
