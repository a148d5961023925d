"""Cases that broke earlier versions, or break other libraries: old copies, batches, late cookies, odd data, odd applications."""

from __future__ import annotations

import asyncio
import enum
import random
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from litestar import Litestar, Request, asgi, get, post
from litestar.background_tasks import BackgroundTask
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.middleware import ASGIMiddleware
from litestar.response import Response
from litestar.types import ASGIApp, Receive, Scope, Send

from session_core import (
    ConfigurationError,
    CookieConfig,
    Identity,
    Session,
    SessionConfig,
    SessionGoneError,
    SessionHandle,
    SessionPlugin,
    StoreUnavailableError,
    Timeouts,
)
from session_core.errors import ResponseStartedError
from session_core.guards import requires
from session_core.session_id import session_key
from session_core.stores import MemoryStore
from session_core.stores.opening import redacted
from session_core.testing import FakeClock, log_in, logged_in_cookie
from tests.support import ALICE, AnyHandle, AppSession, client_of, cookie_of, make_app, plugin_in

pytestmark = pytest.mark.anyio


def handle_on(plugin: SessionPlugin, session_id: str | None = None) -> Any:
    async def read() -> str | None:
        return session_id

    return SessionHandle(plugin.lifecycle, read)


async def pair(app: Litestar) -> tuple[AnyHandle, AnyHandle]:
    """Two requests that have loaded the same session."""
    first = handle_on(plugin_in(app))
    await first.update(note="begun")
    second = await handle_on(plugin_in(app), first.session_id).load()
    return first, second


async def test_an_update_that_changes_nothing_is_decided_on_the_newest_copy() -> None:
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


async def test_a_change_runs_in_the_context_of_its_own_request() -> None:
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
async def test_a_bad_change_fails_alone_whatever_it_raises(error: type[BaseException]) -> None:
    first, second = await pair(make_app())

    def fail(data: AppSession) -> None:
        raise error

    def bump(data: AppSession) -> None:
        data.visits += 1

    failed, kept = await asyncio.gather(first.update(fail), second.update(bump), return_exceptions=True)
    assert isinstance(failed, Exception)
    assert isinstance(kept, AppSession)
    assert (await second.reload()).visits == 1


async def test_a_visitors_first_writes_at_once_begin_one_session() -> None:
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


async def test_the_queue_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    from session_core import SessionConflictError

    app = make_app(store_timeout=0.05)
    handle, _ = await pair(app)

    async def always_beaten(*_: Any, **__: Any) -> int:
        raise SessionConflictError

    monkeypatch.setattr(plugin_in(app).store.inner, "replace", always_beaten)
    with pytest.raises(StoreUnavailableError):
        await handle.update(visits=5)


async def test_logout_and_login_end_a_session_that_only_another_version_can_read() -> None:
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


async def test_a_new_id_is_refused_when_its_cookie_can_no_longer_be_sent() -> None:
    refused: list[type[Exception]] = []

    async def late(session: SessionHandle[AppSession], verb: str) -> None:
        try:
            await (session.regenerate() if verb == "regenerate" else session.update(visits=9))
        except ResponseStartedError as error:
            refused.append(type(error))

    @post("/late/{verb:str}")
    async def handler(session: Session[AppSession], request: Request[Any, Any, Any]) -> Response[None]:
        return Response(None, background=BackgroundTask(late, session, request.path_params["verb"]))

    app = make_app(handler)
    async with client_of(app) as client:
        await client.post("/late/update")
        assert (await plugin_in(app).sessions.stats()).total == 0
        await client.post("/login/alice")
        await client.post("/late/regenerate")
        assert (await client.get("/read")).json()["subject"] == "alice"
    assert refused == [ResponseStartedError, ResponseStartedError]


async def test_what_a_background_task_assigns_is_saved() -> None:
    async def later(session: SessionHandle[AppSession]) -> None:
        session.data.note = "from the background"

    @post("/background")
    async def handler(session: Session[AppSession]) -> Response[None]:
        return Response(None, background=BackgroundTask(later, session))

    async with client_of(make_app(handler)) as client:
        await client.post("/visit")
        await client.post("/background")
        assert (await client.get("/read")).json()["data"]["note"] == "from the background"


async def test_cors_does_not_take_vary_cookie_away() -> None:
    plugin = SessionPlugin(SessionConfig(AppSession))

    @get("/page")
    async def page(session: Session[AppSession]) -> Response[str]:
        return Response(session.data.theme, headers={"cache-control": "public, max-age=60"})

    app = Litestar([page], plugins=[plugin], cors_config=CORSConfig(allow_origins=["https://x.example"]), openapi_config=None)
    async with client_of(app) as client:
        answer = await client.get("/page", headers={"origin": "https://x.example"})
        assert {part.strip() for part in answer.headers["vary"].split(",")} == {"Origin", "Cookie"}


class Inner(msgspec.Struct):
    inside: int = 0


@post("/inner")
async def inner(session: Session[Inner]) -> str:
    session.data.inside += 1
    return type(session.data).__name__


async def test_a_mounted_application_has_its_own_sessions_and_refuses_other_sites() -> None:
    mounted = Litestar(
        [inner],
        plugins=[SessionPlugin(SessionConfig(Inner, cookie=CookieConfig(name="inner")))],
        openapi_config=None,
    )

    @asgi("/mounted", is_mount=True, opt={"session": True}, copy_scope=True)
    async def mount(scope: Scope, receive: Receive, send: Send) -> None:
        await mounted(scope, receive, send)

    async with client_of(make_app(mount)) as client:
        await client.post("/login/alice")
        assert (await client.post("/mounted/inner")).text == "Inner"
        assert client.cookies.get("inner")
        refused = await client.post("/mounted/inner", headers={"sec-fetch-site": "cross-site"})
        assert refused.status_code == 403


async def test_an_exception_of_inner_middleware_still_carries_the_new_cookie() -> None:
    from session_core import session_of

    class LogsInAndFails(ASGIMiddleware):
        async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
            del next_app
            await (await session_of(Request(scope, receive, send))).login(ALICE)
            raise HTTPException(status_code=418)

    @get("/teapot", middleware=[LogsInAndFails()], opt={"session": True})
    async def teapot() -> None: ...

    async with client_of(make_app(teapot)) as client:
        answer = await client.get("/teapot")
        assert answer.status_code == 418
        assert (await client.get("/read")).json()["subject"] == "alice"


async def test_a_predicate_that_answers_anything_but_true_lets_nobody_in() -> None:
    @get("/oops", guards=[requires(AppSession, lambda session: session.reload)])  # type: ignore[arg-type, return-value]
    async def oops() -> None: ...

    app = make_app(oops)
    async with client_of(app) as client:
        await log_in(client, app, "alice")
        assert (await client.get("/oops")).status_code == 403


async def test_a_field_gained_with_another_default_each_time_is_no_change() -> None:
    class Before(msgspec.Struct):
        visits: int = 0

    class After(msgspec.Struct):
        visits: int = 0
        lucky: float = msgspec.field(default_factory=random.random)
        since: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))

    store = MemoryStore()
    old = handle_on(SessionPlugin(SessionConfig(Before, store=store)))
    await old.update(visits=3)
    plugin = SessionPlugin(SessionConfig(After, store=store))
    readers = [await handle_on(plugin, old.session_id).load() for _ in range(2)]
    version = (await store.load(session_key(old.session_id))).version  # type: ignore[union-attr]
    for reader in readers:
        await reader.save()
    assert (await store.load(session_key(old.session_id))).version == version  # type: ignore[union-attr]
    readers[0].data.visits = 4
    await readers[0].save()
    readers[1].data.lucky = 7.0
    await readers[1].save()
    data = await readers[0].reload()
    assert (data.visits, data.lucky) == (4, 7.0)


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "kind",
    [dict[int, str], dict[Colour, int], set[str], frozenset[int], tuple[int, ...], dict[str, list[Colour]], datetime | None],
)
async def test_data_of_this_type_is_stored_and_found_unchanged(kind: Any) -> None:
    data_type = msgspec.defstruct("Data", [("value", kind | None, None), ("other", int, 0)])
    examples: dict[Any, Any] = {
        dict[int, str]: {2: "b", 1: "a"},
        dict[Colour, int]: {Colour.RED: 1},
        set[str]: {"c", "a", "b", "d"},
        frozenset[int]: frozenset({3, 1, 2}),
        tuple[int, ...]: (3, 1),
        dict[str, list[Colour]]: {"x": [Colour.RED]},
        datetime | None: datetime(2030, 1, 1, tzinfo=UTC),
    }
    plugin = SessionPlugin(SessionConfig(data_type))
    handle = handle_on(plugin)
    await handle.update(value=examples[kind])
    again = await handle_on(plugin, handle.session_id).load()
    assert again.data.value == examples[kind]
    assert again.changed is False


@pytest.mark.parametrize("kind", [set[Colour], dict[int, set[str]]])
def test_data_whose_encoding_would_change_by_itself_is_refused_at_start(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="Data"):
        SessionConfig(msgspec.defstruct("Data", [("value", kind | None, None)]))


async def test_a_number_too_large_to_store_is_a_data_error() -> None:
    from session_core import SessionDataError

    handle = handle_on(plugin_in(make_app()))
    with pytest.raises(SessionDataError):
        await handle.update(visits=2**70)


@pytest.mark.parametrize(
    "poison", [b"", b"\xc1", b"\x91" * 5000, b"\x81\xa1c\xa1\xff", b"\x80\x04pickle", b"\x81\xa1d\xcf" + b"\xff" * 8]
)
async def test_a_poisoned_record_breaks_no_list_and_no_count(poison: bytes) -> None:
    app = make_app()
    plugin = plugin_in(app)
    await logged_in_cookie(app, ALICE)
    await logged_in_cookie(app, ALICE)
    victim = (await plugin.store.find(_user(ALICE)))[0]
    entry = type(victim.entry)(poison, victim.entry.expires_at, victim.entry.user)
    await plugin.store.replace(victim.key, entry, version=victim.version)
    assert len(await plugin.sessions.list_for(ALICE)) == 1
    assert (await plugin.sessions.stats()).undecodable == 1
    assert [summary async for summary in plugin.sessions.all()] != []


def _user(identity: Identity) -> Any:
    from session_core.stores import SessionIndex

    return SessionIndex(user=identity.user_key)


async def test_a_rotation_whose_answer_was_lost_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
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
    started = clock.now()
    clock.advance(seconds=30)
    await sessions.end_op_session(ALICE.issuer, ALICE.sid)
    with pytest.raises(SessionGoneError):
        await handle_on(plugin_in(app)).login(ALICE, started_at=started)
    clock.advance(seconds=1)
    await handle_on(plugin_in(app)).login(ALICE, started_at=clock.now())


async def test_a_closed_store_stays_closed_and_can_be_opened_again() -> None:
    plugin = plugin_in(make_app())
    await plugin.store.open()
    await plugin.store.close()
    with pytest.raises(StoreUnavailableError):
        await plugin.store.ping()
    await plugin.store.open()
    await plugin.store.ping()


def test_one_application_serves_two_event_loops_in_turn() -> None:
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
def test_secrets_that_are_no_list_of_secrets_are_refused(secrets: Any) -> None:
    with pytest.raises(ConfigurationError):
        SessionConfig(AppSession, secrets=secrets)


@pytest.mark.parametrize(
    "url", ["redis://user:pa/ss-canary@host/0", "postgresql://user:canary@host/db", "mysql://u@host/db?password=canary"]
)
def test_a_password_in_a_store_url_is_never_shown(url: str) -> None:
    assert "canary" not in redacted(url)
    assert "host/" in redacted(url)


async def test_a_login_the_op_has_ended_leaves_the_session_that_was_there_untouched(clock: FakeClock) -> None:
    app = make_app(clock=clock)
    visitor = handle_on(plugin_in(app))
    await visitor.update(cart=["book"])
    started = clock.now()
    clock.advance(seconds=1)
    await plugin_in(app).sessions.end_user(ALICE)
    with pytest.raises(SessionGoneError):
        await visitor.login(ALICE, started_at=started)
    again = await handle_on(plugin_in(app), visitor.session_id).load()
    assert (again.identity, again.data.cart) == (None, ["book"])


def test_what_is_no_url_is_not_shown_either() -> None:
    with pytest.raises(ConfigurationError) as refused:
        SessionPlugin(SessionConfig(AppSession, store="redis:/canary@host"))
    assert "canary" not in str(refused.value)
    assert "redis" in str(refused.value)


def test_a_lifetime_beyond_reason_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ten years"):
        Timeouts(idle=10**18, absolute=10**18)


async def test_registering_a_route_later_does_not_pile_middleware_up() -> None:
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
