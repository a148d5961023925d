"""Regressions of earlier versions and known defects of other libraries: stale copies, batches, late cookies, unusual data."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest
from litestar import Litestar, get, post

from session_core import (
    ConfigurationError,
    Session,
    SessionConfig,
    SessionConflictError,
    SessionGoneError,
    SessionPlugin,
    StoreUnavailableError,
    Timeouts,
)
from session_core.sessions import lifecycle as lifecycle_module
from session_core.sessions.record import decode_record, encode_record
from session_core.stores import MemoryStore
from session_core.stores.opening import redacted
from session_core.testing import FakeClock
from tests.support.sessions import ALICE, AnyHandle, AppSession, client_of, cookie_of, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio


async def pair(app: Litestar) -> tuple[AnyHandle, AnyHandle]:
    """Two requests that have loaded the same session."""
    first = handle_on(plugin_in(app))
    await first.update(note="begun")
    second = await handle_on(plugin_in(app), first.session_id).load()
    return first, second


async def test_an_update_without_a_change_is_decided_on_the_newest_copy() -> None:
    stale, other = await pair(make_app())
    await other.update(theme="dark")
    await stale.update(theme="light")
    assert (await other.reload()).theme == "light"


async def test_an_update_that_refuses_is_decided_on_the_newest_copy() -> None:
    stale, other = await pair(make_app())
    await other.update(visits=10)

    def spend(data: AppSession) -> None:
        if data.visits < 10:
            msg = "not enough"
            raise LookupError(msg)
        data.visits -= 10

    assert (await stale.update(spend)).visits == 0


async def test_an_update_without_effect_on_an_ended_session_is_refused() -> None:
    stale, other = await pair(make_app())
    await other.destroy()
    with pytest.raises(SessionGoneError):
        await stale.update(lambda _: None)


async def test_an_update_function_runs_in_the_context_of_its_own_request() -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    app = make_app()
    owner = handle_on(plugin_in(app))
    await owner.update(note="begun")
    seen: list[tuple[str, str]] = []

    async def request(name: str) -> None:
        tenant.set(name)
        own = await handle_on(plugin_in(app), owner.session_id).load()

        def change(data: AppSession) -> None:
            seen.append((name, tenant.get()))
            data.visits += 1

        await own.update(change)

    await asyncio.gather(*(asyncio.create_task(request(f"tenant-{number}")) for number in range(5)))
    assert len(seen) >= 5
    assert all(name == current for name, current in seen)


@pytest.mark.parametrize("error", [StopIteration, asyncio.CancelledError, KeyError])
async def test_a_failing_update_fails_alone_with_any_exception(error: type[BaseException]) -> None:
    first, second = await pair(make_app())

    def fail(data: AppSession) -> None:
        raise error

    def bump(data: AppSession) -> None:
        data.visits += 1

    failed, kept = await asyncio.gather(first.update(fail), second.update(bump), return_exceptions=True)
    assert isinstance(failed, Exception)
    assert isinstance(kept, AppSession)
    assert (await second.reload()).visits == 1


async def test_concurrent_first_writes_of_a_visitor_create_one_session() -> None:
    @post("/burst")
    async def burst(session: Session[AppSession]) -> list[int]:
        def bump(data: AppSession) -> None:
            data.visits += 1

        return sorted(data.visits for data in await asyncio.gather(*(session.update(bump) for _ in range(5))))

    app = make_app(burst)
    async with client_of(app) as client:
        assert (await client.post("/burst")).json() == [1, 2, 3, 4, 5]
        assert (await client.get("/read")).json()["data"]["visits"] == 5
    assert (await plugin_in(app).sessions.stats()).total == 1


@pytest.mark.usefixtures("virtual_time")
async def test_a_waiting_update_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(store_timeout=0.05)
    handle, _ = await pair(app)

    async def always_in_conflict(*_: Any, **__: Any) -> int:
        raise SessionConflictError

    monkeypatch.setattr(plugin_in(app).store.inner, "replace", always_in_conflict)
    with pytest.raises(StoreUnavailableError):
        await handle.update(visits=5)


async def test_logout_and_login_end_a_session_unreadable_to_this_version() -> None:
    class Newer(msgspec.Struct):
        theme: int = 0

    store = MemoryStore()
    newer = SessionPlugin(SessionConfig(Newer, store=store))
    for verb in ("destroy", "login"):
        theirs = handle_on(newer)
        await theirs.update(theme=7)
        ours = await handle_on(plugin_in(make_app(store=store)), theirs.session_id).load()
        assert ours.exists is False
        await (ours.destroy() if verb == "destroy" else ours.login(ALICE))
        assert (await handle_on(newer, theirs.session_id).load()).exists is False


async def test_a_rotation_with_a_lost_response_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    handle, _ = await pair(app)
    store = plugin_in(app).store.inner
    rotate = store.rotate

    async def answer_lost(*args: Any, **kwargs: Any) -> tuple[str, ...]:
        await rotate(*args, **kwargs)
        raise ConnectionResetError

    monkeypatch.setattr(store, "rotate", answer_lost)
    await handle.regenerate()
    assert (await handle_on(plugin_in(app), handle.session_id).load()).exists is True


async def test_an_ended_op_session_is_remembered_without_gaps(clock: FakeClock) -> None:
    app = make_app(clock=clock)
    sessions = plugin_in(app).sessions
    assert ALICE.sid is not None
    for _ in range(12):
        await sessions.end_op_session(ALICE.issuer, ALICE.sid)
        clock.advance(seconds=61)
    begun = await sessions.moment()
    clock.advance(seconds=30)
    await sessions.end_op_session(ALICE.issuer, ALICE.sid)
    with pytest.raises(SessionGoneError):
        await handle_on(plugin_in(app)).login(ALICE, begun=begun)
    await handle_on(plugin_in(app)).login(ALICE, begun=await sessions.moment())


async def test_a_closed_store_stays_closed_and_can_be_reopened() -> None:
    plugin = plugin_in(make_app())
    await plugin.store.open()
    await plugin.store.close()
    with pytest.raises(StoreUnavailableError):
        await plugin.store.ping()
    await plugin.store.open()
    await plugin.store.ping()


def test_one_application_works_in_two_event_loops_in_turn() -> None:
    app = make_app()

    async def once() -> int:
        handle = handle_on(plugin_in(app))
        await handle.update(note="begun")
        twins = [await handle_on(plugin_in(app), handle.session_id).load() for _ in range(5)]

        def bump(data: AppSession) -> None:
            data.visits += 1

        await asyncio.gather(*(twin.update(bump) for twin in twins))
        return (await handle.reload()).visits  # type: ignore[no-any-return]

    assert [asyncio.run(once()), asyncio.run(once())] == [5, 5]


@pytest.mark.parametrize("secrets", [b"x" * 40, "x" * 40, [65], [b""], [bytearray(b"x" * 40)]])
def test_invalid_secrets_are_refused(secrets: Any) -> None:
    with pytest.raises(ConfigurationError):
        SessionConfig(AppSession, secrets=secrets)


@pytest.mark.parametrize(
    "url", ["redis://user:pa/ss-canary@host/0", "postgresql://user:canary@host/db", "mysql://u@host/db?password=canary"]
)
def test_a_password_in_a_store_url_is_never_shown(url: str) -> None:
    assert "canary" not in redacted(url)
    assert "host/" in redacted(url)


async def test_a_login_ended_by_the_provider_leaves_the_existing_session_unchanged(clock: FakeClock) -> None:
    app = make_app(clock=clock)
    visitor = handle_on(plugin_in(app))
    await visitor.update(cart=["book"])
    begun = await plugin_in(app).sessions.moment()
    clock.advance(seconds=1)
    await plugin_in(app).sessions.end_user(ALICE)
    with pytest.raises(SessionGoneError):
        await visitor.login(ALICE, begun=begun)
    again = await handle_on(plugin_in(app), visitor.session_id).load()
    assert (again.identity, again.data.cart) == (None, ["book"])


async def test_a_login_cancelled_before_its_last_check_leaves_no_session(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(clock=clock)
    sessions, lifecycle = plugin_in(app).sessions, plugin_in(app).lifecycle
    begun = await sessions.moment()
    looks, looking = 0, asyncio.Event()

    async def slow_the_second_time(*_: Any) -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            looking.set()
            await asyncio.Event().wait()
        return False

    monkeypatch.setattr(lifecycle_module, "was_ended_since", slow_the_second_time)
    login = asyncio.create_task(handle_on(plugin_in(app)).login(ALICE, begun=begun))
    await looking.wait()
    assert len(await sessions.list_for(ALICE)) == 1
    login.cancel()
    with pytest.raises(asyncio.CancelledError):
        await login
    assert await sessions.list_for(ALICE) == []
    assert [stored async for stored in lifecycle.store.scan()] == []


SCHEMES = [
    "redis", "rediss", "redis+sentinel", "redis+cluster", "postgresql+asyncpg", "postgresql", "mysql+asyncmy", "sqlite", "http",
    "https", "cloudflare-kv", "keyvalue+disk", "keyvalue+memory", "memory", "file", "unknown", "postgres", "mariadb",
]  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "form",
    [
        "://user:canary@host:notaport/0", "://user:canary@host:99999999/0", "://user:ca?canary@host/db", "://user:#canary@host/db",
        "://user:canary/x@host/db", "://user:canary@[::1/0", "://:canary@", ":/user:canary@host",
        "://user:canary@host/notanumber",
        "//user:canary@host", "://user:%zzcanary@host/0", "://user:canary@ho st/0", ":u:canary@host",
        "://u:canary@host,other:bad/0",
        "://user:canary", "://user:x:canary", "://host:5432/db?password=canary", "://host:5432/db?user=u&password=x@canary",
        "://user:p@canary@host:bad/0", "://us/er:canary@host:bad/0", "://user:[canary@host/0", "://canary", "://u:canary@h/0?x=canary",
        "://canary?x@host/db", "://canary/x@host/0", "://canary#x@host/db", "://x?canary@host/db", "://user:12?canary@host/db",
        "://user:12?canary=x@host/db", "://user:12#canary@host/db", "://user:12/canary@host/db", "://12?canary&x@host/0",
    ],
)  # fmt: skip
def test_a_malformed_store_url_is_refused_without_its_password(scheme: str, form: str) -> None:
    url = scheme + form
    try:
        SessionPlugin(SessionConfig(AppSession, store=url, accept_weak_store=True))
    except ConfigurationError as refused:
        error: BaseException | None = refused
        while error is not None and form != "://canary":  # there it is the host
            assert "canary" not in str(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if form != "://canary":
        assert "canary" not in redacted(url)


def test_an_invalid_url_is_not_shown() -> None:
    for nonsense in ("canary", "canary:x", "canary@host"):
        assert redacted(nonsense) == "..."
    with pytest.raises(ConfigurationError) as refused:
        SessionPlugin(SessionConfig(AppSession, store="redis:/canary@host"))
    assert "canary" not in str(refused.value)
    assert "redis" in str(refused.value)


@pytest.mark.parametrize(
    ("package", "needed_by", "extra"),
    [
        ("redis", "redis://host", "redis"), ("hiredis", "redis://host", "redis"),
        ("sqlalchemy", "postgresql://u@host/db", "postgresql"), ("asyncpg", "postgresql://u@host/db", "postgresql"),
        ("asyncmy", "mysql+asyncmy://u@host/db", "mysql"), ("httpx2", "https://host/base", "http"),
        ("key_value", "keyvalue+memory://", "keyvalue"), ("authlib", "session_core.oidc", "oidc"),
        ("joserfc", "session_core.oidc", "oidc"), ("httpx2", "session_core.oidc", "oidc"),
    ],
)  # fmt: skip
def test_a_missing_extra_is_named(package: str, needed_by: str, extra: str) -> None:
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Missing())
from session_core import open_store
try:
    __import__({needed_by!r}) if "://" not in {needed_by!r} else open_store({needed_by!r})
except Exception as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert package in ran.stdout
    assert f"session-core[{extra}] installs" in ran.stdout


def test_an_excessive_lifetime_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ten years"):
        Timeouts(idle=10**18, absolute=10**18)


async def test_registering_a_route_later_adds_no_second_middleware() -> None:
    @get(["/one", "/two"])
    async def twice(session: Session[AppSession]) -> None: ...

    app = make_app(twice)

    @get("/three")
    async def third(session: Session[AppSession]) -> None: ...

    app.register(third)
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            middleware = list(handler.middleware or ())
            assert len(middleware) == len({id(each) for each in middleware})
    async with client_of(app) as client:
        await client.post("/visit")
        assert cookie_of(client)
        assert (await client.get("/three")).status_code == 200


@pytest.mark.usefixtures("virtual_time")
async def test_maintenance_may_take_longer_than_a_request() -> None:
    class Slow(MemoryStore):
        async def delete_expired(self, limit: int = 1000) -> int:
            await asyncio.sleep(0.2)
            return await super().delete_expired(limit)

    plugin = plugin_in(make_app(store=Slow(), store_timeout=0.02))
    assert await plugin.sessions.prune() == 0


async def made_unreadable(*, whole: bool = False) -> Any:
    """A session of which another version has since written the data, or the whole record, in its own way."""
    store = MemoryStore()
    ours = handle_on(plugin_in(make_app(store=store)))
    await ours.update(note="begun")
    stored = await store.load(ours.key)
    assert stored is not None
    record = decode_record(stored.entry.data)
    data = msgspec.Raw(msgspec.msgpack.encode({"visits": "many"}))
    encoded = b"?" if whole else encode_record(msgspec.structs.replace(record, data=data))
    entry = msgspec.structs.replace(stored.entry, data=encoded)
    await store.replace(ours.key, entry, version=stored.version)
    return ours


def _assign(ours: Any) -> Awaitable[None]:
    ours.data.note = "later"
    return ours.save()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "verb",
    [
        _assign,
        lambda ours: ours.update(note="later"),
        lambda ours: ours.update(),
        lambda ours: ours.store_vault(b"sealed"),
        lambda ours: ours.regenerate(),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
async def test_a_record_made_unreadable_by_another_version_is_gone(
    verb: Callable[[Any], Awaitable[None]], *, whole: bool
) -> None:
    ours = await made_unreadable(whole=whole)
    with pytest.raises(SessionGoneError):
        await verb(ours)
    assert (await ours._lifecycle.store.load(ours.key)).version == 2


@pytest.mark.parametrize("first", [None, lambda data: setattr(data, "visits", data.visits + 1)])
@pytest.mark.parametrize("whole", [False, True])
async def test_a_login_after_another_version_made_the_record_unreadable_begins_fresh(first: Any, *, whole: bool) -> None:
    ours = await made_unreadable(whole=whole)
    key = ours.key
    await ours.login(ALICE, first=first)
    assert await ours._lifecycle.store.load(key) is None
    assert (ours.data.note, ours.data.visits) == ("", 0 if first is None else 1)
    assert ours.identity == ALICE


async def test_a_record_made_unreadable_by_another_version_is_not_confirmed() -> None:
    ours = await made_unreadable(whole=True)
    with pytest.raises(SessionGoneError):
        await ours.confirm()


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("revoked", [False, True])
async def test_only_a_login_begun_before_a_revocation_is_refused(*, earlier: bool, revoked: bool) -> None:
    plugin = plugin_in(make_app())
    visitor = handle_on(plugin)
    await visitor.update(note="begun")
    begun = await plugin.sessions.moment() if earlier else None
    if revoked:
        await plugin.lifecycle.marks.leave([visitor.key])
    await plugin.store.delete(visitor.key)
    if earlier and revoked:
        with pytest.raises(SessionGoneError) as refused:
            await visitor.login(ALICE, begun=begun)
        assert refused.value.revoked
    else:
        await visitor.login(ALICE, begun=begun)
        assert (visitor.identity, visitor.data.note) == (ALICE, "")


async def test_the_event_of_a_conflict_names_the_fields() -> None:
    reasons: list[str | None] = []
    first, second = await pair(make_app(on_event=[lambda event: reasons.append(event.reason)]))
    await first.update(note="first", theme="dark")
    reasons.clear()
    second.data.note = "second"
    with pytest.raises(SessionConflictError):
        await second.save()
    assert reasons == ["note"]


async def test_a_revoked_visitor_stays_revoked_under_a_new_id() -> None:
    """The browser's next login must ask for credentials."""
    plugin = plugin_in(make_app())
    visitor = handle_on(plugin)
    await visitor.update(note="begun")
    await plugin.lifecycle.marks.leave([visitor.key])
    await visitor.regenerate()
    assert await plugin.lifecycle.was_revoked([visitor.key])


async def test_a_login_of_a_visitor_reports_no_ended_session() -> None:
    names: list[str] = []
    visitor, _ = await pair(make_app(on_event=[lambda event: names.append(event.name)]))
    names.clear()
    await visitor.login(ALICE)
    assert names == ["login.succeeded"]


async def test_a_new_id_ends_no_other_session_of_the_user() -> None:
    plugin = plugin_in(make_app())
    handles = [handle_on(plugin), handle_on(plugin)]
    for handle in handles:
        await handle.login(ALICE)
    await handles[0].regenerate()
    assert {each.handle for each in await plugin.sessions.list_for(ALICE)} == {handle.handle for handle in handles}
