"""The exact limits of the token checks: a limit moved by one step in either direction fails a test."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from session_core.errors import IdTokenError
from session_core.oidc.logout import logout_token
from session_core.oidc.verify.jws import parse_jws
from tests.session_core.oidc.fake_op import GONE, World

pytestmark = pytest.mark.anyio
RSA = frozenset({"RS256"})
SKEW_SECONDS = 60
"""The default of `clock_tolerance_seconds`."""


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


def test_a_logout_token_is_remembered_as_long_as_it_could_pass() -> None:
    """From the earliest valid `iat` (in the future by the skew) to the last moment at which it is valid."""
    assert logout_token.REPLAY_SECONDS == 180 + 2 * 300


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
