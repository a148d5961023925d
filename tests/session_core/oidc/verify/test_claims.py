"""The claims that ID tokens and logout tokens share: which values pass, which are refused, which count as absent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from session_core.errors import IdTokenError
from session_core.oidc.verify.claims import (
    audiences_of,
    check_audience,
    check_issuer,
    check_times,
    check_type,
    number,
    optional_number,
    optional_sid,
    optional_text,
    subject_of,
    text,
)
from tests.session_core.oidc.fake_op import GONE

NOW = 1_700_000_011
ISSUER = "https://op.example"


def refusal(check: Any, *arguments: Any, **options: Any) -> str | None:
    """Return the reason with which a check refuses."""
    if check is not subject_of:
        options["error"] = IdTokenError
    try:
        check(*arguments, **options)
    except IdTokenError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("typ", "passes"),
    [("jwt", True), ("JWT", True), ("application/jwt", True), ("APPLICATION/JWT", True), ("at+jwt", False), ("a", False),
     ("text/jwt", False), ("jwtx", False), ("zzz", False), ("", False)],
)  # fmt: skip
def test_the_type_of_a_token(typ: str, passes: bool) -> None:
    for required in (True, False):
        assert refusal(check_type, typ, "jwt", required=required) == (None if passes else "typ_header")


def test_a_type_may_be_required() -> None:
    assert refusal(check_type, None, "jwt", required=False) is None
    assert refusal(check_type, None, "jwt", required=True) == "typ_header"


@pytest.mark.parametrize(
    "given", [f"{ISSUER}/", "https://op.examplf", "https://a", "HTTPS://op.example", "", None, [ISSUER], GONE]
)
def test_the_issuer_is_compared_character_for_character(given: object) -> None:
    assert check_issuer({"iss": "".join(ISSUER)}, ISSUER, IdTokenError) == ISSUER
    claims = {} if given is GONE else {"iss": given}
    assert refusal(check_issuer, claims, ISSUER) == "iss_mismatch"
    assert refusal(check_issuer, claims, None) == "tenant_not_admitted"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "us"}, None),
        ({"aud": "us", "azp": "us"}, None),
        ({"aud": ["us", "other"], "azp": "us"}, None),
        ({"aud": ["other", "us"], "azp": "us"}, None),
        ({"aud": ["us"], "azp": ""}, None),
        ({"aud": ["us"], "azp": 7}, None),
        ({}, "aud_missing"),
        ({"aud": ""}, "aud_missing"),
        ({"aud": ["us", ""]}, "aud_missing"),
        ({"aud": ["us", None]}, "aud_missing"),
        ({"aud": {"us": 1}}, "aud_missing"),
        ({"aud": "usb"}, "aud_mismatch"),
        ({"aud": ["a", "z"], "azp": "us"}, "aud_mismatch"),
        ({"aud": ["us", "a"]}, "azp_mismatch"),
        ({"aud": ["us", "z"]}, "azp_mismatch"),
        ({"aud": ["us", "z"], "azp": ""}, "azp_mismatch"),
        ({"aud": ["us", "z"], "azp": ["us"]}, "azp_mismatch"),
        ({"aud": "us", "azp": "a"}, "azp_mismatch"),
        ({"aud": "us", "azp": "z"}, "azp_mismatch"),
    ],
)
def test_the_audience_and_the_authorized_party(claims: dict[str, Any], reason: str | None) -> None:
    assert refusal(check_audience, json.loads(json.dumps(claims)), "us") == reason


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ("", []), ([""], []), (["a", 7], []), (("a",), []), ({"a": 1}, []), (None, [])],
)
def test_the_audience_as_a_list(given: object, expected: list[str]) -> None:
    assert audiences_of({"aud": given}) == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": NOW - 9}, None),
        ({"exp": NOW - 10}, "expired"),
        ({"exp": NOW - 11}, "expired"),
        ({"exp": GONE}, "exp_missing"),
        ({"exp": None}, "exp_malformed"),
        ({"iat": NOW + 10}, None),
        ({"iat": NOW + 11}, "iat_in_future"),
        ({"iat": NOW - 110}, None),
        ({"iat": NOW - 111}, "iat_too_old"),
        ({"iat": GONE}, "iat_missing"),
        ({"iat": "7"}, "iat_malformed"),
        ({"nbf": NOW + 10}, None),
        ({"nbf": NOW - 1000}, None),
        ({"nbf": NOW + 11}, "nbf_in_future"),
        ({"nbf": None}, None),
    ],
)
def test_the_times(changes: dict[str, Any], reason: str | None) -> None:
    claims = {name: value for name, value in {"iat": NOW, "exp": NOW + 10, **changes}.items() if value is not GONE}
    assert refusal(check_times, claims, now=NOW, max_age=100, skew=10) == reason
    optional = reason if reason not in {"exp_missing", "exp_malformed"} else None
    assert refusal(check_times, claims, now=NOW, max_age=100, skew=10, exp_required=False) == optional


def test_the_time_of_issue_is_returned_in_whole_seconds() -> None:
    assert check_times({"iat": NOW + 0.9, "exp": NOW}, now=NOW, max_age=1, skew=60, error=IdTokenError) == NOW


NUMBERS: list[tuple[Any, float | None]] = [
    (0, 0), (1, 1), (-1, None), (0.5, 0.5), (-0.5, None), (2**53, 2**53), (2**53 + 1, None),
    (float("nan"), None), (float("inf"), None),
    (True, None), (False, None), ("1", None), ([1], None), (None, None),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), NUMBERS)
def test_a_number(given: Any, expected: float | None) -> None:
    assert optional_number({"x": given}, "x") == expected
    if expected is None:
        assert refusal(number, {"x": given}, "x") == "x_malformed"
        assert refusal(number, {"y": given}, "x") == "x_missing"
    else:
        assert number({"x": given}, "x", IdTokenError) == expected
        assert type(number({"x": given}, "x", IdTokenError)) is float


@pytest.mark.parametrize(
    ("given", "passes"),
    [("a", True), ("a b~", True), ("x" * 255, True), ("x" * 256, False), ("", False), ("\u00e9", False), ("a\x7f", False),
     ("a\n", False), (7, False), (b"a", False), (["a"], False), (None, False)],
)  # fmt: skip
def test_an_identifier(given: Any, passes: bool) -> None:
    assert optional_text(given) == (given if passes else None)
    assert refusal(text, {"x": given}, "x") == (None if passes else "x_malformed")
    assert refusal(text, {}, "x") == "x_missing"
    assert not passes or text({"x": given}, "x", IdTokenError) == given


def test_the_longest_sid() -> None:
    assert optional_sid("x" * 2048) == "x" * 2048
    assert optional_sid("x" * 2049) is None


@pytest.mark.parametrize(
    ("given", "subject", "reason"),
    [("a", "a", None), (7, "7", None), (0, "0", None), (-7, "-7", None), (None, None, "sub_missing"),
     (True, None, "sub_malformed"), (1.0, None, "sub_malformed"), ("", None, "sub_malformed"), (["a"], None, "sub_malformed"),
     (10**255, None, "sub_malformed")],
)  # fmt: skip
def test_the_subject_in_another_claim(given: Any, subject: str | None, reason: str | None) -> None:
    assert refusal(subject_of, {"a": {"b": given}}, "a.b") == reason
    assert subject is None or subject_of({"a": {"b": given}}, "a.b") == subject
