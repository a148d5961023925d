"""An administrator impersonates another user: one session with two identities that remains the administrator's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from session_core import ConfigurationError, Event, Identity, Impersonation, SessionPlugin, Timeouts, open_store
from session_core.connections.impersonations import WatchedImpersonations
from session_core.errors import (
    ForbiddenError,
    ImpersonationForbiddenError,
    LoginRequiredError,
    SessionGoneError,
    StepUpRequiredError,
    StoreUnavailableError,
)
from session_core.ids import UncertainId, session_key
from session_core.sessions.record import decode_record, encode_record
from session_core.stores.base import SessionIndex
from session_core.testing import FakeClock
from tests.session_core.stores import conftest as engines
from tests.support.live_wire import until
from tests.support.lost_answers import Fault, LosingStore
from tests.support.sessions import BOB, ISSUER, AppSession, handle_on, make_config

pytestmark = pytest.mark.anyio

_valkey, valkey, postgres, postgres_url, database = (
    engines._valkey, engines.valkey, engines.postgres, engines.postgres_url, engines.database,
)  # fmt: skip
USER = Identity(issuer=ISSUER, subject="bob")
MINUTES_15 = 900_000


class World:
    """Sessions of one application, and the users whom the rule allows."""

    def __init__(self, store: Any = "memory://", clock: FakeClock | None = None, **options: Any) -> None:
        self.clock = clock or FakeClock()
        self.admin = self.proved(Identity(issuer=ISSUER, subject="admin", sid="op-admin", acr="phr", amr=("otp",)))
        self.allowed = {"admin"}
        self.disabled: set[str] = set()
        self.events: list[Event] = []
        options.setdefault("impersonation", Impersonation(allow=self.allow))
        if isinstance(store, str):
            store = open_store(store, clock=self.clock)
        self.plugin = SessionPlugin(
            make_config(
                store=store,
                clock=self.clock,
                on_event=[self.events.append],
                is_active=lambda identity: identity.subject not in self.disabled,
                timeouts=Timeouts(idle=3600, absolute=86400),
                **options,
            )
        )

    def proved(self, identity: Identity) -> Identity:
        return msgspec.structs.replace(identity, auth_time=self.clock.now() // 1000)

    async def allow(self, actor: Identity, user: Identity) -> bool:
        return actor.subject in self.allowed and user.subject not in self.allowed

    async def loaded(self, session_id: str | None = None) -> Any:
        return await handle_on(self.plugin, session_id).load()

    async def logged_in(self, identity: Identity | None = None, **data: Any) -> Any:
        handle = await self.loaded()
        await handle.login(identity or self.admin)
        if data:
            await handle.update(**data)
        return handle

    async def acting(self, **data: Any) -> Any:
        handle = await self.logged_in(**data)
        await handle.impersonate(BOB)
        return handle

    async def live(self, user: Identity) -> list[str]:
        return [stored.key for stored in await self.plugin.store.find(SessionIndex(user=user.user_key))]

    def happened(self, name: str) -> list[tuple[str | None, str | None, str | None]]:
        return [
            (event.identity and event.identity.subject, event.actor and event.actor.subject, event.reason)
            for event in self.events
            if event.name == name
        ]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=["memory", "sqlite", "postgres", "valkey"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One engine of each kind; the simulation covers a cluster."""
    if request.param == "postgres":
        return str(request.getfixturevalue("database"))
    if request.param == "valkey":
        return str(request.getfixturevalue("valkey").url)
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"


@pytest.fixture
async def anywhere(store_url: str) -> AsyncIterator[World]:
    made = World(store_url)
    await made.plugin.store.open()
    yield made
    await made.plugin.store.close()


async def test_begin_and_end_change_the_id_of_one_session(anywhere: World) -> None:
    world = anywhere
    other = await world.logged_in(BOB)
    admin = await world.logged_in(note="mine", cart=["book"])
    first = admin.session_id
    await admin.impersonate(BOB, first=lambda data: setattr(data, "note", "hello"))
    second = admin.session_id
    assert (admin.identity, admin.actor, admin.data.note, admin.data.cart) == (USER, world.admin, "hello", [])

    seen = await world.loaded(second)
    assert (seen.identity, seen.actor, seen.data.note) == (USER, world.admin, "hello")
    await seen.update(visits=1)
    assert (await world.loaded(first)).identity is None
    assert await world.live(world.admin) == [session_key(second)]
    assert await world.live(BOB) == [other.key]  # no session of the user was created, and none was ended

    await seen.end_impersonation()
    back = await world.loaded(seen.session_id)
    assert (back.identity, back.actor) == (world.admin, None)
    assert (back.data.note, back.data.cart, back.data.visits) == ("mine", ["book"], 0)
    assert len({first, second, seen.session_id}) == 3
    assert (await world.loaded(second)).identity is None
    assert await world.live(world.admin) == [session_key(seen.session_id)]
    await back.destroy()
    await other.destroy()


async def test_assignments_before_the_start_stay_with_the_administrator(world: World) -> None:
    handle = await world.logged_in()
    handle.data.note = "before"
    await handle.impersonate(BOB)
    handle.data.note = "as bob"
    await handle.end_impersonation()
    assert handle.data.note == "before"


async def test_impersonation_proves_no_authentication_of_the_user(world: World) -> None:
    """Not even when the application passes an identity that claims so."""
    handle = await world.logged_in()
    await handle.impersonate(world.proved(Identity(issuer=ISSUER, subject="bob", sid="op-2", acr="phr", amr=("pwd",))))
    assert handle.identity == USER
    assert (handle.identity.auth_time, handle.identity.acr, handle.identity.amr, handle.identity.sid) == (None, None, (), None)


@pytest.mark.attack("80")
async def test_it_ends_in_time_despite_activity(world: World) -> None:
    handle = await world.acting()
    until = world.clock.now() + MINUTES_15
    assert (handle.absolute_expires_at, handle.idle_expires_at) == (until, until)
    for minute in range(14):
        world.clock.advance(seconds=60)
        handle = await world.loaded(handle.session_id)
        await handle.update(visits=minute)
        await handle.extend()
        if minute % 3 == 0:
            await handle.regenerate()
        assert handle.idle_expires_at <= until
    assert handle.identity == USER
    world.clock.advance(seconds=60)
    handle = await world.loaded(handle.session_id)
    assert (handle.identity, handle.exists) == (None, False)
    assert await world.live(world.admin) == []


async def test_the_administrators_lifetimes_are_restored(world: World) -> None:
    handle = await world.logged_in()
    ends = handle.absolute_expires_at
    world.clock.advance(seconds=200)
    await handle.impersonate(BOB)
    world.clock.advance(seconds=200)
    await handle.end_impersonation()
    assert handle.absolute_expires_at == ends
    assert handle.idle_expires_at == world.clock.now() + 3_600_000


async def test_an_impersonation_never_outlives_its_session() -> None:
    world = World()
    handle = await world.loaded()
    await handle.login(world.admin, timeouts=Timeouts(idle=300, absolute=600))
    ends = handle.absolute_expires_at
    world.clock.advance(seconds=250)
    await handle.impersonate(BOB)
    assert handle.absolute_expires_at == ends
    assert handle.idle_expires_at == world.clock.now() + 300_000  # the idle timeout of the login still applies
    await handle.end_impersonation()
    assert handle.absolute_expires_at == ends


@pytest.mark.attack("81")
async def test_only_a_recently_logged_in_administrator_can_start_one(world: World) -> None:
    visitor = await world.loaded()
    with pytest.raises(LoginRequiredError):
        await visitor.impersonate(BOB)

    carol = await world.logged_in(world.proved(Identity(issuer=ISSUER, subject="carol")))
    with pytest.raises(ForbiddenError):
        await carol.impersonate(BOB)

    handle = await world.logged_in()
    for target in (world.admin, Identity(issuer=ISSUER, subject="admin")):  # not as oneself
        with pytest.raises(ForbiddenError):
            await handle.impersonate(target)
    world.allowed.add("root")
    with pytest.raises(ForbiddenError):  # not as another administrator
        await handle.impersonate(Identity(issuer=ISSUER, subject="root"))
    world.disabled.add("bob")
    with pytest.raises(ForbiddenError):
        await handle.impersonate(BOB)
    world.disabled = {"admin"}
    with pytest.raises(ForbiddenError):
        await handle.impersonate(BOB)
    world.disabled.clear()
    world.clock.advance(seconds=301)
    with pytest.raises(StepUpRequiredError) as refused:
        await handle.impersonate(BOB)
    assert refused.value.max_age == 300
    for auth_time in (None, world.clock.now() // 1000 - 301):
        other = await world.logged_in(msgspec.structs.replace(world.admin, auth_time=auth_time))
        with pytest.raises(StepUpRequiredError):
            await other.impersonate(BOB)
    reasons = [reason for _, _, reason in world.happened("access.denied")]
    assert reasons == ["forbidden"] * 6 + ["step_up_required"] * 3
    denied = next(event for event in world.events if event.name == "access.denied")
    assert denied.detail == {"target": BOB.user_key}
    assert world.happened("impersonation.started") == []


async def test_a_login_is_recent_until_its_last_second_has_passed(world: World) -> None:
    """`auth_time` is in whole seconds."""
    handle = await world.logged_in()
    world.clock.advance(seconds=300.999)
    await handle.impersonate(BOB)
    assert handle.actor == world.admin


@pytest.mark.parametrize("answer", [None, "yes", 1])
async def test_only_true_allows_an_impersonation(answer: Any) -> None:
    world = World(impersonation=Impersonation(allow=lambda *_: answer))
    handle = await world.logged_in()
    with pytest.raises(ForbiddenError):
        await handle.impersonate(BOB)


async def test_impersonation_is_disabled_without_a_rule() -> None:
    world = World(impersonation=None)
    handle = await world.logged_in()
    with pytest.raises(ConfigurationError, match="switched off"):
        await handle.impersonate(BOB)


@pytest.mark.parametrize("times", [{"seconds": 0}, {"seconds": 3601}, {"login_within": 0}, {"seconds": -1}])
def test_invalid_times_are_refused(times: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        Impersonation(allow=lambda *_: True, **times)


@pytest.mark.attack("81")
async def test_it_cannot_be_nested(world: World) -> None:
    handle = await world.acting()
    world.allowed.add("bob-is-not-asked")
    with pytest.raises(ImpersonationForbiddenError):
        await handle.impersonate(Identity(issuer=ISSUER, subject="carol"))
    assert (handle.identity, handle.actor) == (USER, world.admin)
    assert world.happened("access.denied") == [("admin", None, "impersonation_forbidden")]


Ending = Callable[[World, Any], Any]


async def role_lost(world: World, handle: Any) -> None:
    del handle
    world.allowed.clear()


async def administrator_disabled(world: World, handle: Any) -> None:
    del handle
    world.disabled.add("admin")


async def user_disabled(world: World, handle: Any) -> None:
    del handle
    world.disabled.add("bob")


async def user_promoted(world: World, handle: Any) -> None:
    del handle
    world.allowed.add("bob")


async def revoked(world: World, handle: Any) -> None:
    assert await world.plugin.sessions.revoke(handle.handle, identity=world.admin)


async def signed_out_everywhere(world: World, handle: Any) -> None:
    del handle
    assert await world.plugin.sessions.revoke_all(world.admin) == 1


async def ended_by_the_provider(world: World, handle: Any) -> None:
    del handle
    assert await world.plugin.sessions.end_op_session(ISSUER, "op-admin", subject="admin") == 1


async def logged_out(world: World, handle: Any) -> None:
    await (await world.loaded(handle.session_id)).destroy()


async def another_login(world: World, handle: Any) -> None:
    await (await world.loaded(handle.session_id)).login(world.proved(Identity(issuer=ISSUER, subject="carol")))


async def rule_taken_away(world: World, handle: Any) -> None:
    del handle
    world.plugin.lifecycle.may_impersonate = None


@pytest.mark.attack("82")
@pytest.mark.parametrize(
    "ending",
    [role_lost, administrator_disabled, user_disabled, user_promoted, revoked, signed_out_everywhere, ended_by_the_provider,
     logged_out, another_login, rule_taken_away],
)  # fmt: skip
async def test_it_ends_when_a_precondition_ends(world: World, ending: Ending) -> None:
    handle = await world.acting(note="mine")
    await ending(world, handle)
    after = await world.loaded(handle.session_id)
    assert (after.identity, after.actor, after.exists, after.data) == (None, None, False, AppSession())
    assert await world.live(world.admin) == []
    with pytest.raises(SessionGoneError):  # a request in progress
        await handle.update(note="late")
    with pytest.raises(SessionGoneError):
        await handle.confirm()
    with pytest.raises(SessionGoneError):
        await handle.end_impersonation()


@pytest.mark.attack("82")
@pytest.mark.parametrize("ending", [logged_out, signed_out_everywhere, ended_by_the_provider])
async def test_an_end_wins_against_concurrent_requests(anywhere: World, ending: Ending) -> None:
    """Twenty of each at once, in any order of the engine: none revives the session."""
    world = anywhere
    for verb in ("update", "regenerate", "end_impersonation"):
        for _ in range(4):
            handle = await world.acting()
            under_way = [await world.loaded(handle.session_id) for _ in range(5)]
            ids = [handle.session_id]

            async def run(session: Any, verb: str = verb) -> None:
                await (session.update(visits=1) if verb == "update" else getattr(session, verb)())

            ended = asyncio.ensure_future(ending(world, handle))
            await asyncio.gather(*map(run, under_way), ended, return_exceptions=True)
            if ended.exception() is not None:  # the session already had the new id
                await world.plugin.sessions.revoke_all(world.admin)
            ids += [session.session_id for session in under_way]
            for session_id in filter(None, ids):
                assert (await world.loaded(session_id)).identity is None
            assert await world.live(world.admin) == []


@pytest.mark.attack("83")
async def test_two_concurrent_ends_leave_one_session(anywhere: World) -> None:
    world = anywhere
    handle = await world.acting(note="mine")
    under_way = [await world.loaded(handle.session_id) for _ in range(8)]
    results = await asyncio.gather(*(session.end_impersonation() for session in under_way), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [SessionGoneError] * 7
    winner = next(session for session, result in zip(under_way, results, strict=True) if result is None)
    back = await world.loaded(winner.session_id)
    assert (back.identity, back.actor, back.data.note) == (world.admin, None, "mine")
    assert await world.live(world.admin) == [back.key]
    await back.destroy()


@pytest.mark.attack("83")
async def test_a_request_from_before_writes_into_neither_identitys_data(world: World) -> None:
    """A handler that started before the impersonation, or during it and runs past its end."""
    handle = await world.logged_in(note="mine")
    before = await world.loaded(handle.session_id)
    await handle.impersonate(BOB)
    with pytest.raises(SessionGoneError):
        await before.update(note="of before")
    with pytest.raises(SessionGoneError):
        await before.confirm()
    during = await world.loaded(handle.session_id)
    await handle.end_impersonation()
    during.data.note = "as bob"
    with pytest.raises(SessionGoneError):
        await during.save()
    assert (await world.loaded(handle.session_id)).data.note == "mine"


async def test_a_second_end_changes_nothing(world: World) -> None:
    handle = await world.acting()
    await handle.end_impersonation()
    session_id = handle.session_id
    await handle.end_impersonation()
    await (again := await world.loaded(session_id)).end_impersonation()
    assert (again.session_id, again.cookie_action) == (session_id, None)


@pytest.mark.attack("84")
async def test_the_administrators_tokens_are_inaccessible(world: World) -> None:
    handle = await world.loaded()
    await handle.login(world.admin, vault=b"sealed")
    await handle.impersonate(BOB)
    assert handle.vault == b""
    with pytest.raises(ImpersonationForbiddenError):
        await handle.store_vault(b"other")
    await handle.end_impersonation()
    assert handle.vault == b"sealed"


async def test_a_login_of_the_administrator_ends_an_impersonation_and_keeps_the_own_data(world: World) -> None:
    handle = await world.acting(note="mine")
    handle.data.note = "as bob"
    await handle.login(world.proved(world.admin))
    assert (handle.identity, handle.actor, handle.data.note) == (world.proved(world.admin), None, "mine")
    assert world.happened("impersonation.ended") == [("bob", "admin", "login")]


@pytest.mark.attack("83")
@pytest.mark.parametrize("subject", ["bob", "carol"])
async def test_a_login_of_another_user_inherits_nothing(world: World, subject: str) -> None:
    """Also a login of the impersonated user: data written by the administrator is not in that session."""
    handle = await world.acting(note="mine")
    await handle.update(note="as bob", roles=["x"])
    await handle.login(world.proved(Identity(issuer=ISSUER, subject=subject)))
    assert (handle.identity.subject, handle.actor, handle.data) == (subject, None, AppSession())


@pytest.mark.attack("81")
@pytest.mark.parametrize("on_limit", ["evict", "refuse"])
async def test_the_users_session_limit_does_not_count_it(on_limit: Any) -> None:
    world = World(max_sessions_per_user=1, on_limit=on_limit)
    bob = await world.logged_in(BOB)
    admin = await world.acting()
    assert (await world.loaded(bob.session_id)).identity == BOB
    if on_limit == "evict":
        await world.logged_in(BOB)
        assert len(await world.live(BOB)) == 1
    assert (await world.loaded(admin.session_id)).actor == world.admin
    assert await world.plugin.sessions.revoke_all(BOB) == 1
    assert (await world.loaded(admin.session_id)).actor == world.admin


async def test_an_impersonation_is_listed_with_the_administrators_sessions(world: World) -> None:
    handle = await world.acting()
    (summary,) = await world.plugin.sessions.list_for(world.admin)
    assert (summary.handle, summary.identity, summary.acting_as) == (handle.handle, world.admin, USER)
    assert await world.plugin.sessions.list_for(BOB) == []
    assert [each.acting_as async for each in world.plugin.sessions.all()] == [USER]
    await handle.end_impersonation()
    (summary,) = await world.plugin.sessions.list_for(world.admin)
    assert summary.acting_as is None


async def test_events_name_both(world: World) -> None:
    handle = await world.acting()
    await handle.end_impersonation()
    handles = [handle.handle]
    await handle.impersonate(BOB)
    handles.append(handle.handle)
    await handle.destroy()
    assert [event.handle for event in world.events if event.name == "impersonation.ended"] == handles
    assert world.happened("impersonation.started") == [("bob", "admin", None)] * 2
    assert world.happened("impersonation.ended") == [("bob", "admin", "stopped"), ("bob", "admin", "logout")]


async def test_a_refused_impersonation_is_reported_as_an_event(world: World) -> None:
    handle = await world.acting()
    world.allowed.clear()
    await world.loaded(handle.session_id)
    assert world.happened("impersonation.ended") == [("bob", "admin", "refused")]
    assert world.happened("session.destroyed") == [("admin", None, "impersonation")]


@pytest.mark.attack("85")
@pytest.mark.parametrize(
    ("ending", "reason"),
    [(revoked, "revoked"), (signed_out_everywhere, "revoked"), (ended_by_the_provider, "op_logout"), (logged_out, "logout"),
     (another_login, "login"), (role_lost, "refused"), (rule_taken_away, "refused")],
)  # fmt: skip
async def test_each_end_is_one_event(anywhere: World, ending: Ending, reason: str) -> None:
    world = anywhere
    handle = await world.acting()
    await ending(world, handle)
    await asyncio.gather(*(world.loaded(handle.session_id) for _ in range(5)))
    assert world.happened("impersonation.ended") == [("bob", "admin", reason)]


async def test_begin_and_end_leave_the_administrators_other_sessions(world: World) -> None:
    other = await world.logged_in()
    handle = await world.acting()
    await handle.end_impersonation()
    assert set(await world.live(world.admin)) == {other.key, handle.key}


async def test_a_session_without_impersonation_is_not_refused(world: World) -> None:
    """It may still be watched for a moment after its impersonation has ended."""
    handle = await world.logged_in()
    world.allowed.clear()
    assert await world.plugin.lifecycle.end_refused(handle.snapshot) is False
    assert await world.live(world.admin) == [handle.key]


@pytest.mark.attack("85")
async def test_an_end_during_an_outage_of_the_store_is_reported() -> None:
    """It is then unknown whether another process has reported it."""
    clock = FakeClock()
    store = LosingStore(clock=clock)
    world = World(store, clock)
    handle = await world.acting()
    store.fail("claim", "not applied")
    await handle.end_impersonation()
    assert world.happened("impersonation.ended") == [("bob", "admin", "stopped")]


async def test_an_end_is_reported_once_until_an_hour_after_its_time(world: World) -> None:
    """Longer than any process takes to notice it."""
    handle = await world.acting()
    for after, reported in ((0, 1), (900 + 3599.999, 1), (0.001, 2)):
        world.clock.advance(seconds=after)
        await world.plugin.lifecycle.report_acting_ended(handle.snapshot, "expired")
        assert len(world.happened("impersonation.ended")) == reported


@pytest.mark.attack("85")
@pytest.mark.parametrize("after", [900, 901])
async def test_its_time_being_over_is_one_event_when_it_is_noticed(world: World, after: int) -> None:
    handle = await world.acting()
    await world.loaded(handle.session_id)
    (started,) = [event for event in world.events if event.name == "impersonation.started"]
    assert started.detail == {"until": world.clock.now() + MINUTES_15}
    world.clock.advance(seconds=after)
    assert world.happened("impersonation.ended") == []
    await asyncio.gather(*(world.loaded(handle.session_id) for _ in range(5)))
    assert world.happened("impersonation.ended") == [("bob", "admin", "expired")]


async def test_an_end_before_its_time_is_not_reported_as_expired(world: World) -> None:
    handle = await world.acting()
    await world.loaded(handle.session_id)
    await world.plugin.store.inner.delete(handle.key)
    await world.loaded(handle.session_id)
    assert world.happened("impersonation.ended") == []


@pytest.fixture
async def running(world: World) -> AsyncIterator[World]:
    async with world.plugin.application.running():
        yield world


@pytest.mark.attack("85")
async def test_a_process_that_served_it_reports_an_end_it_did_not_make(running: World) -> None:
    """For example by the limit of sessions: the step that deletes the session reads no record, so it cannot report the end."""
    handle = await running.acting()
    await handle.regenerate()
    await running.plugin.store.inner.delete(handle.key)
    await until(lambda: bool(running.happened("impersonation.ended")))
    assert running.happened("impersonation.ended") == [("bob", "admin", "ended")]


@pytest.mark.attack("85")
async def test_a_process_that_served_it_reports_that_its_time_is_over(running: World) -> None:
    await running.acting()
    running.clock.advance(seconds=900)
    await until(lambda: bool(running.happened("impersonation.ended")))
    assert running.happened("impersonation.ended") == [("bob", "admin", "expired")]


@pytest.mark.attack("82")
@pytest.mark.attack("83")
async def test_a_role_taken_away_ends_it_without_a_request(world: World) -> None:
    """Open connections must close then. A rule that raises an error ends nothing."""
    application = world.plugin.application
    assert application.connections is not None
    watched = WatchedImpersonations(application.connections, world.plugin.lifecycle, ask_seconds=0.001)
    handle = await world.acting()
    failed = asyncio.Event()

    async def fails(*_: Identity) -> bool:
        failed.set()
        raise OSError

    rule, world.plugin.lifecycle.may_impersonate = world.plugin.lifecycle.may_impersonate, fails
    watched.enter(handle.snapshot)
    async with asyncio.timeout(20):
        await failed.wait()
    assert await world.live(world.admin) == [handle.key]
    world.allowed.clear()
    world.plugin.lifecycle.may_impersonate = rule
    await until(lambda: world.happened("impersonation.ended") == [("bob", "admin", "refused")])
    assert await world.live(world.admin) == []
    watched.close()
    await application.connections.close()


async def test_a_failing_rule_refuses_the_request(world: World) -> None:
    handle = await world.acting()
    msg = "the database is out"

    async def fails(*_: Identity) -> bool:
        raise OSError(msg)

    world.plugin.lifecycle.may_impersonate = fails
    with pytest.raises(OSError, match=msg):
        await world.loaded(handle.session_id)
    assert await world.live(world.admin) == [handle.key]  # it is an outage, not an end


@pytest.mark.attack("83")
@pytest.mark.parametrize("fault", ["applied", "not applied", "applied later"])
@pytest.mark.parametrize("verb", ["impersonate", "end_impersonation"])
async def test_a_lost_response_leaves_one_identity(verb: str, fault: Fault) -> None:
    """The cookie then contains both ids. The next request gets the live session; a step applied later does not change that."""
    clock = FakeClock()
    store = LosingStore(clock=clock)
    world = World(store, clock)
    handle = await (world.logged_in() if verb == "impersonate" else world.acting())
    store.fail("rotate", fault)
    with pytest.raises(StoreUnavailableError):
        await handle.impersonate(BOB) if verb == "impersonate" else await handle.end_impersonation()
    assert handle.uncertain is not None
    if verb == "impersonate":  # recorded, whether it started or not
        last = world.events[-1]
        assert (last.name, last.reason, last.identity, last.actor) == ("impersonation.started", "unanswered", USER, world.admin)
    store.recover()
    text, _, _ = handle.cookie()
    settled = await handle_on(world.plugin, UncertainId.parse(text)).load()
    await store.apply_what_is_late()
    acts = (verb == "impersonate") == (fault == "applied")
    again = await world.loaded(settled.session_id)
    assert (again.identity, again.actor) == ((USER, world.admin) if acts else (world.admin, None))
    assert len(await world.live(world.admin)) == 1


@pytest.mark.parametrize("verb", ["end", "login"])
async def test_own_data_that_another_version_has_written_is_not_given_back(world: World, verb: str) -> None:
    acting = await world.acting(note="mine")
    stored = await world.plugin.store.load(acting.key)
    assert stored is not None
    record = decode_record(stored.entry.data)
    before = msgspec.structs.replace(record.acting_as, data=msgspec.Raw(msgspec.msgpack.encode({"note": 7})))
    entry = msgspec.structs.replace(stored.entry, data=encode_record(msgspec.structs.replace(record, acting_as=before)))
    await world.plugin.store.replace(acting.key, entry, version=stored.version)
    admin = await world.loaded(acting.session_id)
    if verb == "end":
        with pytest.raises(SessionGoneError):
            await admin.end_impersonation()
    else:
        await admin.login(world.proved(world.admin))
        assert (admin.identity, admin.actor, admin.data.note) == (world.admin, None, "")
    assert (await world.loaded(acting.session_id)).identity is None
