"""The connection was lost after the database applied a statement and before its response: the stored state decides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.sql import steps
from session_core.stores.sql.database import Earlier
from session_core.stores.sql.link import Link
from session_core.stores.sql.store import SqlStore
from session_core.testing import FakeClock
from tests.session_core.stores.redis.redis_faults import CuttingProxy
from tests.support.mariadb_server import MariadbServer
from tests.support.opened_store import opened_store
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio
FOREVER = 2**52
COMMIT = b"; COMMIT"
"""Without the semicolon it would also match the beginning of a transaction: `READ COMMITTED`."""


def entry(data: bytes = b"data", user: str | None = "user", rank: int = 0) -> Entry:
    return Entry(data, FOREVER, user, "op", rank)


class Place(NamedTuple):
    """A connection that can be cut, one that cannot, and the last message of a single-statement write."""

    proxy: CuttingProxy
    cut_off: SqlStore
    other: SqlStore
    single: bytes
    """Part of a claim, and of a creation or rotation without a limit, that a cut may follow."""


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(url)
    async with opened_store(store):
        yield store


@pytest.fixture
async def place(sql_server: PostgresServer | MariadbServer) -> AsyncIterator[Place]:
    async with (
        CuttingProxy(sql_server.port).running() as proxy,
        opened(sql_server.url) as other,
        opened(sql_server.url_through(proxy.port)) as cut_off,
    ):
        yield Place(proxy, cut_off, other, b"mine" if isinstance(sql_server, PostgresServer) else COMMIT)
        assert not proxy.waiting, "the connection was never cut"


async def test_a_replace_is_applied_once(place: Place) -> None:
    await place.other.create("k", entry())
    place.proxy.cut_after(b"mine")
    assert await place.cut_off.replace("k", entry(b"mine"), version=1) == 2
    stored = await place.other.load("k")
    assert stored is not None
    assert (stored.version, stored.entry.data) == (2, b"mine")


async def test_a_replace_that_was_extended_meanwhile_is_recognized(place: Place) -> None:
    await place.other.create("k", Entry(b"", FOREVER))
    place.proxy.cut_after(b"mine", lambda: place.other.touch("k", FOREVER + 5))
    assert await place.cut_off.replace("k", Entry(b"mine", FOREVER), version=1) == 2


async def test_a_replace_overwritten_by_others_is_not_reported_as_a_conflict(place: Place) -> None:
    """A conflict would be retried, and the change may have been applied."""
    await place.other.create("k", entry())
    place.proxy.cut_after(b"mine", lambda: place.other.replace("k", entry(b"theirs"), version=2))
    with pytest.raises(StoreUnavailableError):
        await place.cut_off.replace("k", entry(b"mine"), version=1)


async def test_a_refused_replace_is_still_a_conflict(place: Place) -> None:
    await place.other.create("k", entry())
    place.proxy.cut_after(b"mine")
    with pytest.raises(SessionConflictError):
        await place.cut_off.replace("k", entry(b"mine"), version=5)
    await place.other.replace("k", entry(b"theirs"), version=1)
    place.proxy.cut_after(b"mine")
    with pytest.raises(SessionConflictError):
        await place.cut_off.replace("k", entry(b"mine"), version=1)


async def test_a_replace_of_an_ended_session_has_no_effect(place: Place) -> None:
    """Also when it was applied before the end: nothing is revived."""
    await place.other.create("k", entry())
    place.proxy.cut_after(b"mine", lambda: place.other.delete("k"))
    with pytest.raises(SessionGoneError):
        await place.cut_off.replace("k", entry(b"mine"), version=1)
    assert await place.other.load("k") is None


@pytest.mark.parametrize("limit", [0, 2])
async def test_a_create_is_applied_once(place: Place, limit: int) -> None:
    """Sessions that it ended for the limit are reported."""
    for rank in range(2):
        await place.other.create(f"old{rank}", entry(rank=rank))
    place.proxy.cut_after(COMMIT if limit else place.single)
    assert await place.cut_off.create("k", entry(b"mine", rank=9), limit=limit) == (("old0",) if limit else ())
    assert await place.other.load("k") is not None
    with pytest.raises(SessionConflictError):
        await place.other.create("k", entry(b"mine"))
    assert len(await place.other.find(SessionIndex(user="user"))) == (2 if limit else 3)


async def test_a_create_under_a_taken_key_is_refused(place: Place) -> None:
    await place.other.create("k", entry(b"theirs"))
    place.proxy.cut_after(b"mine")
    with pytest.raises(SessionConflictError):
        await place.cut_off.create("k", entry(b"mine"))
    stored = await place.other.load("k")
    assert stored is not None
    assert stored.entry.data == b"theirs"


@pytest.mark.parametrize("limit", [0, 1])
async def test_a_rotation_is_applied_once(place: Place, limit: int) -> None:
    await place.other.create("k", entry())
    await place.other.create("other", entry(rank=-1))
    place.proxy.cut_after(COMMIT)
    ended = await place.cut_off.rotate("k", "n", entry(b"mine"), version=1, successor_until=FOREVER, limit=limit)
    assert ended == (("other",) if limit else ())
    assert await place.other.load("k") is None
    assert await place.other.delete("k") == ("n",)


@pytest.mark.parametrize("successor", ["!", "~"])
async def test_a_rotation_by_another_caller_is_not_taken_for_ours(place: Place, successor: str) -> None:
    """The commit was lost without effect, and another caller rotated the session meanwhile."""
    await place.other.create("k", entry())
    await place.other.rotate("k", successor, entry(), version=1, successor_until=FOREVER)

    async def work(link: Link, _: Earlier[bool]) -> bool:
        lost: Earlier[bool] = Earlier(uncertain=True)
        return await steps.move(link, lost, "k", "n", entry(), version=1, successor_until=FOREVER, now=1)

    with pytest.raises(SessionGoneError):
        await place.other._database.transact(work)


async def test_a_rotation_that_was_never_committed_is_repeated(place: Place) -> None:
    """The connection was lost within the transaction, so the database rolled it back."""
    await place.other.create("k", entry())
    place.proxy.cut_after(b"mine")
    assert await place.cut_off.rotate("k", "n", entry(b"mine"), version=1, successor_until=FOREVER, limit=9) == ()
    assert [stored.key for stored in await place.other.find(SessionIndex(user="user"))] == ["n"]


async def test_a_rotation_that_ended_meanwhile_is_gone(place: Place) -> None:
    await place.other.create("k", entry())
    place.proxy.cut_after(COMMIT, lambda: place.other.delete("k"))
    with pytest.raises(SessionGoneError):
        await place.cut_off.rotate("k", "n", entry(b"mine"), version=1, successor_until=FOREVER)
    assert list(await place.other.find(SessionIndex(user="user"))) == []


async def test_a_claim_is_won_by_its_first_writer(place: Place) -> None:
    place.proxy.cut_after(place.single.replace(b"mine", b"claimed"))
    assert await place.cut_off.claim("claimed", FOREVER) is True
    assert await place.cut_off.claim("claimed", FOREVER) is False


async def test_a_claim_held_by_another_process_is_not_won(place: Place) -> None:
    await place.other.claim("claimed", FOREVER)
    place.proxy.cut_after(b"claimed")
    assert await place.cut_off.claim("claimed", FOREVER) is False


@pytest.mark.parametrize("token", [1, 3])
async def test_a_claim_by_another_caller_is_not_taken_for_ours(place: Place, token: int) -> None:
    """The commit was lost without effect, and another caller claimed the name meanwhile."""

    async def work(link: Link, _: Earlier[bool]) -> bool:
        assert await steps.claim(link, Earlier(), "claimed", FOREVER, 2, now=1)
        return await steps.claim(link, Earlier(uncertain=True), "claimed", FOREVER, token, now=1)

    assert await place.other._database.transact(work) is False


async def test_an_end_is_reported_also_after_a_lost_response(place: Place) -> None:
    await place.other.create("k", entry())
    await place.other.rotate("k", "n", entry(), version=1, successor_until=FOREVER)
    place.proxy.cut_after(COMMIT)
    assert await place.cut_off.delete("k") == ("n",)
    await place.other.create("a", entry())
    place.proxy.cut_after(COMMIT)
    assert await place.cut_off.delete_by(SessionIndex(user="user")) == ("a",)
    assert await place.other.load("n") is None
    assert await place.other.load("a") is None


async def test_reads_touches_and_sweeps_can_be_repeated(place: Place) -> None:
    await place.other.create("thekey", entry())
    await place.other.create("over", Entry(b"", 1))
    place.proxy.cut_after(b"thekey")
    assert await place.cut_off.load("thekey") is not None
    place.proxy.cut_after(b"thekey")
    assert await place.cut_off.touch("thekey", FOREVER + 1) is True
    now = 2**40
    place.cut_off._clock = FakeClock(now)
    # The message that runs PostgreSQL's single statement; MariaDB uses a transaction.
    place.proxy.cut_after(COMMIT if place.single == COMMIT else now.to_bytes(8, "big"))
    await place.cut_off.delete_expired()
    assert await place.other.delete_expired() == 0
    assert await place.cut_off.load("thekey") is not None


async def test_without_the_check_an_increment_is_applied_twice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that trusts the refusal of the second attempt must fail these tests."""
    await place.other.create("k", entry(b"0"))
    monkeypatch.setattr(Earlier, "uncertain", property(lambda _: False, lambda _, __: None))

    async def increment(mark: bytes) -> None:
        while True:
            stored = await place.cut_off.load("k")
            assert stored is not None
            number = int(stored.entry.data.partition(b".")[0]) + 1
            try:
                await place.cut_off.replace("k", entry(b"%d.%b" % (number, mark)), version=stored.version)
            except SessionConflictError:
                continue
            return

    place.proxy.cut_after(b"mine")
    await increment(b"mine")
    stored = await place.other.load("k")
    assert stored is not None
    assert stored.entry.data == b"2.mine"


async def test_repeatedly_lost_connections_are_an_outage(place: Place) -> None:
    runs = 0

    async def work(link: Link, earlier: Earlier[None]) -> None:
        nonlocal runs
        del earlier
        runs += 1
        place.proxy.cut_after(b"SELECT")
        await link.script("SELECT 1")

    with pytest.raises(StoreUnavailableError):
        await place.cut_off._database.transact(work)
    assert runs == 3
