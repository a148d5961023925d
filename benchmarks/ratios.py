"""The targets of the project, and whether one run reached them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from benchmarks.results import Cell, Results, Scale
from benchmarks.stacks import (
    BARE,
    EXPRESS,
    EXPRESS_POSTGRESQL,
    LITESTAR,
    NEAR_CACHE,
    OURS_POSTGRESQL,
    OURS_REDIS,
    OURS_SQLITE,
    STARSESSIONS,
    Stack,
)

__all__ = ("TARGETS", "Target", "Verdict", "ratio", "verdicts")

_SAME_COST: Final = 1.5
"""The tolerance for costs that should be equal: with a hundred times as many sessions, and on another store."""
_MOST_BYTES: Final = 700
_MOST_MS: Final = 50


@dataclass(frozen=True)
class Target:
    """The rate of one stack as a multiple of another's."""

    name: str
    work: str
    stack: str
    other: str
    least: float


@dataclass(frozen=True)
class Verdict:
    """One target, the measured value, and whether it is enough; None when not measured."""

    name: str
    reached: str
    target: str
    met: bool | None

    @property
    def word(self) -> Literal["yes", "no", "not measured"]:
        """The value as text."""
        return "not measured" if self.met is None else "yes" if self.met else "no"


TARGETS: Final = (
    Target("Redis: read, of a page without sessions", "read", OURS_REDIS.name, BARE.name, 0.6),
    Target("Redis: read, of a page without sessions, with the near-cache", "read", NEAR_CACHE, BARE.name, 0.75),
    Target("Redis: read, of Litestar's own sessions", "read", OURS_REDIS.name, LITESTAR.name, 3.5),
    Target("Redis: read, of starsessions", "read", OURS_REDIS.name, STARSESSIONS.name, 2),
    Target("Redis: read, of express-session", "read", OURS_REDIS.name, EXPRESS.name, 2.2),
    Target("Redis: increment, of Litestar's own", "increment", OURS_REDIS.name, LITESTAR.name, 2.8),
    Target("Redis: increment of ONE session, of Litestar's own", "one", OURS_REDIS.name, LITESTAR.name, 2),
    Target("Redis: login callback, of starsessions", "login", OURS_REDIS.name, STARSESSIONS.name, 1.5),
    Target("SQLite: read, of a page without sessions", "read", OURS_SQLITE.name, BARE.name, 0.5),
    Target("SQLite: increment, of Litestar's own on Redis", "increment", OURS_SQLITE.name, LITESTAR.name, 2),
    Target("SQLite: increment of ONE session, of Litestar's own on Redis", "one", OURS_SQLITE.name, LITESTAR.name, 2),
    Target("SQLite: login callback, of Litestar's own on Redis", "login", OURS_SQLITE.name, LITESTAR.name, 0.7),
    Target("PostgreSQL: read, of a page without sessions", "read", OURS_POSTGRESQL.name, BARE.name, 0.4),
    Target("PostgreSQL: read, of express-session on it", "read", OURS_POSTGRESQL.name, EXPRESS_POSTGRESQL.name, 4),
    Target("PostgreSQL: increment, of Litestar's own on Redis", "increment", OURS_POSTGRESQL.name, LITESTAR.name, 1.5),
    Target("PostgreSQL: increment, of express-session on it", "increment", OURS_POSTGRESQL.name, EXPRESS_POSTGRESQL.name, 4),
    Target("PostgreSQL: login callback, of Litestar's own on Redis", "login", OURS_POSTGRESQL.name, LITESTAR.name, 0.7),
    Target("a page that reads the session, without cookie, of bare Litestar", "visitor", OURS_REDIS.name, BARE.name, 0.9),
    Target("a page that uses no session, of bare Litestar", "public", OURS_REDIS.name, BARE.name, 0.97),
)


def ratio(ours: Cell, other: Cell) -> float:
    """The median of the ratios within each round or turn, so that a temporary slowdown of the machine affects both sides."""
    return median(mine.rate / theirs.rate for mine, theirs in zip(ours.samples, other.samples, strict=True))


def verdicts(results: Results) -> list[Verdict]:
    """Judge a run."""
    judged = [_judge(results, target) for target in TARGETS]
    kept = [_kept(results, stack) for stack in (OURS_REDIS, OURS_SQLITE, OURS_POSTGRESQL)]
    return [*judged, *kept, _round_trips(results), _bytes(results), *_scales(results), _sweep(results)]


def _judge(results: Results, target: Target) -> Verdict:
    ours, other = results.compared(target.work, target.stack), results.compared(target.work, target.other)
    wanted = f">= {target.least:g}x"
    if ours is None or other is None:
        return Verdict(target.name, "", wanted, None)
    reached = ratio(ours, other)
    return Verdict(target.name, f"{reached:.2f}x", wanted, reached >= target.least)


def _kept(results: Results, stack: Stack) -> Verdict:
    cell = results.cell("two", stack.name)
    name = f"{stack.label}: acknowledged increments of ONE session that are kept, over two processes"
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
    """For each engine, the cost at the largest number of sessions, as a multiple of that at the smallest and of that of Redis."""
    verdicts = []
    for engine in ("Redis", "SQLite", "PostgreSQL"):
        mine = [scale for scale in results.scales if scale.engine == engine]
        of_redis = [scale for scale in results.scales if scale.engine == "Redis"]
        sizes = sorted({scale.sessions for scale in mine})
        for name, cost in (("list", _list_us), ("revoke", _revoke_us)):
            if len(sizes) < 1 + 1:
                verdicts.append(Verdict(f"{engine}: {name} a user's sessions among very many", "", f"<= {_SAME_COST:g}x", None))
                continue
            most = f"{engine}: {name} a user's sessions among {sizes[-1]:,} sessions"
            verdicts.append(_worst(f"{most}, of the same among {sizes[0]:,}", mine, mine, (sizes[-1], sizes[0]), cost))
            if engine != "Redis" and sizes[-1] in {scale.sessions for scale in of_redis}:
                # The cost per session; the fixed cost of a step, such as a disk sync, is in the table.
                most_of_user = max(scale.per_user for scale in mine)
                ours, others = ([s for s in scales if s.per_user == most_of_user] for scales in (mine, of_redis))
                verdicts.append(
                    _worst(f"{most}, {most_of_user} each, of the same on Redis", ours, others, (sizes[-1],) * 2, cost)
                )
    return verdicts


def _worst(
    name: str, ours: Sequence[Scale], others: Sequence[Scale], sizes: tuple[int, int], cost: Callable[[Scale], float]
) -> Verdict:
    """The largest ratio of costs, over every number of sessions per user."""
    by_user = {scale.per_user: cost(scale) for scale in ours if scale.sessions == sizes[0]}
    other = {scale.per_user: cost(scale) for scale in others if scale.sessions == sizes[1]}
    reached = max(by_user[number] / other[number] for number in other)
    return Verdict(name, f"{reached:.2f}x", f"<= {_SAME_COST:g}x", reached <= _SAME_COST)


def _list_us(scale: Scale) -> float:
    return scale.list_us


def _revoke_us(scale: Scale) -> float:
    return scale.revoke_us


def _sweep(results: Results) -> Verdict:
    wanted = f"<= {_MOST_MS} ms"
    name = "the longest that a sweep of expired SQL rows delayed a request"
    if results.sweep is None:
        return Verdict(name, "", wanted, None)
    name = name.replace("expired", f"{results.sweep.rows:,} expired")
    return Verdict(name, f"{results.sweep.request_delay:.1f} ms", wanted, results.sweep.request_delay <= _MOST_MS)
