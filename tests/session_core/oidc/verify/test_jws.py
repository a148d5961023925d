"""The form of a signed token, and which key may verify which algorithm."""

from __future__ import annotations

from typing import Any

import pytest

from session_core.errors import IdTokenError
from session_core.oidc.verify.jwk_set import parse_jwk_set
from session_core.oidc.verify.jws import Jws, VerificationKey, fits, parse_jws, verifies
from tests.session_core.oidc.fake_op import EC_KEY, ED_KEY, OTHER_RSA_KEY, RSA_KEY, b64, b64_json, public_jwk, sign

ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "EdDSA", "Ed25519"})


def parsed(token: object) -> Jws:
    return parse_jws(token, algorithms=ALGORITHMS, error=IdTokenError)


def reason(token: object) -> str | None:
    try:
        parsed(token)
    except IdTokenError as error:
        return error.reason
    return None


def token(header: dict[str, Any] | None = None, claims: str = "{}", signature: str = "c2ln") -> str:
    return f"{b64_json({'alg': 'RS256', **(header or {})})}.{b64(claims.encode())}.{signature}"


def test_the_parts_of_a_token() -> None:
    given = token({"kid": "k1", "typ": "JWT"}, '{"sub":"alice"}')
    assert parsed(given) == Jws("RS256", "k1", "JWT", {"sub": "alice"}, given.rpartition(".")[0].encode(), b"sig")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "token_form"),
        (token().encode(), "token_form"),
        (["a", "b", "c"], "token_form"),
        ("", "token_form"),
        (token(signature="c2ln.c2ln"), "token_form"),
        (token(signature="c2ln.c2ln.c2ln"), "token_form"),
        (token({"enc": "A256GCM"}, signature="c2ln.c2ln"), "token_form"),
        (token({"enc": "A256GCM"}, signature="c2ln.c2ln.c2ln"), "encrypted"),
        (token({"enc": "A256GCM"}, signature="c2ln.c2ln.c2ln.c2ln"), "token_form"),
        ("c2ln.c2ln.c2ln.c2ln.c2ln", "token_form"),
        ("!.c2ln.c2ln.c2ln.c2ln", "token_form"),
        ("c2ln", "token_form"),
        (token().rpartition(".")[0], "token_form"),
        (token(signature=""), "token_form"),
        (token(signature="A"), "token_form"),
        (token(signature="AAAAA"), "token_form"),
        (token(signature="AA"), None),
        (token(signature="AB"), "token_form"),  # the same byte in another spelling
        (token(signature="Aw"), None),
        (token(signature="A0"), "token_form"),
        (token(signature="AAA"), None),
        (token(signature="AAB"), "token_form"),
        (token(claims=""), "token_form"),
        (token(claims="[]"), "token_json"),
        (token({"alg": None}), "alg_not_allowed"),
        (token({"alg": ["RS256"]}), "alg_not_allowed"),
        (token({"alg": "HS256"}), "alg_not_allowed"),
        (token({"crit": None}), "crit_header"),
        (token({"b64": True}), "crit_header"),
    ],
)
def test_the_form_of_a_token(given: object, expected: str | None) -> None:
    assert reason(given) == expected


def test_the_longest_token() -> None:
    start = token(claims="{} ", signature="")
    rest = 65_536 - len(start)
    assert reason(start + "A" * rest) is None
    assert reason(start + "A" * (rest + 1)) == "token_too_large"


@pytest.mark.parametrize(
    ("value", "kept"),
    [("x", True), ("x" * 512, True), ("x" * 513, False), ("", False), (7, False), (None, False), (["x"], False)],
)
def test_a_malformed_kid_or_type_counts_as_absent(value: Any, kept: bool) -> None:
    jws = parsed(token({"kid": value, "typ": value}))
    assert (jws.kid, jws.typ) == ((value, value) if kept else (None, None))


TYPES = {
    "RS256": ("RSA", ""), "RS384": ("RSA", ""), "PS512": ("RSA", ""), "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"), "EdDSA": ("OKP", "Ed25519"), "Ed25519": ("OKP", "Ed25519"),
}  # fmt: skip


@pytest.mark.parametrize("alg", TYPES)
def test_a_key_fits_its_algorithm_only(alg: str) -> None:
    """The token names an algorithm, but the key decides whether it is used with it."""
    jws = Jws(alg, None, None, {}, b"", b"")
    for other, (kind, curve) in TYPES.items():
        same = (kind, curve) == TYPES[alg]
        assert fits(jws, VerificationKey(kind, curve, None, None, None)) is same
        named = same and (other == alg or {alg, other} == {"EdDSA", "Ed25519"})
        assert fits(jws, VerificationKey(kind, curve, None, other, None)) is named
    kind, curve = TYPES[alg]
    assert not fits(jws, VerificationKey("RSA" if kind != "RSA" else "EC", curve, None, None, None))
    assert not fits(jws, VerificationKey(kind, "P-257", None, None, None))


@pytest.mark.parametrize(
    ("alg", "key"), [("RS256", RSA_KEY), ("PS256", RSA_KEY), ("ES256", EC_KEY), ("EdDSA", ED_KEY), ("Ed25519", ED_KEY)]
)
def test_a_signature_verifies_with_its_key_only(alg: str, key: Any) -> None:
    jws = parsed(sign({"alg": alg}, {"sub": "alice"}, key))
    (known, other) = parse_jwk_set({"keys": [public_jwk(key), public_jwk(OTHER_RSA_KEY)]})
    assert verifies(jws, known) is True
    assert verifies(jws, other) is False
    for signature in (b"", bytes(len(jws.signature)), jws.signature[:-1], jws.signature + b"\0"):
        assert verifies(Jws(alg, None, None, {}, jws.signing_input, signature), known) is False
    assert verifies(Jws(alg, None, None, {}, jws.signing_input + b"x", jws.signature), known) is False
