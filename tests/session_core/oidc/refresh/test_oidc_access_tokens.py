"""Access tokens of a session: used while valid, refreshed once when expired, lost only when the provider refuses."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import msgspec
import pytest
from litestar import get

from session_core import Identity, Session
from session_core.oidc import Tokens
from session_core.oidc.tokens.vault import TokenSet, TokenVault
from session_core.sealing import SealingKeys
from session_core.stores.base import SessionIndex
from tests.session_core.oidc.fake_op import GONE, ISSUER, World
from tests.support.sessions import AppSession

pytestmark = pytest.mark.anyio


@get("/token-now")
async def token_now(session: Session[AppSession], tokens: Tokens) -> str:
    return await tokens.access_token(session)


@get("/userinfo-now")
async def userinfo_now(session: Session[AppSession], tokens: Tokens) -> dict[str, Any]:
    return await tokens.userinfo(session)


HANDLERS = [token_now, userinfo_now]
ALICE = Identity(issuer=ISSUER, subject="alice")


@pytest.fixture
async def world() -> World:
    made = World(handlers=HANDLERS)
    made.op.refreshable = True
    assert (await made.login()).status_code == 303
    return made


def redemptions(world: World) -> Counter[str]:
    """The number of uses of each refresh token."""
    forms = [dict(parse_qsl(call.content.decode())) for call in world.op.calls if call.url.path == "/token"]
    return Counter(form["refresh_token"] for form in forms if "refresh_token" in form)


async def test_a_valid_token_is_returned_unchanged(world: World) -> None:
    world.clock.advance(seconds=269)
    assert (await world.browser.get("/token-now")).text == "at-1"
    assert not redemptions(world)


async def test_an_expired_token_is_refreshed_and_stored(world: World) -> None:
    for number in (2, 3, 4):
        world.clock.advance(seconds=300)
        for _ in range(2):
            assert (await world.browser.get("/token-now")).text == f"at-{number}"
    assert list(redemptions(world).values()) == [1, 1, 1]
    assert await world.subject() == "alice"


async def test_a_refresh_without_a_new_refresh_token_keeps_the_old_one(world: World) -> None:
    """RFC 6749 6: without a new refresh token in the response, the old one stays valid for later refreshes too."""
    first = world.op.refresh_token
    world.op.answer = {"refresh_token": GONE}
    for number in (2, 3, 4):
        world.clock.advance(seconds=300)
        world.op.refresh_token = first
        assert (await world.browser.get("/token-now")).text == f"at-{number}"
    assert redemptions(world) == {first: 3}


async def test_userinfo_is_fetched(world: World) -> None:
    assert (await world.browser.get("/userinfo-now")).json() == {"sub": "alice", "name": "Alice"}
    world.clock.advance(seconds=300)
    assert (await world.browser.get("/userinfo-now")).status_code == 200
    assert world.op.calls[-1].headers["authorization"] == "Bearer at-2"


@pytest.mark.attack("29")
async def test_userinfo_of_another_user_is_refused(world: World) -> None:
    world.op.userinfo = {"sub": "bob"}
    assert (await world.browser.get("/userinfo-now")).status_code == 502
    assert await world.subject() == "alice"


async def test_userinfo_when_the_provider_is_down_or_refuses(world: World) -> None:
    for status, expected in ((500, 502), (401, 401)):
        world.op.replies["/userinfo"] = lambda _, status=status: httpx2.Response(status)  # type: ignore[misc]
        assert (await world.browser.get("/userinfo-now")).status_code == expected
        assert await world.subject() == "alice"


@pytest.mark.parametrize(
    "value", [GONE, None, "", "soon", -1, [], {}, True], ids=lambda value: "gone" if value is GONE else repr(value)
)
async def test_userinfo_refreshes_a_refused_token_whose_lifetime_is_unknown(value: Any) -> None:
    world = World(handlers=HANDLERS)
    world.op.refreshable = True
    world.op.answer = {"expires_in": value}
    assert (await world.login()).status_code == 303

    def answer(request: httpx2.Request) -> httpx2.Response:
        fresh = request.headers["authorization"] == "Bearer at-2"
        return httpx2.Response(200, json={"sub": "alice"}) if fresh else httpx2.Response(401)

    world.op.replies["/userinfo"] = answer
    for _ in range(2):
        assert (await world.browser.get("/userinfo-now")).json() == {"sub": "alice"}
    assert list(redemptions(world).values()) == [1]
    # One that is refused as well is refreshed once for each request.
    world.op.replies["/userinfo"] = lambda _: httpx2.Response(401)
    assert (await world.browser.get("/userinfo-now")).status_code == 401
    assert list(redemptions(world).values()) == [1, 1]
    assert await world.subject() == "alice"


async def test_a_visitor_has_no_token(world: World) -> None:
    async with world.new_browser() as visitor:
        assert (await visitor.get("/token-now")).status_code == 401


@pytest.mark.attack("35")
async def test_twenty_requests_in_two_processes_redeem_once(world: World) -> None:
    other = World(handlers=HANDLERS, sharing=world)
    cookies = {"session-8000": world.browser.cookies["session-8000"]}
    world.clock.advance(seconds=300)
    browsers = [process.new_browser(cookies=cookies) for process in (world, other) for _ in range(10)]
    answers = await asyncio.gather(*(browser.get("/token-now") for browser in browsers))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "at-2")}
    assert list(redemptions(world).values()) == [1]


@pytest.mark.attack("35")
async def test_a_request_that_loaded_the_session_before_the_refresh_does_not_redeem_again(world: World) -> None:
    world.clock.advance(seconds=300)
    waiting, go_on = asyncio.Event(), asyncio.Event()

    @get("/late")
    async def late(session: Session[AppSession], tokens: Tokens) -> str:
        waiting.set()
        await go_on.wait()
        return await tokens.access_token(session)

    other = World(handlers=[late], sharing=world)
    async with other.new_browser(cookies={"session-8000": world.browser.cookies["session-8000"]}) as browser:
        request = asyncio.create_task(browser.get("/late"))
        await waiting.wait()
        assert (await world.browser.get("/token-now")).text == "at-2"
        go_on.set()
        assert (await request).text == "at-2"
    assert list(redemptions(world).values()) == [1]


@pytest.mark.attack("35")
async def test_a_client_that_disconnects_during_a_refresh_does_not_stop_it(world: World) -> None:
    world.clock.advance(seconds=300)
    inside, go_on = world.op.hold()
    request = asyncio.create_task(world.browser.get("/token-now"))
    await inside.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    refreshing = list(world.oidc.tokens._flight._running.values())
    assert refreshing, "the refresh was cancelled with its client"
    go_on.set()
    await asyncio.gather(*refreshing)
    world.op.replies.clear()
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert list(redemptions(world).values()) == [1]


@pytest.mark.attack("35")
async def test_a_killed_process_does_not_block_the_session(world: World) -> None:
    """The lease's holder may be dead: others get a response in time, and the session still works."""
    world.clock.advance(seconds=300)
    other = World(handlers=HANDLERS, sharing=world)
    tokens, inside = world.oidc.tokens, asyncio.Event()
    other.oidc.tokens.refresh.lease_seconds = 0.3

    async def never(_: object) -> httpx2.Response:
        inside.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.op.replies["/token"] = never
    cookies = {"session-8000": world.browser.cookies["session-8000"]}
    killed = asyncio.create_task(world.browser.get("/token-now"))
    await inside.wait()
    for task in (*tokens._flight._running.values(), *tokens.refresh._redeeming._running.values()):
        task.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    [stored] = await world.sessions.store.find(SessionIndex(user=ALICE.user_key))
    held = await tokens.refresh.store.load(stored.key)
    assert held is not None
    assert held.tokens.lease.held, "no process was killed: the lease was released"
    world.op.replies.clear()
    async with other.new_browser(cookies=cookies) as browser:
        assert (await browser.get("/token-now")).text == "at-2"


@pytest.mark.attack("36")
@pytest.mark.parametrize("claims", [{"sub": "bob"}, {"iss": "https://evil.example"}, {"aud": "other"}, {"sub": GONE}])
async def test_a_refreshed_id_token_for_another_user_ends_the_session(world: World, claims: dict[str, Any]) -> None:
    world.clock.advance(seconds=300)
    world.op.claims = claims
    assert (await world.browser.get("/token-now")).status_code == 401
    assert await world.subject() is None


@pytest.mark.attack("oidcc-client-test-refresh-token")
async def test_a_refresh_without_id_token_keeps_the_login(world: World) -> None:
    world.clock.advance(seconds=300)
    world.op.answer = {"id_token": GONE, "refresh_token": GONE}
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert await world.subject() == "alice"


@pytest.mark.attack("37")
async def test_invalid_grant_ends_the_login(world: World) -> None:
    world.clock.advance(seconds=300)
    world.op.refresh_token = "revoked"
    assert (await world.browser.get("/token-now")).status_code == 401
    assert await world.subject() is None
    assert world.reasons() == ["refresh_invalid_grant"]


@pytest.mark.attack("37")
async def test_an_outage_ends_no_session(world: World) -> None:
    world.op.replies["/token"] = lambda _: httpx2.Response(503)
    world.clock.advance(seconds=280)
    # Due for a refresh, not expired yet.
    assert (await world.browser.get("/token-now")).text == "at-1"
    world.clock.advance(seconds=20)
    assert (await world.browser.get("/token-now")).status_code == 502
    assert await world.subject() == "alice"
    world.op.replies.clear()
    assert (await world.browser.get("/token-now")).text == "at-2"


async def test_without_a_refresh_token_an_expired_access_token_is_a_401(world: World) -> None:
    other = World(handlers=HANDLERS)
    await other.login()
    other.clock.advance(seconds=299)
    assert (await other.browser.get("/token-now")).text == "at-1"
    other.clock.advance(seconds=1)
    assert (await other.browser.get("/token-now")).status_code == 401


async def test_a_token_without_expiry_is_used(world: World) -> None:
    other = World(handlers=HANDLERS)
    other.op.answer = {"expires_in": GONE}
    await other.login()
    other.clock.advance(minutes=59)
    assert (await other.browser.get("/token-now")).text == "at-1"


class TestVault:
    alice, bob = Identity(issuer=ISSUER, subject="alice"), Identity(issuer=ISSUER, subject="bob")
    tokens = TokenSet(access_token="canary-access", refresh_token="canary-refresh", id_token="canary-id", expires_at=1)

    def test_the_vault_opens_for_its_user_only(self) -> None:
        vault = TokenVault(SealingKeys([b"k" * 32]))
        sealed = vault.seal(self.tokens, self.alice)
        assert b"canary" not in sealed
        assert vault.open(sealed, self.alice) == self.tokens
        assert vault.open(sealed, self.bob) is None
        assert vault.open(sealed, None) is None
        assert vault.open(b"", self.alice) is None
        assert vault.open(sealed[:-1], self.alice) is None

    def test_fields_of_a_newer_version_survive_a_refresh(self) -> None:
        sealing = SealingKeys([b"k" * 32])
        vault = TokenVault(sealing)
        written = {**msgspec.msgpack.decode(msgspec.msgpack.encode(self.tokens)), "l": {"t": 1, "zz": 5}, "dpop": "key-1"}
        context = f"oidc-tokens:{self.alice.user_key}"
        tokens = vault.open(sealing.seal(msgspec.msgpack.encode(written), context=context), self.alice)
        assert tokens is not None
        renewed = TokenSet(access_token="new", lease=msgspec.structs.replace(tokens.lease, term=2), newer=tokens.newer)
        again = sealing.unseal(vault.seal(renewed, self.alice), context=context)
        assert again is not None
        assert msgspec.msgpack.decode(again) == {"a": "new", "l": {"t": 2, "zz": 5}, "dpop": "key-1"}

    def test_keys_rotate(self) -> None:
        sealed = TokenVault(SealingKeys([b"a" * 32])).seal(self.tokens, self.alice)
        assert TokenVault(SealingKeys([b"b" * 32, b"a" * 32])).open(sealed, self.alice) == self.tokens
        assert TokenVault(SealingKeys([b"b" * 32])).open(sealed, self.alice) is None

    def test_reprs_hide_the_tokens(self) -> None:
        assert "canary" not in repr(self.tokens) + str(list(self.tokens.__rich_repr__()))
