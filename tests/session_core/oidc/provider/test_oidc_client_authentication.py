"""Client authentication by secret, by key or not at all; no secret leaks."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, unquote_plus

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from litestar import get

from session_core import ConfigurationError, Session
from session_core.oidc import ClientKey, Tokens
from session_core.oidc.provider.client_authentication import ClientAuthentication
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import (
    CLIENT_ID,
    CLIENT_SECRET,
    EC_KEY,
    ED_KEY,
    ISSUER,
    RSA_KEY,
    World,
    b64,
    number,
    public_jwk,
)
from tests.support.factories import ProviderFactory
from tests.support.sessions import AppSession

pytestmark = pytest.mark.anyio

P384, P521 = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP521R1())
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
AS_POST: dict[str, Any] = {"token_endpoint_auth_method": "client_secret_post"}
PUBLIC: dict[str, Any] = {"token_endpoint_auth_method": "none", "client_secret": None}


@get("/token")
async def token(session: Session[AppSession], tokens: Tokens) -> str:
    return await tokens.access_token(session)


def pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()  # type: ignore[no-any-return]


def by_key(key: ClientKey, **changes: Any) -> dict[str, Any]:
    return {"token_endpoint_auth_method": "private_key_jwt", "client_secret": None, "client_key": key, **changes}


def part(assertion: str, index: int) -> dict[str, Any]:
    text = assertion.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))  # type: ignore[no-any-return]


def verify(assertion: str, key: Any) -> None:
    """Verify without the library that signed; raises for a wrong signature."""
    text, _, encoded = assertion.rpartition(".")
    signed = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    alg = part(assertion, 0)["alg"]
    digest = {"256": SHA256, "384": SHA384, "512": SHA512}.get(alg[-3:], SHA512)()
    if alg.startswith("ES"):
        half = len(signed) // 2
        der = encode_dss_signature(int.from_bytes(signed[:half], "big"), int.from_bytes(signed[half:], "big"))
        key.public_key().verify(der, text.encode(), ec.ECDSA(digest))
    elif alg.startswith("Ed"):
        key.public_key().verify(signed, text.encode())
    else:
        pad: Any = padding.PKCS1v15() if alg.startswith("RS") else padding.PSS(padding.MGF1(digest), digest.digest_size)
        key.public_key().verify(signed, text.encode(), pad, digest)


class Checker:
    """The provider's side: collects the credentials of each request."""

    def __init__(self, world: World) -> None:
        self.forms: list[dict[str, str]] = []
        self.basic: list[bool] = []
        world.op.client_auth = self.check

    def check(self, request: httpx2.Request, form: dict[str, str]) -> None:
        self.forms.append(form)
        self.basic.append("authorization" in request.headers)


@pytest.mark.attack("oidcc-client-test-client-secret-basic")
async def test_the_secret_is_sent_by_basic() -> None:
    world = World()
    assert (await world.login()).status_code == 303


async def test_the_secret_is_sent_in_the_form() -> None:
    world = World(provider=AS_POST)
    seen = Checker(world)
    await world.login()
    (form,) = seen.forms
    assert (form["client_id"], form["client_secret"], seen.basic) == (CLIENT_ID, CLIENT_SECRET, [False])


async def test_a_public_client_sends_no_secret() -> None:
    world = World(provider=PUBLIC)
    seen = Checker(world)
    await world.login()
    (form,) = seen.forms
    assert form["client_id"] == CLIENT_ID
    assert not {"client_secret", "client_assertion"} & set(form)
    assert seen.basic == [False]


@pytest.mark.parametrize(
    ("made", "key", "alg"),
    [
        (lambda: ClientKey(pem(RSA_KEY)), RSA_KEY, "RS256"),
        (lambda: ClientKey(pem(RSA_KEY, PrivateFormat.TraditionalOpenSSL)), RSA_KEY, "RS256"),
        (lambda: ClientKey(pem(RSA_KEY), alg="PS256"), RSA_KEY, "PS256"),
        (lambda: ClientKey(pem(EC_KEY).encode()), EC_KEY, "ES256"),
        (lambda: ClientKey(pem(P384)), P384, "ES384"),
        (lambda: ClientKey(pem(P521)), P521, "ES512"),
        (lambda: ClientKey(pem(ED_KEY)), ED_KEY, "EdDSA"),
        (lambda: ClientKey(pem(ED_KEY), alg="Ed25519"), ED_KEY, "Ed25519"),
        (lambda: ClientKey(ec_jwk()), EC_KEY, "ES256"),
        (lambda: ClientKey(json.dumps(ec_jwk())), EC_KEY, "ES256"),
    ],
)
async def test_a_key_signs_a_client_assertion(made: Any, key: Any, alg: str) -> None:
    world = World(provider=by_key(made()))
    seen = Checker(world)
    assert (await world.login()).status_code == 303
    (form,) = seen.forms
    assert (form["client_assertion_type"], form["client_id"], seen.basic) == (ASSERTION, CLIENT_ID, [False])
    verify(form["client_assertion"], key)
    header, claims = part(form["client_assertion"], 0), part(form["client_assertion"], 1)
    assert (header["alg"], header["typ"]) == (alg, "client-authentication+jwt")
    now = world.clock.now() // 1000
    assert (claims["iss"], claims["sub"], claims["aud"]) == (CLIENT_ID, CLIENT_ID, ISSUER)
    assert claims["iat"] == now < claims["exp"] <= now + 60


def ec_jwk() -> dict[str, Any]:
    secret = EC_KEY.private_numbers().private_value
    return public_jwk(EC_KEY, "key-1", alg="ES256", use="sig") | {"d": number(secret, 32)}


async def test_the_kid_is_in_the_assertion() -> None:
    for key, kid in (
        (ClientKey(ec_jwk()), "key-1"),
        (ClientKey(pem(EC_KEY), kid="mine"), "mine"),
        (ClientKey(pem(EC_KEY)), None),
    ):
        world = World(provider=by_key(key))
        seen = Checker(world)
        await world.login()
        assert part(seen.forms[0]["client_assertion"], 0).get("kid") == kid


async def test_every_assertion_is_single_use() -> None:
    world = World(provider=by_key(ClientKey(pem(EC_KEY))), handlers=[token])
    world.op.refreshable = True
    seen = Checker(world)
    await world.login()
    world.clock.advance(seconds=301)
    assert (await world.browser.get("/token")).text == "at-2"
    first, second = (part(form["client_assertion"], 1) for form in seen.forms)
    assert first["jti"] != second["jti"]
    assert second["iat"] == first["iat"] + 301


async def test_the_audience_is_the_configured_issuer_whatever_the_metadata_contain() -> None:
    """Metadata that name another provider's token endpoint must not obtain an assertion valid there (CVE-2025-27370)."""
    world = World(provider=by_key(ClientKey(pem(EC_KEY))))
    world.op.metadata = {"token_endpoint": "https://victim.example/token"}
    seen = Checker(world)
    await world.login()
    assert [part(form["client_assertion"], 1)["aud"] for form in seen.forms] == [ISSUER]


async def test_the_token_endpoint_as_audience_can_be_configured() -> None:
    world = World(provider=by_key(ClientKey(pem(EC_KEY)), client_assertion_audience="token_endpoint"))
    world.op.metadata = {"pushed_authorization_request_endpoint": f"{ISSUER}/par"}
    seen = Checker(world)
    await world.login()
    # Also for the pushed request, where RFC 9126 2 requires every provider to accept it.
    assert [part(form["client_assertion"], 1)["aud"] for form in seen.forms] == [f"{ISSUER}/token"] * 2


@pytest.mark.parametrize("provider", [{}, AS_POST, by_key(ClientKey(pem(EC_KEY)))])
async def test_revocation_uses_the_same_authentication(provider: dict[str, Any]) -> None:
    world = World(provider=provider)
    world.op.metadata = {"revocation_endpoint": f"{ISSUER}/revoke"}
    world.op.replies["/revoke"] = lambda request: (world.op.form_of(request), httpx2.Response(200))[1]
    seen = Checker(world)
    await world.login()
    await world.browser.post("/auth/logout", headers={"sec-fetch-site": "same-origin"})
    login, logout = seen.forms
    assert seen.basic == [not provider] * 2
    assert logout["token"] == "at-1"
    assert {"client_id", "client_secret", "client_assertion"} & set(login) == {
        "client_id", "client_secret", "client_assertion",
    } & set(logout)  # fmt: skip


@pytest.mark.parametrize(
    "key",
    [
        "",
        "no key",
        "{",
        "{}",
        '{"kty": "oct", "k": "c2VjcmV0"}',
        json.dumps(public_jwk(EC_KEY)),
        b64(b"raw"),
        pem(rsa.generate_private_key(65537, 1024)),
        pem(ec.generate_private_key(ec.SECP256K1())),
        EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    ],
)
def test_an_invalid_key_is_refused(key: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ClientKey(key)
    assert refused.value.__cause__ is None
    assert not key or str(key) not in str(refused.value)


@pytest.mark.parametrize(("key", "alg"), [(EC_KEY, "RS256"), (RSA_KEY, "ES256"), (EC_KEY, "none"), (RSA_KEY, "HS256")])
def test_an_algorithm_that_does_not_match_the_key_is_refused(key: Any, alg: str) -> None:
    with pytest.raises(ConfigurationError):
        ClientKey(pem(key), alg=alg)


def test_no_repr_contains_the_key() -> None:
    key = ClientKey(ec_jwk())
    provider = ProviderFactory.build(**by_key(key))
    assert ec_jwk()["d"] not in repr(provider) + repr(key) + str(vars(provider))


@pytest.mark.parametrize(
    "change",
    [
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "private_key_jwt", "client_secret": None},
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"token_endpoint_auth_method": "none"},
        {"client_key": ClientKey(pem(ED_KEY))},
        {"client_secret": None},
        {"client_assertion_audience": "par"},
    ],
)
def test_contradictory_configurations_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ProviderFactory.build(**change)


@pytest.mark.parametrize("decode", [unquote, unquote_plus])
@pytest.mark.parametrize("text", ["two words", "a+b", "100%", "a:b", "caf\u00e9 &=~*-._", " "], ids=ascii)
async def test_the_basic_secret_is_decoded_correctly_by_both_kinds_of_servers(decode: Callable[[str], str], text: str) -> None:
    """Some servers decode as RFC 6749 2.3.1 says; others keep `+` as it is."""
    provider = ProviderFactory.build(client_id="an app", client_secret=text)
    client = ClientAuthentication(provider, FakeClock())
    headers, form = await client.prepare({"grant_type": "x"}, token_endpoint=f"{ISSUER}/token")
    basic = base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode()
    assert tuple(decode(part) for part in basic.split(":")) == ("an app", text)
    assert form == "grant_type=x"
