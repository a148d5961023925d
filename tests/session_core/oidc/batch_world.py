"""An application with a batch of due tokens, and the assertions about it."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
from litestar import get, post

from session_core import Session
from session_core.oidc import BatchRefresh, Tokens
from session_core.sessions.notes import is_note
from session_core.stores.base import StoredSession
from tests.session_core.oidc.fake_op import World
from tests.support.sessions import AppSession

KEY = "a-key-of-more-than-thirty-two-characters"


@get("/token-now")
async def token_now(session: Session[AppSession], tokens: Tokens) -> str:
    return await tokens.access_token(session)


@post("/regenerate-now")
async def regenerate_now(session: Session[AppSession]) -> None:
    await session.regenerate()


def new_world(**options: Any) -> World:
    options.setdefault("batch_refresh", BatchRefresh(key=KEY))
    world = World(handlers=[token_now, regenerate_now], **options)
    world.op.refreshable = True
    return world


async def world_in_use() -> World:
    """A user has logged in, with a token for an hour."""
    made = new_world()
    made.op.answer = {"expires_in": 3600}
    assert (await made.login()).status_code == 303
    return made


async def run(world: World, **options: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(await world.oidc.refresh_tokens(**options))


def result(**counts: Any) -> dict[str, Any]:
    return {"due": 0, "refreshed": 0, "ended": 0, "failed": 0, "skipped": 0, "complete": True, **counts}


async def records(world: World) -> list[StoredSession]:
    return [each async for each in world.sessions.store.scan()]


async def notes(world: World) -> list[StoredSession]:
    return [each for each in await records(world) if is_note(each.entry.data) and each.entry.op_session]


async def stay_in_use(world: World, minutes: int) -> None:
    """Let time pass while the user reads a page regularly."""
    for _ in range(minutes // 5):
        world.clock.advance(minutes=5)
        assert await world.subject() == "alice"


def several_users(world: World) -> None:
    """One refresh token for all, because the provider of the tests remembers only one."""
    world.op.refreshable, world.op.refresh_token = False, "rt-for-ever"
    world.op.answer = {"expires_in": 3600, "refresh_token": "rt-for-ever"}


async def post_to(world: World, key: str | None, **headers: str) -> httpx.Response:
    given = {**({"authorization": f"Bearer {key}"} if key is not None else {}), **headers}
    async with world.new_browser() as machine:
        return await machine.post("/auth/refresh-tokens", headers=given)
