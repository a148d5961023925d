"""What an ID token says about a user, and when it is refused. Hostile ones in whole logins are in the attacks' module."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx2
import pytest

from session_core.errors import IdTokenError
from session_core.oidc.http import OpHttp
from session_core.oidc.verify.id_token import ExpectedIdToken, ValidIdToken, validate_id_token
from session_core.oidc.verify.keys import KeyCache
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import (
    CLIENT_ID,
    ED_KEY,
    GONE,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    FakeOp,
    b64,
    public_jwk,
)

pytestmark = pytest.mark.anyio


class Tokens:
    """The scripted provider, and the checks of what it signs."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.op = FakeOp(self.clock)
        http = OpHttp(timeout_seconds=30, transport=httpx2.MockTransport(self.op.handle))
        self.keys = KeyCache(http, self.clock, cooldown_seconds=10)
        self.options: dict[str, Any] = {"several_issuers": False, "subject_claim": "sub"}

    @property
    def now(self) -> int:
        return self.clock.now() // 1000

    async def valid(self, **claims: Any) -> ValidIdToken:
        given: dict[str, Any] = {
            "issuer_of": lambda _: ISSUER, "client_id": CLIENT_ID, "algorithms": frozenset({"RS256", "EdDSA"}), "skew": 10,
            "now": float(self.now), "jwks_uri": f"{ISSUER}/jwks", "nonce": "n-1", "access_token": "at", **self.options,
        }  # fmt: skip
        self.op.claims = claims
        return await validate_id_token(self.op.id_token({"nonce": "n-1"}, "at"), ExpectedIdToken(**given), self.keys)

    async def reason(self, **claims: Any) -> str | None:
        try:
            await self.valid(**claims)
        except IdTokenError as error:
            return error.reason
        return None


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


async def test_what_a_token_says(tokens: Tokens) -> None:
    valid = await tokens.valid(auth_time=tokens.now - 0.5, acr="high", amr=["pwd", "otp"], extra=1)
    identity = valid.identity
    assert (identity.issuer, identity.subject, identity.sid) == (ISSUER, "alice", "op-session-1")
    assert (identity.auth_time, identity.acr, identity.amr) == (tokens.now - 1, "high", ("pwd", "otp"))
    assert valid.claims["extra"] == 1
    assert (await tokens.valid(auth_time=0)).identity.auth_time == 0
    bare = (await tokens.valid(sid=GONE, amr=["pwd", 7])).identity
    assert (bare.sid, bare.auth_time, bare.acr, bare.amr) == (None, None, None, ())


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"events": None}, "events_claim"),
        ({"iss": "https://evil.example"}, "iss_mismatch"),
        ({"aud": "other"}, "aud_mismatch"),
        ({"nonce": "n-2"}, "nonce_mismatch"),
        ({"nonce": "a"}, "nonce_mismatch"),
        ({"nonce": GONE}, "nonce_missing"),
        ({"nonce": ["n-1"]}, "nonce_missing"),
        ({"sub": GONE}, "sub_missing"),
        ({"at_hash": b64(b"x" * 16)}, "at_hash_mismatch"),
        ({"at_hash": GONE}, None),
        ({"at_hash": ""}, None),
        ({"at_hash": 7}, None),
    ],
)
async def test_each_claim_is_checked(tokens: Tokens, claims: dict[str, Any], reason: str | None) -> None:
    assert await tokens.reason(**claims) == reason


async def test_a_refreshed_token_may_have_any_nonce_here(tokens: Tokens) -> None:
    tokens.options["nonce"] = None
    assert await tokens.reason(nonce="other") is None
    assert await tokens.reason(nonce=GONE) is None


@pytest.mark.parametrize(
    ("alg", "digest", "passes"), [("RS256", "sha256", True), ("EdDSA", "sha512", True), ("EdDSA", "sha256", False)]
)
async def test_the_hash_of_the_access_token_is_half_of_the_algorithms_digest(
    tokens: Tokens, alg: str, digest: str, passes: bool
) -> None:
    if alg == "EdDSA":
        tokens.op.alg, tokens.op.key, tokens.op.jwks = alg, ED_KEY, [public_jwk(ED_KEY, "k1")]
    whole = hashlib.new(digest, b"at").digest()
    assert await tokens.reason(at_hash=b64(whole[: len(whole) // 2])) == (None if passes else "at_hash_mismatch")
    assert await tokens.reason(at_hash=b64(whole)) == "at_hash_mismatch"


async def test_a_token_is_valid_for_an_hour_and_the_tolerance(tokens: Tokens) -> None:
    assert await tokens.reason(iat=tokens.now - 3610) is None
    assert await tokens.reason(iat=tokens.now - 3611) == "iat_too_old"
    assert await tokens.reason(exp=tokens.now - 9) is None
    assert await tokens.reason(exp=tokens.now - 10) == "expired"
    tokens.options["timeless"] = True
    assert await tokens.reason(iat=1, exp=2, auth_time=tokens.now + 11) is None


AUTHENTICATED = [
    ({}, {"auth_time": 10}, None),
    ({}, {"auth_time": 11}, "auth_time_in_future"),
    ({"max_age": 60}, {}, "auth_time_missing"),
    ({"max_age": 60}, {"auth_time": -5}, None),
    ({"max_age": 60}, {"auth_time": -70}, None),
    ({"max_age": 60}, {"auth_time": -71}, "auth_time_too_old"),
    ({"max_age": 0}, {"auth_time": -11}, "auth_time_too_old"),
    ({"authenticated_within": 22}, {}, "auth_time_missing"),
    ({"authenticated_within": 22}, {"auth_time": -5}, None),
    ({"authenticated_within": 22}, {"auth_time": -24}, None),
    ({"authenticated_within": 22}, {"auth_time": -25}, "auth_time_too_old"),
    ({"authenticated_within": 0}, {"auth_time": -3}, "auth_time_too_old"),
    ({"authenticated_within": 22}, {"auth_time": -29, "iat": -5}, None),
    ({"authenticated_within": 22}, {"auth_time": -30, "iat": -5}, "auth_time_too_old"),
]


@pytest.mark.parametrize(("options", "times", "reason"), AUTHENTICATED)
async def test_a_recent_login_is_proved_if_it_was_requested(
    tokens: Tokens, options: dict[str, Any], times: dict[str, int], reason: str | None
) -> None:
    tokens.options |= options
    assert await tokens.reason(**{name: tokens.now + value for name, value in times.items()}) == reason


@pytest.mark.parametrize(("acr", "reason"), [("b", None), ("c", "acr_not_met"), ("ab", "acr_not_met"), (GONE, "acr_not_met")])
async def test_one_of_the_requested_classes_is_met(tokens: Tokens, acr: Any, reason: str | None) -> None:
    tokens.options["acr_values"] = ("a", "b")
    assert await tokens.reason(acr=acr) == reason


@pytest.mark.parametrize(
    ("path", "claims", "expected"),
    [
        ("sub", {}, "alice"),
        ("oid", {"oid": "bob"}, "bob"),
        ("oid", {"oid": "bob", "sub": GONE}, "sub_missing"),
        ("oid", {}, "sub_missing"),
        ("sub2", {"sub2": 7}, "7"),
        ("a", {"a": "bob"}, "bob"),
    ],
)
async def test_the_subject_of_another_claim(tokens: Tokens, path: str, claims: dict[str, Any], expected: str) -> None:
    tokens.options["subject_claim"] = "".join(path)
    if expected == "sub_missing":
        assert await tokens.reason(**claims) == expected
    else:
        assert (await tokens.valid(**claims)).identity.subject == expected


@pytest.mark.parametrize(
    ("given", "methods"),
    [(["pwd"] * 32, ("pwd",) * 32), (["pwd"] * 33, ()), ("pwd", ()), ([], ()), (["pwd", ""], ()), (None, ())],
)
async def test_all_authentication_methods_or_none(tokens: Tokens, given: Any, methods: tuple[str, ...]) -> None:
    assert (await tokens.valid(amr=given)).identity.amr == methods


@pytest.mark.parametrize(("typ", "reason"), [("JWT", None), (GONE, None), ("at+jwt", "typ_header"), ("logout+jwt", "typ_header")])
async def test_another_type_of_token_is_refused(tokens: Tokens, typ: Any, reason: str | None) -> None:
    tokens.op.header = {"typ": typ}
    assert await tokens.reason() == reason


async def test_the_signature_is_checked(tokens: Tokens) -> None:
    tokens.op.key = OTHER_RSA_KEY
    assert await tokens.reason() == "bad_signature"


@pytest.mark.parametrize(("options", "reason"), [({}, None), ({"several_issuers": True}, "unknown_key")])
async def test_a_key_of_one_issuer_signs_for_no_other(tokens: Tokens, options: dict[str, bool], reason: str | None) -> None:
    tokens.op.jwks = [public_jwk(RSA_KEY, "k1", issuer="https://other.example")]
    tokens.options |= options
    assert await tokens.reason() == reason
