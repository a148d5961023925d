"""The exact limits of the token checks: a limit moved by one step in either direction fails a test."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from session_core.errors import IdTokenError
from session_core.oidc.logout import logout_token
from session_core.oidc.verify import id_token
from session_core.oidc.verify.claims import MAX_SKEW_SECONDS, SKEW_SECONDS, check_audience, check_times
from session_core.oidc.verify.jws import parse_jws
from tests.session_core.oidc.fake_op import GONE, World

pytestmark = pytest.mark.anyio
NOW = 1_700_000_000.0
RSA = frozenset({"RS256"})


def times(**changes: Any) -> int:
    claims = {"iat": NOW, "exp": NOW + 300, **changes}
    return check_times(
        {name: value for name, value in claims.items() if value is not GONE}, now=NOW, max_age=600, error=IdTokenError
    )


@pytest.mark.parametrize(
    ("accepted", "refused", "reason"),
    [
        ({"exp": NOW - SKEW_SECONDS + 1}, {"exp": NOW - SKEW_SECONDS}, "expired"),
        ({"iat": NOW + SKEW_SECONDS}, {"iat": NOW + SKEW_SECONDS + 1}, "iat_in_future"),
        ({"iat": NOW - 600 - SKEW_SECONDS}, {"iat": NOW - 601 - SKEW_SECONDS}, "iat_too_old"),
        ({"nbf": NOW + SKEW_SECONDS}, {"nbf": NOW + SKEW_SECONDS + 1}, None),
    ],
    ids=["exp", "iat in the future", "iat too old", "nbf"],
)
def test_the_limits_of_the_times(accepted: dict[str, Any], refused: dict[str, Any], reason: str | None) -> None:
    assert times(**accepted) == int(accepted.get("iat", NOW))
    with pytest.raises(IdTokenError) as raised:
        times(**refused)
    assert reason is None or raised.value.reason == reason


@pytest.mark.parametrize(
    ("claims", "passes"),
    [
        ({"aud": "us"}, True),
        ({"aud": ["us"]}, True),
        ({"aud": ["us", "us"]}, True),
        ({"aud": ["us", "other"], "azp": "us"}, True),
        ({"aud": ["us", "other"]}, False),
        ({"aud": ["other", "us"]}, False),
        ({"aud": "us", "azp": "other"}, False),
        ({"aud": "other", "azp": "us"}, False),
        ({"aud": ["us", 1], "azp": "us"}, False),
        ({"aud": []}, False),
        ({}, False),
    ],
)
def test_each_audience_is_checked(claims: dict[str, Any], passes: bool) -> None:
    if passes:
        check_audience(claims, "us", IdTokenError)
        return
    with pytest.raises(IdTokenError):
        check_audience(claims, "us", IdTokenError)


async def test_an_id_token_needs_no_typ_header() -> None:
    """OpenID Connect Core 2 does not require one, and some providers omit it."""
    world = World()
    world.op.header = {"typ": GONE}
    assert (await world.login()).status_code == 303


@pytest.mark.parametrize(("age", "status"), [(3600 + SKEW_SECONDS, 303), (3601 + SKEW_SECONDS, 400)])
async def test_an_id_token_is_at_most_an_hour_old(age: int, status: int) -> None:
    world = World()
    world.op.claims = {"iat": world.clock.now() // 1000 - age}
    assert (await world.login()).status_code == status


@pytest.mark.parametrize(("ahead", "status"), [(SKEW_SECONDS, 303), (SKEW_SECONDS + 1, 400)])
async def test_the_limit_of_an_authentication_in_the_future(ahead: int, status: int) -> None:
    world = World()
    world.op.auth_time = world.clock.now() // 1000 + ahead
    assert (await world.login()).status_code == status


@pytest.mark.parametrize(("age", "status"), [(60 + SKEW_SECONDS, 303), (61 + SKEW_SECONDS, 400)])
async def test_the_limit_of_a_recent_login(age: int, status: int) -> None:
    """The clock skew extends the limit in the user's favour, and no further."""
    world = World()
    world.op.auth_time = world.clock.now() // 1000 - age
    assert (await world.login(max_age="60")).status_code == status


@pytest.mark.parametrize(("age", "passes"), [(0, True), (12, True), (13, False), (60, False)])
def test_the_limit_of_a_login_that_must_be_newer_than_its_request(age: int, passes: bool) -> None:
    """Both times are the provider's, in whole seconds: a tolerance of two seconds and no clock skew."""
    expected = id_token.ExpectedIdToken(
        issuer_of=lambda _: None, client_id="us", algorithms=RSA, jwks_uri="", now=NOW + 1000, nonce=None, access_token="",
        authenticated_within=10,
    )  # fmt: skip
    claims = {"sub": "alice", "iat": NOW, "auth_time": NOW - age}
    if passes:
        assert id_token._identity(claims, expected, "https://op.example").subject == "alice"
        return
    with pytest.raises(IdTokenError) as raised:
        id_token._identity(claims, expected, "https://op.example")
    assert raised.value.reason == "auth_time_too_old"


def test_at_most_32_authentication_methods_are_kept() -> None:
    """All or none: some of them have another meaning."""
    assert id_token._methods({"amr": ["pwd"] * 32}) == ("pwd",) * 32
    assert id_token._methods({"amr": ["pwd"] * 33}) == ()


def test_a_logout_token_is_remembered_as_long_as_it_could_pass() -> None:
    """From the earliest valid `iat` (in the future by the skew) to the last moment at which it is valid."""
    assert logout_token.REPLAY_SECONDS >= logout_token._MAX_AGE_SECONDS + 2 * MAX_SKEW_SECONDS


def part(value: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("rest", ["=", "==", "\n", " ", "+", "/", "\0", "é"])
def test_a_part_of_a_token_must_be_base64url_to_its_end(place: int, rest: str) -> None:
    parts = [part({"alg": "RS256"}), part({"iss": "x"}), "c2ln"]
    assert parse_jws(".".join(parts), algorithms=RSA, error=IdTokenError).claims == {"iss": "x"}
    parts[place] += rest
    with pytest.raises(IdTokenError) as raised:
        parse_jws(".".join(parts), algorithms=RSA, error=IdTokenError)
    assert re.fullmatch(r"token_[a-z]+|[a-z_]+", raised.value.reason)


def test_other_characters_of_the_same_length_are_refused() -> None:
    """Four more characters keep the length valid, so only the alphabet check can refuse them."""
    head, claims = part({"alg": "RS256"}), part({"iss": "x"})
    for junk in ("\n\n\n\n", "====", "+/+/", "    "):
        with pytest.raises(IdTokenError):
            parse_jws(f"{head}.{claims}.c2ln{junk}", algorithms=RSA, error=IdTokenError)
