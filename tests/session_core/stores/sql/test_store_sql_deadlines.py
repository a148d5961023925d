"""A step answered with 503 is never applied later, at whichever message the server froze."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager

import pytest

from session_core.errors import StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.guarded import GuardedStore
from session_core.stores.sql.link import Late
from session_core.stores.sql.store import SqlStore
from tests.session_core.stores.sql.sql_faults import HoldingProxy, Server, frozen, until_alone
from tests.support.mariadb_server import mariadb_server
from tests.support.opened_store import opened_store
from tests.support.postgres_server import postgres_server
from tests.support.stopwatch import stopwatch

pytestmark = pytest.mark.anyio
FOREVER = 2**52
PATIENCE = 0.8
Steps = Mapping[str, Callable[[GuardedStore], Awaitable[object]]]

STEPS: Steps = {
    "replace": lambda store: store.replace("replaced", entry("replaced", b"late"), version=1),
    "touch": lambda store: store.touch("touched", FOREVER + 9),
    "regenerate": lambda store: store.rotate("old", "new", entry("old", b"late"), version=1, successor_until=FOREVER),
    "login": lambda store: store.rotate("guest", "user", entry("user", b"late"), version=1, successor_until=FOREVER, limit=1),
    "create": lambda store: store.create("created", entry("created", b"late")),
    "create_within_limit": lambda store: store.create("second", entry("limited", b"late", rank=2), limit=1),
    "delete": lambda store: store.delete("deleted"),
    "delete_by": lambda store: store.delete_by(SessionIndex(op_session="op revoked")),
    "claim": lambda store: store.claim("claimed", FOREVER),
}
BEFORE = {"replaced": 1, "touched": 1, "old": 1, "guest": 1, "of the user": 1, "first": 1, "deleted": 1, "revoked": 1}
"""The initial sessions and their versions."""


def entry(owner: str, data: bytes = b"kept", rank: int = 1) -> Entry:
    return Entry(data, FOREVER, owner, f"op {owner}", rank)


@pytest.fixture(params=["postgres", "mariadb"], scope="module")
def own_server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """A server that these tests may freeze."""
    with postgres_server() if request.param == "postgres" else mariadb_server() as server:
        yield server


@asynccontextmanager
async def opened(url: str, timeout: float = PATIENCE) -> AsyncIterator[GuardedStore]:  # noqa: ASYNC109 - the store's
    async def ignore(reason: str) -> None:
        del reason

    inner = SqlStore(url)
    await inner.open()
    # Its connections are opened before any measurement.
    await asyncio.gather(*(inner.load("") for _ in range(3)), *(inner.find(SessionIndex(user="")) for _ in range(9)))
    store = GuardedStore(inner, timeout=timeout, on_outage=ignore)
    store._opened = True
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def directly(server: Server) -> AsyncIterator[SqlStore]:
    store = SqlStore(server.url)
    async with opened_store(store):
        yield store


async def begin(store: SqlStore) -> None:
    for script in ("DELETE FROM sessions", "DELETE FROM session_claims"):
        async with store._database.pool.lend(time.monotonic() + 20) as link:
            await link.script(script)
    for key in BEFORE:
        owner = {"of the user": "user", "first": "limited"}.get(key, key)
        await store.create(key, entry(owner))


async def effects(store: SqlStore) -> set[str]:
    """The steps that had an effect."""
    now = {stored.key: (stored.version, stored.entry) async for stored in store.scan()}
    changed = {
        "replace": now["replaced"] != (1, entry("replaced")),
        "touch": now["touched"] != (1, entry("touched")),
        "regenerate": "old" not in now or "new" in now or bool(await store.trace(["new"])),
        "login": "guest" not in now or "user" in now or "of the user" not in now,
        "create": "created" in now,
        "create_within_limit": "first" not in now or "second" in now,
        "delete": "deleted" not in now,
        "delete_by": "revoked" not in now,
        "claim": await store.claimed_until("claimed") is not None,
    }
    return {name for name, has_changed in changed.items() if has_changed}


async def test_a_freeze_at_any_message_applies_nothing_late(own_server: Server) -> None:
    """Each step is held at its n-th message; the server is frozen, receives the messages, and resumes."""
    message = 0
    answered: set[str] = set()
    while answered != set(STEPS):
        async with directly(own_server) as other:
            await begin(other)
        async with HoldingProxy(own_server.port).running() as proxy, opened(own_server.url_through(proxy.port)) as store:
            proxy.hold_at(message)
            calls = {name: asyncio.ensure_future(step(store)) for name, step in STEPS.items()}
            await until(lambda calls=calls: proxy.held + sum(call.done() for call in calls.values()) >= len(STEPS))
            async with frozen(own_server):
                proxy.let_go()
                async with stopwatch() as watch:
                    results = dict(zip(calls, await asyncio.gather(*calls.values(), return_exceptions=True), strict=True))
                    assert watch.seconds < PATIENCE + 2
            refused = {name for name, result in results.items() if isinstance(result, StoreUnavailableError)}
            answered = {name for name, result in results.items() if not isinstance(result, BaseException)}
            assert refused | answered == set(STEPS), results
        await until_alone(own_server)
        async with directly(own_server) as other:
            assert await effects(other) == answered, f"at message {message}"
        message += 1
    assert message > 3


async def test_a_commit_after_the_deadline_is_refused_by_the_server(own_server: Server) -> None:
    """Also when none of the server's own timeouts has expired."""
    async with directly(own_server) as store:
        await begin(store)
        async with store._database.pool.lend(time.monotonic() + 20) as link:
            await link.begin()
            await link.script("DELETE FROM sessions")
            link.deadline = time.monotonic() - 0.001
            with pytest.raises(Late):
                await link.commit()
            await link.rollback()
        assert len([stored async for stored in store.scan()]) == len(BEFORE)


async def test_a_vanished_peer_costs_one_timeout(own_server: Server) -> None:
    """No connection is closed; the open ones are abandoned when the first has been silent for the timeout."""
    patience = 4.0  # new connections are made in half of it, however busy the machine is
    async with directly(own_server) as other, HoldingProxy(own_server.port).running() as proxy:
        await begin(other)
        async with opened(own_server.url_through(proxy.port), patience) as store:
            proxy.fall_silent()
            silent_at = time.monotonic()
            calls: list[asyncio.Task[float | None]] = []
            while time.monotonic() < silent_at + 3 * patience:
                claim = store.claim(f"{len(calls)}", FOREVER)
                calls += [asyncio.create_task(failed_at(call)) for call in (store.load("first"), claim)]
                await asyncio.sleep(patience / 5)
            failures = [failure for failure in await asyncio.gather(*calls) if failure is not None]
            assert patience * 0.9 < max(failures) - silent_at < patience * 1.5


async def test_a_vanished_peer_costs_one_request_when_there_are_few(own_server: Server) -> None:
    """Later requests do not try the other old connections one by one."""
    async with directly(own_server) as other, HoldingProxy(own_server.port).running() as proxy:
        await begin(other)
        async with opened(own_server.url_through(proxy.port), 4.0) as store:
            proxy.fall_silent()  # the timeout leaves time to use a connection, however busy the machine is
            with pytest.raises(StoreUnavailableError):
                await store.claim("first", FOREVER)
            store._timeout = 60  # from now on nothing may fail: what is slow here is the machine
            async with asyncio.timeout(30):
                while store.inner._database._under_way:  # type: ignore[attr-defined]  # noqa: ASYNC110 - the call may end after its answer
                    await asyncio.sleep(0.01)
                assert await store.claim("second", FOREVER)
                assert await store.load("first") is not None


async def failed_at(call: Coroutine[object, object, object]) -> float | None:
    """The time at which a call failed; None when it succeeded."""
    try:
        await call
    except StoreUnavailableError:
        return time.monotonic()
    return None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - waits for other tasks
            await asyncio.sleep(0.001)
