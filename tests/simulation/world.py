"""Browsers, the requests they send, and the invariants checked afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from session_core import Identity, Impersonation
from session_core.errors import AccessDeniedError, SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.events import Events
from session_core.ids import UncertainId, session_key
from session_core.sessions.handle import SessionHandle
from session_core.sessions.lifecycle import SessionLifecycle
from session_core.sessions.login_limits import LoginLimits
from session_core.sessions.manager import SessionManager
from session_core.sessions.notes import is_note
from session_core.sessions.record import DataCodec
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.sessions.timeouts import Timeouts
from session_core.stores.base import SessionIndex
from session_core.stores.redis.store import RedisStore
from session_core.testing import FakeClock
from tests.simulation.director import Director, Plan, SteppedCluster, SteppedStore
from tests.support.presented import PresentedId

__all__ = ("SCENARIOS", "BrokenPromiseError", "Outcome", "Scenario", "play")

ISSUER = "https://op.example"
TIMEOUTS = Timeouts(idle=3600, absolute=4 * 3600, touch_interval=60)
LIMIT = 1


VICTIM = Identity(issuer=ISSUER, subject="victim")


async def _allow(actor: Identity, user: Identity) -> bool:
    return (actor.subject, user.subject) == ("alice", "victim")


class Data(msgspec.Struct):
    tokens: list[str] = []
    note: str = ""


CODEC = DataCodec(Data)


class BrokenPromiseError(AssertionError):
    """What a schedule violated."""


@dataclass
class Browser:
    """`cookie` is what it sends: one id, several of which one is valid, or none."""

    user: str
    cookie: str | UncertainId | None = None
    acknowledged: list[str] = field(default_factory=list)
    maybe: list[str] = field(default_factory=list)
    ended: bool = False
    """A response logged it out, or another request may have ended its session."""
    lost: bool = False
    """The process that served it has ended without a response."""
    logins: int = 0
    logged_in: bool = False
    """Its login was acknowledged, and no other request may have ended that session."""
    used_at: int = 0
    """The time of its last acknowledged request."""
    acted: bool = False
    """It may have impersonated another user, whose sessions end sooner."""
    as_self: set[str] = field(default_factory=set)
    as_other: set[str] = field(default_factory=set)
    """Values that it wrote or may have written: as itself, and as another user."""
    expired: set[str] = field(default_factory=set)
    """The data of its session at expiry."""


class World:
    """Each request runs in its own simulated process; the processes share only the store."""

    def __init__(self, store: SteppedStore, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.marks = RevocationMarks(store, TIMEOUTS, clock)
        self.browsers: dict[str, Browser] = {}
        self.given = 0
        self.stale = False
        self.begun: set[str] = set()
        """Users whose login has begun."""
        self.logged_out: set[str] = set()
        """Users whose login had begun when the provider's logout was acknowledged."""

    def lifecycle(self) -> SessionLifecycle[Data]:
        events = Events(self.clock, ())
        lifecycle = SessionLifecycle(
            store=self.store, codec=CODEC, timeouts=TIMEOUTS, clock=self.clock, events=events,
            limits=LoginLimits(self.store, self.clock, events, LIMIT), marks=self.marks, patience=60,
        )  # fmt: skip
        lifecycle.impersonation, lifecycle.may_impersonate = Impersonation(allow=_allow), _allow
        return lifecycle

    @property
    def manager(self) -> SessionManager:
        return SessionManager(self.store, TIMEOUTS, self.clock, Events(self.clock, ()), self.marks)

    def identity(self, name: str) -> Identity:
        user = self.browsers[name].user
        return Identity(issuer=ISSUER, subject=user, sid=f"sid-{name}", auth_time=self.clock.now() // 1000)

    async def request(self, name: str, work: Callable[[SessionHandle[Data]], Awaitable[object]]) -> str:
        """Serve one request of a browser; the response's cookie takes effect when the request ends."""
        browser = self.browsers[name]
        sent = browser.cookie
        handle: SessionHandle[Data] = SessionHandle(self.lifecycle(), PresentedId(sent))
        try:
            await handle.load()
            await work(handle)
            await handle.save()
        except StoreUnavailableError:
            answer = "503"
        except (SessionGoneError, SessionConflictError) as error:
            answer = str(error.status_code)
        else:
            answer = "200"
            browser.used_at = self.clock.now()
        if handle.cookie_action == "delete":
            browser.cookie = None
        elif handle.cookie_action == "set" and (cookie := handle.cookie()) is not None:
            browser.cookie = UncertainId.parse(cookie[0]) or cookie[0]
        return answer

    # -- what a request can do ----------------------------------------------------------------------------------

    async def update(self, name: str) -> None:
        self.given += 1
        token = f"t{self.given}"
        browser = self.browsers[name]

        async def work(handle: SessionHandle[Data]) -> None:
            def add(data: Data) -> None:
                data.tokens.append(token)

            browser.maybe.append(token)
            (browser.as_self if handle.actor is None else browser.as_other).add(token)
            await handle.update(add)

        if await self.request(name, work) == "200":
            browser.acknowledged.append(token)

    async def read(self, name: str) -> None:
        async def work(handle: SessionHandle[Data]) -> None:
            del handle

        await self.request(name, work)

    async def assign(self, name: str) -> None:
        self.given += 1
        note = f"n{self.given}"

        async def work(handle: SessionHandle[Data]) -> None:
            handle.data.note = note

        await self.request(name, work)

    async def regenerate(self, name: str) -> None:
        await self.request(name, lambda handle: handle.regenerate())

    async def impersonate(self, name: str) -> None:
        self.browsers[name].acted = True
        try:
            await self.request(name, lambda handle: handle.impersonate(VICTIM))
        except AccessDeniedError:  # it already acts as the user, or is logged out
            return

    async def end_impersonation(self, name: str) -> None:
        await self.request(name, lambda handle: handle.end_impersonation())

    async def login(self, name: str) -> None:
        try:
            begun = await self.manager.moment()
        except StoreUnavailableError:
            return
        self.browsers[name].logins += 1
        self.begun.add(name)
        answer = await self.request(name, lambda handle: handle.login(self.identity(name), begun=begun))
        self.browsers[name].logged_in = answer == "200" and self.stale

    async def pause(self, name: str) -> None:
        """Wait long enough that the next use of the session is recorded."""
        del name
        self.clock.advance(seconds=2 * TIMEOUTS.touch_interval)

    async def expire(self, name: str) -> None:
        """Wait until the browser's session has expired, unless a running request has used it since."""
        browser = self.browsers[name]
        self.clock.advance(seconds=TIMEOUTS.idle + 1)
        browser.ended = True
        browser.expired = set(browser.acknowledged)
        browser.acknowledged.clear()

    async def destroy(self, name: str) -> None:
        if await self.request(name, lambda handle: handle.destroy()) == "200":
            self.browsers[name].ended = True

    async def revoke_all(self, name: str) -> None:
        self.browsers[name].ended = True
        try:
            await self.manager.revoke_all(self.identity(name))
        except StoreUnavailableError:
            return

    async def op_logout(self, name: str) -> None:
        """The provider ends the browser's login, which may be in progress."""
        self.browsers[name].ended = True
        identity, begun = self.identity(name), name in self.begun
        try:
            await self.manager.end_op_session(identity.issuer, identity.sid or "")
        except StoreUnavailableError:
            return
        if begun:
            self.logged_out.add(name)

    # -- invariants ---------------------------------------------------------------------------------------------

    async def check_limit(self) -> None:
        for user in {browser.user for browser in self.browsers.values()}:
            key = Identity(issuer=ISSUER, subject=user).user_key
            live = await self.store.inner.find(SessionIndex(user=key))
            _must(len(live) <= LIMIT, f"{len(live)} sessions of {user}, the limit is {LIMIT}")

    async def check_end(self) -> None:
        opened: set[str] = set()
        for name, browser in self.browsers.items():
            seen: list[SessionHandle[Data]] = []

            async def look(handle: SessionHandle[Data], seen: list[SessionHandle[Data]] = seen) -> None:
                seen.append(handle)

            answer = await self.request(name, look)
            _must(answer == "200", f"the next request of {name} was answered {answer}")
            handle = seen[0]
            if handle.key:
                opened.add(handle.key)
            excused = browser.ended or browser.lost or browser.logins or self.stale
            _must(handle.identity is not None or not browser.logged_in, f"{name} is not logged in any more")
            _must(handle.identity is None or name not in self.logged_out, f"{name} is logged in although the provider ended that")
            _must(handle.exists or bool(excused) or not browser.acknowledged, f"{name} has lost its session")
            _must(not browser.expired & set(handle.data.tokens), f"what has expired of {name} is back")
            wrong = browser.as_other if handle.actor is None else browser.as_self
            _must(not wrong & set(handle.data.tokens), f"{name} has data of the other identity")
            own = browser.as_self & set(browser.acknowledged)
            kept = handle.identity is None or handle.actor is not None or self.stale or own <= set(handle.data.tokens)
            _must(kept or not browser.acted, f"{name} did not get back its data from before the impersonation")
            if browser.logins == 0 and handle.exists:
                tokens = handle.data.tokens
                for token in browser.acknowledged:
                    _must(tokens.count(token) == 1, f"the acknowledged {token} of {name} is there {tokens.count(token)} times")
                _must(len(set(tokens)) == len(tokens), f"an update of {name} was made twice")
                _must(set(tokens) <= set(browser.maybe), f"{name} has data of another session")
        victims = await self.store.inner.find(SessionIndex(user=VICTIM.user_key))
        _must(not victims, "there is a session of the user who is acted as")
        # A visitor's first write, concurrent with a logout, starts a session without an index, which expires. A user's session
        # must have a browser.
        users_only = any(browser.ended for browser in self.browsers.values())
        live = {
            stored.key
            async for stored in self.store.inner.scan()
            if not is_note(stored.entry.data) and (stored.entry.user is not None or not users_only)
        }
        if not any(browser.lost for browser in self.browsers.values()):
            _must(live <= opened, f"{len(live - opened)} sessions are live that no browser can open")

    async def check_expiry(self, *, extended: bool) -> None:
        """Check when sessions end: not too early after the last use (`extended`), and none later than allowed."""
        for name, browser in self.browsers.items():
            if not extended or browser.ended or browser.acted or browser.cookie is None or not isinstance(browser.cookie, str):
                continue
            stored = await self.store.inner.load(session_key(browser.cookie))
            least = browser.used_at + 1000 * (TIMEOUTS.idle - TIMEOUTS.touch_interval)
            _must(stored is None or stored.entry.expires_at >= least, f"the session of {name} ends too early")
        self.clock.advance(seconds=TIMEOUTS.idle + 1)
        for name, browser in self.browsers.items():
            ids = browser.cookie.ids if isinstance(browser.cookie, UncertainId) else filter(None, [browser.cookie])
            for session_id in ids:
                _must(await self.store.inner.load(session_key(session_id)) is None, f"the session of {name} did not expire")

    async def check_old_ids(self, name: str, before: str | UncertainId | None) -> None:
        """An id from before a rotation is invalid."""
        browser = self.browsers[name]
        if not isinstance(before, str) or browser.cookie == before:
            return
        if isinstance(browser.cookie, str) and await self.store.inner.load(session_key(browser.cookie)) is not None:
            _must(await self.store.inner.load(session_key(before)) is None, f"two ids of {name} are live")


def _must(holds: bool, problem: str) -> None:
    if not holds:
        raise BrokenPromiseError(problem)


Operation: TypeAlias = tuple[str, str]
"""The action, and the number of the browser."""


@dataclass(frozen=True)
class Scenario:
    """The preceding steps, and the requests that overlap."""

    before: tuple[Operation, ...]
    meet: tuple[Operation, ...]
    users: tuple[tuple[str, str], ...] = (("a", "alice"),)
    stale: bool = False
    """The second browser sends the first one's cookie from before the last step: two tabs of one browser."""


_ALICE = ("update", "a"), ("login", "a")
_ACTING = *_ALICE, ("impersonate", "a"), ("update", "a")
_TWO = (("a", "alice"), ("b", "alice"))
_THREE = (*_TWO, ("c", "alice"))
_TABS = (("a", "alice"), ("b", "bob"))
SCENARIOS: dict[str, Scenario] = {
    "update+update": Scenario((("update", "a"),), (("update", "a"), ("update", "a"))),
    "update+assign": Scenario((("update", "a"),), (("update", "a"), ("assign", "a"))),
    "update+regenerate": Scenario((("update", "a"),), (("update", "a"), ("regenerate", "a"))),
    "regenerate+regenerate": Scenario((("update", "a"),), (("regenerate", "a"), ("regenerate", "a"))),
    "regenerate+destroy": Scenario(_ALICE, (("regenerate", "a"), ("destroy", "a"))),
    "update+destroy": Scenario(_ALICE, (("update", "a"), ("destroy", "a"))),
    "regenerate+revoke_all": Scenario(_ALICE, (("regenerate", "a"), ("revoke_all", "a"))),
    "login": Scenario((("update", "a"),), (("login", "a"),)),
    "first login": Scenario((), (("login", "a"),)),
    "first update": Scenario((), (("update", "a"),)),
    "login+op_logout": Scenario((("update", "a"),), (("login", "a"), ("op_logout", "a"))),
    "read": Scenario((("update", "a"), ("pause", "a")), (("read", "a"),)),
    "read+destroy": Scenario((*_ALICE, ("pause", "a")), (("read", "a"), ("destroy", "a"))),
    "read+regenerate": Scenario((("update", "a"), ("pause", "a")), (("read", "a"), ("regenerate", "a"))),
    "read+revoke_all": Scenario((*_ALICE, ("pause", "a")), (("read", "a"), ("revoke_all", "a"))),
    "read+expire": Scenario((("update", "a"), ("pause", "a")), (("read", "a"), ("expire", "a"))),
    "update+expire": Scenario((("update", "a"),), (("update", "a"), ("expire", "a"))),
    "regenerate+expire": Scenario((("update", "a"),), (("regenerate", "a"), ("expire", "a"))),
    "login+expire": Scenario((("update", "a"),), (("login", "a"), ("expire", "a"))),
    "login+login+regenerate": Scenario(_ALICE, (("login", "b"), ("regenerate", "a"), ("login", "c")), _THREE),
    "login+regenerate+regenerate": Scenario(_ALICE, (("login", "b"), ("regenerate", "a"), ("regenerate", "a")), _TWO),
    "login+login": Scenario((("update", "a"),), (("login", "a"), ("login", "b")), _TWO),
    "login+regenerate": Scenario(_ALICE, (("login", "b"), ("regenerate", "a")), _TWO),
    "impersonate+update": Scenario(_ALICE, (("impersonate", "a"), ("update", "a"))),
    "impersonate+revoke_all": Scenario(_ALICE, (("impersonate", "a"), ("revoke_all", "a"))),
    "impersonate+login": Scenario(_ALICE, (("impersonate", "a"), ("login", "b")), _TWO),
    "end_impersonation+update": Scenario(_ACTING, (("end_impersonation", "a"), ("update", "a"))),
    "end_impersonation+destroy": Scenario(_ACTING, (("end_impersonation", "a"), ("destroy", "a"))),
    "end_impersonation+op_logout": Scenario(_ACTING, (("end_impersonation", "a"), ("op_logout", "a"))),
    "tabs": Scenario((("update", "a"),), (("login", "a"), ("login", "b")), _TABS, stale=True),
}


@dataclass
class Outcome:
    """The result of one schedule."""

    problem: str | None
    decisions: int
    calls: int


async def play(scenario: Scenario, plan: Plan, inner: Any, clock: FakeClock) -> Outcome:
    """Run one schedule on an empty store and check the invariants."""
    clustered = isinstance(inner, RedisStore) and inner._link.clustered
    store = SteppedCluster(inner) if clustered else SteppedStore(inner)
    world = World(store, clock)
    world.browsers = {name: Browser(user) for name, user in scenario.users}
    for verb, name in scenario.before:
        await getattr(world, verb)(name)
        clock.advance(seconds=0.001)
    before = {name: browser.cookie for name, browser in world.browsers.items()}
    world.stale = scenario.stale
    if scenario.stale:
        world.browsers["b"].cookie = before["b"] = before["a"]
        world.browsers["b"].maybe = list(world.browsers["a"].maybe)

    director = store.director = Director(plan, world.check_limit)
    for verb, name in scenario.meet:
        director.add(getattr(world, verb)(name))
    problem: str | None = None
    try:
        await director.run()
        for actor, (_, name) in zip(director.actors, scenario.meet, strict=True):
            world.browsers[name].lost |= actor.gone
            if actor.task is not None and actor.task.done():
                actor.task.result()
        store.director = None
        await _look(world, director, before)
        await world.check_expiry(extended=not plan.faults)
    except BrokenPromiseError as error:
        problem = str(error)
    finally:
        store.director = None
        tasks = [actor.task for actor in director.actors if actor.task is not None and not actor.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Outcome(problem, director.decisions, director.calls)


async def _look(world: World, director: Director, before: dict[str, str | UncertainId | None]) -> None:
    """Let every browser send a request, before and after pending steps have been applied."""
    for _ in range(2):
        await world.check_end()
        await world.check_limit()
        await director.apply_late()
    await world.check_end()
    for name, cookie in before.items():
        if not world.browsers[name].lost and not world.stale:
            await world.check_old_ids(name, cookie)
