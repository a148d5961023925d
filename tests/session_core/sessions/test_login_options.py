"""Options of a login: lifetimes, a persistent or session cookie, refusal above the limit, new devices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar, post
from litestar.params import FromPath

from session_core import ConfigurationError, CookieConfig, Identity, Session, Timeouts
from session_core.testing import FakeClock
from tests.support.sessions import ISSUER, AppSession, Recorder, client_of, make_app, make_config, plugin_in

pytestmark = pytest.mark.anyio
KIOSK: dict[str, Any] = {"timeouts": Timeouts(idle=60, absolute=600), "persistent": False}
REMEMBER: dict[str, Any] = {"timeouts": Timeouts(idle=30 * 86400, absolute=90 * 86400), "persistent": True}
OPTIONS = {"kiosk": KIOSK, "remember": REMEMBER, "plain": {}}


@post("/enter/{how:str}")
async def enter(session: Session[AppSession], how: FromPath[str]) -> None:
    await session.login(Identity(issuer=ISSUER, subject="alice"), **OPTIONS[how])


async def subject(client: httpx.AsyncClient) -> str | None:
    found: str | None = (await client.get("/read")).json()["subject"]
    return found


async def test_a_kiosk_login_ends_soon(clock: FakeClock) -> None:
    async with client_of(make_app(enter, clock=clock)) as client:
        response = await client.post("/enter/kiosk")
        assert "Max-Age" not in response.headers["set-cookie"]
        for _ in range(9):
            clock.advance(seconds=50)
            assert await subject(client) == "alice"  # each use extends it
            await client.post("/visit")
        clock.advance(seconds=61)
        assert await subject(client) is None


async def test_a_kiosk_login_ends_at_its_own_absolute_timeout(clock: FakeClock) -> None:
    async with client_of(make_app(enter, clock=clock)) as client:
        await client.post("/enter/kiosk")
        for _ in range(12):
            assert await subject(client) == "alice"
            clock.advance(seconds=50)
        assert await subject(client) is None


async def test_a_remembered_login_lives_longer(clock: FakeClock) -> None:
    app = make_app(enter, clock=clock, cookie=CookieConfig(persistent=False))
    async with client_of(app) as client:
        response = await client.post("/enter/remember")
        assert f"Max-Age={90 * 86400}" in response.headers["set-cookie"]
        for _ in range(4):  # used every twenty days, which extends its own idle timeout
            clock.advance(days=20)
            assert await subject(client) == "alice"
        clock.advance(days=11)
        assert await subject(client) is None


async def test_a_regenerated_session_keeps_its_lifetimes_and_the_next_login_has_its_own(clock: FakeClock) -> None:
    async with client_of(make_app(enter, clock=clock)) as client:
        await client.post("/enter/kiosk")
        response = await client.post("/regenerate")
        assert "Max-Age" not in response.headers["set-cookie"]
        clock.advance(seconds=61)
        assert await subject(client) is None
        await client.post("/enter/kiosk")
        response = await client.post("/enter/plain")
        assert "Max-Age=86400" in response.headers["set-cookie"]
        clock.advance(seconds=61)
        assert await subject(client) == "alice"


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'sessions.db'}"


async def log_in_often(app: Litestar, times: int, user: str = "alice") -> list[int]:
    async def once() -> int:
        async with client_of(app) as client:
            return (await client.post(f"/login/{user}")).status_code

    return await asyncio.gather(*(once() for _ in range(times)))


async def test_logins_above_the_limit_are_refused_exactly(store: str) -> None:
    app = make_app(store=store, store_timeout=30, max_sessions_per_user=3, on_limit="refuse")
    await plugin_in(app).store.open()
    statuses = await log_in_often(app, 12)
    assert sorted(statuses) == [201] * 3 + [403] * 9
    assert len(await plugin_in(app).sessions.list_for(Identity(issuer=ISSUER, subject="alice"))) == 3
    assert await log_in_often(app, 1, "bob") == [201]
    await plugin_in(app).store.close()


async def test_a_refused_login_gives_the_reason_and_a_logout_makes_room() -> None:
    app = make_app(max_sessions_per_user=1, on_limit="refuse")
    async with client_of(app) as first, client_of(app) as second:
        assert (await first.post("/login/alice")).status_code == 201
        assert (await first.post("/login/alice")).status_code == 201  # it replaces its own session
        refused = await second.post("/login/alice")
        assert (refused.status_code, refused.json()["code"]) == (403, "session_limit")
        assert "set-cookie" not in refused.headers
        await first.post("/logout")
        assert (await second.post("/login/alice")).status_code == 201


async def test_the_limit_can_depend_on_the_user() -> None:
    async def limit(identity: Identity) -> int:
        await asyncio.sleep(0)
        return 2 if identity.subject == "alice" else 0

    app = make_app(max_sessions_per_user=limit)
    await log_in_often(app, 4)
    await log_in_often(app, 4, "bob")
    sessions = plugin_in(app).sessions
    assert len(await sessions.list_for(Identity(issuer=ISSUER, subject="alice"))) == 2
    assert len(await sessions.list_for(Identity(issuer=ISSUER, subject="bob"))) == 4


async def test_a_login_from_a_new_device_is_an_event() -> None:
    recorder = Recorder()
    app = make_app(on_event=[recorder], new_device_events=True)

    async def log_in_with(client: httpx.AsyncClient, agent: str) -> bool:
        before = len(recorder.names)
        await client.post("/login/alice", headers={"user-agent": agent})
        return "login.new_device" in recorder.names[before:]

    async with client_of(app) as phone, client_of(app) as laptop, client_of(app) as again:
        assert await log_in_with(phone, "phone")
        assert not await log_in_with(phone, "phone, updated")  # the same browser
        assert await log_in_with(laptop, "laptop")
        assert not await log_in_with(again, "laptop")


def test_an_unknown_limit_policy_is_refused_at_start() -> None:
    with pytest.raises(ConfigurationError, match="on_limit must be"):
        make_config(on_limit="ask")
