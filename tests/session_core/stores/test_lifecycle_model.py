"""Random sequences of session operations on every store, compared with a simple model.

Also checked after every step:

- No ended session can be loaded.
- Ids are unique.
- Every acknowledged visit is counted.
- No user has more sessions than the limit.
- Versions grow by one.
- The list of each user is correct.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from structlog.testing import capture_logs

from session_core import Identity, SessionConflictError, SessionGoneError, SessionHandle
from session_core.events import Events
from session_core.ids import handle_of, session_key
from session_core.sessions.lifecycle import SessionLifecycle
from session_core.sessions.login_limits import LoginLimits
from session_core.sessions.manager import SessionManager
from session_core.sessions.record import DataCodec
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.sessions.store_order import Moment
from session_core.sessions.timeouts import Timeouts
from session_core.stores.base import SessionIndex, SessionStore
from session_core.testing import FakeClock
from tests.session_core.stores.contract.every_store import MakeStore, make_store  # noqa: F401 - a fixture
from tests.session_core.stores.lifecycle_model import LIMIT, Expected, Model
from tests.support.presented import PresentedId

T = TypeVar("T")
ISSUER = "https://op.example"
USERS = ("alice", "bob")
SIDS = ("1", "2")


class Data(msgspec.Struct):
    visits: int = 0
    note: str = ""


class Held(msgspec.Struct):
    """A slow request that has loaded its session."""

    handle: SessionHandle[Data]
    session_id: str
    note: str
    """Its state at that time."""


class Begun(msgspec.Struct):
    """A login in progress at the provider."""

    moment: Moment
    ends: int
    """The number of provider logouts at that time."""


def bump(data: Data) -> None:
    data.visits += 1


class Place:
    """An engine shared by all examples, with separate users for each."""

    def __init__(self, store: SessionStore, clock: FakeClock, runner: asyncio.Runner) -> None:
        self.store = store
        self.clock = clock
        self.runner = runner
        self.examples = 0


class LifecycleMachine(RuleBasedStateMachine):
    """Actions of browsers, users, operators and the provider."""

    place: Place
    timeouts = Timeouts(idle=3600, absolute=4 * 3600, touch_interval=60)
    ids = Bundle("ids")
    held = Bundle("held")
    begun = Bundle("begun")

    def __init__(self) -> None:
        super().__init__()
        self.place.examples += 1
        self.clock = self.place.clock
        self.store = self.place.store
        events, marks = Events(self.clock, ()), RevocationMarks(self.store, self.timeouts, self.clock)
        self.lifecycle: SessionLifecycle[Data] = SessionLifecycle(
            store=self.store, codec=DataCodec(Data), timeouts=self.timeouts, clock=self.clock, events=events,
            limits=LoginLimits(self.store, self.clock, events, LIMIT), marks=marks, patience=30,
        )  # fmt: skip
        self.manager = SessionManager(self.store, self.timeouts, self.clock, events, marks)
        self.model = Model(self.timeouts)
        self.written = 0
        self.claimed: dict[str, int] = {}

    # -- actions ----------------------------------------------------------------------------------------------

    @initialize(target=ids)
    def first_visit(self) -> str:
        return self._begin()

    @rule(target=ids)
    def a_visitor_comes(self) -> str:
        return self._begin()

    @rule(session_id=ids)
    def a_visit_is_counted(self, session_id: str) -> None:
        """An ended id is not adopted."""
        handle = self._handle(session_id)
        self._run(handle.load())
        expected = self.model.live(session_id, self.clock.now())
        assert handle.exists is (expected is not None)
        if expected is not None:
            assert self._run(handle.update(bump)).visits == expected.visits + 1
            expected.visits += 1
            self.model.write(expected, self.clock.now())

    @rule(session_id=ids)
    def a_page_is_read(self, session_id: str) -> None:
        handle = self._handle(session_id)
        self._run(handle.load())
        self._run(handle.save())
        if expected := self.model.live(session_id, self.clock.now()):
            self.model.use(expected, self.clock.now())

    @rule(target=held, session_id=ids)
    def a_slow_request_begins(self, session_id: str) -> Any:
        expected = self.model.live(session_id, self.clock.now())
        if expected is None:
            return multiple()
        handle = self._handle(session_id)
        self._run(handle.load())
        return Held(handle, session_id, expected.note)

    @rule(slow=consumes(held))
    def a_slow_request_writes(self, slow: Held) -> None:
        self.written += 1
        slow.handle.data.note = f"note {self.written}"
        expected = self.model.live(slow.session_id, self.clock.now())
        if expected is None:
            self._refused(slow.handle.save(), SessionGoneError)
        elif expected.note != slow.note:
            self._refused(slow.handle.save(), SessionConflictError)
        else:
            self._run(slow.handle.save())
            expected.note = f"note {self.written}"
            self.model.write(expected, self.clock.now())

    @rule(slow=consumes(held))
    def a_slow_request_counts(self, slow: Held) -> None:
        expected = self.model.live(slow.session_id, self.clock.now())
        if expected is None:
            self._refused(slow.handle.update(bump), SessionGoneError)
        else:
            assert self._run(slow.handle.update(bump)).visits == expected.visits + 1
            expected.visits += 1
            self.model.write(expected, self.clock.now())

    @rule(target=ids, session_id=st.none() | ids, user=st.sampled_from(USERS), sid=st.sampled_from(SIDS))
    def a_user_logs_in(self, session_id: str | None, user: str, sid: str) -> str:
        """An ended id is not followed: its successor is another tab's session."""
        return self._log_in(self._handle(session_id), session_id, self._identity(user, sid))

    @rule(target=ids, slow=consumes(held), user=st.sampled_from(USERS), sid=st.sampled_from(SIDS))
    def a_slow_request_logs_in(self, slow: Held, user: str, sid: str) -> str:
        return self._log_in(slow.handle, slow.session_id, self._identity(user, sid))

    @rule(target=begun)
    def a_login_goes_to_the_provider(self) -> Begun:
        return Begun(self._run(self.manager.moment()), self.model.ends)

    @rule(target=ids, login=begun, user=st.sampled_from(USERS), sid=st.sampled_from(SIDS))
    def a_login_comes_back_from_the_provider(self, login: Begun, user: str, sid: str) -> Any:
        """A login started earlier, refused when the provider has ended it since."""
        self.clock.advance(seconds=0.001)  # so that no two sessions have the same rank
        identity, handle = self._identity(user, sid), self._handle(None)
        if self.model.is_refused(identity, login.ends, self.clock.now()):
            self._refused(handle.login(identity, begun=login.moment), SessionGoneError)
            return multiple()
        self._run(handle.login(identity, begun=login.moment))
        return self._entered(handle, 0, "", identity)

    @rule(target=ids, session_id=ids)
    def an_id_is_replaced(self, session_id: str) -> Any:
        now = self.clock.now()
        expected = self.model.live(session_id, now)
        if expected is None:
            return multiple()
        handle = self._handle(session_id)
        self._run(handle.regenerate())
        new_id = handle.session_id
        assert new_id is not None
        assert new_id not in self.model.sessions
        self.model.retire(session_id, new_id, now)
        expires = self.timeouts.expiry(now, expected.absolute)
        fields = expected.visits, expected.note, expected.identity, expected.absolute, expires
        self.model.sessions[new_id] = Expected(*fields, rank=expected.rank)
        return new_id

    @rule(session_id=ids)
    def a_user_logs_out(self, session_id: str) -> None:
        handle = self._handle(session_id)
        self._run(handle.load())
        self._run(handle.destroy())
        # Also with an ended id, which may have been rotated a moment ago.
        self.model.end(session_id, self.clock.now())

    @rule(slow=consumes(held))
    def a_slow_request_logs_out(self, slow: Held) -> None:
        self._run(slow.handle.destroy())
        self.model.end(slow.session_id, self.clock.now())

    @rule(session_id=ids)
    def a_session_is_revoked(self, session_id: str) -> None:
        expected = self.model.sessions[session_id]
        if expected.identity is not None:
            live = self.model.live(session_id, self.clock.now())
            ended = self._run(self.manager.revoke(handle_of(session_key(session_id)), identity=expected.identity))
            assert ended is (live is not None)
            if live is not None:
                live.ended = True

    @rule(user=st.sampled_from(USERS), keep=st.none() | ids)
    def all_sessions_are_revoked(self, user: str, keep: str | None) -> None:
        identity = self._identity(user, "1")
        ended = {each: e for each, e in self.model.of_user(identity.user_key, self.clock.now()).items() if each != keep}
        kept = None if keep is None else session_key(keep)
        assert self._run(self.manager.revoke_all(identity, keep=kept)) == len(ended)
        for expected in ended.values():
            expected.ended = True

    @rule(user=st.sampled_from(USERS), sid=st.sampled_from(SIDS))
    def the_provider_ends_a_session(self, user: str, sid: str) -> None:
        identity, now = self._identity(user, sid), self.clock.now()
        ended = [e for e in self.model.of_user(identity.user_key, now).values() if e.identity and e.identity.sid == identity.sid]
        assert self._run(self.manager.end_op_session(ISSUER, identity.sid or "")) == len(ended)
        self.model.mark(identity.op_session_key or "", now)
        for expected in ended:
            expected.ended = True

    @rule(name=st.sampled_from(("a", "b")), seconds=st.integers(1, 7200))
    def a_name_is_claimed(self, name: str, seconds: int) -> None:
        name = f"claim{self.place.examples}{name}"
        won = self._run(self.manager.claim(name, seconds=seconds))
        assert won is (self.claimed.get(name, 0) <= self.clock.now())
        if won:
            self.claimed[name] = self.clock.now() + 1000 * seconds

    @rule(seconds=st.sampled_from((0.001, 59, 60, 359, 360, 1260, 1800, 3599, 3600, 7200)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)

    @rule()
    def what_has_expired_is_swept(self) -> None:
        self._run(self.store.delete_expired())

    # -- invariants --------------------------------------------------------------------------------------------

    @invariant()
    def sessions_are_what_the_model_says(self) -> None:
        self._run(self._compare())

    async def _compare(self) -> None:
        now = self.clock.now()
        keys = {session_id: session_key(session_id) for session_id in self.model.sessions}
        found = await asyncio.gather(*(self.store.load(key) for key in keys.values()))
        for session_id, stored in zip(keys, found, strict=True):
            expected = self.model.live(session_id, now)
            if expected is None:
                assert stored is None, "a session that has ended is there"
                continue
            assert stored is not None, "a live session is gone"
            assert (stored.version, stored.entry.expires_at) == (expected.version, expected.expires)
            handle = self._handle(session_id)
            await handle.load()
            if expected.expires - now < self.lifecycle.extend_at_once:
                self.model.use(expected, now)
            assert (handle.data.visits, handle.data.note, handle.identity) == (expected.visits, expected.note, expected.identity)
        for user in USERS:
            mine = self.model.of_user(self._identity(user, "1").user_key, now)
            assert len(mine) <= LIMIT
            listed = await self.store.find(SessionIndex(user=self._identity(user, "1").user_key))
            assert sorted(stored.key for stored in listed) == sorted(keys[each] for each in mine)

    # -- private -----------------------------------------------------------------------------------------------

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.place.runner.run(call)

    def _refused(self, call: Coroutine[Any, Any, object], refusal: type[Exception]) -> None:
        with pytest.raises(refusal):
            self._run(call)

    def _handle(self, session_id: str | None) -> SessionHandle[Data]:
        return SessionHandle(self.lifecycle, PresentedId(session_id))

    def _identity(self, user: str, sid: str) -> Identity:
        name = f"{user}-{self.place.examples}"
        return Identity(issuer=ISSUER, subject=name, sid=f"{name}-{sid}")

    def _begin(self) -> str:
        handle = self._handle(None)
        self._run(handle.update(bump))
        return self._entered(handle, 1, "", None)

    def _log_in(self, handle: SessionHandle[Data], session_id: str | None, identity: Identity) -> str:
        # Two logins in the same millisecond have no order.
        now = self.clock.advance(seconds=0.001)
        expected = self.model.live(session_id, now)
        self._run(handle.login(identity))
        visits, note = 0, ""
        if expected is not None:
            if expected.identity is None or expected.identity.is_same_user(identity):
                visits, note = expected.visits, expected.note
            assert handle.session_id is not None
            self.model.retire(session_id or "", handle.session_id, now)
        return self._entered(handle, visits, note, identity)

    def _entered(self, handle: SessionHandle[Data], visits: int, note: str, identity: Identity | None) -> str:
        assert handle.session_id is not None
        self.model.begin(handle.session_id, visits, note, identity, self.clock.now())
        return handle.session_id


@pytest.fixture
def place(make_store: MakeStore, anyio_backend: str) -> Iterator[Place]:  # noqa: F811
    clock = FakeClock()
    with asyncio.Runner() as runner:
        store = make_store(clock)
        runner.run(store.open())
        yield Place(store, clock, runner)
        runner.run(store.close())


def assert_model_holds(place: Place, examples: int, *phases: Phase) -> None:
    """The same examples each time."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=phases or (Phase.generate, Phase.shrink),
    )
    with capture_logs():
        run_state_machine_as_test(type("Machine", (LifecycleMachine,), {"place": place}), settings=chosen)


def test_the_lifecycle_equals_the_model(place: Place) -> None:
    assert_model_holds(place, 100 if place.store.__class__.__name__ == "MemoryStore" else 12)


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
def test_the_model_detects_a_store_that_revives_sessions(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a hundred examples."""
    kept = place.store.delete

    async def delete(key: str) -> tuple[str, ...]:
        stored = await place.store.load(key)
        ended = await kept(key)
        if stored is not None:
            await place.store.create(key, stored.entry)
        return ended

    monkeypatch.setattr(place.store, "delete", delete)
    with pytest.raises(AssertionError):
        assert_model_holds(place, 200, Phase.generate)
