"""A browser whose session was ended from elsewhere: single sign-on does not restore it; the next login authenticates again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from litestar import get, post

from session_core import Identity, Session, StoreUnavailableError
from session_core.oidc import LoginOptions
from session_core.sessions.timeouts import Timeouts
from tests.session_core.oidc.fake_op import GET_PAGE, ISSUER, World
from tests.support.sessions import AppSession

pytestmark = [pytest.mark.anyio, pytest.mark.attack("73")]

ALICE = Identity(issuer=ISSUER, subject="alice")


@get("/handle")
async def handle(session: Session[AppSession]) -> str:
    return session.handle or ""


@get("/key")
async def key_of(session: Session[AppSession]) -> str:
    return session.key or ""


@post("/regenerate-now")
async def regenerate(session: Session[AppSession]) -> None:
    await session.regenerate()


class SsoWorld(World):
    """Two browsers of one user; the provider records each user's login time and never prompts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(handlers=[handle, key_of, regenerate], **options)
        self.op.auth_time = self.now
        self.other = self.new_browser()

    @property
    def now(self) -> int:
        return self.clock.now() // 1000

    async def both_log_in(self) -> None:
        for browser in (self.browser, self.other):
            assert (await self.login(browser)).status_code == 303
        self.clock.advance(seconds=30)

    async def asked(self, browser: httpx.AsyncClient | None = None, **params: str) -> dict[str, str]:
        """The parameters of the browser's next login request."""
        query = parse_qs(urlsplit(await self.start(browser or self.other, **params)).query)
        return {name: query[name][0] for name in ("prompt", "max_age") if name in query}

    async def assert_reauthenticates(self) -> None:
        """The login requests authentication; it is refused without a new one and accepted with one."""
        assert await self.subject(self.other) is None
        assert await self.asked() == {"prompt": "login", "max_age": "60"}
        # The provider ignores both parameters, or never sends auth_time.
        for auth_time, reason in (
            (self.now - 30, "auth_time_too_old"),
            (self.now - 3, "auth_time_too_old"),
            (None, "auth_time_missing"),
        ):
            self.op.auth_time = auth_time
            self.events.clear()
            assert (await self.login(self.other)).status_code == 400
            assert self.reasons() == [reason]
            assert await self.subject(self.other) is None
        # The user takes nine minutes, and the provider's clock is a minute behind.
        started = await self.start(self.other)
        self.clock.advance(seconds=540)
        self.op.auth_time = self.now - 60
        self.op.claims = {"iat": self.now - 59}
        assert (await self.come_back(self.op.authorize(started), self.other)).status_code == 303, self.reasons()
        assert await self.subject(self.other) == "alice"
        assert await self.asked() == {}


async def revoke(world: SsoWorld) -> None:
    await world.sessions.sessions.revoke((await world.other.get("/handle")).text, identity=ALICE)


async def revoke_any(world: SsoWorld) -> None:
    await world.sessions.sessions.revoke_any((await world.other.get("/handle")).text)


async def revoke_all(world: SsoWorld) -> None:
    await world.sessions.sessions.revoke_all(ALICE)


async def by_limit(world: SsoWorld) -> None:
    world.sessions.lifecycle._limits._limit = 1
    await world.login(world.new_browser())
    world.sessions.lifecycle._limit = 0


async def by_logout_token(world: SsoWorld) -> None:
    assert (await world.send_logout(world.op.logout_token())).status_code == 200
    world.clock.advance(seconds=1)


async def by_frame(world: SsoWorld) -> None:
    await world.new_browser().get("/auth/frontchannel-logout", params={"iss": ISSUER, "sid": "op-session-1"})
    world.clock.advance(seconds=1)


async def by_an_op_logout_of_the_user(world: SsoWorld) -> None:
    await world.sessions.sessions.end_user(ALICE)


ENDS = [revoke, revoke_any, revoke_all, by_limit]
End = Callable[[SsoWorld], Awaitable[None]]


@pytest.fixture
async def world() -> SsoWorld:
    made = SsoWorld()
    await made.both_log_in()
    return made


@pytest.mark.parametrize("end", ENDS)
async def test_the_next_login_authenticates_again(world: SsoWorld, end: End) -> None:
    await end(world)
    await world.assert_reauthenticates()


@pytest.mark.parametrize("end", [by_logout_token, by_frame, by_an_op_logout_of_the_user])
async def test_a_provider_that_ended_its_own_session_needs_no_extra_parameter(world: SsoWorld, end: End) -> None:
    await end(world)
    assert await world.subject(world.other) is None
    assert await world.asked() == {}


async def test_the_next_login_authenticates_again_on_every_engine(store: str) -> None:
    world = SsoWorld(store=store)
    await world.sessions.store.open()
    try:
        await world.both_log_in()
        await revoke_all(world)
        assert await world.asked() == {"prompt": "login", "max_age": "60"}
    finally:
        await world.sessions.store.close()


@pytest.mark.parametrize("how", ["idle", "absolute", "logout", "deleted cookie", "another browser"])
async def test_another_kind_of_end_needs_no_authentication(world: SsoWorld, how: str) -> None:
    if how == "idle":
        world.clock.advance(seconds=world.sessions.config.timeouts.idle)
    elif how == "absolute":
        world.clock.advance(seconds=world.sessions.config.timeouts.absolute)
    elif how == "logout":
        await world.other.post("/auth/logout", headers={"sec-fetch-site": "same-origin"})
    elif how == "deleted cookie":
        await revoke(world)
        world.other.cookies.clear()
    else:
        await revoke(world)
        world.other = world.new_browser()
    assert await world.asked() == {}


async def test_the_browser_that_revoked_the_others_is_not_affected(world: SsoWorld) -> None:
    await world.sessions.sessions.revoke_all(ALICE, keep=(await world.browser.get("/key")).text)
    assert await world.subject() == "alice"
    assert await world.asked(world.browser) == {}
    world.clock.advance(seconds=world.sessions.config.timeouts.idle)
    assert await world.asked(world.browser) == {}


class TestWhatTheBrowserDoesInBetween:
    @pytest.mark.parametrize("end", [revoke, by_limit])
    async def test_an_anonymous_session_in_between_changes_nothing(self, world: SsoWorld, end: End) -> None:
        await end(world)
        for _ in range(2):
            assert (await world.other.patch("/assign", json={"note": "x"})).status_code == 200
            await world.other.post("/regenerate-now")
            assert await world.asked() == {"prompt": "login", "max_age": "60"}
            world.clock.advance(seconds=world.sessions.config.timeouts.idle)
        await world.assert_reauthenticates()

    @pytest.mark.parametrize("end", [revoke, by_limit])
    async def test_a_login_that_started_before_the_revocation_is_refused(self, world: SsoWorld, end: End) -> None:
        started = await world.start(world.other)
        await end(world)
        assert (await world.come_back(world.op.authorize(started), world.other)).status_code == 400
        assert world.reasons() == ["reauthentication_required"]
        assert await world.subject(world.other) is None

    @pytest.mark.parametrize("end", [revoke, revoke_any, revoke_all])
    async def test_a_login_of_a_session_that_is_revoked_during_its_callback_is_refused(self, world: SsoWorld, end: End) -> None:
        """Also the session of a user who is logged in, and logs in once more for a step-up."""
        returned = world.op.authorize(await world.start(world.other, max_age="300"))
        asked, go_on = world.op.hold()
        callback = asyncio.create_task(world.come_back(returned, world.other))
        await asked.wait()
        await end(world)
        go_on.set()
        assert (await callback).status_code == 400
        assert world.reasons() == ["reauthentication_required"]
        await world.assert_reauthenticates()

    @pytest.mark.parametrize("how", ["idle", "logout"])
    async def test_a_login_of_a_session_that_ends_otherwise_during_its_callback_succeeds(self, world: SsoWorld, how: str) -> None:
        returned = world.op.authorize(await world.start(world.other))
        asked, go_on = world.op.hold()
        callback = asyncio.create_task(world.come_back(returned, world.other))
        await asked.wait()
        if how == "idle":
            key = (await world.other.get("/key")).text
            await world.sessions.store.delete(key)
        else:
            await world.other.post("/auth/logout", headers={"sec-fetch-site": "same-origin"})
        go_on.set()
        assert (await callback).status_code == 303

    async def test_a_silent_login_returns_to_the_page(self, world: SsoWorld) -> None:
        await revoke(world)
        response = await world.other.get("/auth/login", params={"prompt": "none", "next": "/public"}, headers=GET_PAGE)
        assert (response.status_code, response.headers["location"]) == (303, "/public")
        assert world.reasons("login.silent_failed") == ["reauthentication_required"]

    async def test_the_mark_lasts_as_long_as_the_session_could_have(self, world: SsoWorld) -> None:
        await revoke(world)
        world.clock.advance(seconds=world.sessions.config.timeouts.absolute - 1)
        assert await world.asked() == {"prompt": "login", "max_age": "60"}
        world.clock.advance(seconds=1)
        assert await world.asked() == {}

    @pytest.mark.parametrize(
        ("chosen_by", "end"), [("link", revoke), ("link", by_limit), ("hook", revoke), ("hook", revoke_any), ("hook", revoke_all)]
    )
    async def test_the_mark_of_a_session_with_a_longer_life_lasts_as_long(self, chosen_by: str, end: End) -> None:
        days = 86_400
        remember = LoginOptions(timeouts=Timeouts(idle=20 * days, absolute=20 * days), persistent=True)

        async def on_login(*_: object) -> LoginOptions:
            return remember

        world = SsoWorld(**({"login_options": {"remember": remember}} if chosen_by == "link" else {"on_login": on_login}))
        await world.login(world.other, **({"option": "remember"} if chosen_by == "link" else {}))
        await end(world)
        world.clock.advance(seconds=20 * days - 1)
        assert await world.asked() == {"prompt": "login", "max_age": "60"}
        world.clock.advance(seconds=1)
        assert await world.asked() == {}


class TestWhatIsAskedFor:
    @pytest.mark.parametrize(
        ("params", "configured", "expected"),
        [
            ({"prompt": "select_account"}, {}, {"prompt": "login select_account", "max_age": "60"}),
            ({"prompt": "login"}, {}, {"prompt": "login", "max_age": "60"}),
            ({"max_age": "10"}, {}, {"prompt": "login", "max_age": "10"}),
            ({"max_age": "300"}, {}, {"prompt": "login", "max_age": "60"}),
            ({}, {"max_age": 3600}, {"prompt": "login", "max_age": "60"}),
            ({}, {"authorization_params": {"prompt": "consent"}}, {"prompt": "login consent", "max_age": "60"}),
            ({}, {"reauthentication_prompt": "select_account"}, {"prompt": "select_account", "max_age": "60"}),
        ],
    )
    async def test_the_parameters_combine_with_those_of_the_login(
        self, params: dict[str, str], configured: dict[str, Any], expected: dict[str, str]
    ) -> None:
        world = SsoWorld(provider=configured)
        await world.both_log_in()
        await revoke(world)
        assert await world.asked(**params) == expected

    async def test_a_missing_auth_time_is_accepted_when_configured(self) -> None:
        world = SsoWorld(provider={"verify_reauthentication": False})
        await world.both_log_in()
        await revoke(world)
        assert await world.asked() == {"prompt": "login", "max_age": "60"}
        world.op.auth_time = None
        assert (await world.login(world.other)).status_code == 303
        assert await world.subject(world.other) == "alice"

    @pytest.mark.parametrize(
        ("params", "expected"),
        [
            ({}, {}),
            ({"max_age": "300"}, {"prompt": "login", "max_age": "300"}),
            ({"max_age": "300", "prompt": "none"}, {"prompt": "none", "max_age": "300"}),
        ],
    )
    async def test_a_provider_that_ignores_max_age_gets_a_prompt_for_a_step_up(
        self, params: dict[str, str], expected: dict[str, str]
    ) -> None:
        world = SsoWorld(provider={"step_up_prompt": True})
        assert await world.asked(world.browser, **params) == expected
        assert await SsoWorld().asked(**params) == params


class TestOutages:
    async def test_a_store_outage_does_not_undo_a_revocation(self, world: SsoWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        async def out(*_: object) -> bool:
            message = "down"
            raise ConnectionError(message)

        monkeypatch.setattr(world.sessions.store.inner, "claim", out)
        await revoke(world)
        assert await world.subject(world.other) is None
        monkeypatch.undo()

    @pytest.mark.parametrize("end", [revoke, revoke_any, revoke_all])
    async def test_an_outage_half_way_is_reported_and_the_ended_browser_authenticates_again(
        self, world: SsoWorld, end: End, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, key = world.sessions.store.inner, (await world.other.get("/key")).text
        delete = store.delete

        async def broken(*_: object, **__: object) -> tuple[str, ...]:
            await delete(key)
            message = "down"
            raise ConnectionError(message)

        monkeypatch.setattr(store, "delete", broken)
        monkeypatch.setattr(store, "delete_by", broken)
        world.events.clear()
        with pytest.raises(StoreUnavailableError):
            await end(world)
        monkeypatch.undo()
        assert world.reasons("session.revocation_failed") == ["operator" if end is revoke_any else "revoked"]
        assert world.reasons("session.revoked") == []
        await world.assert_reauthenticates()
