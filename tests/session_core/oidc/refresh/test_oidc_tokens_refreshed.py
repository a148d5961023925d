"""The response of a refresh: ID tokens of another login, lost tokens, silent upgrades."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl

import httpx
import httpx2
import msgspec
import pytest
from litestar import get
from litestar.params import FromQuery

from session_core import Identity, Session, StoreUnavailableError
from session_core.ids import handle_of
from session_core.oidc import Tokens
from session_core.oidc.refresh.refreshed_id_token import nonce_digest
from session_core.oidc.tokens.vault import TokenSet, TokenVault
from session_core.sealing import SealingKeys
from tests.session_core.oidc.fake_op import EC_KEY, GONE, ISSUER, OTHER_RSA_KEY, World, b64_json, public_jwk, sign
from tests.support.sessions import AppSession

pytestmark = pytest.mark.anyio


@get("/token-now")
async def token_now(session: Session[AppSession], tokens: Tokens, refused: FromQuery[str | None] = None) -> str:
    return await tokens.access_token(session, refused=refused)


@get("/identity-now")
async def identity_now(session: Session[AppSession]) -> Identity | None:
    return session.identity


HANDLERS = [token_now, identity_now]


@pytest.fixture
async def world() -> World:
    made = World(handlers=HANDLERS)
    made.op.refreshable = True
    made.op.auth_time = made.clock.now() // 1000 - 60
    assert (await made.login()).status_code == 303
    return made


async def rotating_world(metadata: dict[str, Any] | None = None) -> World:
    made = World(handlers=HANDLERS)
    made.op.refreshable = True
    made.op.metadata = metadata or {}
    assert (await made.login()).status_code == 303
    return made


async def stored_tokens(world: World) -> TokenSet:
    stored = [each async for each in world.sessions.store.scan()]
    held = world.oidc.tokens.refresh.store.read(stored[0])
    assert held is not None
    return held.tokens


def all_tokens_expired(world: World) -> None:
    world.clock.advance(seconds=300)


@pytest.mark.attack("36")
@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": "bob"}, "sub_mismatch"),
        ({"iss": "https://evil.example"}, "iss_mismatch"),
        ({"aud": "other"}, "aud_mismatch"),
        ({"aud": ["app", "other"], "azp": "app"}, "aud_mismatch"),
        ({"azp": "other"}, "azp_mismatch"),
        ({"azp": "app", "sub": "bob"}, "sub_mismatch"),
        ({"azp": "app", "nonce": "another"}, "nonce_mismatch"),
        ({"nonce": "another"}, "nonce_mismatch"),
        ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "at_hash_mismatch"),
        ({"iat": GONE}, "iat_missing"),
        ({"exp": GONE}, "exp_missing"),
        ({"events": {}}, "events_claim"),
        ({"iat": 1, "sub": "bob"}, "sub_mismatch"),
    ],
)
async def test_a_refreshed_id_token_of_another_login_ends_the_session(world: World, claims: dict[str, Any], reason: str) -> None:
    all_tokens_expired(world)
    world.op.claims = claims
    assert (await world.browser.get("/token-now")).status_code == 401
    assert await world.subject() is None
    assert world.reasons() == [f"refresh_{reason}"]


@pytest.mark.attack("35")
async def test_a_refusal_ends_nothing_when_another_process_has_redeemed_the_token(world: World) -> None:
    store = world.oidc.tokens.refresh.store

    async def refuse(_: httpx2.Request) -> httpx2.Response:
        (stored,) = [each async for each in world.sessions.store.scan()]
        held = store.read(stored)
        assert held is not None
        later = world.clock.now() + 300_000
        lease = msgspec.structs.replace(held.tokens.lease, term=held.tokens.lease.term + 1, holder="")
        newer = msgspec.structs.replace(held.tokens, access_token="at-other", expires_at=later, term=lease.term, lease=lease)
        await store.change(held, lambda _: newer, used=False)
        return httpx2.Response(400, json={"error": "invalid_grant"})

    all_tokens_expired(world)
    world.op.replies["/token"] = refuse
    assert (await world.browser.get("/token-now")).text == "at-other"
    assert await world.subject() == "alice"


async def test_each_refresh_is_reported_with_its_session_and_user(world: World) -> None:
    (stored,) = [each async for each in world.sessions.store.scan()]
    all_tokens_expired(world)
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert (await world.browser.get("/token-now")).text == "at-2"
    (event,) = [event for event in world.events if event.name == "tokens.refreshed"]
    assert event.handle == handle_of(stored.key)
    assert event.identity is not None
    assert event.identity.subject == "alice"
    world.op.replies["/token"] = lambda _: httpx2.Response(503)
    all_tokens_expired(world)
    assert (await world.browser.get("/token-now")).status_code == 502
    (event,) = [event for event in world.events if event.name == "tokens.refresh_failed"]
    assert (event.handle, event.reason) == (handle_of(stored.key), "token_status")


def revoked(world: World) -> list[dict[str, str]]:
    return [dict(parse_qsl(call.content.decode())) for call in world.op.calls if call.url.path == "/revoke"]


@pytest.mark.attack("36")
@pytest.mark.parametrize("claims", [{"sub": "bob"}, {"aud": "other"}, {"iat": GONE}])
async def test_a_refused_refreshed_id_token_revokes_the_fresh_tokens(claims: dict[str, Any]) -> None:
    world = await rotating_world(metadata={"revocation_endpoint": f"{ISSUER}/revoke"})
    world.op.replies["/revoke"] = lambda _: httpx2.Response(200)
    all_tokens_expired(world)
    world.op.claims = claims
    assert (await world.browser.get("/token-now")).status_code == 401
    (told,) = revoked(world)
    assert (told["token"], told["token_type_hint"]) == (world.op.refresh_token, "refresh_token")


@pytest.mark.parametrize("moved", [1, -1, 240, -3600])
async def test_a_changed_auth_time_ends_nothing_and_is_not_stored(world: World, moved: int) -> None:
    """Some providers write the user's last login there, possibly from another browser."""
    first, before = (await stored_tokens(world)).id_token, (await world.browser.get("/identity-now")).json()
    for number in (2, 3):
        all_tokens_expired(world)
        world.op.claims = {"auth_time": before["auth_time"] + moved}
        assert (await world.browser.get("/token-now")).text == f"at-{number}"
    assert (await stored_tokens(world)).id_token == first
    assert (await world.browser.get("/identity-now")).json() == before
    assert world.reasons("tokens.refresh_failed") == ["id_token_auth_time_mismatch"] * 2
    assert world.reasons() == []


@pytest.mark.attack("36")
async def test_a_changed_auth_time_does_not_hide_another_login(world: World) -> None:
    all_tokens_expired(world)
    world.op.claims = {"auth_time": 1, "sub": "bob"}
    assert (await world.browser.get("/token-now")).status_code == 401
    assert await world.subject() is None


@pytest.mark.parametrize(
    "claims",
    [*({"nonce": value} for value in (None, "", 7, [])), {"azp": None}, {"auth_time": "x"}, {"at_hash": None}, {"amr": "pwd"}],
    ids=repr,
)
async def test_a_malformed_optional_claim_of_a_refreshed_id_token_counts_as_absent(world: World, claims: dict[str, Any]) -> None:
    first = (await stored_tokens(world)).id_token
    all_tokens_expired(world)
    world.op.claims = claims
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert (await stored_tokens(world)).id_token != first


@pytest.mark.parametrize("value", [GONE, None, "", 7, [], {}, "app"], ids=lambda value: "gone" if value is GONE else repr(value))
async def test_an_azp_that_the_first_id_token_has_may_be_left_out(value: Any) -> None:
    made = World(handlers=HANDLERS)
    made.op.refreshable = True
    made.op.claims = {"azp": "app"}
    assert (await made.login()).status_code == 303
    first = (await stored_tokens(made)).id_token
    all_tokens_expired(made)
    made.op.claims = {"azp": value}
    assert (await made.browser.get("/token-now")).text == "at-2"
    assert await made.subject() == "alice"
    assert (await stored_tokens(made)).id_token != first


async def test_a_refreshed_id_token_with_fewer_audiences_ends_the_session() -> None:
    made = World(handlers=HANDLERS)
    made.op.refreshable = True
    made.op.claims = {"aud": ["app", "other"], "azp": "app"}
    assert (await made.login()).status_code == 303
    all_tokens_expired(made)
    made.op.claims = {"aud": "app"}
    assert (await made.browser.get("/token-now")).status_code == 401
    assert made.reasons() == ["refresh_aud_mismatch"]


async def test_the_stored_digest_of_a_nonce_is_that_of_earlier_versions(world: World) -> None:
    """Another digest would end every login at its first refresh after an upgrade."""
    for length in range(4):  # and any length of the payload
        token = f"e30.{b64_json({'nonce': 'n-1', 'x': 'x' * length})}.c2ln"
        tokens = msgspec.structs.replace(await stored_tokens(world), id_token=token, nonce=None)
        assert nonce_digest(tokens) == "Ua7qj_oF0mINNch0Y0ZYhQ"


async def test_an_azp_that_only_the_refreshed_id_token_has_ends_nothing_and_is_not_stored(world: World) -> None:
    """OpenID Connect Core 12.2 forbids such an `azp`, but this one names our client. An `azp` of another client is refused."""
    first = (await stored_tokens(world)).id_token
    all_tokens_expired(world)
    world.op.claims = {"azp": "app"}
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert (await stored_tokens(world)).id_token == first
    assert await world.subject() == "alice"
    assert world.reasons("tokens.refresh_failed") == ["id_token_azp_mismatch"]
    assert world.reasons() == []


@pytest.mark.parametrize("name", ["id_token", "scope", "expires_in", "refresh_token"])
@pytest.mark.parametrize("value", [None, "", 7, [], {}, ["openid"], "a b"], ids=repr)
async def test_a_malformed_optional_member_of_a_refresh_counts_as_absent(name: str, value: Any) -> None:
    world = await rotating_world()
    before = await stored_tokens(world)
    all_tokens_expired(world)
    world.op.answer = {name: value}
    if (name, value) == ("scope", "a b"):
        return  # two scopes
    assert (await world.browser.get("/token-now")).text == "at-2"
    after = await stored_tokens(world)
    if name != "expires_in":
        assert getattr(after, name) == getattr(before, name)
    assert await world.subject() == "alice"


@pytest.mark.parametrize(
    ("token", "reason"),
    [("x", "token_form"), ("e30.e30", "token_form"), ("bm90.bm90.bm90", "token_json"),
     (f"{b64_json({'alg': 'dir', 'enc': 'A256GCM'})}..eA.eA.eA", "encrypted")],
)  # fmt: skip
async def test_an_unreadable_refreshed_id_token_is_not_stored(world: World, token: str, reason: str) -> None:
    first = (await stored_tokens(world)).id_token
    all_tokens_expired(world)
    world.op.answer = {"id_token": token}
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert (await stored_tokens(world)).id_token == first
    assert world.reasons("tokens.refresh_failed") == [f"id_token_{reason}"]


@pytest.mark.attack("37")
@pytest.mark.parametrize(
    "answer",
    [{"access_token": GONE}, {"access_token": "a b"}, {"token_type": "DPoP"}, {"token_type": GONE}, {"access_token": None}],
)
async def test_the_new_refresh_token_is_stored_whatever_the_rest_of_the_response(answer: dict[str, Any]) -> None:
    world = await rotating_world()
    all_tokens_expired(world)
    world.op.answer = answer
    assert (await world.browser.get("/token-now")).status_code == 502
    assert (await stored_tokens(world)).refresh_token == world.op.refresh_token
    world.op.answer = {}
    assert (await world.browser.get("/token-now")).text == "at-3"
    assert world.reasons() == []


@pytest.mark.attack("37")
async def test_the_new_refresh_token_is_stored_before_the_id_token_is_verified() -> None:
    """The process may be killed while it waits for the provider's keys."""
    world = await rotating_world()
    for _ in range(4):
        world.clock.advance(minutes=20)
        assert await world.subject() == "alice"
    seen: list[str | None] = []

    async def jwks(_: httpx2.Request) -> httpx2.Response:
        tokens = await stored_tokens(world)
        seen.append(tokens.refresh_token)
        assert tokens.access_token == "at-1"
        assert tokens.lease.held
        return httpx2.Response(200, json={"keys": world.op.jwks})

    world.op.replies["/jwks"] = jwks
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert seen == [world.op.refresh_token]
    after = await stored_tokens(world)
    assert (after.access_token, after.lease.held) == ("at-2", False)


@pytest.mark.parametrize(
    "error",
    [
        "interaction_required",
        "consent_required",
        "login_required",
        "account_selection_required",
        "mfa_required",
        "unmet_authentication_requirements",
        "invalid_grant",
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403, 200])
async def test_a_refresh_that_needs_the_user_requires_a_login(world: World, error: str, status: int) -> None:
    all_tokens_expired(world)
    world.op.replies["/token"] = lambda _: httpx2.Response(status, json={"error": error, "error_description": "<script>"})
    for _ in range(2):
        assert (await world.browser.get("/token-now")).status_code == 401
    assert world.reasons() == [f"refresh_{error}"]
    assert await world.subject() is None
    world.op.replies.clear()
    assert (await world.login()).status_code == 303
    assert (await world.browser.get("/token-now")).text == "at-2"


@pytest.mark.attack("36")
async def test_a_forged_refreshed_id_token_ends_the_login(world: World) -> None:
    all_tokens_expired(world)
    world.op.forge = lambda header, claims: sign(header, claims, OTHER_RSA_KEY)
    assert (await world.browser.get("/token-now")).status_code == 401
    assert await world.subject() is None


async def test_the_nonce_of_the_login_is_kept_across_refreshes(world: World) -> None:
    first = (await stored_tokens(world)).id_token
    for number in (2, 3):
        all_tokens_expired(world)
        assert (await world.browser.get("/token-now")).text == f"at-{number}"
    tokens = await stored_tokens(world)
    assert tokens.id_token != first
    assert tokens.nonce is not None
    all_tokens_expired(world)
    world.op.claims = {"nonce": "of another login"}
    assert (await world.browser.get("/token-now")).status_code == 401


@pytest.mark.parametrize(
    "claims", [{"iat": 1}, {"exp": 1}, {"iat": 2**40, "exp": 2**41}, {"nbf": 2**40}], ids=["old", "expired", "future", "not yet"]
)
async def test_an_id_token_from_another_time_is_not_stored(world: World, claims: dict[str, Any]) -> None:
    """The local clock may be wrong; the token is of the same login, so it ends nothing."""
    first = (await stored_tokens(world)).id_token
    all_tokens_expired(world)
    world.op.claims = claims
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert (await stored_tokens(world)).id_token == first
    assert len(world.reasons("tokens.refresh_failed")) == 1


async def test_a_refresh_never_upgrades_the_login(world: World) -> None:
    before = (await world.browser.get("/identity-now")).json()
    all_tokens_expired(world)
    world.op.claims = {"acr": "phr", "amr": ["mfa"], "sid": "another"}
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert (await world.browser.get("/identity-now")).json() == before


@pytest.mark.attack("37")
async def test_unavailable_keys_lose_no_login(world: World) -> None:
    """The old refresh token is consumed: the new one is stored, and the access token is unused until its ID token is verified."""
    for _ in range(4):
        world.clock.advance(minutes=20)
        assert await world.subject() == "alice"
    world.op.replies["/jwks"] = lambda _: httpx2.Response(503)
    assert (await world.browser.get("/token-now")).status_code == 503
    assert await world.subject() == "alice"
    assert world.reasons("tokens.refresh_failed") == ["jwks_status"]
    world.op.replies.clear()
    assert (await world.browser.get("/token-now")).text == "at-3"


@pytest.mark.attack("37")
async def test_a_waiting_request_gets_no_expired_token_when_the_new_one_is_unverified(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        world.clock.advance(minutes=20)
        assert await world.subject() == "alice"
    other = World(sharing=world, handlers=HANDLERS)
    other.browser.cookies = world.browser.cookies
    held_by_us = asyncio.Event()
    load_for = other.oidc.tokens.refresh.store.load_for

    async def look(*arguments: Any) -> Any:
        found = await load_for(*arguments)
        held_by_us.set()
        return found

    monkeypatch.setattr(other.oidc.tokens.refresh.store, "load_for", look)
    waiting: list[asyncio.Task[httpx.Response]] = []

    async def slow(request: httpx2.Request) -> httpx2.Response:
        if not waiting:
            waiting.append(asyncio.create_task(other.browser.get("/token-now")))
            await held_by_us.wait()
        return world.op.token(request)

    world.op.replies = {"/token": slow, "/jwks": lambda _: httpx2.Response(503)}
    assert (await world.browser.get("/token-now")).status_code == 503
    assert (await waiting[0]).status_code == 503
    assert await world.subject() == "alice"


@pytest.mark.attack("37")
async def test_an_unknown_key_ends_no_session(world: World) -> None:
    all_tokens_expired(world)
    world.op.key, world.op.alg, world.op.kid = EC_KEY, "ES256", "k2"
    assert (await world.browser.get("/token-now")).status_code == 502
    assert await world.subject() == "alice"
    world.op.jwks = [public_jwk(EC_KEY, "k2", alg="ES256", use="sig")]
    world.clock.advance(seconds=11)
    assert (await world.browser.get("/token-now")).text == "at-3"


@pytest.mark.attack("37")
@pytest.mark.parametrize(
    "reply",
    [
        httpx2.Response(500),
        httpx2.Response(302, headers={"location": "https://evil.example"}),
        httpx2.Response(200, text="<html>"),
        httpx2.Response(400, json={"error": "invalid_client"}),
        httpx2.Response(400, json={"error": "temporarily_unavailable"}),
        httpx2.Response(200, json={"token_type": "Bearer"}),
        httpx2.Response(200, json={"access_token": "x", "token_type": "DPoP"}),
    ],
)
async def test_a_malformed_response_ends_nothing(world: World, reply: httpx2.Response) -> None:
    all_tokens_expired(world)
    world.op.replies["/token"] = lambda _: reply
    assert (await world.browser.get("/token-now")).status_code == 502
    assert await world.subject() == "alice"
    world.op.replies.clear()
    assert (await world.browser.get("/token-now")).text == "at-2"


async def test_a_token_about_to_expire_is_used_while_another_is_fetched(world: World) -> None:
    world.clock.advance(seconds=280)
    asked, go_on = world.op.hold()
    answers = await asyncio.gather(*(world.browser.get("/token-now") for _ in range(5)))
    assert [answer.text for answer in answers] == ["at-1"] * 5
    await asked.wait()
    go_on.set()
    await world.oidc.tokens.close()
    assert (await world.browser.get("/token-now")).text == "at-2"


async def test_a_refused_token_is_replaced(world: World) -> None:
    assert (await world.browser.get("/token-now?refused=at-0")).text == "at-1"
    assert (await world.browser.get("/token-now?refused=at-1")).text == "at-2"
    # The next caller whose old token was refused gets the stored one.
    assert (await world.browser.get("/token-now?refused=at-1")).text == "at-2"


async def test_a_short_lived_token_is_not_refreshed_each_time(world: World) -> None:
    world.op.answer = {"expires_in": 20}
    all_tokens_expired(world)
    for _ in range(3):
        assert (await world.browser.get("/token-now")).text == "at-2"


async def test_tokens_are_stored_after_a_store_outage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    all_tokens_expired(world)
    store, outages = world.sessions.store, iter(range(3))
    replace = store.inner.replace

    async def answer(request: httpx2.Request) -> httpx2.Response:
        async def fails(*arguments: Any, **options: Any) -> int:
            if next(outages, None) is None:
                return await replace(*arguments, **options)
            raise StoreUnavailableError

        monkeypatch.setattr(store.inner, "replace", fails)
        return world.op.token(request)

    world.op.replies["/token"] = answer
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert next(outages, None) is None


async def test_a_write_with_a_lost_response_is_not_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    all_tokens_expired(world)
    store = world.sessions.store
    replace = store.inner.replace
    lost = iter((True, True))

    async def applied_without_a_response(*arguments: Any, **options: Any) -> int:
        version = await replace(*arguments, **options)
        if next(lost, False):
            raise StoreUnavailableError
        return version

    monkeypatch.setattr(store.inner, "replace", applied_without_a_response)
    assert (await world.browser.get("/token-now")).text == "at-2"
    assert world.op.access_tokens == 2
    monkeypatch.undo()
    assert (await world.browser.get("/token-now")).text == "at-2"


class TestKeys:
    async def with_keys(self, world: World, *keys: bytes) -> World:
        """The same application, restarted with other keys."""
        other = World(handlers=HANDLERS, sharing=world)
        for party in other.oidc.relying_parties:
            party.connection.vault = TokenVault(SealingKeys(keys))
        other.oidc.tokens.refresh.store._vault = other.oidc.relying_parties.vault
        other.browser = other.new_browser(cookies=world.browser.cookies)
        return other

    async def test_an_older_key_opens_and_the_first_key_seals_at_the_next_use(self, world: World) -> None:
        rotated = await self.with_keys(world, b"n" * 32, b"k" * 32)
        assert (await rotated.browser.get("/token-now")).text == "at-1"
        retired = await self.with_keys(world, b"n" * 32)
        assert (await retired.browser.get("/token-now")).text == "at-1"

    async def test_a_retired_key_needs_a_new_login_and_is_no_error(self, world: World) -> None:
        retired = await self.with_keys(world, b"n" * 32)
        assert (await retired.browser.get("/token-now")).status_code == 401
        assert (await retired.login()).status_code == 303
        assert (await retired.browser.get("/token-now")).text == "at-2"

    async def test_the_store_contains_no_token(self, world: World) -> None:
        all_tokens_expired(world)
        await world.browser.get("/token-now")
        tokens = await stored_tokens(world)
        data = b"".join([each.entry.data async for each in world.sessions.store.scan()])
        for secret in (tokens.access_token, tokens.refresh_token, tokens.id_token):
            assert secret
            assert secret.encode() not in data
        assert ISSUER.encode() in data  # of the identity, which is not secret
