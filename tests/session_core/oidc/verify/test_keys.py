"""When the provider's keys are fetched, how long they are used, and which of them are tried for a token."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from session_core.errors import DiscoveryError, IdTokenError
from session_core.oidc.http import OpHttp
from session_core.oidc.verify.jws import parse_jws
from session_core.oidc.verify.keys import KeyCache, TokenSource
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import EC_KEY, GONE, OTHER_RSA_KEY, RSA_KEY, FakeOp, public_jwk, sign

pytestmark = pytest.mark.anyio
URL = "https://op.example/jwks"
COOLDOWN = 10
KNOWN, OTHER = public_jwk(RSA_KEY, "k1"), public_jwk(OTHER_RSA_KEY, "k2")
SOURCES: list[TokenSource] = ["id_token", "logout_token"]


def down(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(503)


class Keys:
    """A key cache with the scripted provider, which signs the tokens."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.op = FakeOp(self.clock)
        self.op.jwks = [KNOWN]
        http = OpHttp(timeout_seconds=30, transport=httpx2.MockTransport(self.op.handle))
        self.cache = KeyCache(http, self.clock, cooldown_seconds=COOLDOWN)
        self.good = self.op.signed({})
        self.forged = self.op.signed({}, kid="forged")

    @property
    def fetches(self) -> int:
        return self.op.count("/jwks")

    async def refusal(
        self, token: str | None = None, source: TokenSource = "id_token", *, url: str = URL, issuer: str | None = None
    ) -> str | None:
        jws = parse_jws(token or self.good, algorithms=frozenset({"RS256"}), error=IdTokenError)
        try:
            return await self.cache.refusal(jws, str(httpx2.URL(url)), source=source, issuer=issuer)  # another equal text
        except DiscoveryError as error:
            return error.reason

    def down(self, *, yes: bool = True) -> None:
        self.op.replies = {"/jwks": down} if yes else {}


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.mark.parametrize("source", SOURCES)
class TestAge:
    async def test_keys_are_used_for_ten_minutes_and_then_fetched_again(self, keys: Keys, source: TokenSource) -> None:
        for seconds, fetches in ((0, 1), (599.999, 1), (0.001, 2)):
            keys.clock.advance(seconds=seconds)
            assert await keys.refusal(source=source) is None
            assert keys.fetches == fetches

    async def test_during_an_outage_the_last_known_keys_are_used_for_an_hour(self, keys: Keys, source: TokenSource) -> None:
        assert await keys.refusal(source=source) is None
        keys.down()
        for seconds, accepted in ((600, True), (2999.999, True), (0.001, False), (1, False)):
            keys.clock.advance(seconds=seconds)
            assert (await keys.refusal(source=source) is None) == accepted
        keys.down(yes=False)
        keys.clock.advance(seconds=COOLDOWN)
        assert await keys.refusal(source=source) is None

    async def test_keys_from_the_future_are_fetched_again_and_not_used_without(self, keys: Keys, source: TokenSource) -> None:
        """The clock was set back: how old the keys are is unknown."""
        assert await keys.refusal(source=source) is None
        keys.clock.advance(seconds=-0.001)
        assert await keys.refusal(source=source) is None
        assert keys.fetches == 2
        keys.down()
        keys.clock.advance(seconds=-0.001)
        assert await keys.refusal(source=source) == "jwks_status"

    async def test_keys_of_another_address_are_not_used(self, keys: Keys, source: TokenSource) -> None:
        """The metadata names another one; the address that was fetched last counts."""
        assert await keys.refusal(source=source) is None
        keys.op.replies = {"/new": lambda _: httpx2.Response(200, json={"keys": [OTHER]})}
        assert await keys.refusal(source=source, url="https://op.example/new") == "unknown_key"
        keys.down()
        assert await keys.refusal(source=source) == "jwks_status"


@pytest.mark.parametrize("source", SOURCES)
class TestRefetch:
    async def test_an_unknown_key_causes_one_fetch_per_cooldown(self, keys: Keys, source: TokenSource) -> None:
        await keys.refusal(source=source)
        for seconds, fetches in ((0, 2), (0, 2), (COOLDOWN - 0.001, 2), (0.001, 3), (COOLDOWN + 1, 4)):
            keys.clock.advance(seconds=seconds)
            assert await keys.refusal(keys.forged, source) == "unknown_key"
            assert keys.fetches == fetches

    async def test_a_set_that_was_just_fetched_is_not_fetched_again(self, keys: Keys, source: TokenSource) -> None:
        assert await keys.refusal(keys.forged, source) == "unknown_key"
        assert keys.fetches == 1
        keys.down()
        keys.clock.advance(minutes=10)  # the same if that fetch failed and the known keys are used
        assert await keys.refusal(keys.forged, source) == "unknown_key"
        assert keys.fetches == 2

    async def test_a_fetch_that_fails_leaves_the_known_keys(self, keys: Keys, source: TokenSource) -> None:
        await keys.refusal(source=source)
        keys.down()
        for seconds, fetches in ((1, 2), (-0.001, 3)):  # a clock that was set back does not prolong the cooldown
            keys.clock.advance(seconds=seconds)
            assert await keys.refusal(keys.forged, source) == "unknown_key"
            assert keys.fetches == fetches
        keys.op.jwks = [KNOWN, OTHER]
        keys.down(yes=False)
        assert await keys.refusal(source=source) is None
        keys.clock.advance(seconds=COOLDOWN)
        assert await keys.refusal(sign({"alg": "RS256", "kid": "k2"}, {}, OTHER_RSA_KEY), source) is None


async def test_only_a_verified_id_token_permits_another_fetch_at_once(keys: Keys) -> None:
    """Any client can send a logout token again that it has seen."""
    for source, fetches in (("id_token", [2, 3]), ("logout_token", [4, 4])):
        await keys.refusal(keys.forged, source)  # type: ignore[arg-type]
        counts = []
        for _ in range(2):
            await keys.refusal(keys.forged, source)  # type: ignore[arg-type]
            counts.append(keys.fetches)
            assert await keys.refusal(source=source) is None  # type: ignore[arg-type]
        assert counts == fetches


async def test_a_provider_that_is_down_is_asked_once_per_cooldown_for_logout_tokens(keys: Keys) -> None:
    keys.down()
    for seconds, fetches in ((0, 1), (0, 1), (COOLDOWN - 0.001, 1), (0.001, 2), (-0.001, 3)):
        keys.clock.advance(seconds=seconds)
        assert await keys.refusal(source="logout_token") in {"jwks_status", "jwks_unavailable"}
        assert keys.fetches == fetches
    # A login is not delayed by these, and when it succeeds, the failure is forgotten.
    keys.down(yes=False)
    assert await keys.refusal(source="id_token") is None
    keys.clock.advance(minutes=10)
    keys.down()
    assert await keys.refusal(source="id_token") is None
    assert keys.fetches == 5
    keys.down(yes=False)
    assert await keys.refusal(source="id_token") is None
    keys.clock.advance(seconds=-1)
    assert await keys.refusal(source="logout_token") is None
    assert keys.fetches == 7


class TestTheKeysThatAreTried:
    @pytest.mark.parametrize(("others", "reason"), [(9, None), (10, "too_many_keys")])
    async def test_at_most_ten(self, keys: Keys, others: int, reason: str | None) -> None:
        keys.op.jwks = [*(public_jwk(OTHER_RSA_KEY, "k1") for _ in range(others)), KNOWN]
        assert await keys.refusal() == reason

    async def test_ten_others_are_not_too_many(self, keys: Keys) -> None:
        keys.op.jwks = [public_jwk(OTHER_RSA_KEY, "k1")] * 10
        assert await keys.refusal() == "bad_signature"

    @pytest.mark.parametrize(
        ("kid", "kids", "accepted"),
        [("k1", ["k1"], True), ("k1", [None], True), ("k1", ["k2"], False), (GONE, ["k2"], True), (GONE, [None], True)],
    )
    async def test_the_kid_chooses_where_both_have_one(self, keys: Keys, kid: Any, kids: list[Any], accepted: bool) -> None:
        keys.op.jwks = [public_jwk(RSA_KEY, name) for name in kids]
        keys.op.header = {"kid": kid}
        assert await keys.refusal(keys.op.signed({})) == (None if accepted else "unknown_key")

    async def test_named_keys_come_before_those_without_a_kid(self, keys: Keys) -> None:
        keys.op.jwks = [*([public_jwk(OTHER_RSA_KEY)] * 10), KNOWN]
        assert await keys.refusal() is None

    async def test_keys_of_another_type_do_not_count(self, keys: Keys) -> None:
        keys.op.jwks = [*([public_jwk(EC_KEY, "k1")] * 20), KNOWN]
        assert await keys.refusal() is None
        keys.op.jwks = [public_jwk(EC_KEY, "k1")] * 20
        keys.clock.advance(minutes=10)
        assert await keys.refusal() == "unknown_key"

    @pytest.mark.parametrize(
        ("of", "claims", "accepted"),
        [
            (None, {}, True),
            ("https://op.example/one", {}, True),
            ("https://op.example/two", {}, False),
            ("https://op.example/{tenantid}", {"tid": "one"}, True),
            ("https://op.example/{tenantid}", {"tid": "two"}, False),
            ("https://op.example/{tenantid}", {}, False),
        ],
    )
    async def test_a_key_of_another_issuer_does_not_count(
        self, keys: Keys, of: str | None, claims: dict[str, Any], accepted: bool
    ) -> None:
        keys.op.jwks = [{**KNOWN, "issuer": of}]
        token = keys.op.signed(claims)
        assert await keys.refusal(token, issuer="https://op.example/one") == (None if accepted else "unknown_key")
        assert await keys.refusal(token) is None  # one issuer: the member means nothing


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (httpx2.Response(201, json={"keys": [KNOWN]}), "jwks_status"),
        (httpx2.Response(200, json={"keys": None}), "jwks_malformed"),
        (httpx2.Response(200, json=[KNOWN]), "jwks_malformed"),
        (httpx2.Response(200, text="{}", headers={"content-type": "text/html"}), "jwks_malformed"),
    ],
)
async def test_another_answer_is_no_key_set(keys: Keys, response: httpx2.Response, reason: str) -> None:
    keys.op.replies = {"/jwks": lambda _: response}
    assert await keys.refusal() == reason


@pytest.mark.parametrize("media_type", ["application/jwk-set+json", "application/json"])
async def test_both_media_types_are_accepted(keys: Keys, media_type: str) -> None:
    answer = httpx2.Response(200, json={"keys": [KNOWN]}, headers={"content-type": media_type})
    keys.op.replies = {"/jwks": lambda _: answer}
    assert await keys.refusal() is None
    assert keys.op.calls[0].headers["accept"] == "application/jwk-set+json, application/json"
