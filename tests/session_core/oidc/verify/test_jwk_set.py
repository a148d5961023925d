"""The limits of the keys in a JWK Set, and the members that are read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from session_core.oidc.verify.jwk_set import parse_jwk_set
from tests.session_core.oidc.fake_op import EC_KEY, ED_KEY, RSA_KEY, b64, number, public_jwk

RSA = public_jwk(RSA_KEY)


def of_bits(bits: int) -> str:
    return number((1 << bits) - 1)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # joserfc only warns about a small key
@pytest.mark.parametrize(
    ("members", "accepted"),
    [
        ({"n": of_bits(2047)}, False),
        ({"n": of_bits(2048)}, True),
        ({"n": of_bits(8192)}, True),
        ({"n": of_bits(8193)}, False),
        ({"n": b64(bytes(2) + bytes([255]) * 1024)}, True),
        ({"n": b64(bytes(3) + bytes([255]) * 1024)}, False),  # too long to be decoded
        ({"e": of_bits(32)}, True),
        ({"e": of_bits(33)}, False),
        ({"e": "AAAA" * 511 + "AQAB"}, True),
        ({"e": "AAAA" * 512 + "AQAB"}, False),
    ],
)
def test_the_limits_of_an_rsa_key(members: dict[str, Any], accepted: bool) -> None:
    """A small key is weak, a large one slow."""
    assert len(parse_jwk_set({"keys": [{**RSA, **members}]})) == accepted


@pytest.mark.parametrize(("key", "kind", "curve"), [(RSA_KEY, "RSA", ""), (EC_KEY, "EC", "P-256"), (ED_KEY, "OKP", "Ed25519")])
def test_the_members_of_a_key(key: Any, kind: str, curve: str) -> None:
    jwk = {"use": "sig", "key_ops": ["sign", "verify"], "alg": "X", "issuer": "https://op.example", **public_jwk(key, "k1")}
    (parsed,) = parse_jwk_set(json.loads(json.dumps({"keys": [jwk]})))
    assert (parsed.key_type, parsed.curve) == (kind, curve)
    assert (parsed.kid, parsed.alg, parsed.issuer) == ("k1", "X", "https://op.example")


@pytest.mark.parametrize("name", ["d", "k", "p", "q", "dp", "dq", "qi", "oth"])
def test_a_private_key_is_ignored(name: str) -> None:
    """A published private key proves nothing: any client can sign with it."""
    assert parse_jwk_set({"keys": [{**RSA, name: "AQAB"}]}) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"kty": "EC"},
        {"kty": "OKP"},
        {"kty": "oct"},
        {"crv": "P-384"},
        {"crv": "Ed25519"},
        {"crv": "secp256k1"},
        {"crv": None},
        {"x": None},
        {"x": 7},
        {"use": "enc"},
        {"key_ops": ["sign"]},
    ],
)
@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY, ED_KEY], ids=["RSA", "EC", "OKP"])
def test_a_key_that_contradicts_itself_or_is_for_another_use_is_ignored(key: Any, changes: dict[str, Any]) -> None:
    jwk = public_jwk(key)
    usable = {**jwk, **changes} == jwk or (jwk["kty"] == "RSA" and changes.keys() & {"crv", "x"})
    assert len(parse_jwk_set({"keys": [{**jwk, **changes}]})) == bool(usable)


@pytest.mark.parametrize("operations", [[], ["verify"], ["verify", "sign"], "sign", [7], None])
def test_operations_that_are_empty_or_malformed_count_as_absent(operations: Any) -> None:
    assert len(parse_jwk_set({"keys": [{**RSA, "key_ops": operations}]})) == 1
