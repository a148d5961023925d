"""The lease on a session's refresh token, and how redeemed tokens are stored under it, with a minimal store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from time import monotonic
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError, TokenExchangeError
from session_core.oidc.refresh.redemption import Redemption
from session_core.oidc.tokens import lease as leases
from session_core.oidc.tokens.lease import HeldLease, LeaseWatch, take_lease
from session_core.oidc.tokens.stored import HeldTokens
from session_core.oidc.tokens.vault import Lease, TokenSet
from tests.support.factories import RecordFactory
from tests.support.sessions import ALICE

pytestmark = pytest.mark.anyio


class OneSession:
    """The parts of `SessionTokens` that a lease needs. `after` is called when a change was applied, before the response."""

    def __init__(self, lease: Lease = Lease(), family: str = "") -> None:  # noqa: B008 - frozen
        tokens = TokenSet(access_token="a", refresh_token="r", family=family, lease=lease)
        self.held = HeldTokens("key", 1, 1, RecordFactory.build(), ALICE, tokens)
        self.after: Callable[[], None] = lambda: None
        self.calls = 0
        self.used: list[bool] = []

    def put(self, **changes: Any) -> None:
        self.held = msgspec.structs.replace(self.held, tokens=msgspec.structs.replace(self.held.tokens, **changes))

    async def load(self, key: str) -> HeldTokens | None:
        assert key == "key"
        return self.held

    async def change(self, base: HeldTokens, change: Any, *, used: bool) -> tuple[HeldTokens, bool]:
        del base
        self.calls += 1
        self.used.append(used)
        tokens = change(msgspec.msgpack.decode(msgspec.msgpack.encode(self.held.tokens), type=TokenSet))
        if tokens is None:
            return self.held, False
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(tokens), type=TokenSet)
        self.held = msgspec.structs.replace(self.held, tokens=stored)
        self.after()
        return self.held, True


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(leases, "monotonic", time)
    return time


async def taken(session: OneSession, seconds: float = 8) -> HeldLease:
    held = await take_lease(session, session.held, seconds=seconds, used=False)  # type: ignore[arg-type]
    assert held is not None
    return held


async def test_each_lease_has_its_own_term_and_holder_and_counts_renewals(time: Time) -> None:
    session = OneSession(Lease(term=6))
    held = await taken(session)
    first = session.held.tokens.lease
    assert (first.term, first.beat, first.held, held.term) == (7, 0, True, 7)
    beats = []
    for _ in range(4):
        time.now += 3
        assert await held.confirm()
        beats.append(session.held.tokens.lease.beat)
    assert beats == [1, 2, 3, 4]
    await held.release()
    assert session.held.tokens.lease == Lease(term=7)
    assert (await taken(session)).holder != first.holder


@pytest.mark.parametrize("other", ["!", "~"])
@pytest.mark.parametrize("what", ["family", "holder"])
async def test_a_lease_of_another_holder_is_neither_renewed_nor_released(time: Time, what: str, other: str) -> None:
    """Whichever of the two names sorts first."""
    session = OneSession()
    held = await taken(session)
    if what == "family":
        session.put(family=other)
    else:
        session.put(lease=Lease(term=2, holder=other, beat=1))
    theirs = session.held.tokens
    assert not held.is_in(theirs)
    time.now += 3
    assert not await held.confirm()
    await held.release()
    assert session.held.tokens == theirs


@pytest.mark.parametrize("seconds", [8, 10])
async def test_a_lease_is_confirmed_from_memory_for_a_quarter_of_its_term(time: Time, seconds: int) -> None:
    session = OneSession()
    held = await taken(session, seconds=seconds)
    time.now += seconds / 4 - 0.0625
    assert await held.confirm()
    assert session.calls == 1
    time.now += 0.0625
    assert await held.confirm()
    assert session.calls == 2
    time.now += seconds / 4 - 0.0625
    assert await held.confirm()
    assert session.calls == 2


@pytest.mark.parametrize("holder", [None, "!", "~"])
async def test_after_a_lost_response_the_store_names_the_holder(holder: str | None) -> None:
    session = OneSession()

    def lose_the_answer() -> None:
        if holder is not None:
            session.put(lease=Lease(term=1, holder=holder))
        raise StoreUnavailableError

    session.after = lose_the_answer
    if holder is None:
        assert (await taken(session)).is_in(session.held.tokens)
    else:
        with pytest.raises(StoreUnavailableError):
            await taken(session)


@pytest.mark.parametrize("change", [{"family": "f"}, {"term": 1}, {"refresh_token": "other"}, {"lease": Lease(beat=1)}])
async def test_a_lease_is_taken_only_in_the_examined_state(change: dict[str, Any]) -> None:
    session = OneSession()
    judged = session.held
    session.put(**change)
    assert await take_lease(session, judged, seconds=8, used=False) is None  # type: ignore[arg-type]
    session.put(access_token="another")
    assert await take_lease(session, session.held, seconds=8, used=False) is not None  # type: ignore[arg-type]


def test_a_holder_counts_as_dead_when_its_lease_did_not_change_for_a_full_term(time: Time) -> None:
    watch = LeaseWatch(8)
    assert watch.may_take(Lease(term=3))
    lease = Lease(term=3, holder="h")
    assert not watch.may_take(lease)
    time.now += 7.9
    assert not watch.may_take(lease)
    lease = msgspec.structs.replace(lease, beat=1)
    assert not watch.may_take(lease)
    time.now += 7.9
    assert not watch.may_take(lease)
    time.now += 0.1
    assert watch.may_take(msgspec.structs.replace(lease))
    time.now += 1
    assert watch.may_take(lease)


@pytest.mark.parametrize("used", [True, False])
async def test_only_the_taking_of_a_lease_may_count_as_a_use_of_the_session(time: Time, used: bool) -> None:
    """A renewal must not extend the idle timeout."""
    session = OneSession()
    held = await take_lease(session, session.held, seconds=8, used=used)  # type: ignore[arg-type]
    assert held is not None
    time.now += 3
    assert await held.confirm()
    await held.release()
    assert session.used == [used, False, False]


@pytest.mark.parametrize("error", [SessionGoneError, StoreUnavailableError, SessionConflictError])
async def test_a_lease_that_cannot_be_renewed_is_not_confirmed(time: Time, error: type[Exception]) -> None:
    session = OneSession()
    held = await taken(session)

    def fail() -> None:
        raise error

    session.after = fail
    time.now += 3
    assert not await held.confirm()


@pytest.mark.parametrize("family", ["", "family"])
@pytest.mark.parametrize("term", [6, 7])
async def test_a_taken_lease_has_the_next_term_and_the_family_of_the_tokens(term: int, family: str) -> None:
    session = OneSession(Lease(term=term), family)
    held = await taken(session)
    tokens = session.held.tokens
    assert (tokens.lease.term, tokens.family, tokens.lease.holder) == (term + 1, held.family, held.holder)
    assert held.family == family if family else len(held.family) == 12
    assert len(held.holder) == 12


@pytest.mark.parametrize("error", [StoreUnavailableError, SessionConflictError])
@pytest.mark.usefixtures("virtual_time")
async def test_a_lease_is_renewed_four_times_in_its_time_until_it_is_lost(error: type[Exception]) -> None:
    session = OneSession()
    held = await taken(session, seconds=10)
    tries: list[float] = []
    start = monotonic()

    def fail_once() -> None:
        tries.append(monotonic() - start)
        if len(tries) == 1:
            raise error

    session.after = fail_once
    async with held.renewed():
        await asyncio.sleep(8)
        assert tries == pytest.approx([2.5, 5, 7.5], abs=0.01)
        assert session.held.tokens.lease.beat == 3
        session.put(lease=Lease(term=2, holder="!"))
        await asyncio.sleep(20)
    assert len(tries) == 3
    assert session.calls == 5


FRESH = TokenSet(access_token="b", refresh_token="s")


async def saved(session: OneSession, held: HeldLease, *, release: bool) -> HeldTokens | None:
    new = msgspec.structs.replace(FRESH, family=held.family, term=held.term)
    return await Redemption(session, None)._save(held, new, used=True, release=release)  # type: ignore[arg-type]


async def test_new_tokens_are_stored_twice_and_the_lease_ends_with_the_second() -> None:
    session = OneSession()
    held = await taken(session)
    for release in (False, True):
        stored = await saved(session, held, release=release)
        assert stored is session.held is held.base
        assert stored is not None
        assert (stored.tokens.refresh_token, stored.tokens.lease.held) == ("s", not release)


@pytest.mark.parametrize("change", [{"family": "!"}, {"family": "~"}, {"term": 2}, {"term": 9}])
async def test_tokens_of_a_later_redemption_or_of_another_login_are_not_overwritten(change: dict[str, Any]) -> None:
    session = OneSession()
    held = await taken(session)
    session.put(**change)
    theirs = session.held.tokens
    assert await saved(session, held, release=True) is None
    assert session.held.tokens == theirs


class Moved(OneSession):
    """Its session was regenerated meanwhile."""

    async def load(self, key: str) -> HeldTokens | None:
        assert key == "key"
        return None

    async def find_moved(self, lost: HeldTokens) -> HeldTokens | None:
        assert lost.key == "key"
        return self.held


@pytest.mark.parametrize("other", ["!", "~"])
@pytest.mark.parametrize("kind", [OneSession, Moved])
async def test_a_login_that_the_provider_has_ended_is_found_under_any_id_and_no_other(kind: type[OneSession], other: str) -> None:
    session = kind()
    held = await taken(session)
    redemption = Redemption(session, None)  # type: ignore[arg-type]
    assert await redemption._newest(held) is session.held
    session.put(family=other)
    assert await redemption._newest(held) is None


@pytest.mark.attack("35")
async def test_no_token_is_redeemed_under_a_lost_lease(time: Time) -> None:
    session = OneSession()
    held = await taken(session)
    asked: list[str | None] = []

    async def metadata() -> Any:
        return SimpleNamespace(token_endpoint="https://op.example/token")

    async def refresh(endpoint: str, *, refresh_token: str | None) -> None:
        asked.append(refresh_token)

    connection: Any = SimpleNamespace(
        discovery=SimpleNamespace(metadata=metadata), token_endpoint=SimpleNamespace(refresh=refresh)
    )
    redemption = Redemption(session, None)  # type: ignore[arg-type]
    time.now += 4  # after which the lease is looked up in the store
    await redemption._ask(connection, held, held.base.tokens)
    assert asked == ["r"]
    session.put(lease=Lease(term=2, holder="!"))
    time.now += 4
    await redemption._ask(connection, held, held.base.tokens)
    assert asked == ["r"]


async def test_only_tokens_of_another_term_of_the_lease_are_newer() -> None:
    session = OneSession()
    session.put(term=1000)
    held = await taken(session)
    redemption = Redemption(session, None)  # type: ignore[arg-type]
    old, refused = held.base.tokens, TokenExchangeError("invalid_grant")
    session.put(term=int("1000"))
    assert not await redemption._is_newer(held, old, refused)
    session.put(term=1001)
    assert await redemption._is_newer(held, old, refused)
    assert not await redemption._is_newer(held, old, TokenExchangeError("token_status"))


@pytest.mark.parametrize("other", ["!", "~"])
async def test_the_lease_of_the_next_holder_stays_when_late_tokens_are_stored(other: str) -> None:
    session = OneSession()
    held = await taken(session)
    session.put(lease=Lease(term=2, holder=other, beat=3))
    assert await saved(session, held, release=True) is not None
    assert (session.held.tokens.refresh_token, session.held.tokens.lease) == ("s", Lease(term=2, holder=other, beat=3))


@pytest.mark.parametrize("error", [StoreUnavailableError, SessionConflictError])
@pytest.mark.usefixtures("virtual_time")
async def test_storing_is_retried_for_a_minute_with_growing_pauses(error: type[Exception]) -> None:
    session = OneSession()
    held = await taken(session)
    tries: list[float] = []

    def fail() -> None:
        tries.append(monotonic())
        raise error

    session.after = fail
    with pytest.raises(error):
        await saved(session, held, release=False)
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses[:7] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2], abs=0.001)
    assert pauses[7:] == pytest.approx([2] * len(pauses[7:]), abs=0.001)
    assert 60 <= tries[-1] - tries[0] < 62
    assert tries[-2] - tries[0] < 60
