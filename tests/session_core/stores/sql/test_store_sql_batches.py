"""Many calls as one statement on PostgreSQL: each call has its own result, and a failure affects no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from copy import copy
from typing import Any

import asyncpg
import msgspec
import pytest

from session_core.clock import SystemClock
from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.sessions.timeouts import Timeouts
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.sql import statements, steps
from session_core.stores.sql.postgresql import PostgresqlLink
from session_core.stores.sql.statements import Statement
from session_core.stores.sql.store import SqlStore
from tests.session_core.stores.redis.redis_faults import CuttingProxy
from tests.support.opened_store import opened_store
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio
FOREVER = 2**52
MANY = range(8)
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
async def store(database: str) -> AsyncIterator[SqlStore]:
    async with opened_store(SqlStore(database)) as store:
        yield store


@pytest.fixture
async def client(store: SqlStore, database: str) -> AsyncIterator[Any]:
    """Another client of the database, for operations that no store performs."""
    del store  # it has created the tables
    connection = await asyncpg.connect(database.replace("+asyncpg", ""))
    yield connection
    await connection.close()


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Statement, list[str]]]:
    """The keys of each statement with a `keys` parameter, as they are sent."""
    sent: list[tuple[Statement, list[str]]] = []
    rows = PostgresqlLink.rows

    async def noted(self: PostgresqlLink, statement: Statement, values: Any) -> Sequence[Sequence[Any]]:
        if "keys" in values:
            sent.append((statement, list(values["keys"])))
        return await rows(self, statement, values)

    monkeypatch.setattr(PostgresqlLink, "rows", noted)
    return sent


def entry(data: bytes = b"data", user: str | None = None, op_session: str | None = None) -> Entry:
    return Entry(data, FOREVER, user, op_session)


async def fill(store: SqlStore, *keys: str) -> None:
    await asyncio.gather(*(store.create(key, entry()) for key in keys))


def kinds(results: Sequence[object]) -> list[object]:
    return [type(result) if isinstance(result, BaseException) else result for result in results]


async def test_each_call_of_a_batch_succeeds_conflicts_or_fails_on_its_own(store: SqlStore, client: Any) -> None:
    """The database refuses the whole statement for one session that is too large for it."""
    await fill(store, *"abcd")
    await client.execute("ALTER TABLE sessions ADD CONSTRAINT small CHECK (octet_length(data) < 1000)")
    results = await asyncio.gather(
        store.replace("a", entry(b"new"), version=1),
        store.replace("b", entry(b"new"), version=7),
        store.replace("gone", entry(b"new"), version=1),
        store.replace("c", entry(b"x" * 5000), version=1),
        store.replace("d", entry(b"new"), version=1),
        return_exceptions=True,
    )
    assert kinds(results) == [2, SessionConflictError, SessionGoneError, StoreUnavailableError, 2]
    found = [await store.load(key) for key in "abcd"]
    assert [each and each.entry.data for each in found] == [b"new", b"data", b"data", b"new"]


async def test_large_data_is_sent_alone(store: SqlStore, batches: list[tuple[Statement, list[str]]]) -> None:
    keys = [str(number) for number in MANY]
    await fill(store, *keys, "large")
    batches.clear()
    replaces = [store.replace(key, entry(b"new"), version=1) for key in keys[:4]]
    replaces.append(store.replace("large", entry(b"x" * 2**20), version=1))
    replaces += [store.replace(key, entry(b"new"), version=1) for key in keys[4:]]
    assert await asyncio.gather(*replaces) == [2] * 9
    sent = [keys for statement, keys in batches if statement is statements.REPLACE_MANY]
    assert ["large"] in sent
    assert sorted(key for batch in sent for key in batch) == sorted([*keys, "large"])


async def test_the_rotations_of_one_turn_are_one_statement(store: SqlStore, batches: list[tuple[Statement, list[str]]]) -> None:
    keys = [str(number) for number in MANY]
    await fill(store, *keys)
    batches.clear()
    rotations = (
        store.rotate(key, f"{key} new", entry(b"new", "user", f"op{key}"), version=1, successor_until=FOREVER) for key in keys
    )
    assert await asyncio.gather(*rotations) == [()] * len(keys)
    assert batches == [(statements.MOVE_MANY, keys)]
    found = await store.find(SessionIndex(user="user"))
    assert sorted((each.key, each.version, each.entry.data) for each in found) == [(f"{key} new", 1, b"new") for key in keys]
    assert [await store.load(key) for key in keys] == [None] * len(keys)
    assert await store.delete("3") == ("3 new",)


async def test_a_batch_of_rotations_counts_the_sessions_of_each_user_once(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Any] = []
    rows = PostgresqlLink.rows

    async def explained(self: PostgresqlLink, statement: Statement, values: Any) -> Sequence[Sequence[Any]]:
        if statement is statements.MOVE_MANY:
            text, names = statement.postgresql
            explaining = copy(statement)
            explaining.postgresql = (f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", names)
            await self.script("SAVEPOINT before")
            plans.extend(msgspec.json.decode((await rows(self, explaining, values))[0][0]))
            await self.script("ROLLBACK TO SAVEPOINT before")
        return await rows(self, statement, values)

    keys = [str(number) for number in range(32)]
    await fill(store, *keys)
    monkeypatch.setattr(PostgresqlLink, "rows", explained)
    rotations = (
        store.rotate(key, f"{key} new", entry(b"new", f"user{key}"), version=1, successor_until=FOREVER, limit=5) for key in keys
    )
    assert await asyncio.gather(*rotations) == [()] * len(keys)
    (plan,) = plans
    assert counts_in(plan["Plan"]) == [len(keys)]


def counts_in(node: dict[str, Any]) -> list[int]:
    """How often each part of a plan that looks for a user's other sessions was run."""
    own = [node["Actual Loops"]] if node.get("Alias", "").startswith("other") and "Relation Name" in node else []
    return own + [count for child in node.get("Plans", ()) for count in counts_in(child)]


async def test_the_marks_of_a_users_revoked_sessions_are_one_statement(
    store: SqlStore, batches: list[tuple[Statement, list[str]]]
) -> None:
    keys = [f"{number:043d}abc" for number in range(100)]
    await RevocationMarks(store, Timeouts(), SystemClock()).leave(keys)
    assert batches == [(statements.CLAIM_MANY, [f"revoked-{key}" for key in keys])]


async def test_each_rotation_of_a_batch_has_its_own_result(store: SqlStore) -> None:
    """A conflict, a missing session, a new key that is taken, one that was already rotated."""
    await fill(store, *"abcde", "taken")
    await store.rotate("e", "e new", entry(), version=1, successor_until=FOREVER)

    def move(old: str, new: str, version: int = 1) -> Any:
        return store.rotate(old, new, entry(b"new", "user"), version=version, successor_until=FOREVER)

    moves = [move("a", "a new"), move("b", "b new", 7), move("gone", "x"), move("c", "taken"), move("e", "y"), move("d", "d new")]
    results = await asyncio.gather(*moves, return_exceptions=True)
    assert kinds(results) == [(), SessionConflictError, SessionGoneError, SessionConflictError, SessionGoneError, ()]
    live = [key for key in ("a", "a new", "b", "c", "taken", "d", "d new", "x", "y") if await store.load(key) is not None]
    assert live == ["a new", "b", "c", "taken", "d new"]


@pytest.mark.parametrize("held", ["user", "row"])
async def test_a_blocked_rotation_does_not_delay_others(held: str, store: SqlStore, client: Any) -> None:
    """Another client ends the sessions of one user, or locks one of the rows."""
    await fill(store, "a", "b")
    async with client.transaction():
        if held == "user":
            await client.execute("SELECT pg_advisory_xact_lock($1)", int(steps.lock_number("busy")))
        else:
            await client.execute("SELECT 1 FROM sessions WHERE key = 'a' FOR UPDATE")
        waiting = asyncio.ensure_future(
            store.rotate("a", "a new", entry(b"new", "busy", "op"), version=1, successor_until=FOREVER)
        )
        other = store.rotate("b", "b new", entry(b"new", "other", "op"), version=1, successor_until=FOREVER)
        async with asyncio.timeout(30):
            assert await other == ()
        assert not waiting.done()
    assert await waiting == ()
    assert await store.load("a new") is not None


@pytest.mark.parametrize("limit", [3, 4])
async def test_logins_of_one_user_in_one_batch_keep_the_limit(limit: int, store: SqlStore) -> None:
    """Logins above the limit end the oldest sessions and report them; another user's session is unchanged."""
    keys = [str(number) for number in MANY]
    await fill(store, *keys, "guest")
    logins = [
        store.rotate(key, f"{key} new", Entry(b"new", FOREVER, "user", None, 1), version=1, successor_until=FOREVER, limit=limit)
        for key in keys
    ]
    logins.append(store.rotate("guest", "b", entry(b"new", "other"), version=1, successor_until=FOREVER, limit=limit))
    evicted = await asyncio.gather(*logins)
    assert evicted[-1] == ()
    assert len(await store.find(SessionIndex(user="user"))) == limit
    assert len({key for keys in evicted for key in keys}) == len(keys) - limit
    assert len(await store.find(SessionIndex(user="other"))) == 1


async def test_a_surplus_that_has_ended_meanwhile_ends_no_other_session(store: SqlStore) -> None:
    await store.create("a", entry(b"", "alice"))
    assert await store._end_in_steps(steps.end_surplus, "alice", keep="b", limit=5) == ()
    assert await store.load("a") is not None


async def test_revoking_a_users_sessions_finds_a_concurrent_login(store: SqlStore, client: Any) -> None:
    """The revocation waits for logins in progress and sees their result."""
    await fill(store, "guest")
    async with client.transaction():
        await client.execute("SELECT pg_advisory_xact_lock($1)", int(steps.lock_number("alice")))
        ending = asyncio.ensure_future(store.delete_by(SessionIndex(user="alice")))
        login = asyncio.ensure_future(
            store.rotate("guest", "session", entry(b"new", "alice"), version=1, successor_until=FOREVER)
        )
        async with asyncio.timeout(60):
            while await client.fetchval(WAITING) < 2:  # noqa: ASYNC110 - waits for a state of the server, which sends no message
                await asyncio.sleep(0.01)
    await login
    ended = await ending
    # In either order: the session is ended, or it started after the call, which the library's marks detect.
    assert (await store.load("session") is None) == (ended == ("session",))


async def test_a_batch_with_a_lost_response_is_applied_once(store: SqlStore, postgres: PostgresServer) -> None:
    """As when the sending process is replaced at that moment: the database has applied all of it or nothing."""
    keys = [str(number) for number in MANY]
    await fill(store, *keys, *(f"{key} old" for key in keys))
    async with CuttingProxy(postgres.port).running() as proxy:
        cut_off = SqlStore(postgres.url_through(proxy.port))
        await cut_off.open()
        await cut_off.load("0")
        proxy.cut_after(b"mine")
        writes = (cut_off.replace(key, entry(b"mine"), version=1) for key in keys)
        assert await asyncio.gather(*writes) == [2] * len(keys)
        proxy.cut_after(b"mine")
        moves = (
            cut_off.rotate(f"{key} old", f"{key} new", entry(b"mine", "user"), version=1, successor_until=FOREVER) for key in keys
        )
        assert await asyncio.gather(*moves) == [()] * len(keys)
        assert not proxy.waiting
        await cut_off.close()
    found = [await store.load(key) for key in keys]
    assert [each and (each.version, each.entry.data) for each in found] == [(2, b"mine")] * len(keys)
    assert sorted(each.key for each in await store.find(SessionIndex(user="user"))) == sorted(f"{key} new" for key in keys)


async def test_the_claims_of_one_turn_are_one_statement_and_each_has_one_winner(
    store: SqlStore, database: str, batches: list[tuple[Statement, list[str]]]
) -> None:
    names = [f"name{number}" for number in MANY]
    await store.claim("name3", FOREVER)
    await store.claim("name4", 1)  # expired
    batches.clear()
    assert await asyncio.gather(*(store.claim(name, FOREVER) for name in names)) == [number != 3 for number in MANY]
    assert batches == [(statements.CLAIM_MANY, names)]
    other = SqlStore(database)
    await other.open()
    names = [f"contested{number}" for number in range(40)]
    mine = [store.claim(name, FOREVER) for name in names]
    theirs = [other.claim(name, FOREVER) for name in reversed(names)]
    won = await asyncio.gather(*mine, *theirs)
    assert [one + two for one, two in zip(won[:40], reversed(won[40:]), strict=True)] == [1] * 40
    await other.close()


async def test_batches_of_two_concurrent_clients_lose_nothing(store: SqlStore, database: str) -> None:
    """Each writes the other's rows in another order, together with its own."""
    keys, times = [f"counter{number}" for number in range(6)], 15
    await asyncio.gather(*(store.create(key, entry(b"0")) for key in keys))
    other = SqlStore(database)
    await other.open()

    async def increment(by: SqlStore, key: str) -> None:
        for _ in range(times):
            while True:
                stored = await by.load(key)
                assert stored is not None
                try:
                    await by.replace(key, entry(b"%d" % (int(stored.entry.data) + 1)), version=stored.version)
                except SessionConflictError:
                    continue
                break

    mine = [increment(store, key) for key in keys * 2]
    theirs = [increment(other, key) for key in reversed(keys * 2)]
    await asyncio.gather(*mine, *theirs)
    await other.close()
    found = [await store.load(key) for key in keys]
    assert [each and (int(each.entry.data), each.version - 1) for each in found] == [(4 * times, 4 * times)] * len(keys)
