"""Which logins a mark ends: each clock is compared only with itself, and rules that are almost right are found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import msgspec
import pytest

from session_core import end_marks
from session_core.clock import TOLERATED_SKEW_MS
from session_core.end_marks import EndMark, leave_mark, was_ended_since
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock
from tests.support import ALICE

NOON = 4_102_444_800
SKEW = TOLERATED_SKEW_MS // 1000

Rule = Callable[[EndMark, int | None, int | None, int], bool]
"""`rule(mark, iat, auth_time, started_at)`: whether the mark ends the login."""


class Case(NamedTuple):
    """Seconds after noon by a clock that is right, as the provider's is; the nodes' clocks differ from it by `begun` and `ended`.

    `logout`: when the provider ended the session, and when its token arrived.
    """

    name: str
    begun: int
    ended: int
    started: float
    issued: float | None
    proved: float | None
    logout: tuple[float, float]
    is_ended: bool
    op_says: bool = True

    def decided_by(self, rule: Rule) -> bool:
        def op_seconds(moment: float | None) -> int | None:
            return None if moment is None else int(NOON + moment)

        mark = EndMark(round(1000 * (NOON + self.logout[1] + self.ended)), op_seconds(self.logout[0]) if self.op_says else None)
        started_at = round(1000 * (NOON + self.started + self.begun))
        return rule(mark, op_seconds(self.issued), op_seconds(self.proved), started_at)


def cases() -> Iterator[Case]:
    for begun, ended in product((-SKEW // 2, 0, SKEW // 2), repeat=2):
        by_any = [
            ("the ID token is older", 0, 6, None, (10, 10.2), True),
            ("the ID token is older, the user came long before", 0, 6, -3600, (10, 10.2), True),
            ("both within one second", 0, 10.1, 9.9, (10.8, 10.9), True),
            ("the logout arrives minutes later", 0, 6, 5, (10, 200), True),
            ("the next login, proved anew", 11, 13, 12, (10, 10.2), False),
            ("the next login, begun before a late token arrived", 50, 60, 55, (10, 100), False),
        ]
        for name, started, issued, proved, logout, is_ended in by_any:
            yield Case(name, begun, ended, started, issued, proved, logout, is_ended)
        if begun == ended:
            by_agreeing = [
                ("the next login, by single sign-on", 11, 13, -3600, (10, 10.2), False),
                ("the next login, nothing said of when", 11, 13, None, (10, 10.2), False),
                ("a code from before, redeemed later", 0, 30, 5, (10, 10.2), True),
                ("a code from before, redeemed later, nothing said of when", 0, 30, None, (10, 10.2), True),
                ("no ID token, begun before", 0, None, None, (10, 10.2), True),
                ("no ID token, begun after", 11, None, None, (10, 10.2), False),
            ]
            for name, started, issued, proved, logout, is_ended in by_agreeing:
                yield Case(name, begun, ended, started, issued, proved, logout, is_ended)
            yield Case("no logout token, begun before", begun, ended, 0, 6, 5, (10, 10.2), is_ended=True, op_says=False)
            yield Case("no logout token, begun after", begun, ended, 11, 11, 5, (10, 10.2), is_ended=False, op_says=False)


def the_rule(mark: EndMark, iat: int | None, auth_time: int | None, started_at: int) -> bool:
    return mark.ends(msgspec.structs.replace(ALICE, iat=iat, auth_time=auth_time), started_at)


def by_the_nodes_clocks_alone(mark: EndMark, _: int | None, __: int | None, started_at: int) -> bool:
    return mark.at >= started_at


def by_the_id_token_alone(mark: EndMark, iat: int | None, _: int | None, started_at: int) -> bool:
    return mark.at >= started_at if mark.iat is None or iat is None else iat <= mark.iat


def by_when_the_user_came_alone(mark: EndMark, _: int | None, auth_time: int | None, started_at: int) -> bool:
    return mark.at >= started_at if mark.iat is None or auth_time is None else auth_time <= mark.iat


def with_ties_let_in(mark: EndMark, iat: int | None, auth_time: int | None, started_at: int) -> bool:
    return the_rule(msgspec.structs.replace(mark, iat=mark.iat and mark.iat - 1), iat, auth_time, started_at)


def with_any_tolerance(mark: EndMark, iat: int | None, auth_time: int | None, started_at: int) -> bool:
    return the_rule(mark, iat, auth_time, started_at) or mark.at + TOLERATED_SKEW_MS >= started_at


def as_if_the_clocks_were_one(mark: EndMark, iat: int | None, auth_time: int | None, started_at: int) -> bool:
    return the_rule(mark, iat, auth_time, started_at if iat is None else iat * 1000)


def wrongly_decided(rule: Rule) -> set[str]:
    return {case.name for case in cases() if case.decided_by(rule) is not case.is_ended}


def test_what_came_first_is_told_by_whoever_knows() -> None:
    assert wrongly_decided(the_rule) == set()


@pytest.mark.parametrize(
    ("rule", "found_by"),
    [
        (by_the_nodes_clocks_alone, "the ID token is older"),
        (by_the_nodes_clocks_alone, "the next login, proved anew"),
        (by_the_id_token_alone, "a code from before, redeemed later"),
        (by_when_the_user_came_alone, "the next login, by single sign-on"),
        (with_ties_let_in, "both within one second"),
        (with_any_tolerance, "no ID token, begun after"),
        (as_if_the_clocks_were_one, "no logout token, begun before"),
    ],
)
def test_that_almost_right_rules_are_found_out(rule: Rule, found_by: str) -> None:
    assert found_by in wrongly_decided(rule)


@pytest.mark.anyio
async def test_a_mark_from_a_node_that_is_behind_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(1000 * NOON)
    store = MemoryStore(clock=clock)
    identity = msgspec.structs.replace(ALICE, iat=NOON)
    started_at = clock.now() + TOLERATED_SKEW_MS
    await leave_mark(store, identity.user_key, clock.now(), iat=NOON)
    assert await was_ended_since(store, identity, started_at, clock.now())
    # Where it would be if all clocks were one, it is not.
    monkeypatch.setattr(end_marks, "TOLERATED_SKEW_MS", 0)
    assert not await was_ended_since(store, identity, started_at, clock.now())


@pytest.mark.anyio
async def test_what_the_provider_said_long_ago_leaves_it_to_the_nodes_clocks() -> None:
    clock = FakeClock(1000 * NOON)
    store = MemoryStore(clock=clock)
    await leave_mark(store, ALICE.user_key, clock.now(), iat=NOON - 3600)
    proved = msgspec.structs.replace(ALICE, iat=NOON, auth_time=NOON)
    assert await was_ended_since(store, proved, clock.now(), clock.now())
    assert not await was_ended_since(store, proved, clock.now() + 1, clock.now())
