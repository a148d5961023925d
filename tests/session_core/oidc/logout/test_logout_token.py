"""Which logout tokens are valid, and what they order. Their requests are in `test_oidc_logout.py`."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from session_core.errors import LogoutTokenError
from session_core.oidc.http import OpHttp
from session_core.oidc.logout.logout_token import ExpectedLogoutToken, LogoutOrder, validate_logout_token
from session_core.oidc.verify.keys import KeyCache
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import CLIENT_ID, GONE, ISSUER, OTHER_RSA_KEY, RSA_KEY, FakeOp, public_jwk

pytestmark = pytest.mark.anyio
EVENT = "http://schemas.openid.net/event/backchannel-logout"


class Logout:
    """The scripted provider, and the checks of what it sends."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.op = FakeOp(self.clock)
        http = OpHttp(timeout_seconds=30, transport=httpx2.MockTransport(self.op.handle))
        self.keys = KeyCache(http, self.clock, cooldown_seconds=10)
        self.options: dict[str, Any] = {"several_issuers": False, "typ_required": True, "exp_required": True}

    @property
    def now(self) -> int:
        return self.clock.now() // 1000

    async def order(self, header: dict[str, Any] | None = None, **claims: Any) -> LogoutOrder:
        given: dict[str, Any] = {
            "issuer_of": lambda _: ISSUER, "client_id": CLIENT_ID, "algorithms": frozenset({"RS256"}), "now": float(self.now),
            "jwks_uri": f"{ISSUER}/jwks", "skew": 60, **self.options,
        }  # fmt: skip
        return await validate_logout_token(self.op.logout_token(header, **claims), ExpectedLogoutToken(**given), self.keys)

    async def reason(self, header: dict[str, Any] | None = None, **claims: Any) -> str | None:
        try:
            await self.order(header, **claims)
        except LogoutTokenError as error:
            return error.reason
        return None


@pytest.fixture
def logout() -> Logout:
    return Logout()


async def test_what_a_token_orders(logout: Logout) -> None:
    first = await logout.order(jti="1", sub="alice", iat=logout.now - 1)
    assert (first.issuer, first.sid, first.subject, first.iat) == (ISSUER, "op-session-1", "alice", logout.now - 1)
    assert first.replay_key == (await logout.order(jti="1", sub="bob")).replay_key != (await logout.order(jti="2")).replay_key
    assert (await logout.order(sid=GONE, sub="alice")).sid is None
    assert (await logout.order()).subject is None
    logout.options["issuer_of"] = lambda _: "https://other.example"
    assert (await logout.order(jti="1", iss="https://other.example")).replay_key != first.replay_key


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://evil.example"}, "iss_mismatch"),
        ({"aud": "other"}, "aud_mismatch"),
        ({"events": GONE}, "events_missing"),
        ({"events": [EVENT]}, "events_missing"),
        ({"events": {}}, "events_missing"),
        ({"events": {EVENT: True}}, "events_missing"),
        ({"events": {EVENT: {}, "other": 1}}, None),
        ({"nonce": "x"}, "nonce_present"),
        ({"nonce": None}, "nonce_present"),
        ({"sid": GONE}, "sub_and_sid_missing"),
        ({"sid": None, "sub": ""}, "sub_and_sid_missing"),
        ({"sid": GONE, "sub": "alice"}, None),
        ({"jti": GONE}, "jti_missing"),
        ({"jti": ""}, "jti_malformed"),
    ],
)
async def test_each_claim_is_checked(logout: Logout, claims: dict[str, Any], reason: str | None) -> None:
    assert await logout.reason(**claims) == reason


@pytest.mark.parametrize(
    ("typ", "strict", "lenient"),
    [
        ("logout+jwt", None, None),
        ("application/logout+jwt", None, None),
        ("LOGOUT+JWT", None, None),
        ("JWT", "typ_header", None),
        ("jwt", "typ_header", None),
        (GONE, "typ_header", None),
        ("at+jwt", "typ_header", "typ_header"),
        ("zzz", "typ_header", "typ_header"),
        ("AAA", "typ_header", "typ_header"),
    ],
)
async def test_the_type_in_both_modes(logout: Logout, typ: Any, strict: str | None, lenient: str | None) -> None:
    assert await logout.reason({"typ": typ}) == strict
    logout.options["typ_required"] = False
    assert await logout.reason({"typ": typ}) == lenient


async def test_the_expiry_in_both_modes(logout: Logout) -> None:
    assert await logout.reason(exp=GONE) == "exp_missing"
    assert await logout.reason(exp=logout.now - 60) == "expired"
    logout.options["exp_required"] = False
    assert await logout.reason(exp=GONE) is None
    assert await logout.reason(exp=logout.now - 60) == "expired"


@pytest.mark.parametrize(("ago", "reason"), [(240, None), (241, "iat_too_old"), (-60, None), (-61, "iat_in_future")])
async def test_a_token_is_valid_for_three_minutes_and_the_tolerance(logout: Logout, ago: int, reason: str | None) -> None:
    assert await logout.reason(iat=logout.now - ago, exp=logout.now + 1) == reason


async def test_an_invalid_token_causes_no_fetch_of_keys(logout: Logout) -> None:
    """Any client can send one."""
    for claims in ({"iss": "x"}, {"aud": "x"}, {"iat": 1}, {"events": GONE}, {"nonce": "x"}, {"sid": GONE}, {"jti": GONE}):
        assert await logout.reason(**claims) is not None
    assert logout.op.calls == []


async def test_the_signature_is_checked(logout: Logout) -> None:
    logout.op.key = OTHER_RSA_KEY
    assert await logout.reason() == "bad_signature"
    assert await logout.reason({"alg": "PS256"}) == "alg_not_allowed"


@pytest.mark.parametrize(("options", "reason"), [({}, None), ({"several_issuers": True}, "unknown_key")])
async def test_a_key_of_one_issuer_signs_for_no_other(logout: Logout, options: dict[str, bool], reason: str | None) -> None:
    logout.op.jwks = [public_jwk(RSA_KEY, "k1", issuer="https://other.example")]
    logout.options |= options
    assert await logout.reason() == reason
